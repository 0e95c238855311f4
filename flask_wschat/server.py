"""gevent-websocket's WSGI handler, upgrading after routing, and ``run``."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import io
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, cast

import gevent
import gevent.event
import gevent.monkey
import gevent.pywsgi
import gevent.socket
import geventwebsocket.handler
from flask import Flask
from gevent.pywsgi import Input, WSGIHandler, WSGIServer

from .codec import Head, is_upgrade, response
from .codec.handshake import MAX_HEAD
from .errors import HandshakeError
from .heads import Fields, Opening, checked, read_usual, reader
from .hub import Hub
from .settings import Settings
from .transports.accept import (
    OFFER,
    StartResponse,
    Taken,
    end_request,
    take_over,
    take_unread,
)
from .transports.evented import EventedLoop

RawSocket: Any = gevent.monkey.get_original("_socket", "socket")
_NO_LOG = getattr(gevent.pywsgi, "_NoopLog", ())  # for ``log=None``
MAX_OPENING = 16 * 1024
"""Bytes asked for at once of a handshake."""
KEEP_ALIVE = 65.0
"""Seconds that a connection may be idle between two HTTP requests."""


class WebSocketHandler(geventwebsocket.handler.WebSocketHandler):  # type: ignore[misc]
    """Offers the upgrade to the application, which answers first.

    ``pywsgi.WSGIServer(address, app, handler_class=WebSocketHandler)``. What the
    application refuses is an ordinary HTTP response; the 101 comes after. Requests are
    read to the letter of RFC 9112: the head has ``WSCHAT_HANDSHAKE_TIMEOUT`` seconds,
    64 KiB and 100 lines, and one malformed line is a 400.
    """

    _head: Head
    _opening = b""  # the first request, where it is a usual opening handshake
    _ahead = b""  # read from the socket, and not by `rfile`
    _requests = 0

    def __init__(
        self, sock: Any, address: Any, server: WSGIServer, rfile: Any = None
    ) -> None:
        # All that the parent's does, but for `rfile` (gevent 23.9 to 26.9).
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
        return Fields(cast(Head, checked(self._opening)))

    def handle_one_request(self) -> Any:
        try:
            if not self._requests and (opening := self._read_opening()):
                return self._answer_opening(opening)
            head = self._read_head()
        except HandshakeError as error:
            self.requestline = "-"
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
        """Return the first request if it is here, whole, and a usual handshake.

        Half of what pywsgi does for one is spared then. What else came is kept.

        :raises OSError: the client is gone.
        """
        sock = self.socket
        if type(sock) is gevent.socket.socket and self.is_plain:
            sock.settimeout(0.0)
        elif type(sock) is not RawSocket:
            return None
        try:
            data = sock.recv(MAX_OPENING)
        except BlockingIOError:
            return None
        finally:
            if type(sock) is not RawSocket:
                sock.settimeout(gevent.socket.getdefaulttimeout())
        opening = read_usual(data)
        if opening is None:
            self._ahead = data
        else:
            self._opening, self._ahead = data, opening.behind
        return opening

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
        self.command, self.path, self.request_version = (
            "GET",
            opening.target,
            "HTTP/1.1",
        )
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
        self.wsgi_input = Input(io.BytesIO(), 0)
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
        cls.is_plain = all(
            getattr(cls, name) is getattr(WebSocketHandler, name) for name in _SPARED
        )

    is_plain = True
    """Whether no subclass has a word in what a usual handshake is spared."""

    def _read_head(self) -> Head | None:
        """Return the next request's head; None: the client has no more to ask.

        :raises HandshakeError: it is malformed, or came too slowly.
        """
        begun = False
        if self._requests:
            with _time_limit(KEEP_ALIVE):
                begun = bool(self.rfile.peek(1))
            if not begun:
                return None
        self._requests += 1
        limit = self._seconds_for_head()
        with _time_limit(limit):
            begun = bool(self.rfile.peek(1))
            return self._collect_head()
        if begun:
            raise HandshakeError(408, f"the request head took over {limit} s")
        return None

    def _collect_head(self) -> Head | None:
        # Not a byte beyond the head is taken: the rest is a body, or frames.
        data = bytearray()
        while chunk := self.rfile.peek(1):
            seen = bytes(data[-3:])
            end = (seen + chunk).find(b"\r\n\r\n") + 4
            data += self.rfile.read(end - len(seen) if end > 3 else len(chunk))
            if b"\n\n" in data[-len(chunk) - 1 :]:
                raise HandshakeError(400, "lines must end with CR LF (RFC 9112 §2.2)")
            if end > 3 or len(data) > MAX_HEAD:
                head = checked(bytes(data))
                if head is not None:
                    return head
        return None

    def _seconds_for_head(self) -> float:
        extensions = getattr(self.server.application, "extensions", {})
        hub: Hub | None = extensions.get("wschat.hub")
        settings = Settings() if hub is None else hub.settings
        return settings.HANDSHAKE_TIMEOUT

    def run_application(self) -> None:
        environ = self.environ
        if is_upgrade(
            environ.get("HTTP_UPGRADE", ""), environ.get("HTTP_CONNECTION", "")
        ):
            environ[OFFER] = HandlerOffer(self)
        # Not the parent's: it would answer before the application has a say.
        WSGIHandler.run_application(self)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        self._waiting_socket()  # there is something to send
        # Not the parent's: it takes what is in the environ for an upgrade.
        return WSGIHandler.start_response(self, status, headers, exc_info)

    def log_request(self) -> None:
        if not isinstance(self.server.log, _NO_LOG):
            WSGIHandler.log_request(self)

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, ssl.SSLError):
            # The client broke TLS off; pywsgi is silent about a plain reset only.
            self.close_connection = True
        else:
            WSGIHandler.handle_error(self, kind, error, trace)


def _time_limit(seconds: float) -> gevent.Timeout:
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
            no_delay = getattr(handler.server, "no_delay", False)
            sock = handler.socket if no_delay else handler._waiting_socket()
            taken = take_unread(sock, handler._ahead, response, no_delay)
        end_request(handler)
        return taken

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        return ()


class Server(WSGIServer):
    """pywsgi's server with our handler, and greenlets that serve one connection after
    another.

    A new greenlet costs its stack, which Python takes from the kernel and gives back.
    What a view keeps by greenlet (``gevent.local``) may so meet another request, as it
    does on servers with a pool of threads.
    """

    no_delay = sys.platform == "linux"
    """Accepted sockets do without Nagle's algorithm, as the listening one does."""

    def __init__(self, listener: Any, application: Any, **options: Any) -> None:
        options = {"handler_class": WebSocketHandler, "spawn": _serve_soon} | options
        super().__init__(listener, application, **options)

    def do_read(self) -> Any:
        """Accept a connection, as a socket that does not know how to wait.

        The handler makes gevent's of it once it needs that, with its two watchers. For
        an opening handshake it does not (gevent 23.9 to 26.9).
        """
        listener, handler = self.socket, self.handler_class
        if (
            self.ssl_enabled
            or not (issubclass(handler, WebSocketHandler) and handler.is_plain)
            or not hasattr(listener, "_accept")
        ):
            return super().do_read()
        try:
            descriptor, address = listener._accept()
        except BlockingIOError:
            return None
        sock = RawSocket(listener.family, listener.type, listener.proto, descriptor)
        sock.setblocking(False)
        return sock, address

    def init_socket(self) -> None:
        super().init_socket()
        with contextlib.suppress(OSError):  # a Unix socket does not know it
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _serve_soon(function: Callable[..., Any], *args: Any) -> None:
    fresh = contextvars.Context()  # not with what the last one has set
    EventedLoop.current().run(functools.partial(fresh.run, function, *args))


def run(app: Flask, hub: Hub, host: str, port: int) -> None:
    """Serve ``app`` until SIGINT or SIGTERM; see ``WSChat.run``."""
    server = Server((host, port), app, log=None)
    try:
        server.start()
    except OSError as error:
        sys.exit(
            f"cannot serve on {host}:{port}: {error.strerror}."
            " Is another program there? Choose another port."
        )
    shown = f"[{host}]" if ":" in host else host
    print(f" * Serving on http://{shown}:{server.server_port} (Ctrl+C stops)")
    sys.stdout.flush()
    stop = gevent.event.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stop.set)
    stop.wait()
    server.close()
    hub.shutdown()
    server.stop(timeout=1)


class LiveServer:
    """``app`` on a free port of 127.0.0.1, in a thread with a loop of its own.

    For tests: ``stop`` ends it. ``log`` collects what the server and its loop report.
    ``options`` are ``pywsgi.WSGIServer``'s.
    """

    def __init__(
        self,
        app: Flask,
        handler_class: type[WSGIHandler] = WebSocketHandler,
        **options: Any,
    ) -> None:
        self.log = io.StringIO()
        self.port = 0
        self._ready = threading.Event()
        options |= {"handler_class": handler_class, "log": None, "error_log": self.log}
        self._thread = threading.Thread(
            target=self._run, args=(app, options), daemon=True
        )
        self._thread.start()
        self._ready.wait()

    def _run(self, app: Flask, options: dict[str, Any]) -> None:
        hub = gevent.get_hub()
        hub.exception_stream = self.log
        self._loop, self._stop = hub.loop, gevent.event.Event()
        server = WSGIServer(("127.0.0.1", 0), app, **options)
        server.start()
        self.port = int(server.server_port or 0)
        self._ready.set()
        self._stop.wait()
        server.stop(timeout=1)
        gc.collect()  # sockets in cycles must go while there is a loop to tell
        hub.destroy()

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        """Return the address of ``path``."""
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def stop(self, timeout: float = 5.0) -> None:
        """End the server and its connections.

        :raises TimeoutError: it is still running after ``timeout`` seconds.
        """
        self._loop.run_callback_threadsafe(self._stop.set)
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the server is still running after {timeout} s")
