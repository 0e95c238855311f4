"""Which numbers of a topic's history a question is about; knows of no storage."""

from __future__ import annotations

from collections.abc import Iterable

from ..messages import Entry, size_of


def select(
    first: int,
    newest: int,
    *,
    after: int | None,
    before: int | None,
    limit: int,
    known: bool | None,
) -> tuple[range, bool]:
    """Return the numbers of a page, and whether it recovers who asks.

    Kept are ``first`` … ``newest``, without a hole; none is if ``first`` is over
    ``newest``. ``known``: whether the asker's epoch is the topic's; None: it named
    none, and does not resume.
    """
    limit, recovered = max(limit, 0), False
    if after is not None and known is not None:
        after = max(after, 0)
        recovered = known and first - 1 <= after <= newest
        if not recovered:
            after = before = None
    if after is not None:
        start = max(min(after, newest) + 1, first)
        stop = min(start + limit, newest + 1)
    else:
        stop = newest + 1 if before is None else min(before, newest + 1)
        start = max(stop - limit, first)
    return range(start, max(stop, start)), recovered


def fitting(entries: list[Entry], most: int, *, first_ones: bool) -> list[Entry]:
    """Return those of ``entries``, at least one, that have ``most`` bytes of data.

    They are the first ones, or else the last.
    """
    count, size = 0, 0
    for entry in entries if first_ones else reversed(entries):
        size += size_of(entry.data)
        if count and size > most:
            break
        count += 1
    return entries[:count] if first_ones else entries[len(entries) - count :]


class Seen:
    """The newest number of each subscribed topic that came here from the storage.

    A storage that knows of lower ones in the same epoch has lost messages. From any
    thread. (What a client says it has seen is no such proof.)
    """

    def __init__(self) -> None:
        self._newest: dict[str, tuple[str, int, str]] = {}

    def note(self, topic: str, epoch: str, seq: int, tag: str = "") -> None:
        known = self._newest.get(topic)
        if known is None or known[1] < seq or known[0] != epoch:
            self._newest[topic] = (epoch, seq, tag)

    def get(self, topic: str) -> tuple[str, int]:
        """Return epoch and number, ``("", 0)`` if none came."""
        return self.position(topic)[:2]

    def position(self, topic: str) -> tuple[str, int, str]:
        """Return epoch, number and tag, ``("", 0, "")`` if none came."""
        return self._newest.get(topic, ("", 0, ""))

    def forget(self, topics: Iterable[str]) -> None:
        """These are subscribed no more."""
        for topic in topics:
            self._newest.pop(topic, None)
