"""Which numbers of a topic's history a question is about; knows of no storage."""

from __future__ import annotations


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
    recovered = False
    if after is not None and known is not None:
        after = max(after, 0)
        recovered = known and first - 1 <= after <= newest
        if not recovered:
            after = before = None
    if after is not None:
        start = max(after + 1, first)
        stop = min(start + limit, newest + 1)
    else:
        stop = newest + 1 if before is None else min(before, newest + 1)
        start = max(stop - limit, first)
    return range(start, max(stop, start)), recovered
