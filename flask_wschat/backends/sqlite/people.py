"""Who is where, in SQLite: steps as in ``topics``."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable

from ...messages import Attendance, Message, News, room_of
from . import many, system

# `rosters` are the rooms with somebody in them, and how often that has changed; where
# one has nobody, it goes on after the `highest` of all, and needs no row. `beat` is a
# clock that goes only while processes are heard of: between two of them by `_STEP` of
# the ttl at most. So nobody dies of a time in which the file could not be written or
# the host was asleep, and a clock that is set, or begins anew, changes nothing.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS attendance (
    topic TEXT NOT NULL, user TEXT NOT NULL, process TEXT NOT NULL,
    connections INTEGER NOT NULL, PRIMARY KEY (topic, user, process)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attendance_process ON attendance (process);
CREATE TABLE IF NOT EXISTS processes (
    process TEXT PRIMARY KEY, until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rosters (
    topic TEXT PRIMARY KEY, version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS beats (
    one INTEGER PRIMARY KEY, last REAL NOT NULL, beat REAL NOT NULL,
    highest INTEGER NOT NULL
);
"""
_STEP = 0.4


def create(db: sqlite3.Connection) -> None:
    """Make the tables where there are none."""
    for statement in _SCHEMA.split(";\n"):
        db.execute(statement)
    db.execute(
        "INSERT OR IGNORE INTO beats VALUES (1, ?, 0, ?)",
        # In a file that took another one's place, no number of that comes again.
        (system.uptime(), round(time.time() * 1000)),
    )


class People:
    """Who is where, as this process and the others say.

    ``tell`` delivers a message in a topic, in the same transaction.
    """

    def __init__(
        self, ttl: float, tell: Callable[[sqlite3.Connection, str, Message], object]
    ) -> None:
        self._ttl = ttl
        self._tell = tell
        self._process = secrets.token_hex(8)
        self._noted = False  # this process has been in the table
        self.dead = False
        """It was taken out since; whoever tells the process resets this."""

    def attend(
        self, db: sqlite3.Connection, changes: Iterable[tuple[str, str, int]]
    ) -> None:
        self._note(db, _beat(db)[0])
        self._change(db, self._process, changes)

    def present(self, db: sqlite3.Connection, topic: str, heard: bool) -> Attendance:
        beat, last = _beat(db)
        beat += max(system.uptime() - last, 0)
        users: dict[str, int] = {}
        here: dict[str, int] = {}
        for user, process, count in db.execute(
            "SELECT user, process, connections FROM attendance LEFT JOIN processes"
            " USING (process) WHERE topic = ? AND (? OR until > ?)",
            (topic, not heard, beat),
        ):
            users[user] = users.get(user, 0) + count
            if process == self._process:
                here[user] = count
        return Attendance(_version(db, topic), users, here)

    def refresh(self, db: sqlite3.Connection) -> None:
        beat, last = _beat(db)
        now = system.uptime()
        beat += max(0.0, min(now - last, _STEP * self._ttl))
        db.execute("UPDATE beats SET last = ?, beat = ?", (now, beat))
        self._note(db, beat)
        db.execute(
            "UPDATE processes SET until = ? WHERE process = ?",
            (beat + self._ttl, self._process),
        )
        dead = db.execute("SELECT process FROM processes WHERE until <= ?", (beat,))
        for (process,) in dead.fetchall():
            self._bury(db, process)

    def leave(self, db: sqlite3.Connection) -> None:
        self._bury(db, self._process)

    # -- within

    def _note(self, db: sqlite3.Connection, beat: float) -> None:
        """See that this process is in the table."""
        row = (self._process, beat + self._ttl)
        new = db.execute("INSERT OR IGNORE INTO processes VALUES (?, ?)", row).rowcount
        self.dead = self.dead or bool(new and self._noted)
        self._noted = True

    def _bury(self, db: sqlite3.Connection, process: str) -> None:
        """Take out a process and its people."""
        people = db.execute(
            "SELECT topic, user, 0 FROM attendance WHERE process = ?", (process,)
        )
        self._change(db, process, people.fetchall())
        db.execute("DELETE FROM processes WHERE process = ?", (process,))

    def _change(
        self,
        db: sqlite3.Connection,
        process: str,
        changes: Iterable[tuple[str, str, int]],
    ) -> None:
        """Note counts, and tell who came and who went."""
        counts = {(topic, user): count for topic, user, count in changes}
        there: dict[tuple[str, str], set[str]] = {pair: set() for pair in counts}
        for topic, user, name in many.read(
            db,
            "SELECT topic, user, process FROM attendance"
            " WHERE (topic, user) IN (VALUES {})",
            list(counts),
        ):
            there[topic, user].add(name)
        entered = [(*pair, process, n) for pair, n in counts.items() if n > 0]
        many.write(db, "INSERT OR REPLACE INTO attendance VALUES {}", entered)
        left = [(*pair, process) for pair, n in counts.items() if n <= 0]
        many.write(
            db,
            "DELETE FROM attendance WHERE (topic, user, process) IN (VALUES {})",
            [row for row in left if process in there[row[:2]]],
        )
        news: dict[str, News] = {}
        for (topic, user), count in counts.items():
            was = there[topic, user]
            if bool(was) != (count > 0 or bool(was - {process})) and room_of(topic):
                told = news.setdefault(topic, News([], [], 0))
                (told.left if was else told.joined).append(user)
        counted = _count(db, list(news))
        for topic, told in news.items():
            version, first = counted[topic]
            told.version, told.first = version, first
            self._tell(db, topic, told.as_message())


def _beat(db: sqlite3.Connection) -> tuple[float, float]:
    """Return the beat, and when it was noted."""
    beat: tuple[float, float] = db.execute("SELECT beat, last FROM beats").fetchone()
    return beat


def _version(db: sqlite3.Connection, topic: str) -> int:
    """Return how often the people of ``topic`` have changed."""
    version: int = db.execute(
        "SELECT coalesce((SELECT version FROM rosters WHERE topic = ?), highest)"
        " FROM beats",
        (topic,),
    ).fetchone()[0]
    return version


def _count(db: sqlite3.Connection, topics: list[str]) -> dict[str, tuple[int, bool]]:
    """Count a change of the people of each of ``topics``; return their versions, and
    whether nobody was there before."""
    rows = [(topic,) for topic in topics]
    highest = db.execute("SELECT highest FROM beats").fetchone()[0]
    versions = dict.fromkeys(topics, highest)
    question = "SELECT topic, version FROM rosters WHERE topic IN (VALUES {})"
    known = dict(many.read(db, question, rows))
    versions.update(known)
    versions = {topic: version + 1 for topic, version in versions.items()}
    question = (
        "SELECT column1 FROM (VALUES {}) WHERE"
        " EXISTS (SELECT 1 FROM attendance WHERE topic = column1)"
    )
    peopled = {topic for (topic,) in many.read(db, question, rows)}
    counted = [(topic, versions[topic]) for topic in topics if topic in peopled]
    many.write(db, "INSERT OR REPLACE INTO rosters VALUES {}", counted)
    empty = [row for row in rows if row[0] not in peopled]
    many.write(db, "DELETE FROM rosters WHERE topic IN (VALUES {})", empty)
    if topics:
        db.execute(
            "UPDATE beats SET highest = max(highest, ?)", (max(versions.values()),)
        )
    return {t: (version, t not in known) for t, version in versions.items()}
