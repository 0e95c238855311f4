"""Messages that grow, in SQLite: steps as in ``topics``. See ``Backend.publish``."""

from __future__ import annotations

import sqlite3

from ...errors import StreamGone, StreamStopped, TooManyStreams
from ...messages import APPEND, DISCARD, STOP, STREAM, Grown, Growth, Message
from ..contract import MOST_STREAMS
from ..growths import ALIVE, CLOSE, GONE, LACKS, OTHER, OVERDUE, STOPPED, TOO_MANY
from . import system

# Pieces are rows of their own: to write a text anew for each would cost the more the
# longer it is. `heard` is when its writer was, by a clock that nobody sets and that
# goes on while the host is asleep; what is ahead of it is from before the host started.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS growths (
    topic TEXT NOT NULL, id TEXT NOT NULL, sender TEXT, at REAL NOT NULL,
    n INTEGER NOT NULL, asker TEXT, ttl REAL NOT NULL, heard REAL NOT NULL,
    stopped INTEGER NOT NULL, PRIMARY KEY (topic, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pieces (
    topic TEXT NOT NULL, id TEXT NOT NULL, n INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (topic, id, n)
) WITHOUT ROWID;
"""
_ALIVE = "? - heard BETWEEN 0 AND ttl"


def create(db: sqlite3.Connection) -> None:
    """Make the tables where there are none."""
    for statement in _SCHEMA.split(";\n"):
        db.execute(statement)


def of(db: sqlite3.Connection, topic: str) -> tuple[Grown, ...]:
    """Return those of ``topic`` whose writers are alive."""
    rows = db.execute(
        "SELECT id, sender, at, n, asker FROM growths"
        f" WHERE topic = ? AND {_ALIVE} ORDER BY at",  # nosec B608  # ours
        (topic, system.uptime()),
    ).fetchall()
    return tuple(
        Grown(id, sender, at, n, _text(db, topic, id), asker)
        for id, sender, at, n, asker in rows
    )


def step(
    db: sqlite3.Connection, topic: str, message: Message, growth: Growth, at: float
) -> bool:
    """Do what the event of ``message`` says; return whether to deliver it.

    :raises StreamError: as ``publish``.
    """
    event, now = message.event, system.uptime()
    if event == STREAM:
        return _open(db, topic, message, growth, at, now)
    row = db.execute(
        "SELECT n, ttl, heard, stopped, at FROM growths WHERE topic = ? AND id = ?",
        (topic, growth.id),
    ).fetchone()
    if row is None:
        raise StreamGone(GONE)
    n, ttl, heard, stopped, began = row
    if growth.began and abs(growth.began - began) >= CLOSE:
        raise StreamGone(OTHER)
    if event == APPEND:
        return _append(db, topic, message, growth, n, stopped, now)
    if event == STOP:
        db.execute(
            "UPDATE growths SET stopped = 1 WHERE topic = ? AND id = ?",
            (topic, growth.id),
        )
        return False
    assert event == DISCARD, event
    if growth.ttl and 0 <= now - heard <= ttl:
        raise StreamGone(ALIVE)
    end(db, topic, growth.id)
    return True


def end(db: sqlite3.Connection, topic: str, id: str) -> None:
    """It grows no more, if it did."""
    db.execute("DELETE FROM growths WHERE topic = ? AND id = ?", (topic, id))
    db.execute("DELETE FROM pieces WHERE topic = ? AND id = ?", (topic, id))


def tidy(db: sqlite3.Connection) -> None:
    """Forget those about which nobody has asked."""
    overdue = db.execute(
        "SELECT topic, id FROM growths WHERE NOT ? - heard BETWEEN 0 AND ttl * ?",
        (system.uptime(), OVERDUE),
    )
    for topic, id in overdue.fetchall():
        end(db, topic, id)


def _open(
    db: sqlite3.Connection,
    topic: str,
    message: Message,
    growth: Growth,
    at: float,
    now: float,
) -> bool:
    there = db.execute(
        "SELECT 1 FROM growths WHERE topic = ? AND id = ?", (topic, growth.id)
    ).fetchone()
    if there:
        return False
    tidy(db)
    (count,) = db.execute(
        f"SELECT count(*) FROM growths WHERE topic = ? AND {_ALIVE}",  # nosec B608
        (topic, now),
    ).fetchone()
    if count >= MOST_STREAMS:
        raise TooManyStreams(TOO_MANY)
    db.execute(
        "INSERT INTO growths VALUES (?, ?, ?, ?, 0, ?, ?, ?, 0)",
        (topic, growth.id, message.sender, at, growth.asker, growth.ttl, now),
    )
    return True


def _append(
    db: sqlite3.Connection,
    topic: str,
    message: Message,
    growth: Growth,
    n: int,
    stopped: int,
    now: float,
) -> bool:
    if stopped:
        raise StreamStopped(STOPPED)
    if growth.n > n + 1:
        raise StreamGone(LACKS)
    is_next = growth.n == n + 1
    db.execute(
        "UPDATE growths SET n = ?, heard = ? WHERE topic = ? AND id = ?",
        (n + is_next, now, topic, growth.id),
    )
    if is_next:
        row = (topic, growth.id, growth.n, message.data)
        db.execute("INSERT INTO pieces VALUES (?, ?, ?, ?)", row)
    return is_next


def _text(db: sqlite3.Connection, topic: str, id: str) -> str:
    pieces = db.execute(
        "SELECT text FROM pieces WHERE topic = ? AND id = ? ORDER BY n", (topic, id)
    )
    return "".join(text for (text,) in pieces)
