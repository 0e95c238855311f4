"""A small blocking WebSocket client, on the codec and a plain socket.

    with connect("wss://example.org/chat", headers={"Cookie": "..."}) as ws:
        ws.send("hello")
        for message in ws:
            print(message)

One thread, nothing in the background: pings are answered, and the end is noticed,
while a call is under way. What this file knows is bytes, time and addresses; frames
and the handshake are the codec's. Proxies are not spoken to.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import html
import math
import os
import re
import select
import socket
import ssl
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from .codec import (
    ClientHandshake,
    CloseCode,
    Closed,
    Connection,
    Pong,
    State,
    read_head,
)
from .errors import ConnectionClosed, HandshakeError

READ_AHEAD = 1 << 26
"""Bytes of unread messages, and of unsent answers, at which no more is read."""
LINGER = 1.0
"""Seconds that the server has to end TCP, or to send the body of a refusal."""
_MESSAGE_COST = 64  # counted for each message besides its bytes, so that empty ones end

_FAULTS = (1002, 1006, 1007, 1009)  # what the codec ends a connection with
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

OnBytes = Callable[[str, bytes], object]


def connect(
    url: str,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    compression: bool = True,
    timeout: float | None = 10.0,
    ssl_context: ssl.SSLContext | None = None,
    max_message: int = 1 << 20,
    on_bytes: OnBytes | None = None,
) -> Client:
    """Return an open connection to ``url``, ``ws://`` or ``wss://``.

    User and password in the URL become an ``Authorization`` header. ``timeout``, in
    seconds, is for the handshake, for a server that takes nothing of what is sent, and
    for the end; None waits for ever. ``max_message`` is the limit in bytes of one
    incoming message. ``on_bytes`` is called with "sent" or "received" and the bytes
    that go over the wire after the handshake, cut anywhere.

    :raises ValueError: the URL or a header cannot be; nothing was sent.
    :raises OSError: the server cannot be reached, or its certificate is not trusted.
    :raises TimeoutError: an ``OSError`` too; it did not answer in time.
    :raises HandshakeError: it refused, with ``status`` and ``headers``, or answered
        with something that is no WebSocket handshake (``status`` 502).
    """
    server = _parse(url)
    if ssl_context is not None and not server.secure:
        raise ValueError("ssl_context is for wss:// addresses")
    handshake = ClientHandshake(
        server.shown,
        server.target,
        headers=_headers(headers, server.authorization),
        subprotocols=subprotocols,
        compression=compression,
    )
    until = math.inf if timeout is None else time.monotonic() + timeout
    sock = socket.create_connection((server.host, server.port), timeout)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.secure:
            if ssl_context is None:
                ssl_context = ssl.create_default_context()
                ssl_context.set_alpn_protocols(["http/1.1"])
            if timeout is not None:
                sock.settimeout(max(until - time.monotonic(), 0.001))
            sock = ssl_context.wrap_socket(sock, server_hostname=server.host)
        left = None if timeout is None else until - time.monotonic()
        client = open_over(sock, handshake, left, max_message, on_bytes)
    except BaseException:
        sock.close()
        raise
    client._timeout = timeout
    return client


def open_over(
    sock: socket.socket,
    handshake: ClientHandshake,
    timeout: float | None,
    max_message: int = 1 << 20,
    on_bytes: OnBytes | None = None,
) -> Client:
    """Return an open connection over ``sock``, which is connected; see ``connect``."""
    until = math.inf if timeout is None else time.monotonic() + timeout
    link = _Link(sock)
    response_headers, received = _shake_hands(link, handshake, until)
    connection = Connection(
        client=True, max_message=max_message, deflate=handshake.deflate
    )
    client = Client(link, connection, timeout, on_bytes)
    client.subprotocol = handshake.subprotocol
    client.response_headers = response_headers
    if received:
        client._received(received)
    return client


class Client:
    """An open connection to a server, from ``connect``; for one thread at a time.

    Leaving its ``with`` block closes it.
    """

    def __init__(
        self,
        link: _Link,
        connection: Connection,
        timeout: float | None,
        on_bytes: OnBytes | None,
    ) -> None:
        self.subprotocol: str | None = None
        """What the server chose, or None."""
        self.response_headers: list[tuple[str, str]] = []
        """(name, value) pairs of the handshake's response, names in lower case."""
        self.closed = False
        """True from the first sign of the end: nothing can be sent any more."""
        self.close_code: int | None = None
        """Why it ended: the close code that came first, ours or the server's."""
        self.close_reason = ""
        self._link = link
        self._connection = connection
        self._timeout = timeout
        self._on_bytes = on_bytes
        self._messages: collections.deque[str | bytes] = collections.deque()
        self._held = 0  # bytes in these
        self._replied = 0  # bytes of answers since nothing was left to send
        self._awaited: bytes | None = None  # the payload of the pong to come
        self._answered = False  # the closing handshake was completed

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.close(CloseCode.NORMAL if kind is None else CloseCode.INTERNAL_ERROR)

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield messages until the connection ends; ``close_code`` then tells why."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message

    def fileno(self) -> int:
        """Return the descriptor to ``select`` on before ``receive(timeout=0)``.

        What is already read shows only there: call it until it raises.
        """
        return self._link.fileno()

    def send(self, message: str | bytes) -> None:
        """Send a text (``str``) or binary (``bytes``) message.

        Returning means handed to the system, not received. While the server does not
        take it, what it sends itself is read and kept, so that neither waits for the
        other.

        :raises ConnectionClosed: the connection has ended; whether the server took the
            message is not known. One that takes nothing for the ``timeout`` given to
            ``connect`` ends it.
        """
        if not isinstance(message, (str, bytes)):
            raise TypeError(f"str or bytes can be sent, not {type(message).__name__}")
        self._require_open()
        self._write(self._connection.send(message))

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message, in the order sent.

        :raises TimeoutError: none came within ``timeout`` seconds; nothing is lost.
        :raises ConnectionClosed: the connection has ended and all was received.
        """
        if not self._messages and not self.closed:
            self._work(lambda: self._messages or self.closed, timeout)
        if self._messages:
            message = self._messages.popleft()
            self._held -= len(message) + _MESSAGE_COST
            return message
        self._require_open()
        raise TimeoutError(f"no message within {timeout} s")

    def ping(
        self, payload: bytes | None = None, *, timeout: float | None = 10.0
    ) -> float:
        """Return the seconds that the server takes to answer a ping.

        Messages that come first are kept for ``receive``. ``payload`` is random unless
        given.

        :raises TimeoutError: it did not answer within ``timeout`` seconds.
        :raises ConnectionClosed: the connection has ended.
        :raises ValueError: the payload is over 125 bytes.
        """
        self._require_open()
        self._awaited = os.urandom(4) if payload is None else payload
        frame = self._connection.ping(self._awaited)
        start = time.monotonic()
        self._write(frame)
        self._work(lambda: self._awaited is None or self.closed, timeout)
        if self._awaited is None:
            return time.monotonic() - start
        self._require_open()
        raise TimeoutError(f"no pong within {timeout} s")

    def close(
        self, code: int = 1000, reason: str = "", *, timeout: float | None = None
    ) -> bool:
        """End the connection: say so, wait for the server's answer, close TCP.

        The answer may take ``timeout`` seconds, by default those given to ``connect``.
        Return True if it came, and nothing was wrong with it. Messages not yet received
        are dropped. A second call does nothing.

        :raises ValueError: ``code`` may not be sent (RFC 6455 §7.4).
        """
        frame = self._connection.close(code, reason)
        if not frame:
            return self._answered
        self._end(code, reason)
        self._messages.clear()
        self._held = 0
        try:
            self._note("sent", frame)
            self._link.outgoing += frame
            self._work(
                lambda: self._connection.state is State.CLOSED,
                self._timeout if timeout is None else timeout,
            )
        finally:
            self._link.close()
        return self._answered

    def abort(self) -> None:
        """End without a word, as a killed process or a lost network does."""
        self._end(CloseCode.ABNORMAL, "aborted")
        self._connection.receive_eof()
        self._link.close()

    def _require_open(self) -> None:
        if self.closed:
            code = self.close_code or CloseCode.ABNORMAL
            raise ConnectionClosed(code, self.close_reason)

    def _write(self, frame: bytes) -> None:
        link = self._link
        self._note("sent", frame)
        link.outgoing += frame
        while link.outgoing and not self.closed:
            if not self._push():
                self._end(1006, f"the server took nothing for {self._timeout} s")
                link.close()
        self._require_open()

    def _push(self) -> bool:
        """Write some of what is to be sent; False: the server takes none of it."""
        mark = self._link.sent
        return self._work(lambda: self._link.sent > mark or self.closed, self._timeout)

    def _work(self, done: Callable[[], object], timeout: float | None) -> bool:
        """Read and write until ``done()``; False: not within ``timeout`` seconds."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            moved = self._move()
            if done():
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            if not moved:
                self._link.wait(left, reading=self._has_room())

    def _move(self) -> bool:
        """Read and write once what is possible now; False: nothing is."""
        data = self._link.read() if self._has_room() else None
        if data is not None:
            self._received(data)
        return self._link.write() or data is not None

    def _has_room(self) -> bool:
        if not self._link.outgoing:
            self._replied = 0
        return self._link.broken or self._held + self._replied < READ_AHEAD

    def _received(self, data: bytes) -> None:
        """Take in what came; b"" is the end of TCP."""
        connection = self._connection
        events = connection.receive_data(data) if data else connection.receive_eof()
        replies = connection.data_to_send()
        self._link.outgoing += replies
        self._replied += len(replies)
        self._note("received", data)
        self._note("sent", replies)
        for event in events:
            if isinstance(event, (str, bytes)):
                self._messages.append(event)
                self._held += len(event) + _MESSAGE_COST
            elif isinstance(event, Pong) and event.payload == self._awaited:
                self._awaited = None
            elif isinstance(event, Closed):
                self._end(event.code, event.reason)
                self._answered = event.code not in _FAULTS
                self._link.finish()

    def _end(self, code: int, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self.close_code, self.close_reason = int(code), reason

    def _note(self, direction: str, data: bytes) -> None:
        if self._on_bytes is not None and data:
            self._on_bytes(direction, data)


class _Link:
    """A socket, plain or TLS, of which only ``wait`` and ``finish`` take time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._socket = sock
        self.outgoing = bytearray()
        self.sent = 0
        self.broken = False  # nothing can be written any more; reading tells the end

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes | None:
        """Return what came, b"" at the end; None: nothing yet."""
        try:
            return self._socket.recv(1 << 16)
        except _LATER:
            return b"" if self.broken else None
        except OSError:
            return b""

    def write(self) -> bool:
        """Send some of ``outgoing``; False: none of it."""
        if not self.outgoing:
            return False
        try:
            sent = self._socket.send(self.outgoing)
        except _LATER:
            return False
        except OSError:
            self.broken = True
            self.outgoing.clear()
            return True
        # gevent's TLS socket returns 0 where the standard library's raises.
        del self.outgoing[:sent]
        self.sent += sent
        return sent > 0

    def wait(self, seconds: float, *, reading: bool = True) -> None:
        """Wait until something can be read or, if there is, written."""
        events = select.POLLIN if reading else 0
        if self.outgoing:
            events |= select.POLLOUT
        poll = select.poll()
        poll.register(self._socket, events)
        # Callers come back; poll itself takes no more than 24 days.
        poll.poll(math.ceil(min(max(seconds, 0), 1e6) * 1000))

    def read_until(self, until: float) -> bytes | None:
        """Return the next that comes, writing meanwhile; None: nothing in time."""
        while True:
            self.write()
            if (data := self.read()) is not None:
                return data
            left = until - time.monotonic()
            if left <= 0:
                return None
            self.wait(left)

    def finish(self) -> None:
        """Send what is left and let the server end TCP, as RFC 6455 §7.1.1 wants.

        To close before it did would tear down what it may not have read.
        """
        until = time.monotonic() + LINGER
        while self.outgoing and (left := until - time.monotonic()) > 0:
            if not self.write():
                self.wait(left, reading=False)
        with contextlib.suppress(OSError, ValueError):
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.unwrap()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        while self.read_until(until) and time.monotonic() < until:
            pass
        self.close()

    def close(self) -> None:
        self.outgoing.clear()
        self._socket.close()


class _Server(NamedTuple):
    """What a URL says."""

    secure: bool
    host: str
    port: int
    shown: str
    target: str
    authorization: str | None


def _parse(url: str) -> _Server:
    """Return the parts of a WebSocket URL (RFC 6455 §3).

    :raises ValueError: it is not one; says what would be.
    """
    told = re.sub(r"//[^/]*@", "//…@", url)  # passwords end up in logs
    wanted = f"ws://host[:port]/path or wss://… is expected, not {told!r}"
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError(f"{wanted}: it has spaces or control characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        ascii_host = (host or "").encode("idna").decode()
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}") from None
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"{wanted}: its scheme is {parts.scheme or 'missing'}")
    if not host:
        raise ValueError(f"{wanted}: the host is missing")
    if port == 0:
        raise ValueError(f"{wanted}: there is no port 0")
    if "#" in url:
        raise ValueError(f"{wanted}: a fragment (#…) is not allowed, write %23")
    secure = parts.scheme == "wss"
    shown = f"[{ascii_host}]" if ":" in host else ascii_host
    usual = 443 if secure else 80
    if port not in (None, usual):
        shown += f":{port}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authorization = None
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    # All of ASCII is left as it is: the URL has been quoted where that is needed.
    target = quote(target, safe="".join(map(chr, range(0x21, 0x7F))))
    return _Server(secure, ascii_host, port or usual, shown, target, authorization)


def _headers(
    given: Mapping[str, str] | Iterable[tuple[str, str]], authorization: str | None
) -> list[tuple[str, str]]:
    headers = list(given.items() if isinstance(given, Mapping) else given)
    for name, _ in headers:
        if re.match(r"(?i)host$|upgrade$|connection$|sec-websocket-", name):
            raise ValueError(f"the header {name!r} is made by the handshake itself")
    if authorization and not any(n.lower() == "authorization" for n, _ in headers):
        headers.append(("Authorization", authorization))
    return headers


def _shake_hands(
    link: _Link, handshake: ClientHandshake, until: float
) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers of the response, and the bytes after it."""
    link.outgoing += handshake.request()
    data = b""
    while True:
        part = link.read_until(until)
        if part is None:
            raise TimeoutError("the server did not answer the handshake in time")
        if not part:
            raise HandshakeError(502, "the server hung up before it answered")
        data += part
        if not data.startswith(b"HTTP/"[: len(data)]):
            raise HandshakeError(502, f"the answer is not HTTP: {data[:20]!r}")
        try:
            size = handshake.receive_data(data)
        except HandshakeError as error:
            error.args = (f"{error}{_reason(link, data, dict(error.headers))}",)
            raise
        if size is not None:
            head = read_head(data)
            assert head is not None  # it was accepted
            return head[0].headers, data[size:]


def _reason(link: _Link, data: bytes, headers: dict[str, str]) -> str:
    """Return what a refusal says besides its status, in its body if that is short."""
    if "location" in headers:
        return f", it redirects to {headers['location']}"
    length = headers.get("content-length", "")
    if not re.fullmatch("[0-9]{1,4}", length):
        return ""
    start = data.index(b"\r\n\r\n") + 4
    until = time.monotonic() + LINGER
    while len(data) < start + int(length) and (part := link.read_until(until)):
        data += part
    text = data[start : start + int(length)].decode("utf-8", "replace")
    if "html" in headers.get("content-type", ""):
        text = re.sub(r"(?s)<title.*?</title>|<[^>]*>", " ", text)
        text = html.unescape(text)
    text = textwrap.shorten(text, 300, placeholder=" …")
    return f": {text}" if text else ""
