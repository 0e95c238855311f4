"""From a WSGI request to a transport: the servers that can hand over their socket.

Each server needs one function that, given its ``environ``, finds the socket and knows
how to make the server let go of it: neither read, write, nor close it, nor log the
missing response as an error.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from geventwebsocket.websocket import WebSocket as StockWebSocket

OFFER = "wschat.offer"
"""Where our own handler puts its ``Offer`` into the environ."""


class Offer(Protocol):
    """A request's socket, to be had."""

    answered: bool
    """The 101 is already out: the server sent it before the application ran."""
    handler: Any
    """The server's own object for the request, for old code that asks for it."""

    def accept(self, response: bytes) -> tuple[int, bytes]:
        """Send ``response`` (empty if answered) and take the socket over.

        Return a non-blocking descriptor, the caller's own from now on, and the bytes
        that the client sent behind its request.

        :raises OSError: the client is gone.
        """


def find_offer(environ: dict[str, Any]) -> Offer | None:
    """Return the way to the request's socket; None: this server gives none."""
    offer: Offer | None = environ.get(OFFER)
    if offer is not None:
        return offer
    stock = environ.get("wsgi.websocket")
    if isinstance(stock, StockWebSocket):
        return StockOffer(stock)
    return None


def take_over(sock: Any, rfile: Any, response: bytes) -> tuple[int, bytes]:
    """Answer on a server's socket, and return a duplicate and what was read ahead."""
    if response:
        sock.sendall(response)
    fd = os.dup(sock.fileno())
    try:
        # Non-blocking, so that asking the reader for what it has read ahead returns
        # at once when that is nothing.
        sock.settimeout(0.0)
        received = rfile.read1(-1) or b""
    except OSError:
        os.close(fd)
        raise
    return fd, received


class StockOffer:
    """gevent-websocket's own handler, which has answered 101 before the application.

    Its object stays behind as a closed one, so that the handler sends nothing more.
    """

    answered = True

    def __init__(self, stock: StockWebSocket) -> None:
        self._stock = stock
        self.handler = stock.handler

    def accept(self, response: bytes) -> tuple[int, bytes]:
        handler = self.handler
        fd, received = take_over(handler.socket, handler.rfile, b"")
        self._stock.closed = True
        self._stock.stream = self._stock.raw_read = self._stock.raw_write = None
        let_go(handler)
        return fd, received


def let_go(handler: Any) -> None:
    """Make a pywsgi handler forget its socket without shutting the connection."""
    sock, handler.socket = handler.socket, None
    handler.close_connection = True
    handler.rfile.close()
    sock.close()  # our duplicate keeps the connection
