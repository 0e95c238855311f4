"""The server that ``chat.run`` starts, and one in a thread for tests."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import functools
import gc
import io
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, TextIO

import gevent
import gevent.event
from flask import Flask
from gevent.pywsgi import WSGIHandler, WSGIServer

from .hub.hub import Hub
from .operate.reports import REPORTS
from .running.access import AccessLog, LoggedHandler
from .running.patching import ensure_patched
from .running.watchdog import Watchdog
from .servers.accepting import or_nothing_left
from .servers.handler import WebSocketHandler, is_brief, opening_seconds, time_limit
from .transports.ending import BRIEF
from .transports.evented import limit_unsent
from .transports.loop import EventedLoop
from .transports.patched import RawSocket, get_ident

__all__ = ["LiveServer", "Server", "WebSocketHandler", "run"]


class Server(WSGIServer):
    """pywsgi's server with our handler, and greenlets that serve one connection after
    another; see docs/decisions/21.

    A new greenlet costs its stack, which Python takes from the kernel and gives back.
    What a view keeps by greenlet (``gevent.local``) may so meet another request, as it
    does on servers with a pool of threads.
    """

    tuned = sys.platform == "linux"
    """Accepted sockets have the listening one's options: all that ours need."""
    max_accept = 8
    """Connections accepted in a turn of the loop, as an opening takes 0.2 ms and those
    that are open wait for it; gevent's is 100."""
    max_delay = 0.2
    """Seconds until it is tried again where none could be accepted; gevent's is 1."""

    def __init__(self, listener: Any, application: Any, **options: Any) -> None:
        options.setdefault("handler_class", WebSocketHandler)
        options.setdefault("spawn", _serve_soon)
        self.requests: set[WSGIHandler] = set()
        """Those who have one to answer, and views that came of one."""
        super().__init__(listener, application, **options)

    def do_read(self) -> Any:
        """Accept a connection, as a socket that does not know how to wait.

        The handler makes gevent's of it once it needs that, with its two watchers. For
        an opening handshake it does not (gevent 23.9 to 26.9).
        """
        listener, handler = self.socket, self.handler_class
        if (
            self.ssl_enabled
            or not (issubclass(handler, WebSocketHandler) and handler.is_unaltered)
            or not hasattr(listener, "_accept")
            or not is_brief(self.application)
        ):
            try:
                return super().do_read()
            except OSError as error:
                raise or_nothing_left(error) from None
        try:
            descriptor, address = listener._accept()
        except BlockingIOError:
            return None
        except OSError as error:
            raise or_nothing_left(error) from None
        sock = RawSocket(listener.family, listener.type, listener.proto, descriptor)
        return sock, address

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """As the parent's, with a deadline for the TLS handshake.

        One that fails is the client's business: nothing is printed.
        """
        server: Any = self
        wrap, options = server.wrap_socket, server.ssl_args
        options = {**options, "do_handshake_on_connect": False}
        with wrap(client_socket, **options) as sock:
            done = False
            with (
                contextlib.suppress(OSError),
                time_limit(opening_seconds(self.application)),
            ):
                sock.do_handshake()
                done = True
            return self.handle(sock, address) if done else None

    def update_environ(self) -> None:
        if isinstance(self.address, tuple):
            # Not the parent's name for it: to ask for that begins a thread, and where
            # there are several the kernel locks a descriptor for each system call.
            self.environ.setdefault("SERVER_NAME", str(self.address[0]))
        super().update_environ()

    def init_socket(self) -> None:
        super().init_socket()
        with contextlib.suppress(OSError):  # a Unix socket does not know it
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit_unsent(self.socket)


def _serve_soon(function: Callable[..., Any], *args: Any) -> None:
    fresh = contextvars.Context()  # not with what the last one has set
    EventedLoop.current().run(functools.partial(fresh.run, function, *args))


def prepare(*, reload: bool, patch: bool) -> None:
    """Start this program again where it is to be served by another process.

    Returns in the process that serves.
    """
    if reload:
        from .running import debugging

        if not debugging.is_reloaded() and debugging.has_reloader():
            sys.exit(debugging.run_and_reload())
    if patch:
        ensure_patched()


_NEAR = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # nosec B104
"""What browsers can open where a server listens on all addresses."""


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls(given: ssl.SSLContext | tuple[str, str]) -> ssl.SSLContext:
    """Return what speaks TLS, as it is or with a certificate and its key."""
    if isinstance(given, ssl.SSLContext):
        return given
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(
            "ssl_context is (certificate, key), two files, or an ssl.SSLContext, unlike"
            f" {given!r}"
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate, key = given
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error.args[-1]
        sys.exit(
            f"cannot serve with the certificate {certificate} and the key {key}: {why}."
            " They are two files in PEM, the key the certificate's and without password"
        )
    return context


def _no_password() -> str:
    return ""  # instead of a question at the terminal


def run(
    app: Flask,
    hub: Hub,
    host: str,
    port: int,
    *,
    debug: bool = False,
    reload: bool = False,
    ssl_context: ssl.SSLContext | tuple[str, str] | None = None,
    log: TextIO | Literal["stderr"] | None = "stderr",
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM; see ``WSChat.run``."""
    served: Any = app
    if debug:
        from .running.debugging import Debugged

        served = Debugged(app)
    options: dict[str, Any] = {"log": None}
    scheme = "http" if ssl_context is None else "https"
    if ssl_context is not None:
        options["ssl_context"] = _tls(ssl_context)
    if log is not None:
        access = AccessLog(sys.stderr if log == "stderr" else log)
        hub.on_end = access.closed
        options |= {"log": access, "handler_class": LoggedHandler}
    server = Server((host, port), served, **options)
    stop = gevent.event.Event()
    until = 0.0

    def end(seconds: float) -> None:
        nonlocal until
        if stop.is_set():
            seconds = 0  # asked a second time
            hub.closing.hurry()
        until = time.monotonic() + seconds
        stop.set()

    drain = hub.settings.DRAIN
    gevent.signal_handler(signal.SIGINT, end, min(drain, BRIEF))
    gevent.signal_handler(signal.SIGTERM, end, drain)
    try:
        server.start()
    except OSError as error:
        known = _REMEDIES.get(error.errno or 0)
        what, remedy = known or (error.strerror, "Is this an address of this machine?")
        sys.exit(f"cannot serve on {host}:{port}: {what}. {remedy}")
    port = server.server_port or port
    print(f" * Serving on {scheme}://{_at(host or '0.0.0.0', port)} (Ctrl+C stops)")  # nosec B104
    if near := _NEAR.get(host):
        print(f" * On this machine it is {scheme}://{_at(near, port)}")
    sys.stdout.flush()
    loop = EventedLoop.current()
    Watchdog(loop).start()
    app.extensions[REPORTS].serve(loop)
    exit_code = 0
    if reload:
        from .running.debugging import is_reloaded, watch_files

        def changed(code: int) -> None:
            nonlocal exit_code
            exit_code = code
            loop.call_threadsafe(end, min(drain, BRIEF))

        if is_reloaded():
            watch_files(changed)
    with the_program_kept():
        stop.wait()
    server.close()  # who comes back is to find the next process, not this one
    hub.shutdown(until - time.monotonic())
    while server.requests and time.monotonic() < until:
        gevent.sleep(0.01)
    server.stop(timeout=1)
    if exit_code:
        sys.exit(exit_code)


@contextlib.contextmanager
def the_program_kept() -> Iterator[None]:
    """Take what is there by now, the program, for no garbage.

    To look through it each now and then stops everybody for 15 ms, or more where it has
    loaded much.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # as the interpreter expects at its end


_REMEDIES = {
    errno.EADDRINUSE: (
        "the address is in use",
        "Is another program there? Choose another port.",
    ),
    errno.EACCES: ("permission denied", "Choose a port from 1024 on."),
}
"""What an address lacks, and what to do, by the number of the error."""


class LiveServer:
    """``app`` on a free port of 127.0.0.1, in a thread with a loop of its own.

    In a process that gevent has patched, it is a greenlet beside the test's.

    For tests: ``stop`` ends it. ``log`` collects what the server and its loop report.
    ``options`` are ``pywsgi.WSGIServer``'s.
    """

    def __init__(
        self,
        app: Flask,
        handler_class: type[WSGIHandler] = WebSocketHandler,
        server_class: type[WSGIServer] = Server,
        **options: Any,
    ) -> None:
        self.log = io.StringIO()
        self.port = 0
        self._ready, self._ended = threading.Event(), threading.Event()
        self._server_class = server_class
        self._maker = get_ident()
        options |= {"handler_class": handler_class, "log": None, "error_log": self.log}
        self._thread = threading.Thread(
            target=self._run, args=(app, options), daemon=True
        )
        self._thread.start()
        self._ready.wait()

    def _run(self, app: Flask, options: dict[str, Any]) -> None:
        hub = gevent.get_hub()
        stream, hub.exception_stream = hub.exception_stream, self.log
        self._loop, self._stop = hub.loop, gevent.event.Event()
        loop = EventedLoop.current()
        server = self._server_class(("127.0.0.1", 0), app, **options)
        server.start()
        self.port = int(server.server_port or 0)
        self._thread.name = f"wschat-server-{self.port}"
        self._ready.set()
        self._stop.wait()
        server.close()
        chat_hub: Hub | None = getattr(app, "extensions", {}).get("wschat.hub")
        if chat_hub is not None:
            chat_hub.shutdown(0.3, came_to=loop)
        server.stop(timeout=1)
        while chat_hub is not None and chat_hub.lives_in(loop):
            self._ended.set()  # for those that came elsewhere the loop goes on
            gevent.sleep(0.01)
        if get_ident() == self._maker:
            hub.exception_stream = stream
        else:
            gc.collect()  # sockets in cycles must go while there is a loop to tell
            hub.destroy()
        self._ended.set()

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        """Return the address of ``path``."""
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def stop(self, timeout: float = 5.0) -> None:
        """End the server and its connections.

        :raises TimeoutError: it is still running after ``timeout`` seconds.
        """
        self._loop.run_callback_threadsafe(self._stop.set)
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the server is still running after {timeout} s")
