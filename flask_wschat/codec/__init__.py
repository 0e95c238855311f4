"""WebSockets without I/O: RFC 6455 in the standard library alone."""

from .connection import (
    Closed,
    Connection,
    EncodedMessage,
    Event,
    Ping,
    Pong,
    State,
    is_sendable,
)
from .frames import CloseCode, Frame, FrameParser, Opcode, apply_mask, encode_frame
from .handshake import (
    ClientHandshake,
    Head,
    accept_headers,
    accept_key,
    check_request,
    choose_subprotocol,
    is_upgrade,
    read_head,
    response,
    tokens,
)

__all__ = [
    "ClientHandshake",
    "CloseCode",
    "Closed",
    "Connection",
    "EncodedMessage",
    "Event",
    "Frame",
    "FrameParser",
    "Head",
    "Opcode",
    "Ping",
    "Pong",
    "State",
    "accept_headers",
    "accept_key",
    "apply_mask",
    "check_request",
    "choose_subprotocol",
    "encode_frame",
    "is_sendable",
    "is_upgrade",
    "read_head",
    "response",
    "tokens",
]
