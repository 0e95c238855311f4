"""WebSockets without I/O: RFC 6455 and RFC 7692 in the standard library alone."""

from .accelerated import ACCELERATED, FrameParser, apply_mask, encode_frame
from .anatomy import Anatomy, Field, explain
from .closing import State, is_sendable
from .connection import Closed, Connection, EncodedMessage, Event, Ping, Pong
from .deflate import Deflate, negotiate
from .frames import CloseCode, Frame, Opcode
from .handshake import (
    ClientHandshake,
    Head,
    accept_headers,
    accept_key,
    accept_response,
    check_request,
    choose_subprotocol,
    is_upgrade,
    is_usual_key,
    read_head,
    response,
    tokens,
)

__all__ = [
    "ACCELERATED",
    "Anatomy",
    "ClientHandshake",
    "CloseCode",
    "Closed",
    "Connection",
    "Deflate",
    "EncodedMessage",
    "Event",
    "Field",
    "Frame",
    "FrameParser",
    "Head",
    "Opcode",
    "Ping",
    "Pong",
    "State",
    "accept_headers",
    "accept_key",
    "accept_response",
    "apply_mask",
    "check_request",
    "choose_subprotocol",
    "encode_frame",
    "explain",
    "is_sendable",
    "is_upgrade",
    "is_usual_key",
    "negotiate",
    "read_head",
    "response",
    "tokens",
]
