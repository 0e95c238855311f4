"""Plain WebSockets for Flask: routes, rooms, users, history, votes."""

from __future__ import annotations

import importlib
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
    StreamError,
    StreamGone,
    StreamStopped,
    TooManyPolls,
    TooManyStreams,
    UnknownChoice,
    UnknownPoll,
    WSChatError,
)

if TYPE_CHECKING:
    from .chat.background import BackgroundTask
    from .chat.events import Events, event
    from .chat.listener import ChatListener
    from .chat.publisher import Publisher
    from .chat.streams import Stream
    from .chat.voting import Poll
    from .extension import WSChat
    from .signals import (
        connected,
        disconnected,
        message_received,
        refused,
        slow_peer,
    )
    from .websocket import Listener, WebSocket

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BackgroundTask",
    "ChatListener",
    "ConfigError",
    "ConnectionClosed",
    "Events",
    "HandshakeError",
    "InvalidPayload",
    "Listener",
    "MessageTooBig",
    "Poll",
    "PollClosed",
    "PollError",
    "ProtocolError",
    "Publisher",
    "Stream",
    "StreamError",
    "StreamGone",
    "StreamStopped",
    "TooManyPolls",
    "TooManyStreams",
    "UnknownChoice",
    "UnknownPoll",
    "WSChat",
    "WSChatError",
    "WebSocket",
    "connected",
    "disconnected",
    "event",
    "message_received",
    "refused",
    "slow_peer",
]


_HOMES = {
    "BackgroundTask": "chat.background",
    "ChatListener": "chat.listener",
    "Events": "chat.events",
    "Listener": "websocket",
    "Poll": "chat.voting",
    "Publisher": "chat.publisher",
    "Stream": "chat.streams",
    "WSChat": "extension",
    "WebSocket": "websocket",
    "connected": "signals",
    "disconnected": "signals",
    "event": "chat.events",
    "message_received": "signals",
    "refused": "signals",
    "slow_peer": "signals",
}


def __getattr__(name: str) -> Any:
    # So the codec, the client and the command line do without Flask and gevent, and
    # pytest, which imports this for its plugin, without nearly everything.
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    # Also what is not imported yet, and nothing that is for this file alone.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
