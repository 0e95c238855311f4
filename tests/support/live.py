"""Applications on live servers in this process, and a foreign client to reach them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import geventwebsocket.handler
import pytest
import websockets.sync.client
from gevent.pywsgi import WSGIServer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

import flask_wschat.server
from flask_wschat.server import Server, WebSocketHandler

from .waiting import DEADLINE

HANDLERS: dict[str, tuple[type, type[WSGIServer]]] = {
    "ours": (WebSocketHandler, Server),
    "ours on pywsgi": (WebSocketHandler, WSGIServer),
    "stock": (geventwebsocket.handler.WebSocketHandler, WSGIServer),
}


class LiveServer(flask_wschat.server.LiveServer):
    """A live server, and the foreign client to talk to it."""

    def socket(self, **options: int) -> socket.socket:
        """Return a connected socket; ``options`` are SOL_SOCKET's."""
        sock = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        for name, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        return sock

    def connect(self, path: str, **options: Any) -> ClientConnection:
        """Open a connection with the foreign client; messages of any size."""
        options = {
            "compression": None,
            "max_size": None,
            "open_timeout": DEADLINE,
            "close_timeout": DEADLINE,
            "ping_interval": None,
        } | options
        client = websockets.sync.client.connect(self.url(path), **options)
        # It wants to be a context manager, at once; it may be entered again.
        return client.__enter__()


Serve = Callable[..., LiveServer]
"""Start a live server for an app; see the fixture ``serve``."""


def stop(app: Any) -> None:
    """Let go of what ``app`` shares with other processes, as the end of one does."""
    hub = getattr(app, "extensions", {}).get("wschat.hub")
    if hub is not None:
        hub.stop()


def receive(client: ClientConnection, seconds: float = DEADLINE) -> Any:
    """Return the next message."""
    return client.recv(timeout=seconds)


def closed(client: ClientConnection, seconds: float = DEADLINE) -> tuple[int, str]:
    """Wait for the end; return the code and reason of the server's close frame.

    Nothing may come before it.
    """
    with pytest.raises(ConnectionClosed) as caught:
        receive(client, seconds)
    frame = caught.value.rcvd
    assert frame is not None, "the stream ended without a close frame"
    return frame.code, frame.reason
