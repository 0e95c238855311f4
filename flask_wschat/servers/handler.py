"""gevent-websocket's WSGI handler, strict about requests, upgrading after routing.

A first request that is a usual opening handshake, here in one piece, goes from its
bytes to the application directly: see docs/decisions/21. All else is pywsgi's to do.
"""

from __future__ import annotations

import errno
import functools
import io
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import gevent
import gevent.pywsgi
import gevent.socket
import geventwebsocket.handler
from gevent.pywsgi import Input, WSGIHandler, WSGIServer
from werkzeug.exceptions import HTTPException

from ..codec import Head, is_upgrade, response, tokens
from ..codec.handshake import END, parse_head
from ..errors import HandshakeError
from ..hub.hub import Hub
from ..settings import Settings
from ..shortcuts import may_take
from ..transports.ending import is_order
from ..transports.loop import EventedLoop
from ..transports.patched import RawSocket
from .bodies import Body, Stream
from .heads import Fields, Gathering, Opening, read_usual, reader
from .offers import (
    OFFER,
    StartResponse,
    Taken,
    end_request,
    take_over,
    take_unread,
)

_NO_LOG = getattr(gevent.pywsgi, "_NoopLog", ())  # for ``log=None``
_UNCOUNTED: set[Any] = set()  # of servers that do not ask
MAX_OPENING = 16 * 1024
"""Bytes asked for at once of a handshake."""
KEEP_ALIVE = 65.0
"""Seconds that a connection may be idle between two HTTP requests."""
TAKING = 60.0
"""Seconds that a client has to take 64 KiB of an HTTP answer."""


class WebSocketHandler(geventwebsocket.handler.WebSocketHandler):  # type: ignore[misc]
    """Offers the upgrade to the application, which answers first.

    ``pywsgi.WSGIServer(address, app, handler_class=WebSocketHandler)``. What the
    application refuses is an ordinary HTTP response; the 101 comes after. Requests are
    read to the letter of RFC 9112: the head has ``WSCHAT_HANDSHAKE_TIMEOUT`` seconds,
    64 KiB, 100 lines and 8190 bytes for a field; one malformed line is a 400.
    """

    environ: Any
    response_headers: Any
    wsgi_input: Any
    _head: Head
    _opening = b""  # the first request, where it is a usual opening handshake
    _ahead = b""  # read from the socket, and not by `rfile`
    _requests = 0
    _waited = 0.0  # seconds, for the first byte of the first request
    _gathering: Gathering | None = None  # the last head, as far as it is here

    def __init__(
        self, sock: Any, address: Any, server: WSGIServer, rfile: Any = None
    ) -> None:
        if not (type(sock) is RawSocket or is_brief(server.application)):
            super().__init__(sock, address, server, rfile)
            return
        # All that the parent's does, but for `rfile`.
        self.socket = sock
        self.client_address = address
        self.server = server
        if rfile is not None:
            self.rfile = rfile

    @functools.cached_property
    def rfile(self) -> io.BufferedReader:
        # Made when it is first asked for: a handshake's bytes are read without it.
        ahead, self._ahead = self._ahead, b""
        return reader(self._waiting_socket(), ahead)

    @functools.cached_property
    def headers(self) -> Fields:
        return Fields(parse_head(self._opening.partition(END)[0]))

    def handle_one_request(self) -> Any:
        try:
            if not self._requests and (opening := self._read_opening()):
                return self._answer_opening(opening)
            head = self._read_head()
        except HandshakeError as error:
            if self._gathering is not None and self._gathering.asks:
                note_refusal(self.server.application, error.status)
            # For the log: nothing of the connection's last request.
            self.requestline, self.environ, self._orig_status = "-", None, None
            self.response_headers, self.response_length = None, 0
            headers = [("Connection", "close")]
            return str(error.status), response(error.status, headers, f"{error}\n")
        except OSError:
            return None  # the client is gone
        if head is None:
            return None
        self._head = head
        self._waiting_socket()
        return super().handle_one_request()

    def read_requestline(self) -> str:
        return " ".join(self._head.start)

    def MessageClass(self, *args: Any) -> Fields:
        return Fields(self._head)

    def _read_opening(self) -> Opening | None:
        """Return the first request if it comes in one piece, and is a usual handshake.

        Half of what pywsgi does for one is spared then. What else came is kept.

        :raises OSError: the client is gone, or says nothing.
        """
        sock = self.socket
        raw = type(sock) is RawSocket
        if "rfile" in self.__dict__ or not (
            raw or (type(sock) is gevent.socket.socket and self.is_unaltered)
        ):
            return None
        patience = None if raw else sock.gettimeout()
        try:
            sock.settimeout(0.0)
            try:
                data = sock.recv(MAX_OPENING)
            except BlockingIOError:  # as of most clients: the connection is here first
                self._await_request(sock)
                data = sock.recv(MAX_OPENING)
        except BlockingIOError:
            return None
        finally:
            if not raw:
                sock.settimeout(patience)
        opening = read_usual(data)
        if opening is None:
            self._ahead = data
        else:
            self._opening, self._ahead = data, opening.behind
        return opening

    def _await_request(self, sock: Any) -> None:
        began = time.monotonic()
        limit = opening_seconds(self.server.application)
        gevent.socket.wait_read(sock.fileno(), limit, TimeoutError())
        self._waited = time.monotonic() - began

    def _waiting_socket(self) -> Any:
        """Return the socket, as one that may wait from here on."""
        raw = self.socket
        if type(raw) is RawSocket:
            self.socket = gevent.socket.socket(
                raw.family, raw.type, raw.proto, raw.detach()
            )
        return self.socket

    def _answer_opening(self, opening: Opening) -> bool | None:
        """Do as ``WSGIHandler.handle_one_request`` with what it would have read."""
        self._requests = 1
        self.command, self.path = "GET", opening.target
        self.request_version = "HTTP/1.1"
        self.requestline = f"GET {opening.target} HTTP/1.1"
        self.content_length = None
        self.close_connection = False
        self.environ = self._environ_of(opening)
        self.application = self.server.application
        self.handle_one_response()
        return None if self.close_connection else True

    def _environ_of(self, opening: Opening) -> dict[str, Any]:
        """Return what ``WSGIHandler.get_environ`` would."""
        environ: dict[str, Any] = self.server.get_environ()
        path, _, query = opening.target.partition("?")
        self.wsgi_input = Input(cast(Any, io.BytesIO()), 0)
        environ["REQUEST_METHOD"] = "GET"
        environ["SCRIPT_NAME"] = ""
        environ["PATH_INFO"] = path
        environ["QUERY_STRING"] = query
        environ["SERVER_PROTOCOL"] = "HTTP/1.1"
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"] = str(self.client_address[0])
            environ["REMOTE_PORT"] = str(self.client_address[1])
        environ.update(opening.fields)
        environ["wsgi.input"] = self.wsgi_input
        environ["wsgi.input_terminated"] = False
        return environ

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.is_unaltered = all(
            getattr(cls, name) is getattr(WebSocketHandler, name) for name in _SPARED
        )

    is_unaltered = True
    """Whether no subclass has a word in what a usual handshake is spared."""

    def _read_head(self) -> Head | None:
        """Return the next request's head; None: the client has no more to ask.

        :raises HandshakeError: it is malformed, or came too slowly.
        """
        if self._requests:
            # The others' turn, where the next one is here already.
            EventedLoop.current().give_turn()
            begun = False
            with time_limit(KEEP_ALIVE):
                begun = bool(self.rfile.peek(1))
            if not begun:
                return None
        self._requests += 1
        limit = opening_seconds(self.server.application)
        self._gathering = gathering = Gathering()
        left, self._waited = max(limit - self._waited, 0.0), 0.0
        with time_limit(left):
            return self._collect_head(gathering)
        if gathering.begun:
            raise HandshakeError(408, f"the request head took over {limit} s")
        return None

    def _collect_head(self, gathering: Gathering) -> Head | None:
        # Not a byte beyond the head is taken: the rest is a body, or frames.
        while piece := self.rfile.peek(1):
            self.rfile.read(gathering.add(piece))
            if gathering.head is not None:
                return gathering.head
            # Who sends without a pause would keep the loop, and its clock, for himself.
            EventedLoop.current().give_turn()
        return None

    def read_request(self, raw_requestline: str) -> Any:
        read = super().read_request(raw_requestline)
        # The parent knows this field with one value only (RFC 9112 §9.3 has a list).
        values = self._head.get_all("connection")
        options = {name.lower() for name in tokens(values)}
        if "close" in options:
            self.close_connection = True
        elif self.request_version == "HTTP/1.0":
            self.close_connection = "keep-alive" not in options
        return read

    def _connection_upgrade_requested(self) -> bool:
        # pywsgi gives the raw stream to whoever says "Connection: upgrade", and there
        # Werkzeug waits for ever for the end of a body (gevent 26.9, Werkzeug 3.1).
        return False

    def run_application(self) -> None:
        environ = self.environ
        if type(self.wsgi_input) is Input:
            self._guard_body(environ)
        if is_upgrade(
            environ.get("HTTP_UPGRADE", ""), environ.get("HTTP_CONNECTION", "")
        ):
            self.offer_upgrade(environ)
        # Not the parent's: it would answer before the application has a say.
        WSGIHandler.run_application(self)

    def offer_upgrade(self, environ: dict[str, Any]) -> None:
        environ[OFFER] = HandlerOffer(self)

    def _guard_body(self, environ: dict[str, Any]) -> None:
        """Put a body of ours in the place of pywsgi's, if there is one."""
        chunked = "HTTP_TRANSFER_ENCODING" in environ  # it knows no other coding
        if not (chunked or self.content_length):
            return
        expects = environ.get("HTTP_EXPECT") and self.request_version == "HTTP/1.1"
        length = None if chunked else self.content_length
        body = Body(self.rfile, length, self._ask if expects else None)
        self.wsgi_input, environ["wsgi.input"] = body, Stream(body)
        environ["wsgi.input_terminated"] = True

    def _ask(self) -> None:
        if not self.headers_sent:
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def handle_one_response(self) -> None:
        requests: set[Any] = getattr(self.server, "requests", _UNCOUNTED)
        requests.add(self)
        try:
            super().handle_one_response()
        finally:
            requests.discard(self)
        body = self.wsgi_input
        # The first spares a handshake the second, which asks an abstract class.
        if type(body) is not Input and isinstance(body, Body) and not body.ended:
            self.close_connection = True  # what comes next is not a request

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        self._waiting_socket()  # there is something to send
        body = self.wsgi_input
        if isinstance(body, Body) and (body.failed or body.ask is not None):
            headers = [*headers, ("Connection", "close")]
        # Not the parent's: it takes what is in the environ for an upgrade.
        return WSGIHandler.start_response(self, status, headers, exc_info)

    def _sendall(self, data: Any) -> None:
        # The parent's waits for ever for who asks for much, and takes nothing.
        view = memoryview(data)
        for start in range(0, len(view), 1 << 16):
            with time_limit(TAKING):
                super()._sendall(view[start : start + (1 << 16)])
                continue
            self.code = -abs(self.code or 0)  # as the parent marks it for the log
            raise BrokenPipeError(errno.EPIPE, "the client does not take the answer")

    def log_request(self) -> None:
        if not isinstance(self.server.log, _NO_LOG):
            WSGIHandler.log_request(self)

    def _log_error(self, kind: Any, error: Any, trace: Any) -> None:
        hub = gevent.get_hub()
        if issubclass(kind, hub.SYSTEM_ERROR) and not is_order(error):
            # Its `handle_error` would end the program: for a `sys.exit` in a view.
            context = self.server.secure_environ_class(self.environ)
            hub.print_exception(context, kind, error, trace)
        else:
            super()._log_error(kind, error, trace)

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, ssl.SSLError):
            # The client broke TLS off; pywsgi is silent about a plain reset only.
            self.close_connection = True
            return
        answer = getattr(self, "_send_error_response_if_possible", None)
        failed = getattr(self.wsgi_input, "failed", False)
        if isinstance(error, HTTPException) and failed and answer is not None:
            answer(400)  # an app that knows no Werkzeug
        else:
            WSGIHandler.handle_error(self, kind, error, trace)


def opening_seconds(application: Any) -> float:
    """Return the seconds that a client of ``application`` has for its request's head.

    As many again, before, for its TLS handshake.
    """
    return _settings(application).HANDSHAKE_TIMEOUT


def is_brief(application: Any) -> bool:
    """Whether handshakes of ``application`` may be read without pywsgi."""
    setting = _settings(application).SHORTCUTS
    return may_take(setting, "gevent", "gevent-websocket")


def note_refusal(application: Any, status: int) -> None:
    """Count a handshake for ``application`` that is answered with ``status``."""
    if (hub := _hub(application)) is not None:
        hub.figures.refused(str(status))


def _hub(application: Any) -> Hub | None:
    hub: Hub | None = getattr(application, "extensions", {}).get("wschat.hub")
    return hub


def _settings(application: Any) -> Settings:
    hub = _hub(application)
    return _DEFAULTS if hub is None else hub.settings


_DEFAULTS = Settings()


def time_limit(seconds: float) -> gevent.Timeout:
    """Return a context manager that leaves its block, silently, when time is up."""
    return gevent.Timeout(seconds, False)  # type: ignore[arg-type]


_SPARED = (
    "get_environ",
    "handle_one_request",
    "read_request",
    "read_requestline",
    "MessageClass",
)
"""What a handshake that is usual does without."""


class HandlerOffer:
    """The socket of a request under ``WebSocketHandler``."""

    answered = False
    threads = 0

    def __init__(self, handler: WebSocketHandler) -> None:
        self.handler = handler

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        handler = self.handler
        if "rfile" in handler.__dict__:
            taken = take_over(handler.socket, handler.rfile, response, closed)
        else:
            tuned = type(handler.socket) is RawSocket and getattr(
                handler.server, "tuned", False
            )
            sock = handler.socket if tuned else handler._waiting_socket()
            taken = take_unread(sock, handler._ahead, response, tuned)
        end_request(handler)
        return taken

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        return ()
