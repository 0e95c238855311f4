"""``Sweep``: the one timer of a process. See docs/decisions/09."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from ..errors import ConnectionClosed
from ..settings import Settings
from ..transports import Loop
from ..websocket import WebSocket
from .backlog import Backlog
from .drain import Closing
from .figures import Figures
from .home import Home


class Swept(Protocol):
    """What is looked after."""

    settings: Settings
    backlog: Backlog
    closing: Closing
    figures: Figures

    def everyone(self) -> Iterator[WebSocket]: ...
    def report(self, error: BaseException, ws: WebSocket | None = None) -> None: ...

    def tick(self, loop: Loop, now: float, watched: bool) -> bool:
        """Look after all else; True: there is more to do, even if nobody is here."""


class Sweep:
    """Looks after each connection whose time has come, for as long as there are any."""

    def __init__(self, home: Home, swept: Swept) -> None:
        self._home = home
        self._swept = swept
        self._planned: object = None  # the stay in which there will be another one
        # Four looks in the shorter of the two times keep both to within a quarter.
        settings = swept.settings
        shortest = min(settings.PING_INTERVAL, settings.PING_TIMEOUT)
        self._every = min(1.0, shortest / 4)

    def begin(self) -> None:
        """Go on with it, if it has ended; in the loop."""
        if self._planned is not self._home.stay:
            self._plan()

    def _plan(self) -> None:
        self._planned = self._home.stay
        self._swept.figures.plan(self._every)
        self._home.later(self._every, self._sweep)

    def _sweep(self) -> None:
        loop, now, swept = self._home.loop, time.monotonic(), self._swept
        if loop is None:
            return
        figures = swept.figures
        figures.swept()
        connections = list(swept.everyone())
        if swept.closing.is_told():
            swept.closing.drain()
        interval, timeout = swept.settings.PING_INTERVAL, swept.settings.PING_TIMEOUT
        for ws in connections:
            if ws._sweep_at <= now:
                try:
                    ws._sweep(now, interval, timeout)
                except ConnectionClosed:
                    pass  # another thread may just have begun to close it
                except Exception as error:
                    swept.report(error, ws)
                    ws._transport.abort()  # it costs nobody else their sweep
        queued = swept.backlog.stalled(loop)
        figures.queues(queued, len(connections))
        more = bool(connections)
        try:
            more = swept.tick(loop, now, more) or more
        except Exception as error:
            swept.report(error)
        if more:
            self._plan()
        else:
            self._planned = None
        figures.refresh(sum(queued))
