"""The tables of the SQLite backend, and the steps on topics; knows no thread or lock.

Each method that takes a connection is one step inside a transaction that its caller
began, and may be run again where that transaction came to nothing.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...messages import Delivery, Entry, Message, Page, Receipt, size_of
from ..contract import EMPTY
from ..pages import Seen, select
from ..shares import Shares, Told
from . import once

SCHEMA_VERSION = 3
APPLICATION_ID = 0x57534368  # "WSCh", for `file` and for who takes the wrong file

# The log's last row is never deleted: so ids go on without a hole for as long as the
# file lives, and a reader that finds one knows that it came too late. `said` are the
# bytes said in the topic before the row's; a topic's are all of them, `first` is the
# number under which none is kept for what the others have, `under` the bytes before it.
_SCHEMA = """
CREATE TABLE log (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
    epoch TEXT NOT NULL, sender TEXT, mid TEXT, json INTEGER NOT NULL, recipient TEXT,
    extra TEXT, said INTEGER NOT NULL, data
);
CREATE INDEX log_kept ON log (topic, seq) WHERE seq > 0;
CREATE INDEX log_passing ON log (at) WHERE seq = 0;
CREATE TABLE topics (
    name TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
    plain INTEGER NOT NULL, said INTEGER NOT NULL, first INTEGER NOT NULL,
    under INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX topics_empty ON topics (at) WHERE seq = 0;
CREATE TABLE mids (
    topic TEXT NOT NULL, sender TEXT NOT NULL, mid TEXT NOT NULL, seq INTEGER NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (topic, sender, mid)
) WITHOUT ROWID;
CREATE TABLE told (
    topic TEXT NOT NULL, teller TEXT NOT NULL, count INTEGER NOT NULL,
    bytes INTEGER NOT NULL, since REAL NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (topic, teller)
) WITHOUT ROWID;
CREATE TABLE holders (holder TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE presence (
    topic TEXT NOT NULL, user TEXT NOT NULL, holder TEXT NOT NULL,
    connections INTEGER NOT NULL, PRIMARY KEY (topic, user, holder)
) WITHOUT ROWID;
CREATE INDEX presence_holder ON presence (holder);
CREATE TABLE polls (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, closed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE votes (
    poll TEXT NOT NULL, voter TEXT NOT NULL, choice TEXT NOT NULL,
    PRIMARY KEY (poll, voter)
) WITHOUT ROWID;
CREATE TABLE counts (
    poll TEXT NOT NULL, choice TEXT NOT NULL, votes INTEGER NOT NULL,
    PRIMARY KEY (poll, choice)
) WITHOUT ROWID;
"""

_NOTHING_SELDOM = [None, None, None, None, False]
_MIDS = 4  # remembered for so many times as many messages as are kept
_CHUNK = 1000  # rows that one transaction deletes, as others wait for it


class WrongFile(Exception):
    """The file holds something else; nothing in it was changed."""


def is_made(db: sqlite3.Connection) -> bool:
    """Return whether the file has the tables; False: it is empty.

    :raises WrongFile: it is another program's, or of another version of this one.
    """
    version = _one(db, "PRAGMA user_version")
    if _one(db, "PRAGMA application_id") == APPLICATION_ID:
        if version == SCHEMA_VERSION:
            return True
        raise WrongFile(
            f"has tables of version {version}, and this Flask-WSChat knows version"
            f" {SCHEMA_VERSION}: name another file, or delete this one"
        )
    if version or _one(db, "SELECT count(*) FROM sqlite_master"):
        raise WrongFile("is another program's database: name a file of its own")
    return False


def create(db: sqlite3.Connection) -> None:
    """Make the tables, unless they are there; inside a transaction."""
    if not is_made(db):
        for statement in _SCHEMA.split(";\n"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    once.create(db)


def newest(db: sqlite3.Connection) -> int:
    """Return the id of the log's last row, 0 if it never had one."""
    return _one(db, "SELECT max(id) FROM log") or 0


def read(db: sqlite3.Connection, after: int) -> Iterator[tuple[Any, ...]]:
    """Yield the log's rows that follow ``after``, each beginning with id and topic."""
    return db.execute(
        "SELECT id, topic, seq, at, epoch, sender, mid, json, recipient, extra, data"
        " FROM log WHERE id > ? ORDER BY id",
        (after,),
    )


def as_delivery(row: tuple[Any, ...]) -> Delivery:
    """Return what a row of the log is to the connections."""
    _, topic, seq, at, epoch, sender, mid, is_json, to, extra, data = row
    key = exclude = code = event = None
    plain = False
    if extra is not None:
        key, exclude, code, event, plain = json.loads(extra)
    message = Message(
        data, key, exclude, code, bool(is_json), sender, mid, event, to, plain
    )
    return Delivery(topic, message, seq, at, epoch)


class _Topic(NamedTuple):
    """A row of ``topics``, but for its name."""

    epoch: str
    seq: int
    at: float
    plain: int
    said: int
    first: int
    under: int


class Messages:
    """Topics: their numbers, and ``size`` messages each, of ``max_bytes``, of at most
    ``ttl`` seconds; one user may fill ``share`` of another's inbox."""

    def __init__(
        self, size: int, max_bytes: int, ttl: float, linger: float, share: float
    ) -> None:
        self._shares = Shares(share, size, max_bytes, ttl)
        self._size = size
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._empty_ttl = min(ttl, EMPTY)
        self._linger = linger
        self.seen = Seen()
        # Topics that have rows too many, and when these have been there for all to see.
        self._grown: dict[str, float] = {}
        self._aged = 0.0

    def publish(
        self, db: sqlite3.Connection, topic: str, message: Message, keep: bool
    ) -> Receipt | None:
        """Return what ``Backend.publish`` does; None: its share is taken."""
        at = time.time()
        seq, epoch, before = 0, "", 0
        if keep and self._size:
            known = self._topic(db, topic, at)
            epoch = self._epoch(db, topic, known)
            scope = message.sender or ""
            if message.mid is not None:
                first = db.execute(
                    "SELECT seq, at FROM mids"
                    " WHERE topic = ? AND sender = ? AND mid = ?",
                    (topic, scope, message.mid),
                ).fetchone()
                if first is not None:
                    return Receipt(first[0], first[1], epoch, False)
            if not self._tell(db, topic, message, at, known.seq):
                return None
            # The clock may be set back: what is older must not seem younger.
            at, before, seq = max(at, known.at), known.said, known.seq + 1
            said = before + size_of(message.data)
            first = self._first(db, topic, known, said)
            db.execute(
                "UPDATE topics SET seq = ?, at = ?, said = ?, first = ?, under = ?"
                " WHERE name = ?",
                (seq, at, said, *first, topic),
            )
            if message.mid is not None:
                db.execute(
                    "INSERT INTO mids VALUES (?, ?, ?, ?, ?)",
                    (topic, scope, message.mid, seq, at),
                )
            if (seq > self._size or first[0]) and topic not in self._grown:
                self._grown[topic] = at + self._linger
        self._append(db, topic, seq, at, epoch, message, before)
        return Receipt(seq, at, epoch)

    def history(
        self,
        db: sqlite3.Connection,
        topic: str,
        after: int | None,
        epoch: str | None,
        before: int | None,
        limit: int,
    ) -> Page:
        now = time.time()
        known = self._topic(db, topic, now)
        current, newest = self._epoch(db, topic, known), known.seq
        self._touch(db, topic, now, known)
        oldest = now - self._ttl
        # "seq > 0" is how the planner learns that the index has all that is asked for.
        found = db.execute(
            "SELECT seq FROM log WHERE topic = ? AND seq > 0 AND seq > ? AND seq <= ?"
            " AND at >= ? ORDER BY seq LIMIT 1",
            (topic, max(newest - self._size, known.first - 1), newest, oldest),
        ).fetchone()
        numbers, recovered = select(
            found[0] if found else newest + 1,
            newest,
            after=after,
            before=before,
            limit=limit,
            known=None if epoch is None else epoch == current,
        )
        entries = [
            Entry(seq, data, at, sender, mid, bool(is_json), to)
            for seq, data, at, sender, mid, is_json, to in db.execute(
                "SELECT seq, data, at, sender, mid, json, recipient FROM log WHERE"
                " topic = ? AND seq > 0 AND seq >= ? AND seq < ? AND at >= ?"
                " ORDER BY seq",
                (topic, numbers.start, numbers.stop, oldest),
            )
        ]
        return Page(current, newest, entries, recovered, bool(known.plain))

    def claim(self, db: sqlite3.Connection, topic: str, message: Message) -> None:
        now = time.time()
        known = self._topic(db, topic, now)
        self._touch(db, topic, now, known)
        if not known.plain:
            db.execute("UPDATE topics SET plain = 1 WHERE name = ?", (topic,))
            self._append(db, topic, 0, now, "", message)

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
        self._drop_idle(db, now)
        self._drop_empty(db, now)
        return deleted >= _CHUNK

    def _topic(self, db: sqlite3.Connection, name: str, now: float) -> _Topic:
        row = db.execute(
            "SELECT epoch, seq, at, plain, said, first, under FROM topics"
            " WHERE name = ?",
            (name,),
        ).fetchone()
        if row is not None:
            return _Topic(*row)
        # It was empty and is forgotten, but not by those who wait in it.
        epoch, newest = self.seen.get(name)
        if not epoch or newest:
            epoch = secrets.token_hex(8)
        topic = _Topic(epoch, 0, now, 0, 0, 0, 0)
        db.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (name, *topic))
        return topic

    def _touch(
        self, db: sqlite3.Connection, topic: str, now: float, known: _Topic
    ) -> None:
        """Note that ``topic`` is in use; seldom enough that reading is reading."""
        if now - known.at > (self._ttl if known.seq else self._empty_ttl) / 8:
            db.execute("UPDATE topics SET at = ? WHERE name = ?", (now, topic))

    def _epoch(self, db: sqlite3.Connection, topic: str, known: _Topic) -> str:
        """Return the topic's epoch, a new one if the file has lost numbers."""
        epoch = known.epoch
        seen, newest = self.seen.get(topic)
        if epoch == seen and newest > known.seq:
            epoch = secrets.token_hex(8)
            db.execute("UPDATE topics SET epoch = ? WHERE name = ?", (epoch, topic))
        return epoch

    def _tell(
        self,
        db: sqlite3.Connection,
        topic: str,
        message: Message,
        now: float,
        newest: int,
    ) -> bool:
        """Note who tells whom, or answers; False: too much is not answered."""
        teller, answered = self._shares.parties(topic, message)
        if teller:
            row = db.execute(
                "SELECT count, bytes, since, last FROM told"
                " WHERE topic = ? AND teller = ?",
                (topic, teller),
            ).fetchone()
            told = self._shares.add(row and Told(*row), message, now, newest)
            if told is None:
                return False
            db.execute(
                "INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?)",
                (topic, teller, *told),
            )
        elif answered:
            db.execute(
                "DELETE FROM told WHERE topic = ? AND teller = ?", (topic, answered)
            )
        return True

    def _first(
        self, db: sqlite3.Connection, topic: str, known: _Topic, said: int
    ) -> tuple[int, int]:
        """Return which number is the first one kept, as far as bytes decide, and how
        many were said before it; ``said``: with the one that is about to be kept."""
        if said - known.under <= self._max_bytes:
            return known.first, known.under
        row = db.execute(
            "SELECT seq, said FROM log WHERE topic = ? AND seq > 0 AND seq >= ?"
            " AND seq <= ? AND said >= ? ORDER BY seq LIMIT 1",
            (
                topic,
                max(known.first, known.seq + 2 - self._size),
                known.seq,
                said - self._max_bytes,
            ),
        ).fetchone()
        return row or (known.seq + 1, known.said)

    def _append(
        self,
        db: sqlite3.Connection,
        topic: str,
        seq: int,
        at: float,
        epoch: str,
        message: Message,
        said: int = 0,
    ) -> None:
        data, key, exclude, code, is_json, sender, mid, event, to, plain = message
        seldom = [key, exclude, code, event, plain]
        extra = None if seldom == _NOTHING_SELDOM else json.dumps(seldom)
        db.execute(
            "INSERT INTO log VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (topic, seq, at, epoch, sender, mid, is_json, to, extra, said, data),
        )

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
                "DELETE FROM mids WHERE topic = ? AND seq <= ?",
                (topic, top - _MIDS * self._size),
            )
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


def _one(db: sqlite3.Connection, question: str) -> Any:
    return db.execute(question).fetchone()[0]
