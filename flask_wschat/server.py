"""gevent-websocket's WSGI handler, upgrading after routing, and ``run``."""

from __future__ import annotations

import gc
import io
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
import gevent.event
import geventwebsocket.handler
from flask import Flask
from gevent.pywsgi import WSGIHandler, WSGIServer

from .codec import Head, is_upgrade, read_head, response
from .codec.handshake import MAX_HEAD
from .errors import HandshakeError
from .hub import Hub
from .settings import Settings
from .transports.accept import OFFER, StartResponse, Taken, end_request, take_over

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
    _requests = 0

    def handle_one_request(self) -> Any:
        try:
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
        return super().handle_one_request()

    def read_requestline(self) -> str:
        return " ".join(self._head.start)

    def MessageClass(self, *args: Any) -> _Headers:
        return _Headers(self._head)

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
                # RFC 9112 §2.2: empty lines before it are no fault.
                found = read_head(bytes(data).lstrip(b"\r\n"))
                if found is not None:
                    return _checked(found[0])
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
        # Not the parent's: it takes what is in the environ for an upgrade.
        return WSGIHandler.start_response(self, status, headers, exc_info)

    def log_request(self) -> None:
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


def _checked(head: Head) -> Head:
    """Return ``head`` if its fields that must be unique are."""
    for name in ("host", "sec-websocket-key", "sec-websocket-version"):
        if len(head.get_all(name)) > 1:
            raise HandshakeError(400, f"more than one {name} header")
    if head.start[2] == "HTTP/1.1" and not head.get_all("host"):
        raise HandshakeError(400, "no Host header (RFC 9112 §3.2)")
    return head


class _Headers:
    """A head's fields as pywsgi asks for them, without the e-mail parser's cost."""

    status = ""

    def __init__(self, head: Head) -> None:
        self._pairs = head.headers

    @property
    def headers(self) -> Iterator[str]:
        return (f"{name}: {value}" for name, value in self._pairs)

    @property
    def typeheader(self) -> str | None:
        return self.get("content-type")

    def get(self, name: str, default: str | None = None) -> str | None:
        name = name.lower()
        return next((value for key, value in self._pairs if key == name), default)

    getheader = get

    def items(self) -> list[tuple[str, str]]:
        return self._pairs

    def __delitem__(self, name: str) -> None:
        self._pairs = [pair for pair in self._pairs if pair[0] != name]


class HandlerOffer:
    """The socket of a request under ``WebSocketHandler``."""

    answered = False
    threads = 0

    def __init__(self, handler: WebSocketHandler) -> None:
        self.handler = handler

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        handler = self.handler
        taken = take_over(handler.socket, handler.rfile, response, closed)
        end_request(handler)
        return taken

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        return ()


def run(app: Flask, hub: Hub, host: str, port: int) -> None:
    """Serve ``app`` until SIGINT or SIGTERM; see ``WSChat.run``."""
    server = WSGIServer((host, port), app, handler_class=WebSocketHandler, log=None)
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
