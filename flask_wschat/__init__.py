"""Plain WebSockets for Flask: routes, rooms, users, history, votes."""

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
from .extension import WSChat
from .websocket import Listener, WebSocket

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
