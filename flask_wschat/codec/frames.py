"""Frames: the bytes of RFC 6455 §5, in both directions.

This file knows headers, masks and lengths. It knows no messages' content, no
handshake and no closing: those are ``connection``'s. It does no I/O.
"""

from __future__ import annotations

import enum
import struct
import sys
from typing import NamedTuple

from ..errors import MessageTooBig, ProtocolError


class Opcode(enum.IntEnum):
    """What a frame is (RFC 6455 §5.2); from ``CLOSE`` on, a control frame."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(enum.IntEnum):
    """Why a connection ended (RFC 6455 §7.4.1 and the IANA registry)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


def max_deflated(size: int) -> int:
    """Return the bytes that ``size`` bytes take when deflate makes them grow.

    As zlib's ``deflateBound`` has it for the least of its settings.
    """
    return size + size // 7 + 64


class Frame(NamedTuple):
    """One frame, or one piece of a data frame that is still arriving.

    ``payload`` is unmasked. ``opcode`` is an ``Opcode`` value.
    """

    opcode: int
    payload: bytes
    fin: bool = True
    rsv1: bool = False


# Plain integers for the hot path: an IntEnum member costs an attribute look-up.
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PONG = 0x0, 0x1, 0x2, 0x8, 0xA
_FIN, _RSV1, _RSV, _OPCODE, _MASKED, _LENGTH = 0x80, 0x40, 0x70, 0x0F, 0x80, 0x7F


def apply_mask(data: bytes, mask: bytes) -> bytes:
    """Return ``data`` XORed with the 4-byte ``mask`` repeated (RFC 6455 §5.3).

    The same call masks and unmasks.
    """
    # A loop in Python is too slow. Of few bytes the XOR of big integers is faster, of
    # many the four strides.
    size = len(data)
    if size < 900:
        return _xor(data, (mask * ((size + 3) >> 2))[:size])
    output = bytearray(size)
    for lane, key in enumerate(mask):
        output[lane::4] = data[lane::4].translate(_XOR_TABLES[key])
    return bytes(output)


def _xor(left: bytes, right: bytes) -> bytes:
    number = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return number.to_bytes(len(left), "little")


_XOR_TABLES = [_xor(bytes(range(256)), bytes([key]) * 256) for key in range(256)]


def encode_frame(
    opcode: int,
    payload: bytes,
    *,
    fin: bool = True,
    rsv1: bool = False,
    mask: bytes | None = None,
) -> bytes:
    """Return the bytes of one frame (RFC 6455 §5.2), its length in the fewest bytes.

    ``mask`` is the 4-byte masking key, which a client must draw anew for each frame
    (§5.3) and a server must not use (§5.1).

    :raises ValueError: a control frame is fragmented or over 125 bytes (§5.5).
    """
    size = len(payload)
    if opcode >= _CLOSE and (size > 125 or not fin):
        raise ValueError(f"bad control frame: {size} bytes, fin={fin}")
    first = (_FIN if fin else 0) | (_RSV1 if rsv1 else 0) | opcode
    masked = 0 if mask is None else _MASKED
    if size < 126:
        header = struct.pack("!BB", first, masked | size)
    elif size < 1 << 16:
        header = struct.pack("!BBH", first, masked | 126, size)
    else:
        header = struct.pack("!BBQ", first, masked | 127, size)
    if mask is None:
        return header + payload
    return header + mask + apply_mask(payload, mask)


def encode_message(message: str | bytes) -> bytes:
    """Return the unmasked frame of a text (``str``) or binary (``bytes``) message."""
    if isinstance(message, str):
        return encode_frame(_TEXT, message.encode())
    return encode_frame(_BINARY, message)


class FrameParser:
    """Cuts a byte stream into frames and checks what their headers can tell.

    Checked here, on the header and before the payload arrives: reserved bits and
    opcodes, masking, minimal lengths, control frames, the order of fragments, and the
    size of the whole message. A data frame that arrives in parts is handed on in parts,
    the later ones as continuations: §5.4 lets anyone on the way fragment so, and thus
    no more is held here than one header or one control frame. (The C twin keeps the
    parts of a message from 64 KiB together, for it has room for them without copies.)

    ``masked``: the peer must mask (a client does) or must not (a server).
    ``max_message``: bytes in all fragments of a message together. ``rsv1``: an
    extension gave that bit a meaning on the first frame of a message (RFC 7692 §6);
    what such a message holds is for others to count, here only what it may take on
    the wire is.
    """

    __slots__ = (
        "_at",
        "_buffer",
        "_fin",
        "_in_message",
        "_key",
        "_limit",
        "_masked",
        "_max_message",
        "_opcode",
        "_remaining",
        "_rsv1",
        "_rsv1_allowed",
        "_size",
        "fault",
    )

    fault: ProtocolError | None
    """Why parsing stopped for good, or None; frames before the fault were returned."""

    def __init__(self, *, masked: bool, max_message: int, rsv1: bool = False) -> None:
        self._masked = _MASKED if masked else 0
        self._max_message = max_message
        self._rsv1_allowed = rsv1
        self._buffer = b""
        self._at = 0  # so much of it is parsed
        self._in_message = False  # a fragmented message is under way
        self._limit = max_message  # of the message under way
        self._size = 0  # bytes announced so far by the message under way
        self._remaining = 0  # bytes still to come of the data frame under way
        self._opcode = 0
        self._fin = False
        self._rsv1 = False
        self._key = b""
        self.fault = None

    def feed(self, data: bytes, most: int = sys.maxsize) -> list[Frame]:
        """Return the frames, or pieces of them, that ``data`` completes.

        They are ``most`` at most. What follows is kept as it came, and the next call
        begins with it; fewer than ``most`` tell that nothing is left but a beginning.

        Never raises: after a fault of the peer, ``fault`` is set and every later call
        returns an empty list.
        """
        frames: list[Frame] = []
        if self.fault is not None:
            return frames
        position = self._at
        if position and data:
            self._buffer, position = self._buffer[position:], 0
        if self._buffer:
            data = self._buffer + data
        try:
            position = self._parse(data, position, frames, most)
        except ProtocolError as fault:
            # The traceback would lead back here, and only the collector undo that.
            self.fault = fault.with_traceback(None)
            self._buffer, self._at = b"", 0
        else:
            if len(frames) < most or position == len(data):
                data, position = data[position:], 0
            # Else it is not cut: to do so for each few frames would be quadratic.
            self._buffer, self._at = data, position
        return frames

    def messages(self, data: bytes) -> list[str | bytes] | None:
        """Return the messages, where ``data`` is nothing but whole ones.

        None, and nothing has happened: ``feed`` has to look, as it has where they are
        more than 4096, which are better taken a few at a time. The twin in C spares the
        usual message all that lies between a frame and a message; here nothing would.
        """
        return None

    def place(self) -> memoryview | None:
        """Return where the next bytes are best put: where a large message will stay.

        It is void after the next call of ``placed`` or ``feed``, which may give the
        message away. None: wherever you like, as ever in this twin.
        """
        return None

    def placed(self, size: int) -> list[Frame]:
        """Return the frames that ``size`` bytes, put into ``place()``, complete."""
        raise ValueError("there was no place for so many bytes")

    def _parse(self, data: bytes, position: int, frames: list[Frame], most: int) -> int:
        """Append to ``frames`` what ``data`` holds; return up to where that was."""
        end = len(data)
        if self._remaining and most:
            position = self._take_piece(data, position, frames)
        while len(frames) < most and (header := self._read_header(data, position)):
            first, size, key, start = header
            opcode, fin, rsv1 = first & _OPCODE, first >= _FIN, first & _RSV1 != 0
            stop = start + size
            if opcode < _CLOSE:
                self._in_message = not fin
                self._size = 0 if fin else self._size + size
            elif stop > end:
                break  # a control frame is small: wait for the whole of it
            if stop > end:
                self._opcode, self._fin, self._rsv1 = opcode, fin, rsv1
                self._key, self._remaining = key, size
                position = self._take_piece(data, start, frames)
                break
            payload = data[start:stop]
            if key:
                payload = apply_mask(payload, key)
            frames.append(Frame(opcode, payload, fin, rsv1))
            position = stop
        return position

    def _read_header(
        self, data: bytes, position: int
    ) -> tuple[int, int, bytes, int] | None:
        """Return a frame's first byte, payload size, key, and where its payload starts.

        None: its header is not whole yet.
        """
        end = len(data)
        if end - position < 2:
            return None
        first, second = data[position], data[position + 1]
        opcode, size = first & _OPCODE, second & _LENGTH
        self._check(first, second, opcode)
        start = position + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if end - start < width:
                return None
            size = _extended_length(data[start : start + width])
            start += width
        if opcode < _CLOSE:
            self._check_size(first, opcode, size)
        if not self._masked:
            return first, size, b"", start
        if end - start < 4:
            return None
        return first, size, data[start : start + 4], start + 4

    def _take_piece(self, data: bytes, start: int, frames: list[Frame]) -> int:
        """Append the next piece of the frame under way; return where it ends."""
        payload = data[start : start + self._remaining]
        if not payload:
            return start
        size = len(payload)
        self._remaining -= size
        if self._key:
            payload = apply_mask(payload, self._key)
            turn = size & 3
            self._key = self._key[turn:] + self._key[:turn]
        fin = self._fin and not self._remaining
        frames.append(Frame(self._opcode, payload, fin, self._rsv1))
        self._opcode, self._rsv1 = _CONTINUATION, False
        return start + size

    def _check(self, first: int, second: int, opcode: int) -> None:
        """Raise unless a frame may begin with these two bytes now."""
        if first & _RSV and (
            not self._rsv1_allowed
            or first & _RSV != _RSV1
            or not _TEXT <= opcode <= _BINARY
        ):
            raise ProtocolError("reserved bit set without an extension (RFC 6455 §5.2)")
        if second & _MASKED != self._masked:
            raise ProtocolError(
                "a client must mask its frames (RFC 6455 §5.1)"
                if self._masked
                else "a server must not mask its frames (RFC 6455 §5.1)"
            )
        if opcode >= _CLOSE:
            if opcode > _PONG:
                raise ProtocolError(f"reserved opcode {opcode:#x} (RFC 6455 §5.2)")
            if second & _LENGTH > 125 or first < _FIN:
                raise ProtocolError(
                    "control frame fragmented or over 125 bytes (RFC 6455 §5.5)"
                )
        elif opcode > _BINARY:
            raise ProtocolError(f"reserved opcode {opcode:#x} (RFC 6455 §5.2)")
        elif self._in_message != (opcode == _CONTINUATION):
            raise ProtocolError(
                "new message inside a fragmented one (RFC 6455 §5.4)"
                if self._in_message
                else "continuation without a message (RFC 6455 §5.4)"
            )

    def _check_size(self, first: int, opcode: int, size: int) -> None:
        """Raise if this frame makes its message too big."""
        if opcode:
            self._limit = self._max_message
            if first & _RSV1:
                self._limit = max_deflated(self._limit)
        total = self._size + size
        if total > self._limit:
            raise MessageTooBig(
                f"a message of at least {total} bytes exceeds the limit of"
                f" {self._limit}"
            )


def _extended_length(digits: bytes) -> int:
    """Return the 16- or 64-bit payload length (RFC 6455 §5.2).

    :raises ProtocolError: it is not in the fewest bytes, or over 63 bits.
    """
    size = int.from_bytes(digits, "big")
    if size < (126 if len(digits) == 2 else 1 << 16):
        raise ProtocolError("length not in the fewest bytes (RFC 6455 §5.2)")
    if size >> 63:
        raise ProtocolError("length over 63 bits (RFC 6455 §5.2)")
    return size
