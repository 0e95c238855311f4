"""The log of all that is published: a process writes it, reads it and hands it on.

Its ids are the order for all processes. What others wrote is read; what this one wrote
is handed on as it is, when it is stored, and all that one transaction stored at once.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import time
from collections.abc import Generator, Sequence
from typing import Any

from ...messages import Delivery, Entry, Growth, Message
from ..contract import Host
from ..pages import Seen
from . import many
from .schema import one

logger = logging.getLogger("flask_wschat")

TEXT, JSON, DELETED = 0, 1, 2
NOTHING = "null"
"""The data of what was taken back."""

CHUNK = 500
"""Rows that are read at once: what is not there yet is not in memory either."""

_INSERT = (  # a file of an older version has them in another order
    "INSERT INTO log (id, topic, seq, at, epoch, sender, mid, kind, recipient, extra,"
    " said, data, tag, before) VALUES {}"
)
_NOTHING_SELDOM: list[Any] = [None, None, None, None, False, None]


class Log:
    """The log as a process knows it; only the thread of the file uses it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.seen = Seen()
        self.topics: set[str] = set()
        """What is handed on."""
        self.tag = ""
        """The word of this transaction: see ``Entry.tag``."""
        self.used_at = 0.0
        """When anything was published last, as ``time.monotonic`` has it."""
        self._last: int | None = None  # the row handed on last; None: none is read
        self._rows: list[tuple[Any, ...]] = []  # of this transaction, not in the file
        self._own: list[Delivery] = []  # of this transaction
        self._count = 0  # rows of this transaction
        self._strange = False  # the log of the program knows of a strange row

    # -- in a transaction

    def begin(self, db: sqlite3.Connection) -> None:
        """Begin a transaction, and hand on what others have written before it."""
        self.undo()
        if self._last is None:  # one of the steps may be the first to subscribe
            self._last = newest(db)
        else:
            self.follow(db)
        self.tag = secrets.token_urlsafe(4)

    def append(
        self,
        topic: str,
        message: Message,
        at: float,
        seq: int = 0,
        epoch: str = "",
        said: int = 0,
        before: str = "",
    ) -> None:
        """Add a row: see ``flush``."""
        assert self._last is not None
        data, key, exclude, code, is_json, sender, mid, event, to, plain, growth = (
            message[:-1]
        )
        seldom = [key, exclude, code, event, plain, growth]
        extra = None if seldom == _NOTHING_SELDOM else json.dumps(seldom)
        tag = self.tag if seq else ""
        self._count += 1
        row = (self._last + self._count, topic, seq, at, epoch, sender, mid)
        self._rows.append((*row, is_json, to, extra, said, data, tag, before))
        self._own.append(Delivery(topic, message, seq, at, epoch, tag, before))

    def flush(self, db: sqlite3.Connection) -> None:
        """Write the rows that were added, for who reads them in this transaction."""
        rows, self._rows = self._rows, []
        many.write(db, _INSERT, rows)

    def undo(self) -> None:
        """Forget what was added: it is not stored."""
        self._rows.clear()
        self._own.clear()
        self._count = 0

    # -- after it

    def hand_on(self) -> None:
        """Hand on what the transaction has stored."""
        own, self._own = self._own, []
        if own:
            self.used_at = time.monotonic()
        if self._last is not None:
            self._last += self._count
        self._count = 0
        for delivery in own:
            if delivery.topic in self.topics:
                self._deliver(delivery)
        self.rest()

    def rest(self) -> None:
        """Where nobody hears anything, nothing has to be read."""
        if not self.topics:
            self._last = None

    @property
    def reads(self) -> bool:
        return self._last is not None

    def follow(self, db: sqlite3.Connection) -> None:
        """Hand on what others have stored since."""
        last = self._last
        assert last is not None
        rows = read(db, last)
        if not rows and newest(db) < last:
            self.restart(db)  # an older copy of the file took its place
        while rows:
            self.used_at = time.monotonic()
            for row in rows:
                if row[0] != last + 1:
                    self._host.lost(None)  # paused for so long that others deleted it
                self._last = last = row[0]
                if row[1] in self.topics:
                    delivery = self.as_delivery(row)
                    if delivery is not None:
                        self._deliver(delivery)
            rows = read(db, last) if len(rows) == CHUNK else []

    def restart(self, db: sqlite3.Connection) -> None:
        """Go on with what this file has: it is another one, or an older copy."""
        if self._last is not None:
            self._last = newest(db)
            self._host.lost(None)

    def _deliver(self, delivery: Delivery) -> None:
        try:
            if delivery.seq:
                self.seen.note(delivery.topic, delivery.epoch, delivery.seq)
            self._host.deliver(delivery)
        except Exception:
            logger.exception("error in a delivery to %s", delivery.topic)

    # -- rows

    def as_delivery(self, row: Sequence[Any]) -> Delivery | None:
        """Return what a row is to the connections; None: nothing that can be read."""
        id_, topic, seq, at, epoch, sender, mid, kind, to, extra, data, tag, before = (
            row
        )
        try:
            seldom = _NOTHING_SELDOM if extra is None else json.loads(extra)
            key, exclude, code, event, plain, *step = seldom
            growth = Growth(*step[0]) if step and step[0] is not None else None
            _check(row, _ROW)
        except (TypeError, ValueError):
            self.tell_of(f"row {id_}")
            return None
        if kind == DELETED:  # before it came here; for nobody but those who count
            sender = ""
        message = Message(
            data,
            key,
            exclude,
            code,
            kind != TEXT,
            sender,
            mid,
            event,
            to,
            plain,
            growth,
        )
        return Delivery(topic, message, seq, at, epoch, tag, before)

    def as_entry(self, row: Sequence[Any]) -> Entry | None:
        """Return a kept message; None: nothing that can be read."""
        seq, data, at, sender, mid, kind, to, tag = row
        try:
            _check(row, _ENTRY)
        except TypeError:
            return None
        if kind == DELETED:
            return Entry(seq, NOTHING, at, json=True, tag=tag, deleted=True)
        return Entry(seq, data, at, sender, mid, kind == JSON, to, tag)

    def tell_of(self, what: str) -> None:
        """Tell of what cannot be read; once."""
        if not self._strange:
            self._strange = True
            logger.error(
                "passed over what cannot be read in the log, %s: another program wrote"
                " to the file, or it is damaged (PRAGMA integrity_check); further ones"
                " are passed over without a word",
                what,
            )


def newest(db: sqlite3.Connection) -> int:
    """Return the id of the log's last row, 0 if it never had one."""
    return one(db, "SELECT max(id) FROM log") or 0


def read(db: sqlite3.Connection, after: int) -> list[tuple[Any, ...]]:
    """Return rows that follow ``after``, ``CHUNK`` at most; id and topic come first."""
    return list(
        rows(
            db,
            "SELECT id, topic, seq, at, epoch, sender, mid, kind, recipient, extra,"
            " data, tag, before FROM log WHERE id > ? ORDER BY id LIMIT ?",
            (after, CHUNK),
        )
    )


def rows(
    db: sqlite3.Connection, question: str, values: Sequence[Any]
) -> Generator[tuple[Any, ...], None, None]:
    """Yield what ``question`` finds; in the place of a text that is none, an object."""
    count = 0
    try:
        for row in db.execute(question, values):
            yield row
            count += 1
        return
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
    db.text_factory = _as_text
    try:
        yield from db.execute(question, values).fetchall()[count:]
    finally:
        db.text_factory = str


def _as_text(found: bytes) -> object:
    try:
        return found.decode()
    except UnicodeDecodeError:
        return _NO_TEXT


_NO_TEXT = object()
_WORD = str | None
_ROW = (
    int,
    str,
    int,
    float,
    str,
    _WORD,
    _WORD,
    int,
    _WORD,
    _WORD,
    str | bytes,
    str,
    str,
)
_ENTRY = (int, str | bytes, float, _WORD, _WORD, int, _WORD, str)


def _check(row: Sequence[Any], kinds: Sequence[Any]) -> None:
    """Raise ``TypeError`` where a row has what nobody of us has written."""
    for value, kind in zip(row, kinds, strict=True):
        if not isinstance(value, kind):
            raise TypeError("not a row of ours")
