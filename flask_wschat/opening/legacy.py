"""The object that code written for gevent-websocket finds in its environ.

Its surface and its errors are gevent-websocket's; everything else is ours. The 101 goes
out when the view first uses it, so that a view that never does answers plain HTTP. See
docs/decisions/01.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import Client
from geventwebsocket.websocket import MSG_ALREADY_CLOSED, MSG_SOCKET_DEAD

from ..codec import is_sendable
from ..errors import ConnectionClosed
from ..servers.offers import ClientLeft
from ..transports import Loop
from ..websocket import WebSocket

__all__ = ["LegacyWebSocket", "WebSocketError"]

PATIENCE = 1.0
"""Seconds ``send`` waits for a peer that takes nothing: such code sends to everyone in
a loop, and the others wait meanwhile."""


class LegacyWebSocket:
    """``environ["wsgi.websocket"]``: receive, send, close, closed and their like."""

    _ws: WebSocket | None = None
    _idle = 0.0
    _enlisted = False
    _missed = False  # the client left before we could answer

    def __init__(
        self,
        environ: dict[str, Any],
        handler: Any,
        accept: Callable[[], WebSocket],
        loop: Loop,
    ) -> None:
        self.environ = environ
        self.handler = handler
        self._accept = accept
        self._loop = loop

    @property
    def accepted(self) -> bool:
        """Whether the view used the socket, so that the 101 is out."""
        return self._ws is not None

    @property
    def closed(self) -> bool:
        """Whether the connection has ended. Asking does not open it."""
        return self._missed or (self._ws is not None and self._ws.closed)

    @property
    def origin(self) -> str | None:
        return self.environ.get("HTTP_ORIGIN")

    @property
    def protocol(self) -> str | None:
        return self.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")

    @property
    def version(self) -> str | None:
        return self.environ.get("HTTP_SEC_WEBSOCKET_VERSION")

    @property
    def path(self) -> str | None:
        return self.environ.get("PATH_INFO")

    def receive(self) -> str | bytearray | None:
        """Return the next message, or None at the end.

        Called again after the end it gives the others a turn, longer each time up to a
        second: many a loop around it knows no end.
        """
        try:
            message = self._socket().receive()
        except (ConnectionClosed, WebSocketError):
            if self._idle:
                self._loop.event().wait(self._idle)
            self._idle = min(max(self._idle * 2, 0.001), 1.0)
            return None
        return message if isinstance(message, str) else bytearray(message)

    read_message = receive

    def send(self, message: Any, binary: bool | None = None) -> None:
        """Send text for a ``str``, binary for what else ``bytes`` takes.

        :raises WebSocketError: the connection has ended.
        :raises TypeError: as gevent-websocket does, for None and other non-bytes.
        """
        if binary is None:
            binary = not isinstance(message, str)
        data: str | bytes = bytes(message) if binary else _as_text(message)
        try:
            self._socket()._send_within(data, PATIENCE)
        except ConnectionClosed:
            raise WebSocketError(MSG_SOCKET_DEAD) from None

    def close(self, code: int = 1000, message: str | bytes = b"") -> None:
        """Close; a ``code`` that may not be sent becomes 1000."""
        with contextlib.suppress(WebSocketError):
            code = code if is_sendable(code) else 1000
            self._socket().close(code, _as_text(message))

    def _socket(self) -> WebSocket:
        """Return the open socket.

        :raises WebSocketError: the client left before it could be opened.
        """
        if self._missed:
            raise WebSocketError(MSG_ALREADY_CLOSED)
        if self._ws is None:
            try:
                self._ws = self._accept()
            except ClientLeft:
                self._missed = True
                raise WebSocketError(MSG_ALREADY_CLOSED) from None
            self._enlist()
        return self._ws

    def _enlist(self) -> None:
        """Stand in ``handler.server.clients``, where old code looks for the others."""
        if self.handler is None:
            return  # not a server that has such a list
        server, address = self.handler.server, self.handler.client_address
        if not hasattr(server, "clients"):
            server.clients = {}
        entry = server.clients.get(address)
        if entry is None:
            server.clients[address] = Client(address, self)
            self._enlisted = True
        else:
            entry.ws = self  # the stock handler's own, which it deletes itself

    def delist(self) -> None:
        """Leave that list: the view is over."""
        if self._enlisted:
            self.handler.server.clients.pop(self.handler.client_address, None)


def _as_text(message: Any) -> str:
    if isinstance(message, bytes | bytearray):
        return message.decode("utf-8", "replace")
    return str(message or "")
