"""``Home``: the loop in which the connections of this process live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..transports import Loop


class Home:
    """Where it is, and what is planned there.

    It may move where no connection is left, and does in a process of its own: then what
    was planned is void.
    """

    __slots__ = ("loop", "stay")

    def __init__(self) -> None:
        self.loop: Loop | None = None
        """None: nobody has connected here yet."""
        self.stay = object()
        """Another one after each move: tells what was planned before."""

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
