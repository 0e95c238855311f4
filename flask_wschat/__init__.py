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
    PollClosed,
    PollError,
    ProtocolError,
    UnknownChoice,
    WSChatError,
)
from .websocket import Listener, WebSocket

if TYPE_CHECKING:
    from .extension import WSChat
    from .rooms import ChatListener
    from .voting import Poll

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "ChatListener",
    "ConfigError",
    "ConnectionClosed",
    "HandshakeError",
    "InvalidPayload",
    "Listener",
    "MessageTooBig",
    "Poll",
    "PollClosed",
    "PollError",
    "ProtocolError",
    "UnknownChoice",
    "WSChat",
    "WSChatError",
    "WebSocket",
]


def __getattr__(name: str) -> Any:
    # So the codec, the client and the command line do without Flask and gevent.
    if name == "WSChat":
        from .extension import WSChat

        return WSChat
    if name == "ChatListener":
        from .rooms import ChatListener

        return ChatListener
    if name == "Poll":
        from .voting import Poll

        return Poll
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
