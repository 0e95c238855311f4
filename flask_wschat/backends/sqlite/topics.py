"""What is kept of topics in SQLite: steps, which know no thread or lock.

Each method that takes a connection is one step inside a transaction that its caller
began, and may be run again where that transaction came to nothing.
"""

from __future__ import annotations

import functools
import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ...errors import OutOfOrder, ShareTaken, StreamError
from ...messages import Entry, Growth, Message, Page, Receipt, size_of
from ..contract import EMPTY
from ..pages import select
from ..shares import UNANSWERED, Shares, Told
from . import growing as growths
from . import log, many
from .leftovers import Leftovers
from .log import DELETED, NOTHING, Log

_WRITE = "INSERT OR REPLACE INTO topics VALUES {}"


class Publication(NamedTuple):
    """What ``Backend.publish`` was asked for."""

    topic: str
    message: Message
    keep: bool


class _Topic(NamedTuple):
    """A row of ``topics``, but for its name."""

    epoch: str
    seq: int = 0
    at: float = 0.0
    plain: int = 0
    said: int = 0
    first: int = 0
    under: int = 0
    tag: str = ""


class Topics:
    """Topics: their numbers, and ``size`` messages each, of ``max_bytes``, of at most
    ``ttl`` seconds; one user may fill ``share`` of another's inbox."""

    def __init__(
        self,
        log: Log,
        *,
        size: int,
        max_bytes: int,
        ttl: float,
        linger: float,
        share: float,
    ) -> None:
        self._log = log
        self._shares = Shares(share, size, max_bytes, ttl)
        self._size = size
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._empty_ttl = min(ttl, EMPTY)
        self.leftovers = Leftovers(size, ttl, self._empty_ttl, linger)

    def publish(
        self, db: sqlite3.Connection, publications: Sequence[Publication]
    ) -> list[Receipt | Exception]:
        """Do what ``Backend.publish`` does for each, in order; return what that would
        return or raise."""
        kept = [p for p in publications if p.keep] if self._size else []
        now = time.time()
        stored = self._stored(db, {p.topic for p in kept})
        topics = {
            p.topic: self._current(p.topic, stored.get(p.topic), now) for p in kept
        }
        mids = self._known_mids(db, kept)
        new: list[tuple[Any, ...]] = []  # rows of mids
        outcomes: list[Receipt | Exception] = []
        for topic, message, keep in publications:
            growth = message.growth
            if growth is not None and message.event is not None:
                outcomes.append(self._grow(db, topic, message, growth, now))
                continue
            if not keep or not self._size:
                if growth is not None:
                    growths.end(db, topic, growth.id)
                self._log.append(topic, message, now)
                outcomes.append(Receipt(0, now, ""))
                continue
            known = topics[topic]
            mid = (topic, message.sender or "", message.mid)
            if message.mid is not None and mid in mids:
                outcomes.append(Receipt(*mids[mid], known.epoch, False))
                continue
            if message.prev is not None and (*mid[:2], message.prev) not in mids:
                outcomes.append(OutOfOrder())
                continue
            if not self._tell(db, topic, message, now, known.seq):
                outcomes.append(ShareTaken(UNANSWERED))
                continue
            # The clock may be set back: what is older must not seem younger.
            seq, at = known.seq + 1, max(now, known.at)
            said = known.said + size_of(message.data)
            first = self._first(db, topic, known, said)
            tag = self._log.tag
            topics[topic] = _Topic(known.epoch, seq, at, known.plain, said, *first, tag)
            if message.mid is not None:
                mids[mid] = seq, at
                new.append((*mid, seq, at))
            if seq > self._size or first[0]:
                self.leftovers.note(topic, seq, now)
            if growth is not None:
                growths.end(db, topic, growth.id)
            self._log.append(
                topic, message, at, seq, known.epoch, known.said, known.tag
            )
            outcomes.append(Receipt(seq, at, known.epoch))
        self._log.flush(db)
        changed = [
            (name, *topic)
            for name, topic in topics.items()
            if topic is not stored.get(name)
        ]
        many.write(db, _WRITE, changed)
        many.write(db, "INSERT INTO mids VALUES {}", new)
        return outcomes

    def _grow(
        self,
        db: sqlite3.Connection,
        topic: str,
        message: Message,
        growth: Growth,
        now: float,
    ) -> Receipt | Exception:
        try:
            news = growths.step(db, topic, message, growth, now)
        except StreamError as error:
            return error
        if news:
            self._log.append(topic, message, now)
        return Receipt(0, now, "", news)

    def history(
        self,
        db: sqlite3.Connection,
        topic: str,
        *,
        after: int | None,
        epoch: str | None,
        tag: str | None,
        before: int | None,
        limit: int,
        max_bytes: int | None,
        growing: bool,
    ) -> Page:
        now = time.time()
        known = self._used(db, topic, now)
        current, newest = known.epoch, known.seq
        oldest = now - self._ttl
        # "seq > 0" is how the planner learns that the index has all that is asked for;
        # it is said last, here and below, as the index is read from the first bound on.
        found = db.execute(
            "SELECT seq FROM log WHERE topic = ? AND seq > ? AND seq <= ?"
            " AND at >= ? AND seq > 0 ORDER BY seq LIMIT 1",
            (topic, max(newest - self._size, known.first - 1), newest, oldest),
        ).fetchone()
        same = None if epoch is None else epoch == current
        if same and tag and after:
            same = tag == self._tag_of(db, topic, known, after)
        ask = functools.partial(
            select,
            found[0] if found else newest + 1,
            newest,
            after=after,
            before=before,
            limit=limit,
        )
        numbers, recovered = ask(known=same)
        forward = after is not None and (recovered or same is None)
        entries, whole = self._entries(db, topic, numbers, max_bytes, forward)
        if recovered and not whole:  # told once, as the newest ones are what follows
            numbers, recovered = ask(known=False)
            entries, _ = self._entries(db, topic, numbers, max_bytes, False)
        plain, streams = bool(known.plain), growths.of(db, topic) if growing else ()
        return Page(current, newest, entries, recovered, plain, known.tag, streams)

    def _entries(
        self,
        db: sqlite3.Connection,
        topic: str,
        numbers: range,
        most: int | None,
        forward: bool,
    ) -> tuple[list[Entry], bool]:
        """Return the entries of ``numbers`` that have ``most`` bytes of data, the first
        ones if ``forward``, else the last; and whether all of these are there."""
        query = (
            "SELECT seq, data, at, sender, mid, kind, recipient, tag FROM log"
            " WHERE topic = ? AND seq >= ? AND seq < ? AND seq > 0 ORDER BY seq "
        )
        query += "ASC" if forward else "DESC"
        rows = log.rows(db, query, (topic, numbers.start, numbers.stop))
        entries: list[Entry] = []
        whole, taken, at, row = True, 0, 0.0, next(rows, None)
        for seq in numbers if forward else reversed(numbers):
            entry = None
            while row is not None and row[0] != seq and (row[0] < seq) == forward:
                row = next(rows, None)  # one that is there twice
            if row is not None and row[0] == seq:
                entry, row = self._log.as_entry(row), next(rows, None)
            if entry is None:
                whole = False
                self._log.tell_of(f"number {seq} of {topic}")
                entry = Entry(seq, NOTHING, at, json=True, deleted=True)
            at, taken = entry.at, taken + size_of(entry.data)
            if entries and most is not None and taken > most:
                break
            entries.append(entry)
        rows.close()
        return (entries if forward else entries[::-1]), whole

    def delete(self, db: sqlite3.Connection, topic: str, seq: int) -> bool:
        now = time.time()
        known = self._stored(db, [topic]).get(topic)
        if known is None or not (
            max(1, known.first, known.seq - self._size + 1) <= seq <= known.seq
        ):
            return False
        changed = db.execute(
            "UPDATE log SET kind = ?, data = ?, sender = NULL, mid = NULL,"
            " recipient = NULL, extra = NULL"
            " WHERE topic = ? AND seq >= ? AND seq <= ? AND kind <> ? AND at >= ?"
            " AND seq > 0",
            (DELETED, NOTHING, topic, seq, seq, DELETED, now - self._ttl),
        ).rowcount
        if changed:
            self.announce(db, topic, Message(str(seq), event="deleted"))
        return changed > 0

    def taken_back(self, db: sqlite3.Connection, topic: str) -> list[int]:
        rows = db.execute(
            "SELECT seq FROM log WHERE topic = ? AND kind = ? AND seq > 0 ORDER BY seq",
            (topic, DELETED),
        )
        return [seq for (seq,) in rows]

    def announce(self, db: sqlite3.Connection, topic: str, message: Message) -> None:
        """Deliver ``message``, which is not kept, when the step is done."""
        self._log.append(topic, message, time.time())
        self._log.flush(db)

    def claim(self, db: sqlite3.Connection, topic: str, message: Message) -> None:
        now = time.time()
        known = self._used(db, topic, now)
        if not known.plain:
            db.execute("UPDATE topics SET plain = 1 WHERE name = ?", (topic,))
            self.announce(db, topic, message)

    def _stored(
        self, db: sqlite3.Connection, names: Iterable[str]
    ) -> dict[str, _Topic]:
        question = (
            "SELECT name, epoch, seq, at, plain, said, first, under, tag FROM topics"
            " WHERE name IN (VALUES {})"
        )
        rows = many.read(db, question, [(name,) for name in names])
        return {name: _Topic(*row) for name, *row in rows}

    def _current(self, name: str, stored: _Topic | None, now: float) -> _Topic:
        """Return how the topic ``name`` goes on: as another one, if there is none, or
        if the file has lost numbers that came here."""
        seen, newest = self._log.seen.get(name)
        if stored is None:
            # It was empty and is forgotten, but not by those who wait in it.
            known = seen if seen and not newest else secrets.token_hex(8)
            return _Topic(known, at=now)
        if seen == stored.epoch and newest > stored.seq:
            return stored._replace(epoch=secrets.token_hex(8))
        return stored

    def _used(self, db: sqlite3.Connection, name: str, now: float) -> _Topic:
        """Return the topic ``name``, which somebody uses, and which is in the file from
        now on; it is written so seldom that reading is reading."""
        stored = self._stored(db, [name]).get(name)
        topic = self._current(name, stored, now)
        if now - topic.at > (self._ttl if topic.seq else self._empty_ttl) / 8:
            topic = topic._replace(at=now)
        if topic is not stored:
            many.write(db, _WRITE, [(name, *topic)])
        return topic

    def _known_mids(
        self, db: sqlite3.Connection, publications: Sequence[Publication]
    ) -> dict[tuple[str, str, str | None], tuple[int, float]]:
        """Return number and time of those that came before, or have to."""
        asked = [
            (topic, message.sender or "", mid)
            for topic, message, _ in publications
            for mid in (message.mid, message.prev)
            if mid is not None
        ]
        question = (
            "WITH asked AS (VALUES {}) SELECT topic, sender, mid, seq, at FROM asked"
            " CROSS JOIN mids"
            " ON topic = column1 AND sender = column2 AND mid = column3"
        )
        return {
            (topic, sender, mid): (seq, at)
            for topic, sender, mid, seq, at in many.read(db, question, asked)
        }

    def _tag_of(
        self, db: sqlite3.Connection, topic: str, known: _Topic, seq: int
    ) -> str | None:
        """Return the tag of a message; None: it cannot be known any more."""
        if seq == known.seq:
            return known.tag
        rows = db.execute(
            "SELECT seq, tag, before FROM log WHERE topic = ? AND seq >= ? AND seq <= ?"
            " AND seq > 0 ORDER BY seq LIMIT 1",
            (topic, seq, seq + 1),
        ).fetchall()
        for found, tag, before in rows:
            return str(tag if found == seq else before)
        return None

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
        self._log.flush(db)
        row = db.execute(
            "SELECT seq, said FROM log WHERE topic = ? AND seq >= ?"
            " AND seq <= ? AND said >= ? AND seq > 0 ORDER BY seq LIMIT 1",
            (
                topic,
                max(known.first, known.seq + 2 - self._size),
                known.seq,
                said - self._max_bytes,
            ),
        ).fetchone()
        return row or (known.seq + 1, known.said)
