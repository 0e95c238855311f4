"""The closing handshake (RFC 6455 §7): its states, its codes, and what a frame says."""

from __future__ import annotations

import enum

from ..errors import ProtocolError
from .frames import CloseCode
from .text import decode


class State(enum.Enum):
    """Where a connection is in its closing handshake (§7.1)."""

    __hash__ = object.__hash__  # quicker: Enum has one of its own, written in Python
    OPEN = "open"
    CLOSING = "closing"  # our close frame is sent, the peer's is awaited
    CLOSED = "closed"


class Move(enum.Enum):
    """What can happen to it."""

    __hash__ = object.__hash__
    SEND_CLOSE = enum.auto()
    RECEIVE_CLOSE = enum.auto()
    FAIL = enum.auto()  # the peer broke the protocol (§7.1.7)
    EOF = enum.auto()


# What may happen when, and what then holds. A move that is not here does nothing.
MOVES = {
    (State.OPEN, Move.SEND_CLOSE): State.CLOSING,
    (State.OPEN, Move.RECEIVE_CLOSE): State.CLOSED,
    (State.OPEN, Move.FAIL): State.CLOSED,
    (State.OPEN, Move.EOF): State.CLOSED,
    (State.CLOSING, Move.RECEIVE_CLOSE): State.CLOSED,
    (State.CLOSING, Move.FAIL): State.CLOSED,
    (State.CLOSING, Move.EOF): State.CLOSED,
}


def is_sendable(code: int) -> bool:
    """Whether ``code`` may stand in a close frame (§7.4 and the IANA registry)."""
    return 3000 <= code <= 4999 or (
        1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    )


def cut_reason(reason: str) -> str:
    """Return what of ``reason`` fits into a close frame: 123 bytes."""
    return reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")


def close_payload(code: int, reason: str) -> bytes:
    """Return a close frame's payload; ``reason`` is cut."""
    return int(code).to_bytes(2, "big") + cut_reason(reason).encode()


def parse_close(payload: bytes) -> tuple[int, str]:
    """Return the code and reason of a close frame's payload (§5.5.1, §7.4).

    :raises ProtocolError: it is none, or the code may not be sent.
    """
    if not payload:
        return CloseCode.NO_STATUS, ""
    if len(payload) < 2:
        raise ProtocolError("close frame with half a code (RFC 6455 §5.5.1)")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable(code):
        raise ProtocolError(f"illegal close code {code} (RFC 6455 §7.4)")
    return code, decode(payload[2:])
