"""What no process needs any more: rows that newer ones or time have pushed out."""

from __future__ import annotations

import sqlite3
import time

from . import growing, made
from .log import newest

_MIDS = 4  # remembered for so many times as many messages as are kept, and longer
REMEMBERED = 300.0
"""Seconds for which the ``mid`` of a message is remembered at least."""
_MOST_MIDS = 1 << 16  # of a topic, however many were said in that time
_CHUNK = 1000  # rows that one transaction deletes, as others wait for it


class Leftovers:
    """Deletes them, some at a time: see ``Topics`` for what the numbers are."""

    def __init__(self, size: int, ttl: float, empty_ttl: float, linger: float) -> None:
        self._size = size
        self._ttl = ttl
        self._empty_ttl = empty_ttl
        self._linger = linger
        # Topics that have rows too many, and when these have been there for all to see.
        self._grown: dict[str, float] = {}
        # Those of which more messages have a mid than have to, in the same manner.
        self._repeated: dict[str, float] = {}
        self._aged = 0.0

    def note(self, topic: str, seq: int, now: float) -> None:
        """Note that the message ``seq`` of ``topic`` may have pushed others out."""
        if topic not in self._grown:
            self._grown[topic] = now + self._linger
        if seq > _MIDS * self._size and topic not in self._repeated:
            self._repeated[topic] = now + REMEMBERED / 4

    def tidy(self, db: sqlite3.Connection) -> bool:
        """Delete what no process needs any more; True: there is more of it."""
        now = time.time()
        last = newest(db)
        deleted = db.execute(
            "DELETE FROM log WHERE id IN (SELECT id FROM log WHERE seq = 0 AND at < ?"
            " AND id < ? LIMIT ?)",
            (now - self._linger, last, _CHUNK),
        ).rowcount
        until = now - max(self._ttl, self._linger)
        aged = db.execute(
            "SELECT id, at FROM log WHERE id < ? ORDER BY id LIMIT 1", (last,)
        ).fetchone()
        if aged is not None and aged[1] < until:
            deleted += db.execute(
                "DELETE FROM log WHERE id < ? AND id < ? AND at < ?",
                (aged[0] + _CHUNK, last, until),
            ).rowcount
        deleted += self._trim(db, now, last)
        self.forget_mids(db, now)
        self._drop_idle(db, now)
        self._drop_empty(db, now)
        growing.tidy(db)
        deleted += made.tidy(db)
        return deleted >= _CHUNK

    def _trim(self, db: sqlite3.Connection, now: float, last: int) -> int:
        """Delete what its topic's newer messages have pushed out."""
        deleted = 0
        for topic, due in list(self._grown.items()):
            if due > now or deleted >= _CHUNK:
                break  # they are in the order of time
            row = db.execute(
                "SELECT seq, first FROM topics WHERE name = ?", (topic,)
            ).fetchone()
            top, first = row or (0, 0)
            gone = max(top - self._size, first - 1)
            deleted += db.execute(
                "DELETE FROM log WHERE topic = ? AND seq > 0 AND seq <= ? AND at < ?"
                " AND id < ?",
                (topic, gone, now - self._linger, last),
            ).rowcount
            db.execute(
                "DELETE FROM told WHERE topic = ? AND last <= ?",
                (topic, top - self._size),
            )
            del self._grown[topic]
            left = db.execute(
                "SELECT 1 FROM log WHERE topic = ? AND seq > 0 AND seq <= ? LIMIT 1",
                (topic, gone),
            ).fetchone()
            if left:
                self._grown[topic] = now + self._linger
        return deleted

    def forget_mids(self, db: sqlite3.Connection, now: float) -> None:
        """Forget the ``mid`` of what was said long ago, as its topic counts."""
        for topic, due in list(self._repeated.items()):
            if due > now:
                break
            del self._repeated[topic]
            known = db.execute(
                "SELECT seq, at FROM topics WHERE name = ?", (topic,)
            ).fetchone()
            if known is None:
                continue
            seq, at = known
            few = _MIDS * self._size
            db.execute(
                "DELETE FROM mids WHERE topic = ?"
                " AND (seq <= ? AND at < ? OR seq <= ?)",
                (
                    *(topic, seq - few, now - REMEMBERED),
                    seq - max(few, _MOST_MIDS),
                ),
            )
            if at >= now - REMEMBERED:
                self._repeated[topic] = now + REMEMBERED / 4

    def _drop_idle(self, db: sqlite3.Connection, now: float) -> None:
        """Forget topics that have been neither written to nor asked about."""
        if now - self._aged < min(self._ttl / 8, 600):
            return
        # A quarter more than the time, as `history` notes only some of the questions.
        until = now - max(self._ttl * 1.25, self._linger)
        idle = db.execute(
            "SELECT name FROM topics WHERE at < ? LIMIT ?", (until, _CHUNK)
        ).fetchall()
        if len(idle) < _CHUNK:
            self._aged = now
        for table, column in (("mids", "topic"), ("told", "topic"), ("topics", "name")):
            delete = f"DELETE FROM {table} WHERE {column} = ?"  # nosec B608  # ours
            db.executemany(delete, idle)

    def _drop_empty(self, db: sqlite3.Connection, now: float) -> None:
        """Forget topics that were asked about or claimed, and in which nothing is."""
        until = now - max(self._empty_ttl * 1.25, self._linger)
        db.execute(
            "DELETE FROM topics WHERE name IN"
            " (SELECT name FROM topics WHERE seq = 0 AND at < ? LIMIT ?)",
            (until, _CHUNK),
        )
