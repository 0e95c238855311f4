"""``Client``: an open connection to a server."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator

from ..codec import CloseCode, Closed, Connection, Event, Pong, State
from ..errors import ConnectionClosed
from .link import Link

READ_AHEAD = 1 << 26
"""Bytes of unread messages, and of unsent answers, at which no more is read."""
INFLATE = 1 << 20
"""Bytes that are inflated at a time, as many as make one message at least."""
_MESSAGE_COST = 64  # counted for each message besides its bytes, so that empty ones end

_FAULTS = (1002, 1006, 1007, 1009)  # what the codec ends a connection with

OnBytes = Callable[[str, bytes], object]


class Client:
    """An open connection to a server, from ``connect``; for one thread at a time.

    Leaving its ``with`` block closes it.
    """

    def __init__(
        self,
        link: Link,
        connection: Connection,
        timeout: float | None,
        on_bytes: OnBytes | None,
        received: bytes = b"",
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
        self._messages: deque[str | bytes] = deque()
        self._held = 0  # bytes in these
        self._replied = 0  # bytes of answers since nothing was left to send
        self._awaited: bytes | None = None  # the payload of the pong to come
        self._answered = False  # the closing handshake was completed
        if received:
            self._received(received)

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
            has_room = self._has_room()
            if has_room and self._connection.has_more:
                continue  # of what was read, `fileno` tells nobody
            left = until - time.monotonic()
            if left <= 0:
                return False
            if not moved:
                self._link.wait(left, reading=has_room)

    def _move(self) -> bool:
        """Read and write once what is possible now; False: nothing is."""
        if not self._has_room():
            return self._link.write()
        if self._connection.has_more:
            self._take(self._connection.more(INFLATE))
            return self._link.write() or True
        data = self._link.read()
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
        self._note("received", data)
        if data:
            self._take(connection.receive_data(data, INFLATE))
        else:
            self._take(connection.receive_eof())

    def _take(self, events: list[Event]) -> None:
        """Keep the messages, send the answers and note the end."""
        replies = self._connection.data_to_send()
        self._link.outgoing += replies
        self._replied += len(replies)
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
