"""What the dashboards of an application show: asked once for all who watch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..hub.hub import Hub
from ..transports import Loop
from .here import merged
from .reports import Answer, Reports, Watch

COLUMNS = (
    *("worker", "uptime", "connections", "queued_bytes", "messages_in"),
    *("messages_out", "deliveries", "slow_closes", "refused", "errors"),
    *("backend_latency", "loop_lag", "backend_up"),
)
"""What is told of each process, in this order: of ``chat.stats()``."""
MOST = 50
"""Rooms, users or connections that are named at once."""

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
        self._processes = 0  # that answered last

    def add(self, loop: Loop, tell: Tell) -> None:
        """Tell of the figures from now on; in ``loop``, that of the connections."""
        self._watchers.add(tell)
        if self._watch is None:
            watch = self._watch = self._reports.watch()
            loop.run_own(lambda: self._run(loop, watch))

    def discard(self, tell: Tell) -> None:
        """Tell this one no more; in the loop."""
        self._watchers.discard(tell)
        if not self._watchers and self._watch is not None:
            self._watch.stop()
            self._watch = None

    def _run(self, loop: Loop, watch: Watch) -> None:
        try:
            for found in watch:
                self._processes = len(found)
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

    def find(self, what: str, part: str) -> dict[str, Any]:
        """Return rooms, or users, with ``part`` in their names, the biggest first.

        :raises BackendError: others cannot be asked.
        """
        rows, total = merged(self._ask(what, part=part, limit=MOST), MOST)
        return {"found": rows, "total": total}

    def connections(self, user: str) -> list[dict[str, Any]]:
        """Return the connections of ``user``.

        :raises BackendError: others cannot be asked.
        """
        found = [each for some in self._ask("connections", user=user) for each in some]
        return found[:MOST]

    def close(self, id: str, code: int, reason: str) -> int:
        """Close the connection of this ``id``; return how many there were.

        :raises BackendError: it is not known whether it was closed.
        """
        return sum(self._ask("kick", any, id=id, code=code, reason=reason))

    def _ask(
        self,
        question: str,
        enough: Callable[[Sequence[Any]], bool] | None = None,
        **fields: Any,
    ) -> list[Any]:
        """Return what all processes answer, or those until it is ``enough``."""

        def suffices(answers: list[Answer]) -> bool:
            if enough is not None and enough([answer.value for answer in answers]):
                return True
            return 0 < self._processes <= len(answers)

        answers = self._reports.ask(question, enough=suffices, **fields)
        return [answer.value for answer in answers if answer.error is None]


def _flat(stats: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one process without what a page has no use for."""
    refused = stats.get("refused") or {}
    numbers = {key: _rounded(value) for key, value in stats.items()}
    return {**numbers, "refused": sum(refused.values())}


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value
