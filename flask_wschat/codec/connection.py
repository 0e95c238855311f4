"""One WebSocket connection without I/O: bytes in, events out (RFC 6455 §5 to §8).

``Connection`` joins fragments, checks text, answers pings and takes part in the
closing handshake, in either role. It reads no clock and logs nothing; what a peer does
wrong becomes an event and a close code, never an exception.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import ConnectionClosed, ProtocolError
from .accelerated import FrameParser, encode_frame, encode_message
from .closing import MOVES, Move, State, close_payload, is_sendable, parse_close
from .deflate import Deflate, deflate, inflate
from .frames import CloseCode, Frame, Opcode
from .text import Text, decode


class Ping(NamedTuple):
    """The peer asked for a sign of life; the answer already waits to be sent."""

    payload: bytes


class Pong(NamedTuple):
    """The peer answered a ping, or sent a heartbeat unasked (§5.5.3)."""

    payload: bytes


class Closed(NamedTuple):
    """The connection ended; the last event there is.

    ``code`` is what the peer's close frame said (1005: it gave none), what we failed
    the connection with, or 1006 when the bytes just stopped.
    """

    code: int
    reason: str


Event = str | bytes | Ping | Pong | Closed
"""A text message is a ``str``, a binary message ``bytes``."""


_TEXT, _BINARY, _CLOSE = int(Opcode.TEXT), int(Opcode.BINARY), int(Opcode.CLOSE)
_PING, _PONG, _CONTROL = int(Opcode.PING), int(Opcode.PONG), 0x8

_FRAMES = 64
"""Frames parsed at a time: what waits is kept as bytes, which take far less."""
_NO_FRAMES: Iterator[Frame] = iter(())

FRAME_WORK = 512
"""What a frame counts beside the bytes that inflate, in ``receive_data(most=)``: about
as many zeros inflate in the time that a ping and its answer take."""
TINY = 16
"""Bytes of payload from which on a frame is worth the work that it makes."""
_PONGS = 32
"""Pings of one call that are all answered; of more, those first and the last one."""


class Connection:
    """The protocol's state for one peer.

    ``client`` tells our role. ``max_message`` is the limit in bytes of one incoming
    message, all its fragments together; it is checked on frame headers, and again
    on what inflates. ``deflate`` is what the handshake agreed on, if anything.
    """

    __slots__ = (
        "_client",
        "_compressed",
        "_deflate",
        "_frames",
        "_inflating",
        "_max_message",
        "_message",
        "_out",
        "_parser",
        "control_frames",
        "has_more",
        "messages",
        "state",
        "tiny_frames",
    )

    def __init__(
        self,
        *,
        client: bool = False,
        max_message: int = 1 << 20,
        deflate: Deflate | None = None,
    ) -> None:
        self._client = client
        self._deflate = deflate
        self._max_message = max_message
        self._parser = FrameParser(
            masked=not client, max_message=max_message, rsv1=deflate is not None
        )
        self.messages: Callable[[bytes], list[str | bytes] | None]
        self.messages = self._parser.messages
        """Returns the messages that these bytes are, where they are nothing else; it
        is quicker. None, and nothing has happened: ``receive_data`` has to look."""
        self._frames = _NO_FRAMES  # parsed, and not looked at yet
        # The fragments of a message under way, joined: a list of them would cost 40
        # bytes and more for each, and it is the peer who says how many there are.
        self._message: io.BytesIO | Text | None = None
        # Inflated no sooner than it is whole: what is here is never more than was sent.
        self._compressed = 0  # if it is, its opcode
        self._inflating: Iterator[bytes] | None = None  # the rest of it
        # No limits of ours: who has a clock, and knows what else goes on, sets some.
        self.control_frames = 0
        """Pings and pongs received; who looks at it may set it back."""
        self.tiny_frames = 0
        """Of the message under way: its frames of less than ``TINY`` bytes."""
        self.has_more = False
        """``receive_data`` or ``more`` has left something for the next ``more``."""
        self._out: list[bytes] | None = None
        self.state = State.OPEN

    @property
    def window_bits(self) -> int | None:
        """What ``EncodedMessage.frame`` needs to know of this peer."""
        return None if self._deflate is None else self._deflate.send_bits

    def receive_data(self, data: bytes, most: int = sys.maxsize) -> list[Event]:
        """Return the events that these bytes from the peer complete.

        Afterwards ``data_to_send()`` may have an answer.

        ``most`` bounds the work: the bytes that inflate, and ``FRAME_WORK`` for each
        frame. What is left when it is done is kept as it came, and ``has_more`` set:
        go on with ``more``, and with other bytes once there is none. See
        docs/decisions/24.
        """
        if self.has_more:
            self._parser.feed(data, 0)
        else:
            self._frames = iter(self._parser.feed(data, _FRAMES))
        return self.more(most)

    def more(self, most: int = sys.maxsize) -> list[Event]:
        """Return further events of what was received; see ``receive_data``."""
        events: list[Event] = []
        tiny = self.tiny_frames
        try:
            has_more = self._work(most, events)
        except ProtocolError as fault:
            self._fail(fault, events)
            has_more = False
        # The ends of what was received may be parts of frames, and those are no sign.
        self.tiny_frames = max(self.tiny_frames - 2, min(tiny, self.tiny_frames))
        if has_more is not self.has_more:
            self.has_more = has_more
            if self.state is State.OPEN:
                self.messages = _look if has_more else self._parser.messages
        return events

    def place(self) -> memoryview | None:
        """Return where the next bytes are best put, while a large message arrives.

        Put there, they are told by ``placed``; that spares two copies. None: there is
        no such place now. It is the message's own memory: with the next call of
        ``placed`` or ``receive_data`` it is void, and writing there corrupts others.
        """
        if self.has_more or self.state is State.CLOSED:
            return None
        return self._parser.place()

    def placed(self, size: int) -> list[Event]:
        """Return the events that ``size`` bytes, put into ``place()``, complete."""
        self._frames = iter(self._parser.placed(size))
        return self.more()

    def receive_eof(self) -> list[Event]:
        """Return the end of the connection, unless it was known (§7.1.5: 1006)."""
        if not self._move(Move.EOF):
            return []
        self._drop()
        return [Closed(CloseCode.ABNORMAL, "connection lost")]

    def data_to_send(self) -> bytes:
        """Return, once, the control frames that answer what was received."""
        if self._out is None:
            return b""
        data = b"".join(self._out)
        self._out = None
        return data

    def send(self, message: str | bytes) -> bytes:
        """Return the frame of a text (``str``) or binary (``bytes``) message.

        :raises ConnectionClosed: a close frame was sent or received, or the end met.
        """
        opcode, payload = _opcode_and_payload(message)
        if self.window_bits is not None:
            smaller = deflate(payload, self.window_bits)
            if smaller is not None:
                return self._frame(opcode, smaller, rsv1=True)
        return self._frame(opcode, payload)

    def ping(self, payload: bytes = b"") -> bytes:
        """Return a ping frame (§5.5.2).

        :raises ValueError: the payload is over 125 bytes.
        :raises ConnectionClosed: as ``send``.
        """
        return self._frame(_PING, payload)

    def close(self, code: int = 1000, reason: str = "") -> bytes:
        """Return the close frame that begins the closing handshake (§7.1.2).

        Empty when one was already sent or the connection is over. ``reason`` is cut,
        between characters, to the 123 bytes of UTF-8 that fit.

        :raises ValueError: ``code`` may not be sent (§7.4).
        """
        if not is_sendable(code):
            raise ValueError(
                f"close code {code} may not be sent: use 1000, 1001, 3000-4999 …"
            )
        if not self._move(Move.SEND_CLOSE):
            return b""
        self._drop_message()  # nobody reads it any more
        return self._encode(_CLOSE, close_payload(code, reason))

    def fail(self, code: int, reason: str) -> bytes:
        """Return the close frame that fails the connection (§7.1.7).

        Empty where it is not open. Unlike after ``close``, what the peer still sends is
        not looked at, and no event comes of it; ``reason`` as there.
        """
        if self.state is not State.OPEN:
            return b""
        self._move(Move.FAIL)
        self._drop()
        return self._encode(_CLOSE, close_payload(code, reason))

    def _work(self, most: int, events: list[Event]) -> bool:
        """Append events until they took ``most``; False: there are no more.

        :raises ProtocolError: a message is wrong; what came before it is appended.
        """
        parser = self._parser
        while self.state is not State.CLOSED:  # §1.4: what follows is discarded
            if self._inflating is not None:
                most = self._inflate(most, events)
                if most <= 0:
                    return True
            for opcode, payload, fin, rsv1 in self._frames:
                if opcode & _CONTROL:
                    self._control(opcode, payload, events)
                    if opcode == _CLOSE:
                        return False
                elif self.state is not State.OPEN:
                    pass  # we said goodbye: nobody reads messages any more
                elif not fin or not opcode or rsv1:
                    self._fragment(opcode, payload, fin, rsv1, events)
                elif opcode == _TEXT:
                    events.append(decode(payload))
                else:
                    events.append(payload)
                most -= FRAME_WORK
                if most <= 0:
                    return True
                if self._inflating is not None:
                    break
            else:
                frames = parser.feed(b"", _FRAMES)
                # An iterator at its end would be kept by each idle connection.
                self._frames = iter(frames) if frames else _NO_FRAMES
                if not frames:
                    if parser.fault is not None:
                        raise parser.fault
                    return False
        return False

    def _frame(self, opcode: int, payload: bytes, *, rsv1: bool = False) -> bytes:
        if self.state is not State.OPEN:
            raise ConnectionClosed(CloseCode.ABNORMAL, "already closed")
        return self._encode(opcode, payload, rsv1=rsv1)

    def _encode(self, opcode: int, payload: bytes, *, rsv1: bool = False) -> bytes:
        # §10.3: the key must be one that whoever chose the payload cannot foresee.
        mask = os.urandom(4) if self._client else None
        return encode_frame(opcode, payload, rsv1=rsv1, mask=mask)

    def _move(self, move: Move) -> bool:
        """Make ``move``; False where it is not among the legal ones."""
        target = MOVES.get((self.state, move))
        if target is None:
            return False
        self.state = target
        self.messages = _look  # only an open connection has messages
        return True

    def _reply(self, opcode: int, payload: bytes) -> None:
        if self._out is None:
            self._out = []
        self._out.append(self._encode(opcode, payload))

    def _fail(self, fault: ProtocolError, events: list[Event]) -> None:
        """Fail the connection (§7.1.7): say why, once, and hear nothing more."""
        if frame := self.fail(fault.close_code, str(fault)):
            self._out = [*(self._out or ()), frame]
        self._move(Move.FAIL)
        self._drop()
        events.append(Closed(fault.close_code, str(fault)))

    def _control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        """Answer a control frame (§5.5), which may stand between fragments."""
        if opcode == _CLOSE:
            code, reason = parse_close(payload)
            if self.state is State.OPEN:
                # §5.5.1: answer with the code received; none when there was none.
                self._reply(_CLOSE, payload[:2])
            self._move(Move.RECEIVE_CLOSE)
            self._drop()
            events.append(Closed(code, reason))
            return
        self.control_frames += 1
        if opcode == _PING:
            # §5.5.2: due until a close frame was received, sent ones don't matter.
            if self._out is not None and len(self._out) >= _PONGS:
                self._out.pop()  # §5.5.3: that of the most recent ping will do
            self._reply(_PONG, payload)
            events.append(Ping(payload))
        else:
            events.append(Pong(payload))

    def _fragment(
        self, opcode: int, payload: bytes, fin: bool, rsv1: bool, events: list[Event]
    ) -> None:
        """Add a part of a message (§5.4); text is checked as it comes (§8.1)."""
        if opcode:
            self._compressed = opcode if rsv1 else 0  # RFC 7692 §6: for all fragments
            if rsv1 and fin:
                self._begin_to_inflate(payload)
                return
            self._message = Text() if opcode == _TEXT and not rsv1 else io.BytesIO()
            self.tiny_frames = 0
        if len(payload) < TINY:
            self.tiny_frames += 1
        message = self._message
        assert message is not None  # the parser lets no continuation come first
        message.write(payload)
        if not fin:
            return
        whole = message.getvalue()
        if self._compressed:
            assert isinstance(whole, bytes)
            self._begin_to_inflate(whole)
        else:
            self._drop_message()
            events.append(whole)

    def _begin_to_inflate(self, whole: bytes) -> None:
        # The parser lets nothing compressed pass that was not agreed on.
        assert self._deflate is not None
        self._message = io.BytesIO()
        self._inflating = inflate(whole, self._deflate.receive_bits, self._max_message)

    def _inflate(self, most: int, events: list[Event]) -> int:
        """Go on with a compressed message; return what is left of ``most``."""
        message = self._message
        assert self._inflating is not None and isinstance(message, io.BytesIO)
        for part in self._inflating:
            message.write(part)
            most -= len(part) + FRAME_WORK
            if most <= 0:
                return most
        whole = message.getvalue()
        events.append(decode(whole) if self._compressed == _TEXT else whole)
        self._drop_message()
        return most

    def _drop_message(self) -> None:
        self._message = self._inflating = None

    def _drop(self) -> None:
        """Forget all that was received: nothing of it counts any more."""
        self._drop_message()
        self._frames = _NO_FRAMES
        self.has_more = False


class EncodedMessage:
    """A message framed once for any number of receivers, as a server sends it.

    It holds nothing that belongs to one of them: see docs/decisions/05.
    """

    __slots__ = ("_deflated", "plain")

    plain: bytes
    """The unmasked frame."""

    def __init__(self, message: str | bytes) -> None:
        self.plain = encode_message(message)
        self._deflated: dict[int, bytes] | None = None

    def frame(self, window_bits: int | None) -> bytes:
        """Return the frame for a connection with these ``window_bits``.

        It is compressed at the first call for each window, and ``plain`` where that
        makes nothing smaller.
        """
        if window_bits is None:
            return self.plain
        if self._deflated is None:
            self._deflated = {}
        frame = self._deflated.get(window_bits)
        if frame is None:
            frame = self._deflated[window_bits] = self._deflate(window_bits)
        return frame

    def _deflate(self, window_bits: int) -> bytes:
        opcode, length = self.plain[0] & 0x0F, self.plain[1]
        header = 2 if length < 126 else 4 if length == 126 else 10
        payload = deflate(self.plain[header:], window_bits)
        if payload is None:
            return self.plain
        return encode_frame(opcode, payload, rsv1=True)


def _opcode_and_payload(message: str | bytes) -> tuple[int, bytes]:
    if isinstance(message, str):
        return _TEXT, message.encode()
    return _BINARY, message


def _look(data: bytes) -> None:
    return None
