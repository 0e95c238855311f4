"""Who is where, in SQLite: steps as in ``tables``."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Sequence


class People:
    """Who is where, as this process and the others say."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._holder = secrets.token_hex(8)
        self._held = False  # this process has been in the table
        self._late = False  # and was not heard of for too long
        self.dead = False
        """It was taken out since; whoever tells the process resets this."""

    def attend(
        self, db: sqlite3.Connection, changes: Sequence[tuple[str, str, int]]
    ) -> list[tuple[str, str, bool]]:
        self._live(db)
        returned = []
        for topic, user, count in changes:
            key = (topic, user, self._holder)
            before = self._holders(db, topic, user)
            if count > 0:
                db.execute(
                    "INSERT OR REPLACE INTO presence VALUES (?, ?, ?, ?)", (*key, count)
                )
                if not before:
                    returned.append((topic, user, True))
            else:
                db.execute(
                    "DELETE FROM presence WHERE topic = ? AND user = ? AND holder = ?",
                    key,
                )
                if before == {self._holder}:
                    returned.append((topic, user, False))
        return returned

    def present(self, db: sqlite3.Connection, topic: str) -> dict[str, int]:
        return dict(
            db.execute(
                "SELECT user, sum(connections) FROM presence JOIN holders"
                " USING (holder) WHERE topic = ? AND holder <> ? AND expires > ?"
                " GROUP BY user",
                (topic, self._holder, time.time()),
            )
        )

    def refresh(self, db: sqlite3.Connection) -> list[tuple[str, str]]:
        self._live(db)
        late, self._late = self._late, False
        if late:
            # The file could not be written: nor have the others said that they live.
            return []
        gone = []
        dead = db.execute(
            "SELECT holder FROM holders WHERE expires < ?", (time.time(),)
        )
        for (holder,) in dead.fetchall():
            left = db.execute(
                "SELECT topic, user FROM presence WHERE holder = ?", (holder,)
            ).fetchall()
            self._remove(db, holder)
            gone += [pair for pair in left if not self._holders(db, *pair)]
        return gone

    def leave(self, db: sqlite3.Connection) -> None:
        self._remove(db, self._holder)

    def _live(self, db: sqlite3.Connection) -> None:
        now = time.time()
        expires = now + self._ttl
        known = db.execute(
            "SELECT expires FROM holders WHERE holder = ?", (self._holder,)
        ).fetchone()
        if known is not None:
            db.execute(
                "UPDATE holders SET expires = ? WHERE holder = ?",
                (expires, self._holder),
            )
            self._late = self._late or known[0] < now
        else:
            db.execute("INSERT INTO holders VALUES (?, ?)", (self._holder, expires))
            self.dead = self.dead or self._held
            self._held = True

    def _holders(self, db: sqlite3.Connection, topic: str, user: str) -> set[str]:
        rows = db.execute(
            "SELECT holder FROM presence WHERE topic = ? AND user = ?", (topic, user)
        )
        return {holder for (holder,) in rows}

    def _remove(self, db: sqlite3.Connection, holder: str) -> None:
        db.execute("DELETE FROM presence WHERE holder = ?", (holder,))
        db.execute("DELETE FROM holders WHERE holder = ?", (holder,))
