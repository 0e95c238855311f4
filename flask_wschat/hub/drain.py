"""``Drain``: connections are closed before their process ends, and not all at once.

See docs/decisions/42.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .. import endings
from ..settings import Settings
from ..signals import Signals
from ..transports import Loop
from ..transports.ending import has_begun
from ..websocket import WebSocket
from .home import Home

RATE = 200
"""Connections closed in a second, unless there are more than the time allows."""
SHARE = 0.8
"""Of the time, until all are told; the last ones need some for their answers."""
AT_ONCE = 0.1
"""Seconds for close frames to get out where nobody is waited for."""
_STEP = 0.02  # seconds
_LATE = 1.0  # seconds that a busy loop may have for what it was to do before
_TELLING = 1.0  # seconds that the backend has to be told, once all else is over


class Emptied(Protocol):
    """What is drained."""

    settings: Settings
    home: Home
    leaving: set[WebSocket]
    signals: Signals

    @property
    def closing(self) -> Closing: ...

    def everyone(self) -> Iterator[WebSocket]: ...
    def is_telling(self) -> bool: ...
    def report(self, error: BaseException, ws: WebSocket | None = None) -> None: ...
    def count(self) -> int: ...
    def stop(self) -> None: ...


class Serving(Protocol):
    """The server that this process is a part of."""

    grace: float
    """Seconds that a process has to end once it was asked to, at least."""

    def is_stopping(self) -> bool:
        """Whether it was."""


class Drain:
    """Closes with 1012, "service restart", and sees to it that nothing is cut off.

    ``seconds`` are for all of it: closes, their answers, and what runs for the
    connections. ``came_to``: only for those that came to this loop.
    """

    def __init__(
        self, emptied: Emptied, seconds: float, came_to: Loop | None = None
    ) -> None:
        now = time.monotonic()
        self._emptied = emptied
        self._home = emptied.home
        self._came_to = came_to
        self._told_by = now + SHARE * seconds
        self._until = now + max(seconds, AT_ONCE)
        self._last = now
        self._due = 1.0  # how many may be closed by now, in parts of one, too
        self._busy_until = now
        self._ending: set[WebSocket] = set()  # closed, and not over yet
        self.over = False
        """All have ended, or had their time."""

    def begin(self) -> None:
        """Begin to close them, from any thread; does not wait."""
        loop = self._home.loop
        assert loop is not None
        if loop.is_current():
            self._step()
        else:
            loop.call_threadsafe(self._step)

    def hurry(self) -> None:
        """Close all that are left at once, and wait for nobody; from any thread."""
        self._told_by = now = time.monotonic()
        self._until = min(self._until, now + AT_ONCE)

    def wait(self) -> None:
        """Return once it is over; where its loop stands still, soon after its time."""
        loop = self._home.loop
        assert loop is not None
        while not self.over and time.monotonic() < self._until + _LATE:
            loop.event().wait(0.01)

    def _step(self) -> None:
        """Close those whose turn it is; in the loop, where nothing else changes."""
        now, emptied = time.monotonic(), self._emptied
        # Again and again: some were let in before, and come only now.
        here = self._home.of(emptied.everyone(), self._came_to)
        due = here
        if (left := self._told_by - now) > 0:
            self._due += max(RATE, len(here) / left) * (now - self._last)
            due = here[: int(self._due)]
            self._due -= int(self._due)
        self._last = now
        for ws in due:
            self._close(ws)
        self._ending.update(self._home.of(emptied.leaving, self._came_to), due)
        self._ending = {ws for ws in self._ending if ws._busy or not ws._gone}
        guests = self._came_to is not None
        if here or self._ending or (emptied.closing.under_way and not guests):
            self._busy_until = now + _TELLING
        elif not emptied.is_telling() or now > self._busy_until:
            self._end()
            return
        if now > self._until and not any(map(_is_unsent, self._ending)):
            self._end()
        else:
            self._home.later(_STEP, self._step)

    def _close(self, ws: WebSocket) -> None:
        try:
            ws.close(*endings.RESTART)
        except Exception as error:
            self._emptied.report(error, ws)
            ws._transport.abort()  # it costs no other its close

    def _end(self) -> None:
        loop, signals = self._home.loop, self._emptied.signals
        for ws in self._home.of(self._emptied.leaving, self._came_to):
            ws._transport.abort()
        late = self._home.of(signals.owed, self._came_to)
        if not late or loop is None:
            self.over = True
            return

        def tell() -> None:
            try:
                for ws in late:  # a handler that goes on and on keeps theirs
                    signals.end(ws)
            finally:
                self.over = True

        loop.run_own(tell)


def _is_unsent(ws: WebSocket) -> bool:
    """Whether the loop had no turn yet to send what it could to a peer."""
    transport = ws._transport
    return transport.queued > 0 and transport.standing() is None


class Closing:
    """The end of the connections of a process, which ``transports.ending`` asks for."""

    def __init__(self, emptied: Emptied) -> None:
        self._emptied = emptied
        self._drain: Drain | None = None
        self.server: Serving | None = None
        """Known from the first connection on."""
        self.under_way: set[object] = set()
        """Openings that have not ended, and the blocking views that came of them."""

    def is_stopping(self) -> bool:
        """Whether the process is to end, so that nobody should come any more."""
        if self._drain is not None and not self._drain.over:
            return True
        return has_begun() or self.is_told()

    def is_told(self) -> bool:
        """Whether the server ends this process, and has us see for ourselves."""
        return self.server is not None and self.server.is_stopping()

    def drain(
        self, seconds: float | None = None, *, came_to: Loop | None = None
    ) -> Drain | None:
        """Begin to close all connections; return what does, None: nobody ever came.

        It is begun once. ``seconds`` and ``came_to``: see ``Drain``; ``WSCHAT_DRAIN``
        unless given, or less where the server ends this process before.
        """
        emptied, drain = self._emptied, self._drain
        home = emptied.home
        if home.loop is None or home.pid != os.getpid() or not home.loop.is_alive():
            return None
        if seconds is None:
            grace = math.inf if self.server is None else self.server.grace
            seconds = min(emptied.settings.DRAIN, grace)
        if came_to is not None:
            drain = Drain(emptied, seconds, came_to)
        elif drain is None or (drain.over and emptied.count()):
            drain = self._drain = Drain(emptied, seconds)
        else:
            return drain
        drain.begin()
        return drain

    def shutdown(
        self, seconds: float | None = None, *, came_to: Loop | None = None
    ) -> None:
        """``drain``, and wait until that is over."""
        if (drain := self.drain(seconds, came_to=came_to)) is not None:
            drain.wait()

    def hurry(self) -> None:
        """Let a drain that is under way end at once."""
        if self._drain is not None:
            self._drain.hurry()

    def stop(self) -> None:
        """Let go of all else."""
        self._emptied.stop()

    def run_beside(self, task: Callable[[], Any]) -> bool:
        """Run ``task`` beside the caller, if that is in the loop; False: it is not."""
        home = self._emptied.home
        loop = home.loop
        if loop is None or home.pid != os.getpid() or not loop.is_current():
            return False
        loop.run(task)
        return True
