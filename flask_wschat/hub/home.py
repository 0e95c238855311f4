"""``Home``: the loop in which the connections of this process live.

See docs/decisions/30.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..errors import HandshakeError
from ..logs import SparingLog
from ..transports import Loop
from ..transports.loop import ANSWER
from ..transports.patched import RLock
from ..websocket import WebSocket

_CALM = 1.0  # seconds that a loop which was home has to finish what it began

_STUCK = (
    "this app's WebSockets live in %s, which has stood still for %s s; so none can be"
    " opened that comes to %s. See what waits there, unpatched by gevent; or make"
    " an app for each server (a factory, create_app())"
)


class Household(Protocol):
    """What lives there, and moves along."""

    log: SparingLog

    def count(self) -> int: ...

    def is_busy(self) -> bool:
        """Whether the backend is just told of some who are not here any more."""

    def move_out(self) -> None:
        """Give up what is planned in the loop: another one will be home."""

    def forget_all(self) -> None:
        """Forget everybody: they are another process's, or ended with their loop."""


class Home:
    """Where it is, what is planned there, and who came to it from elsewhere.

    It may move where no connection is left, and does in a process of its own.
    """

    __slots__ = ("_guests", "_household", "choosing", "loop", "pid", "stay")

    def __init__(self, household: Household) -> None:
        self._household = household
        self._guests: weakref.WeakKeyDictionary[WebSocket, Loop]
        self._guests = weakref.WeakKeyDictionary()
        self.choosing = RLock()
        """Held while the loop is chosen, and until a connection for it is counted."""
        self.loop: Loop | None = None
        """None: nobody has connected here yet."""
        self.pid = 0
        """The process in which that is so."""
        self.stay = object()
        """Another one after each move: tells what was planned before."""

    # -- which one it is

    def loop_for(self, own: Loop) -> Loop:
        """Return the loop for a connection that came to ``own``.

        That is its own, unless connections live in another one.
        """
        home = self.loop
        if home is None or home is own or self.pid != os.getpid():
            return own
        if home.is_current() or not home.is_alive():
            return own
        return home if self._household.count() else own

    def settled(self, own: Loop) -> Loop:
        """Return the loop for those that come to ``own``, and have it settled.

        :raises HandshakeError: it does not turn.
        """
        self._wait_for_calm(own)
        while True:
            loop = self.loop_for(own)
            try:
                if loop.call(self.settle, loop):
                    return loop
            except TimeoutError:
                words = _STUCK % (loop, ANSWER, own)
                self._household.log.warning("loops", "refused a WebSocket: %s", words)
                raise HandshakeError(500, words) from None

    def settle(self, loop: Loop) -> bool:
        """Let ``loop``, in which this is called, be that of all connections.

        False: those of another one live. They would be sent what is due to them in the
        wrong thread, late, or never.
        """
        if self.loop is loop and self.pid == os.getpid():
            return True
        with self.choosing:
            if self.pid != os.getpid():
                self._begin()
            if self.loop_for(loop) is not loop:
                return False
            home = self.loop
            if home is not None and home is not loop and not home.is_current():
                if not home.is_alive():
                    self._begin()
                self._move()
            self.loop = loop
            return True

    def _begin(self) -> None:
        self.pid = os.getpid()
        self.loop = None
        self._household.forget_all()
        self._move()

    def _move(self) -> None:
        self.stay = object()
        self._household.move_out()

    def _wait_for_calm(self, own: Loop) -> None:
        """Give the loop that was home until now a moment to finish what it began."""
        until = time.monotonic() + _CALM
        while (
            self.loop is not None
            and self.pid == os.getpid()
            and self.loop.is_alive()
            and not self._household.count()
            and self._household.is_busy()
            and own.may_wait()
            and time.monotonic() < until
        ):
            own.event().wait(0.01)

    # -- who came from elsewhere

    def welcome(self, ws: WebSocket, own: Loop) -> None:
        """Remember that ``ws`` came to ``own``, which is not its loop."""
        self._guests[ws] = own

    def of(self, connections: Iterable[WebSocket], own: Loop | None) -> list[WebSocket]:
        """Return those of ``connections`` that came to ``own``; None: all."""
        found = list(connections)
        if own is None:
            return found
        return [ws for ws in found if self._guests.get(ws, self.loop) is own]

    # -- what is done there

    def is_here(self) -> bool:
        """Whether the caller is in it."""
        return self.loop is not None and self.loop.is_current()

    def later(self, seconds: float, callback: Callable[[], Any]) -> None:
        """Call ``callback`` there in so many seconds, unless it has moved by then.

        Nor in a process that was forked off meanwhile, which has a copy of the timer.
        """
        stay = self.stay

        def call() -> None:
            if self.stay is stay and self.pid == os.getpid():
                callback()

        if self.loop is not None:
            self.loop.call_later(seconds, call)
