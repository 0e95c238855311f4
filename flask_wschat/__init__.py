"""Plain WebSockets for Flask: routes, rooms, users, history, votes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    BackendError,
    ConfigError,
    ConnectionClosed,
    HandshakeError,
    InvalidPayload,
    MessageTooBig,
    ProtocolError,
    WSChatError,
)
from .websocket import Listener, WebSocket

if TYPE_CHECKING:
    from .extension import WSChat

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "ConfigError",
    "ConnectionClosed",
    "HandshakeError",
    "InvalidPayload",
    "Listener",
    "MessageTooBig",
    "ProtocolError",
    "WSChat",
    "WSChatError",
    "WebSocket",
]


def __getattr__(name: str) -> Any:
    # So the codec, the client and the command line do without Flask and gevent.
    if name == "WSChat":
        from .extension import WSChat

        return WSChat
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
