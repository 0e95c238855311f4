"""The tables of the SQLite backend's file, and whether a file has them."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import growing, made, once, people

SCHEMA_VERSION = 5
APPLICATION_ID = 0x57534368  # "WSCh", for `file` and for who takes the wrong file

# The log's last row is never deleted: so ids go on without a hole for as long as the
# file lives, and a reader that finds one knows that it came too late. `kind` is 0 for
# text or bytes, 1 for JSON, 2 for what was taken back. `said` are the bytes said in the
# topic before the row's; a topic's are all of them, `first` is the number under which
# none is kept for what the others have, `under` the bytes before it. `tag` is a word of
# the transaction that numbered a message, `before` that of the message before it.
_SCHEMA = """
CREATE TABLE log (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
    epoch TEXT NOT NULL, sender TEXT, mid TEXT, kind INTEGER NOT NULL, recipient TEXT,
    extra TEXT, said INTEGER NOT NULL, data, tag TEXT NOT NULL DEFAULT '',
    before TEXT NOT NULL DEFAULT ''
);
CREATE INDEX log_kept ON log (topic, seq) WHERE seq > 0;
CREATE INDEX log_passing ON log (at) WHERE seq = 0;
CREATE TABLE topics (
    name TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
    plain INTEGER NOT NULL, said INTEGER NOT NULL, first INTEGER NOT NULL,
    under INTEGER NOT NULL, tag TEXT NOT NULL DEFAULT ''
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

# What makes a file of version 0, 1, 2 … one of the next; there was none of version 0.
# What was kept before version 3 counts no bytes, and goes by its number and age.
_CHANGES = [
    "",
    "ALTER TABLE topics ADD COLUMN plain INTEGER NOT NULL DEFAULT 0",
    """
    ALTER TABLE log ADD COLUMN said INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE topics ADD COLUMN said INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE topics ADD COLUMN first INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE topics ADD COLUMN under INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX topics_empty ON topics (at) WHERE seq = 0
    """,
    """
    DROP TABLE IF EXISTS presence;
    DROP TABLE IF EXISTS holders;
    ALTER TABLE log RENAME COLUMN json TO kind;
    ALTER TABLE log ADD COLUMN tag TEXT NOT NULL DEFAULT '';
    ALTER TABLE log ADD COLUMN before TEXT NOT NULL DEFAULT '';
    ALTER TABLE topics ADD COLUMN tag TEXT NOT NULL DEFAULT '';
    CREATE TABLE IF NOT EXISTS told (
        topic TEXT NOT NULL, teller TEXT NOT NULL, count INTEGER NOT NULL,
        bytes INTEGER NOT NULL, since REAL NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY (topic, teller)
    ) WITHOUT ROWID
    """,
    "",  # passing messages may say of what they are a step
]


class WrongFile(Exception):
    """The file holds something else; nothing in it was changed."""


def version(db: sqlite3.Connection) -> int:
    """Return of which version the file's tables are; 0: it is empty.

    :raises WrongFile: it is another program's, or of a version that is yet to come.
    """
    # Other processes may make the tables between these: in one step with the marks of
    # ours, so who sees the tables sees those, too, by looking for them later.
    tables = one(db, "SELECT count(*) FROM sqlite_master")
    found: int = one(db, "PRAGMA user_version")
    if one(db, "PRAGMA application_id") == APPLICATION_ID:
        if found > SCHEMA_VERSION:
            raise WrongFile(
                f"has tables of version {found}, and this Flask-WSChat knows those up"
                f" to {SCHEMA_VERSION}: upgrade it, or name another file"
            )
        return found
    if found or tables:
        raise WrongFile("is another program's database: name a file of its own")
    return 0


def create(db: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an older version; inside a transaction."""
    found = version(db)
    if found < SCHEMA_VERSION:
        changes = _CHANGES[found:] if found else [_SCHEMA]
        for statement in ";".join(changes).split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    once.create(db)
    people.create(db)
    growing.create(db)
    made.create(db)


def one(db: sqlite3.Connection, question: str) -> Any:
    """Return the one value that answers ``question``."""
    return db.execute(question).fetchone()[0]
