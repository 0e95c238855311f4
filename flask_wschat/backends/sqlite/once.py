"""What may happen once, or be had by one, in SQLite: steps as in ``topics``."""

from __future__ import annotations

import sqlite3
import time


def create(db: sqlite3.Connection) -> None:
    """Make the tables where there are none: a file of an older version has others."""
    db.execute(
        "CREATE TABLE IF NOT EXISTS once (name TEXT PRIMARY KEY, until REAL NOT NULL)"
        " WITHOUT ROWID"
    )
    db.execute("CREATE INDEX IF NOT EXISTS once_until ON once (until)")
    db.execute(
        "CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY,"
        " holder TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID"
    )


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


def lease(db: sqlite3.Connection, key: str, holder: str, seconds: float) -> bool:
    """Return whether ``holder`` has ``key`` now; forget what is over."""
    now = time.time()
    db.execute("DELETE FROM leases WHERE until < ?", (now,))
    cursor = db.execute(
        "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
        " SET until = excluded.until WHERE holder = excluded.holder",
        (key, holder, now + seconds),
    )
    return cursor.rowcount == 1


def release(db: sqlite3.Connection, key: str, holder: str) -> None:
    """Forget that ``holder`` has ``key``."""
    db.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (key, holder))
