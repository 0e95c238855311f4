"""``Backlog``: what waits for all peers together, kept under ``WSCHAT_MAX_QUEUED``.

See docs/decisions/38.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Protocol

from .. import endings
from ..logs import SparingLog
from ..signals import Signals
from ..transports import Loop
from ..transports.accelerated import Allowance
from ..websocket import WebSocket
from .figures import Figures

_STEP = 16
"""Into so many parts the limit is divided."""
_FULL = 14  # parts: the others are for what comes until the next look, and from threads
_ENOUGH = 12  # parts that may be held after somebody had to go


class Waiting(Protocol):
    """For whom it waits."""

    log: SparingLog
    signals: Signals

    def everyone(self) -> Iterator[WebSocket]: ...

    @property
    def leaving(self) -> Collection[WebSocket]:
        """Those that ended, whose transports have not."""


class Backlog:
    """Has the slowest go where all queues together hold too much; used in the loop.

    ``limit``: bytes of memory, as ``Transport.held`` tells: of frames, their places in
    queues and what is partly sent, each counted once however many queues have it.
    """

    def __init__(self, limit: int, waiting: Waiting, figures: Figures) -> None:
        self._limit = limit
        self._waiting = waiting
        self._figures = figures
        self.posted_limit = limit // _STEP
        self.allowance = Allowance(limit - self.posted_limit, figures.counts)
        """What may be queued until it is time to look."""
        self.posted = 0
        """Bytes that threads have under way into the loop, under its ``lock``."""
        self._at_it = False

    def clear(self) -> None:
        """Forget everything: this is another process now."""
        self.allowance.left = self._limit - self.posted_limit
        self.posted, self._at_it = 0, False

    def queued(self) -> int:
        """Return the bytes that wait for all peers, each queue's for itself; from any
        thread."""
        return sum(ws._transport.queued for ws in self._all())

    def stalled(self, loop: Loop) -> list[int]:
        """Return the bytes that wait for each peer who takes less than there is.

        Nobody else is looked at: few of many thousands are such.
        """
        ours = [each for each in loop.stalled if each.allowance is self.allowance]
        return [each.size for each in ours]

    def held(self) -> int:
        """Return the bytes of memory that all these queues hold."""
        return sum(size for _, size in self._held())

    def look(self) -> None:
        """If it is time, see what all queues hold; if too much, have the slowest go."""
        if self.allowance.left >= 0 or self._at_it:
            return
        self._at_it = True
        try:
            self._relieve()
        finally:
            self._at_it = False

    def _all(self) -> list[WebSocket]:
        return [*self._waiting.everyone(), *self._waiting.leaving]

    def _held(self) -> list[tuple[WebSocket, int]]:
        found = [ws for ws in self._all() if ws._transport.queued]
        if not found:
            return []
        transports = [ws._transport for ws in found]
        return list(zip(found, transports[0].held(transports), strict=True))

    def _relieve(self) -> None:
        before, gone = self._figures["slow_closes"], 0
        full, enough = (self._limit * part // _STEP for part in (_FULL, _ENOUGH))
        held = self._held()
        total = first = sum(size for _, size in held)
        if total > full:
            for ws, _ in held:  # who reads is not slow only as it had no turn yet
                ws._transport.send_now()
            held = self._held()
            total = first = sum(size for _, size in held)
        while total > full and held:
            gone += self._let_go(held, total - enough)
            held = self._held()
            total = sum(size for _, size in held)
        self.allowance.left = max(self._limit - total - self.posted_limit, 0)
        if gone:
            self._waiting.log.warning(
                "queued",
                "%d connections are too slow, %d of them closed with 1013: %d bytes"
                " of memory waited for all (see WSCHAT_MAX_QUEUED)",
                gone,
                self._figures["slow_closes"] - before,
                first,
            )

    def _let_go(self, held: list[tuple[WebSocket, int]], wanted: int) -> int:
        """End the slowest, until that gives ``wanted`` bytes; return how many."""
        gone = 0
        for ws, size in sorted(held, key=_slowness, reverse=True):
            if wanted <= 0:
                break
            wanted -= size
            gone += 1
            if ws.closed:
                ws._transport.abort()
            else:
                self._figures.add("slow_closes")
                self._waiting.signals.slow(ws, "too much waits for all")
                ws._transport.discard()
                ws._close(*endings.TOO_MUCH_WAITS)
                if not ws.closed:
                    ws._transport.abort()
        return gone


def _slowness(entry: tuple[WebSocket, int]) -> tuple[Any, ...]:
    """Those that ended, then those that took nothing since the last ping, then by what
    they hold.
    """
    ws, size = entry
    stands = ws._standing is not None and ws._standing == ws._transport.standing()
    return ws.closed, stands, size
