"""What may happen once, in SQLite: steps as in ``topics``."""

from __future__ import annotations

import sqlite3
import time


def create(db: sqlite3.Connection) -> None:
    """Make the table where there is none: a file of an older version has all others."""
    db.execute(
        "CREATE TABLE IF NOT EXISTS once (name TEXT PRIMARY KEY, until REAL NOT NULL)"
        " WITHOUT ROWID"
    )
    db.execute("CREATE INDEX IF NOT EXISTS once_until ON once (until)")


def ask(db: sqlite3.Connection, key: str, seconds: float) -> bool:
    """Return whether ``key`` was not there, and note it; forget what is too old."""
    now = time.time()
    db.execute("DELETE FROM once WHERE until < ?", (now,))
    cursor = db.execute(
        "INSERT OR IGNORE INTO once VALUES (?, ?)", (key, now + seconds)
    )
    return cursor.rowcount == 1


def taken(db: sqlite3.Connection, key: str) -> bool:
    """Return whether ``key`` is there."""
    row = db.execute(
        "SELECT 1 FROM once WHERE name = ? AND until >= ?", (key, time.time())
    ).fetchone()
    return row is not None
