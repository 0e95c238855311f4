"""What the dashboards of an application show: asked once for all who watch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ..hub.hub import Hub
from ..transports import Loop
from .reports import Reports, Watch

COLUMNS = (
    *("id", "worker", "uptime", "connections", "queued_bytes", "messages_in"),
    *("messages_out", "deliveries", "slow_closes", "refused", "errors"),
    *("backend_latency", "loop_lag", "backend_up"),
)
"""What is told of each process, in this order: of ``chat.stats()``."""
MOST = 50
"""Rooms, users or connections of a user that are named."""

Tell = Callable[[list[list[Any]], str | None], None]
"""Is told the figures of each process, or why there are none; must not wait."""


class Source:
    """The figures of all processes, asked for while somebody watches; and who is there.

    ``watchers`` change in the loop of their connections.
    """

    def __init__(self, hub: Hub, reports: Reports) -> None:
        self._hub = hub
        self._reports = reports
        self._watchers: set[Tell] = set()
        self._watch: Watch | None = None
        self._loop: Loop | None = None  # that of the connections, which may be another

    def add(self, loop: Loop, tell: Tell) -> None:
        """Tell of the figures from now on; in ``loop``, that of the connections."""
        if self._loop is not loop:
            self._stop()
            self._watchers.clear()
            self._loop = loop
        self._watchers.add(tell)
        if self._watch is None:
            watch = self._watch = self._reports.watch()
            loop.run_own(lambda: self._run(loop, watch))

    def discard(self, tell: Tell) -> None:
        """Tell this one no more; in the loop."""
        self._watchers.discard(tell)
        if not self._watchers:
            self._stop()

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def _run(self, loop: Loop, watch: Watch) -> None:
        try:
            for found in watch:
                rows = [list(map(each.get, COLUMNS)) for each in map(_flat, found)]
                loop.call_threadsafe(self._tell, watch, rows)
        finally:
            loop.call_threadsafe(self._ended, watch)

    def _tell(self, watch: Watch, rows: list[list[Any]]) -> None:
        if watch is self._watch:
            for tell in list(self._watchers):
                tell(rows, watch.fault)

    def _ended(self, watch: Watch) -> None:
        if watch is self._watch:  # by an error, which is in the log
            self._watch = None
            self._watchers.clear()

    # -- who is there

    def find(self, what: Literal["rooms", "users"], part: str) -> dict[str, Any]:
        """Return rooms, or users, with ``part`` in their names, the biggest first.

        :raises BackendError: others cannot be asked.
        """
        reports = self._reports
        find = reports.rooms if what == "rooms" else reports.users
        rows, total = find(part=part, limit=MOST)
        return {"found": rows, "total": total}

    def connections(self, user: str) -> list[dict[str, Any]]:
        """Return the connections of ``user``, the oldest first.

        :raises BackendError: others cannot be asked.
        """
        return self._reports.connections(user)[:MOST]

    def close(self, id: str, code: int, reason: str) -> int:
        """Close the connection of this ``id``; return how many there were.

        :raises BackendError: it is not known whether it was closed.
        """
        return int(self._reports.kick(id, code, reason))


def _flat(stats: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one process without what a page has no use for."""
    known = {**stats, "refused": sum(stats["refused"].values())}
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in known.items()}
