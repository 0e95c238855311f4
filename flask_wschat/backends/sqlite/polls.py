"""Who voted for what, in SQLite: steps as in ``topics``.

One row for each voter, and the counts beside them, as a poll may be large.
"""

from __future__ import annotations

import sqlite3
import time

from ...messages import Tally


def vote(db: sqlite3.Connection, poll: str, voter: str, choice: str) -> Tally | None:
    version, closed = _state(db, poll)
    if closed:
        return None
    earlier = _choice(db, poll, voter)
    if earlier != choice:
        db.execute(
            "INSERT OR REPLACE INTO votes VALUES (?, ?, ?)", (poll, voter, choice)
        )
        _count(db, poll, choice, 1)
        if earlier is not None:
            _count(db, poll, earlier, -1)
        _change(db, poll, version, closed)
    return tally(db, poll, voter)


def tally(db: sqlite3.Connection, poll: str, voter: str | None) -> Tally:
    version, closed = _state(db, poll)
    counts = db.execute(
        "SELECT choice, votes FROM counts WHERE poll = ? AND votes > 0", (poll,)
    )
    mine = None if voter is None else _choice(db, poll, voter)
    return Tally(dict(counts), version, closed, mine)


def close(db: sqlite3.Connection, poll: str, closed: bool) -> Tally:
    version, before = _state(db, poll)
    if before != closed:
        _change(db, poll, version, closed)
    return tally(db, poll, None)


def _state(db: sqlite3.Connection, poll: str) -> tuple[int, bool]:
    row = db.execute(
        "SELECT version, closed FROM polls WHERE name = ?", (poll,)
    ).fetchone()
    return (row[0], bool(row[1])) if row else (0, False)


def _change(db: sqlite3.Connection, poll: str, before: int, closed: bool) -> None:
    # The first one is the time: where the file was lost, those who knew the old
    # ones take the new ones for newer.
    version = before + 1 if before else int(time.time() * 1000)
    db.execute("INSERT OR REPLACE INTO polls VALUES (?, ?, ?)", (poll, version, closed))


def _choice(db: sqlite3.Connection, poll: str, voter: str) -> str | None:
    row: tuple[str] | None = db.execute(
        "SELECT choice FROM votes WHERE poll = ? AND voter = ?", (poll, voter)
    ).fetchone()
    return row[0] if row else None


def _count(db: sqlite3.Connection, poll: str, choice: str, by: int) -> None:
    db.execute("INSERT OR IGNORE INTO counts VALUES (?, ?, 0)", (poll, choice))
    db.execute(
        "UPDATE counts SET votes = votes + ? WHERE poll = ? AND choice = ?",
        (by, poll, choice),
    )
