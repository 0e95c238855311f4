"""Polls made at run time, in SQLite: steps as in ``topics``."""

from __future__ import annotations

import sqlite3
import time

from ...errors import TooManyPolls, UnknownPoll
from ...messages import MadePoll
from ..contract import MOST_POLLS
from . import system

# One that is over has no name any more, and its row goes once its votes are gone, some
# at a time. `up` is when it was made by a clock that nobody sets and that goes on while
# the host is asleep, but begins anew when the host does: only from one `boot` to the
# next the time of day counts.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS made (
    number INTEGER PRIMARY KEY, name TEXT UNIQUE, id TEXT NOT NULL, text TEXT NOT NULL,
    at REAL NOT NULL, seconds REAL NOT NULL, boot TEXT NOT NULL, up REAL NOT NULL
)
"""
_LIVES = "CASE WHEN boot = ? AND up <= ? THEN ? - up ELSE ? - at END < seconds"
_CHUNK = 1000  # rows that one transaction deletes, as others wait for it


def create(db: sqlite3.Connection) -> None:
    """Make the table where there is none."""
    db.execute(_SCHEMA)


def make(
    db: sqlite3.Connection, poll: str, id: str, text: str, seconds: float
) -> MadePoll:
    """Store it, unless there is one of this name; return the one there is."""
    _end(db)
    known = find(db, poll)
    if known is not None:
        return known
    (count,) = db.execute("SELECT count(name) FROM made").fetchone()
    if count >= MOST_POLLS:
        raise TooManyPolls(poll, MOST_POLLS)
    made = MadePoll(poll, id, text, time.time())
    db.execute(
        "INSERT INTO made (name, id, text, at, seconds, boot, up)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*made, seconds, system.boot(), system.uptime()),
    )
    # As of one made later the versions are to be higher, however many this one has.
    first = int(made.at * 1e6)
    db.execute("INSERT OR REPLACE INTO polls VALUES (?, ?, 0)", (_key(id), first))
    return made


def find(db: sqlite3.Connection, poll: str) -> MadePoll | None:
    """Return the stored one of this name."""
    row = db.execute(
        f"SELECT name, id, text, at FROM made WHERE name = ? AND {_LIVES}",  # nosec B608
        (poll, *_now()),
    ).fetchone()
    return None if row is None else MadePoll(*row)


def find_all(db: sqlite3.Connection) -> list[MadePoll]:
    """Return all that are stored, the newest first."""
    rows = db.execute(
        "SELECT name, id, text, at FROM made"
        f" WHERE name IS NOT NULL AND {_LIVES} ORDER BY number DESC",  # nosec B608
        _now(),
    )
    return [MadePoll(*row) for row in rows]


def delete(db: sqlite3.Connection, poll: str, id: str) -> bool:
    """Forget it; False: it was not there."""
    there = find(db, poll)
    if there is None or there.id != id:
        return False
    db.execute("UPDATE made SET name = NULL WHERE name = ?", (poll,))
    return True


def key(db: sqlite3.Connection, poll: str, id: str) -> str:
    """Return under which name its votes are; ``id`` "": of one made in code.

    :raises UnknownPoll: it is not there any more.
    """
    if not id:
        return poll
    there = find(db, poll)
    if there is None or there.id != id:
        raise UnknownPoll(poll)
    return _key(id)


def tidy(db: sqlite3.Connection) -> int:
    """Delete votes of those that are over; return how many rows."""
    _end(db)
    row = db.execute("SELECT number, id FROM made WHERE name IS NULL").fetchone()
    if row is None:
        return 0
    number, key = row[0], _key(row[1])
    deleted = db.execute(
        "DELETE FROM votes WHERE poll = ? AND voter IN"
        " (SELECT voter FROM votes WHERE poll = ? LIMIT ?)",
        (key, key, _CHUNK),
    ).rowcount
    if deleted < _CHUNK:
        db.execute("DELETE FROM counts WHERE poll = ?", (key,))
        db.execute("DELETE FROM polls WHERE name = ?", (key,))
        db.execute("DELETE FROM made WHERE number = ?", (number,))
    return deleted


def _end(db: sqlite3.Connection) -> None:
    db.execute(
        f"UPDATE made SET name = NULL WHERE name IS NOT NULL AND NOT {_LIVES}",  # nosec B608
        _now(),
    )


def _now() -> tuple[str, float, float, float]:
    up = system.uptime()
    return system.boot(), up, up, time.time()


def _key(id: str) -> str:
    return "\0" + id  # which no name in code begins with
