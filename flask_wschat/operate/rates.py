"""``Rates``: how many a second, from what processes have counted in all."""

from __future__ import annotations

from typing import Any

COUNTERS = ("messages_in", "messages_out", "deliveries", "opened")
"""Those of ``chat.stats()`` of which there is a rate."""

Counted = dict[str, Any]
Rated = dict[str, float | None]


class Rates:
    """Compares the figures of each process with its last ones, by its own clock."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Counted, Rated]] = {}

    def of(self, workers: list[Counted]) -> list[Rated]:
        """Return the rates of each of ``workers``, which are as ``Watch`` yields them.

        None: it is not known, as for a process that has begun. One that has not
        answered anew has the rates that it had.
        """
        known = {}
        for figures in workers:
            before, rates = self._known.get(figures["id"], ({}, {}))
            if figures["uptime"] != before.get("uptime"):
                rates = {name: _rate(before, figures, name) for name in COUNTERS}
            known[figures["id"]] = figures, rates
        self._known = known
        return [known[figures["id"]][1] for figures in workers]


def _rate(before: Counted, now: Counted, name: str) -> float | None:
    if not before:
        return None
    seconds, more = now["uptime"] - before["uptime"], now[name] - before[name]
    # Less than before: it is another process than it says, or its clock was set.
    return more / seconds if seconds > 0 and more >= 0 else None


def added(rates: list[Rated]) -> Rated:
    """Return the rates of all together, as far as they are known."""
    found: Rated = {}
    for name in COUNTERS:
        known = [each[name] for each in rates if each[name] is not None]
        found[name] = sum(filter(None, known)) if known else None
    return found
