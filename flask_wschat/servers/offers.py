"""From a WSGI request to a transport: the servers that can hand over their socket.

Each server needs an ``Offer`` of its own: it finds the socket and makes the server let
go of it, so that it neither reads nor writes nor closes it, nor logs the missing
response as an error.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from geventwebsocket.websocket import WebSocket as StockWebSocket

from ..transports.patched import own
from ..transports.tls import TLSSocket

OFFER = "wschat.offer"
"""Where our own handler puts its ``Offer`` into the environ."""

UPGRADE = "wschat.upgrade"
"""Where the environ of a request that may become a WebSocket holds what lets it."""

StartResponse = Callable[..., Any]


class ClientLeft(Exception):
    """The client was gone before its socket could be taken over."""


class NoDescriptors(Exception):
    """The process may open no more files; the client was not answered yet."""


class Taken(NamedTuple):
    """A socket taken from its server, and what the client sent behind its request.

    ``sock`` is what an ``EventedTransport`` takes. A server must not be done with a TLS
    socket before it is closed.
    """

    sock: int | Any | TLSSocket
    received: bytes

    def close(self) -> None:
        """Let go of the socket, which nobody came to own."""
        if isinstance(self.sock, int):
            os.close(self.sock)
        else:
            self.sock.close()


class Offer(Protocol):
    """A request's socket, to be had."""

    answered: bool
    """The 101 is already out: the server sent it before the application ran."""
    handler: Any
    """The server's own object for the request, for old code that asks for it."""
    threads: int
    """How many requests the server can have under way, 0 where that is open."""

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        """Send ``response`` (not if answered) and take the socket over.

        ``closed`` is called when a TLS socket is.

        :raises OSError: the client is gone.
        :raises NoDescriptors: nothing was sent or taken.
        """

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        """Return what the WSGI application returns once the socket was taken."""


def find_offer(environ: dict[str, Any], start_response: Any) -> Offer | None:
    """Return the way to the request's socket; None: this server gives none.

    The order matters, as servers can be nested: see docs/decisions/03.
    """
    offer: Offer | None = environ.get(OFFER)
    if offer is not None:
        return offer
    stock = environ.get("wsgi.websocket")
    if isinstance(stock, StockWebSocket):
        return StockOffer(stock)
    if "werkzeug.socket" in environ:
        body = environ["wsgi.input"]
        if not hasattr(body, "read1"):
            return None  # somebody's own: what is read ahead could be in there
        return ThreadOffer(environ["werkzeug.socket"], lambda: body.read1(-1))
    if "gunicorn.socket" in environ:
        return _gunicorn_offer(environ, getattr(start_response, "__self__", None))
    body = environ.get("wsgi.input")
    if isinstance(body, io.BufferedReader) and _is_gevent(
        getattr(body.raw, "_sock", None)
    ):
        return PywsgiOffer(body, getattr(start_response, "__self__", None))
    return None


def _is_gevent(sock: object) -> bool:
    return type(sock).__module__.startswith("gevent.")


def _send(sock: Any, response: bytes, tuned: bool = False) -> None:
    """Send the 101, and from here on each message at once.

    With Nagle's algorithm, which most servers leave on, the second of two messages in
    a row waits up to 40 ms for the first one's acknowledgement; we gather by ourselves.
    """
    if not tuned:
        with contextlib.suppress(OSError):  # a Unix socket does not know it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if response:
        # One call where `sendall` first asks gevent's socket for its buffer's size.
        sent = sock.send(response)
        if sent < len(response):
            sock.sendall(response[sent:])


def take_over(
    sock: Any, rfile: Any, response: bytes, closed: Callable[[], Any]
) -> Taken:
    """Answer on pywsgi's socket, and take it and what was read ahead.

    The descriptor keeps its number: a duplicate would leave libev's registration of
    the old one behind, and its events make libev build all of its epoll set anew.
    """
    _send(sock, response)
    # Non-blocking, so that asking the reader for what it has read ahead returns at
    # once when that is nothing.
    sock.settimeout(0.0)
    try:
        received = rfile.read1(-1) or b""
    except ssl.SSLWantReadError:
        received = b""
    rfile.close()  # else a TLS socket that its server closes stays open for it
    if hasattr(sock, "unwrap"):
        return _taken_tls(sock, closed, received)
    return Taken(sock.detach(), received)


def take_unread(
    sock: Any, received: bytes, response: bytes, tuned: bool = False
) -> Taken:
    """As ``take_over``, on a socket without a reader or TLS.

    ``received`` is all that was read from it, behind the request. ``tuned``: it is a
    non-blocking ``RawSocket`` with all options.
    """
    _send(sock, response, tuned)
    if not tuned:
        return Taken(sock.detach(), received)
    # Its server closes the object. Of a new one, the system need not say what it is.
    family, proto = sock.family, sock.proto
    return Taken(own(sock.detach(), family, proto), received)


def _taken_tls(sock: Any, closed: Callable[[], Any], received: bytes) -> Taken:
    """Take a TLS socket, with what is left of the record that ended the request."""
    tls = TLSSocket(sock, closed)
    return Taken(tls, received + tls.decrypted())


class PywsgiOffer:
    """gevent's WSGI server with any handler class, found by the request's body."""

    answered = False
    threads = 0

    def __init__(self, rfile: io.BufferedReader, handler: Any) -> None:
        self._rfile = rfile
        self.handler = handler if hasattr(handler, "rfile") else None

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        sock = self._rfile.raw._sock  # type: ignore[attr-defined]
        taken = take_over(sock, self._rfile, response, closed)
        if self.handler is not None:
            end_request(self.handler)
        return taken

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        return ()  # pywsgi writes nothing where no response was started


def end_request(handler: Any) -> None:
    """Tell a pywsgi handler that this was its connection's last request."""
    handler.socket = None
    handler.close_connection = True
    handler._orig_status = "101 Switching Protocols"  # for its access log
    handler.status = b"101 Switching Protocols"
    handler.code = 101
    handler.headers_sent = True


class StockOffer:
    """gevent-websocket's own handler, which has answered 101 before the application.

    Its object stays behind as a closed one, so that the handler sends nothing more.
    """

    answered = True
    threads = 0

    def __init__(self, stock: StockWebSocket) -> None:
        self._stock = stock
        self.handler = stock.handler

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        handler = self.handler
        taken = take_over(handler.socket, handler.rfile, b"", closed)
        end_request(handler)
        self._stock.closed = True
        self._stock.stream = self._stock.raw_read = self._stock.raw_write = None
        return taken

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        return ()


class _Nothing:
    """A response without a body; the server calls ``close`` once it is written."""

    def __init__(self, close: Callable[[], Any]) -> None:
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


class ThreadOffer:
    """A server with a thread for each request, which goes on with a decoy.

    The server's socket object stays as it is, but its descriptor leads elsewhere: what
    it still writes is swallowed, and a read finds the end.
    """

    answered = False
    handler = None

    def __init__(
        self, sock: Any, read_ahead: Callable[[], bytes], threads: int = 0
    ) -> None:
        self.threads = threads
        self._socket = sock
        self._read_ahead = read_ahead
        self._other_end: socket.socket | None = None

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        if isinstance(self._socket, ssl.SSLSocket):
            received = self._answer(response)
            return _taken_tls(self._socket, self._done(closed), received)
        # All descriptors first: at the process's limit there is still a way back.
        with contextlib.ExitStack() as undo:
            try:
                decoy, other_end = socket.socketpair()
                undo.enter_context(decoy)
                undo.enter_context(other_end)
                fd = os.dup(self._socket.fileno())
            except OSError as error:
                raise NoDescriptors from error
            undo.callback(os.close, fd)
            received = self._answer(response)
            self._put_decoy(decoy, other_end)
            undo.pop_all()
        return Taken(fd, received)

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        start_response("101 Switching Protocols", [])
        return _Nothing(self._swallow)

    def _answer(self, response: bytes) -> bytes:
        """Send the 101; return what was read ahead of it."""
        _send(self._socket, response)
        self._socket.settimeout(0.0)
        try:
            return self._read_ahead() or b""
        except (ssl.SSLWantReadError, BlockingIOError):
            return b""

    def _swallow(self) -> None:
        """The server has written its answer: let go of the decoy's other end."""
        if self._other_end is not None:
            self._other_end.setblocking(False)
            with contextlib.suppress(OSError):
                self._other_end.recv(65536)  # else the close would be a reset
            self._other_end.close()

    def _done(self, closed: Callable[[], Any]) -> Callable[[], None]:
        def done() -> None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # and speak no TLS any more
            try:
                self._put_decoy(*socket.socketpair())
            except OSError:
                pass  # no descriptor is left: the server finds its socket shut down
            finally:
                closed()

        return done

    def _put_decoy(self, decoy: socket.socket, other_end: socket.socket) -> None:
        self._other_end = other_end
        with decoy:
            other_end.shutdown(socket.SHUT_WR)
            os.dup2(decoy.fileno(), self._socket.fileno())
        self._socket.settimeout(5)


class GunicornGreenletOffer:
    """gunicorn's gevent worker: the socket is detached, the worker told to forget."""

    answered = False
    handler = None
    threads = 0

    def __init__(self, sock: Any, read_ahead: Callable[[], bytes]) -> None:
        self._socket = sock
        self._read_ahead = read_ahead

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        sock = self._socket
        _send(sock, response)
        received = self._read_ahead()
        if hasattr(sock, "unwrap"):
            return _taken_tls(sock, closed, received)
        sock.settimeout(0.0)
        return Taken(sock.detach(), received)

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        # What gunicorn's workers catch for "this connection is over".
        raise StopIteration("the connection is a WebSocket now")


def _gunicorn_offer(environ: dict[str, Any], answer: Any) -> Offer | None:
    body = environ["wsgi.input"]
    unreader: Any = getattr(getattr(body, "reader", None), "unreader", None)
    if not hasattr(unreader, "buf"):
        return None  # a gunicorn that keeps elsewhere what it has read ahead

    def read_ahead() -> bytes:
        data: bytes = unreader.buf.getvalue()  # another one after each read
        return data

    sock = environ["gunicorn.socket"]
    if _is_gevent(sock):
        return GunicornGreenletOffer(sock, read_ahead)
    # Its response knows the configuration; without it the number stays unknown.
    return ThreadOffer(sock, read_ahead, getattr(answer, "cfg", _NoConfig).threads)


class _NoConfig:
    threads = 0
