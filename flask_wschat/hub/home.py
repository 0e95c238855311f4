"""``Home``: the loop in which the connections of this process live."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from ..transports import Loop
from ..transports.patched import RLock
from ..websocket import WebSocket


class Home:
    """Where it is, what is planned there, and who came to it from elsewhere.

    It may move where no connection is left, and does in a process of its own: then what
    was planned is void. ``count`` says how many connections there are. See
    docs/decisions/30.
    """

    __slots__ = ("_count", "_guests", "choosing", "loop", "stay")

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._guests: weakref.WeakKeyDictionary[WebSocket, Loop]
        self._guests = weakref.WeakKeyDictionary()
        self.choosing = RLock()
        """Held while the loop is chosen, and until a connection for it is counted."""
        self.loop: Loop | None = None
        """None: nobody has connected here yet."""
        self.stay = object()
        """Another one after each move: tells what was planned before."""

    def for_one_of(self, own: Loop) -> Loop:
        """Return the loop for a connection that came to ``own``.

        That is its own, unless connections live in another one.
        """
        home = self.loop
        if home is None or home is own or home.is_current() or not home.is_alive():
            return own
        return home if self._count() else own

    def welcome(self, ws: WebSocket, own: Loop) -> None:
        """Remember that ``ws`` came to ``own``, which is not its loop."""
        self._guests[ws] = own

    def of(self, connections: Iterable[WebSocket], own: Loop | None) -> list[WebSocket]:
        """Return those of ``connections`` that came to ``own``; None: all."""
        found = list(connections)
        if own is None:
            return found
        return [ws for ws in found if self._guests.get(ws, self.loop) is own]

    def move(self, loop: Loop | None) -> None:
        self.loop, self.stay = loop, object()

    def is_here(self) -> bool:
        """Whether the caller is in it."""
        return self.loop is not None and self.loop.is_current()

    def later(self, seconds: float, callback: Callable[[], Any]) -> None:
        """Call ``callback`` there in so many seconds, unless it has moved by then."""
        stay = self.stay
        if self.loop is not None:
            self.loop.call_later(seconds, lambda: self.stay is stay and callback())
