"""What may happen to the SQLite backend's file, and which one it is."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_wschat.backends.sqlite import system
from flask_wschat.errors import BackendError
from flask_wschat.messages import Message
from tests.backends.cluster import Start
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("soon")

ROOM = "room:a"


def copy(path: Path, to: Path) -> Path:
    """Return a copy as ``sqlite3 chat.db ".backup copy.db"`` makes it."""
    with (
        contextlib.closing(sqlite3.connect(path)) as old,
        contextlib.closing(sqlite3.connect(to)) as new,
    ):
        old.backup(new)
        new.execute("PRAGMA journal_mode = DELETE").fetchone()
    return to


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=5)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def is_whole(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# -- another file in its place


def test_a_file_put_in_its_place_is_used_at_once(
    path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite itself would read the old file's log into the new one, and damage it."""
    (one, host), (other, _) = start(), start()
    one.subscribe([ROOM])
    other.history(ROOM)
    for number in range(100):
        topic = f"room:{number % 7}"
        one.publish(topic, Message("x" * 300), keep=True)
    one.publish(ROOM, Message("1"), keep=True)
    backup = copy(path, path.with_name("backup.db"))
    for number in range(300):
        one.publish(f"room:{number % 7}", Message("y" * 300), keep=True)
    one.publish(ROOM, Message("2"), keep=True)
    os.replace(backup, path)
    assert other.publish(ROOM, Message("new 2"), keep=True).seq == 2
    host.wait_for(lambda: host.losses == [None])
    assert one.publish(ROOM, Message("3"), keep=True).seq == 3
    assert [e.data for e in other.history(ROOM).entries] == ["1", "new 2", "3"]
    assert caplog.text.count("was replaced: what the old one kept is lost") == 2
    one.stop()
    other.stop()
    assert is_whole(path)


def test_a_file_put_in_its_place_may_be_held_for_a_moment(
    path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """As several processes open it at once."""
    backend, host = start()
    backend.subscribe([ROOM])
    backend.publish(ROOM, Message("1"), keep=True)
    backup = copy(path, path.with_name("backup.db"))
    holder = sqlite3.connect(backup, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    os.replace(backup, path)
    letting_go = threading.Timer(0.2, holder.execute, ["ROLLBACK"])
    letting_go.start()
    assert backend.publish(ROOM, Message("2"), keep=True).seq == 2
    host.wait_for(lambda: host.losses == [None])
    letting_go.join()
    holder.close()
    assert "held by another program" not in caplog.text


@pytest.mark.parametrize("names", [["chat.db"], ["chat.db-wal", "chat.db-shm"]])
def test_a_part_of_it_that_was_deleted_is_noticed(
    path: Path, start: Start, names: list[str]
) -> None:
    one, host = start()
    one.subscribe([ROOM])
    one.publish(ROOM, Message("1"), keep=True)
    for name in names:
        path.with_name(name).unlink()
    one.publish(ROOM, Message("2"), keep=True)
    other, _ = start()
    other.publish(ROOM, Message("3"), keep=True)
    assert [e.data for e in one.history(ROOM).entries][-2:] == ["2", "3"]
    assert host.losses == [None]
    assert is_whole(path)


def test_nobody_resumes_over_what_a_backup_lacks(path: Path, start: Start) -> None:
    """Though no process lives that saw it, and the numbers have come again."""
    backend, _ = start()
    for data in "12":
        backend.publish(ROOM, Message(data), keep=True)
    backup = copy(path, path.with_name("backup.db"))
    old = backend.history(ROOM)
    backend.publish(ROOM, Message("3"), keep=True)
    lost = backend.history(ROOM)
    backend.stop()
    os.replace(backup, path)
    backend, _ = start(size=3)
    for data in "abc":
        backend.publish(ROOM, Message(data), keep=True)
    new = backend.history(ROOM)
    assert (new.epoch, new.seq) == (lost.epoch, 5)
    for seq, tag, recovered in (
        (3, lost.tag, False),
        (3, new.entries[0].tag, True),
        (3, "", True),  # as a client that knows no tags
        (2, old.tag, True),  # by what the third one says of the second
        (2, lost.tag, False),
        (5, new.tag, True),
        (5, lost.tag, False),
    ):
        page = backend.history(ROOM, after=seq, epoch=new.epoch, tag=tag)
        assert page.recovered == recovered, (seq, tag)


def test_live_messages_say_which_one_was_before(start: Start) -> None:
    (one, first), (other, second) = start(), start()
    for backend in (one, other):
        backend.subscribe([ROOM])
    for backend in (one, other, other, one):
        backend.publish(ROOM, Message("x"), keep=True)
        backend.publish(ROOM, Message("passing"))
    for host in (first, second):
        kept = [d for d in host.wait_for_count(8) if d.seq]
        tags = [d.tag for d in kept]
        assert [d.before for d in kept] == ["", *tags[:-1]]
        assert len(set(tags)) == 4 and all(tags)
    page = one.history(ROOM)
    assert [entry.tag for entry in page.entries] == tags
    assert page.tag == tags[-1]


# -- versions

OLD = {
    1: """
CREATE TABLE log (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
    epoch TEXT NOT NULL, sender TEXT, mid TEXT, json INTEGER NOT NULL, recipient TEXT,
    extra TEXT, data
);
CREATE TABLE topics (
    name TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO topics VALUES ('room:a', 'e', 3, 2e9);
INSERT INTO log VALUES
    (7, 'room:a', 1, 2e9, 'e', 'ann', 'm', 0, NULL, NULL, 'one'),
    (8, 'room:a', 2, 2e9, 'e', NULL, NULL, 1, 'bob', NULL, '{}'),
    (9, 'room:a', 3, 2e9, 'e', NULL, NULL, 0, NULL, NULL, x'00ff');
""",
    2: """
CREATE TABLE log (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
    epoch TEXT NOT NULL, sender TEXT, mid TEXT, json INTEGER NOT NULL, recipient TEXT,
    extra TEXT, data
);
CREATE TABLE topics (
    name TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
    plain INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO topics VALUES ('room:a', 'e', 3, 2e9, 0);
INSERT INTO log VALUES
    (7, 'room:a', 1, 2e9, 'e', 'ann', 'm', 0, NULL, NULL, 'one'),
    (8, 'room:a', 2, 2e9, 'e', NULL, NULL, 1, 'bob', NULL, '{}'),
    (9, 'room:a', 3, 2e9, 'e', NULL, NULL, 0, NULL, NULL, x'00ff');
""",
    3: """
CREATE TABLE log (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
    epoch TEXT NOT NULL, sender TEXT, mid TEXT, json INTEGER NOT NULL, recipient TEXT,
    extra TEXT, said INTEGER NOT NULL, data
);
CREATE TABLE topics (
    name TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL,
    plain INTEGER NOT NULL, said INTEGER NOT NULL, first INTEGER NOT NULL,
    under INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX topics_empty ON topics (at) WHERE seq = 0;
INSERT INTO topics VALUES ('room:a', 'e', 3, 2e9, 0, 7, 0, 0);
INSERT INTO log VALUES
    (7, 'room:a', 1, 2e9, 'e', 'ann', 'm', 0, NULL, NULL, 0, 'one'),
    (8, 'room:a', 2, 2e9, 'e', NULL, NULL, 1, 'bob', NULL, 3, '{}'),
    (9, 'room:a', 3, 2e9, 'e', NULL, NULL, 0, NULL, NULL, 5, x'00ff');
""",
}
ALL_OLD = """
CREATE INDEX log_kept ON log (topic, seq) WHERE seq > 0;
CREATE INDEX log_passing ON log (at) WHERE seq = 0;
CREATE TABLE mids (
    topic TEXT NOT NULL, sender TEXT NOT NULL, mid TEXT NOT NULL, seq INTEGER NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (topic, sender, mid)
) WITHOUT ROWID;
INSERT INTO mids VALUES ('room:a', 'ann', 'm', 1, 2e9);
CREATE TABLE holders (holder TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE presence (
    topic TEXT NOT NULL, user TEXT NOT NULL, holder TEXT NOT NULL,
    connections INTEGER NOT NULL, PRIMARY KEY (topic, user, holder)
) WITHOUT ROWID;
CREATE INDEX presence_holder ON presence (holder);
CREATE TABLE polls (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, closed INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO polls VALUES ('tea', 5, 0);
CREATE TABLE votes (
    poll TEXT NOT NULL, voter TEXT NOT NULL, choice TEXT NOT NULL,
    PRIMARY KEY (poll, voter)
) WITHOUT ROWID;
INSERT INTO votes VALUES ('tea', 'ann', 'green');
CREATE TABLE counts (
    poll TEXT NOT NULL, choice TEXT NOT NULL, votes INTEGER NOT NULL,
    PRIMARY KEY (poll, choice)
) WITHOUT ROWID;
INSERT INTO counts VALUES ('tea', 'green', 1);
PRAGMA application_id = 0x57534368;
"""


@pytest.mark.parametrize("version", OLD)
def test_a_file_of_an_older_version_goes_on(
    path: Path, start: Start, version: int
) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(OLD[version] + ALL_OLD)
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    (one, host), (other, _) = start(size=4, max_bytes=20), start(size=4, max_bytes=20)
    one.subscribe([ROOM])
    before = other.history(ROOM)
    assert [(e.data, e.json, e.to) for e in before.entries] == [
        ("one", False, None),
        ("{}", True, "bob"),
        (b"\x00\xff", False, None),
    ]
    repeated = one.publish(ROOM, Message("one", sender="ann", mid="m"), keep=True)
    assert (repeated.seq, repeated.fresh, repeated.epoch) == (1, False, "e")
    for data in ("xxxxxxxx", "yyyyyyyy"):
        other.publish(ROOM, Message(data), keep=True)
    assert [d.seq for d in host.wait_for_count(2)] == [4, 5]
    assert one.history(ROOM, after=3, epoch="e").recovered
    newest = one.publish(ROOM, Message("zzzzzzzz", sender="ann", mid="n"), keep=True)
    assert [e.seq for e in one.history(ROOM).entries] == [5, 6]
    assert newest.seq == 6 and other.delete(ROOM, 6)
    assert one.tally("tea", "ann").mine == "green"
    assert one.once("k", 60) and not other.once("k", 60)
    one.publish("user:bob", Message("x", sender="ann", mid="o"), keep=True)
    other.attend([(ROOM, "ann", 1)])
    one.stop()
    other.stop()
    assert is_whole(path)
    made, _ = start(path.with_name("new.db"))
    assert not made.taken("k")
    made.stop()
    assert tables(path) == tables(path.with_name("new.db"))


def tables(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in names}


# -- what another program wrote into it


@pytest.mark.parametrize(
    "damage",
    [
        "data = NULL",
        "data = 5",
        "data = CAST(x'ff' AS TEXT)",
        "sender = x'00'",
        "at = 'noon'",
        "tag = x'00'",
        "kind = 'x'",
    ],
)
def test_a_strange_row_is_passed_over_and_said_once(
    path: Path, start: Start, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend, _ = start()
    for data in "1234":
        backend.publish(ROOM, Message(data), keep=True)
    known = backend.history(ROOM)
    change(path, f"UPDATE log SET {damage} WHERE seq IN (2, 3)")
    page = backend.history(ROOM)
    assert [(e.data, e.deleted) for e in page.entries] == [
        ("1", False),
        ("null", True),
        ("null", True),
        ("4", False),
    ]
    # Who resumes over it is told, and goes on.
    assert not backend.history(ROOM, after=1, epoch=known.epoch).recovered
    assert backend.history(ROOM, after=3, epoch=known.epoch).recovered
    assert caplog.text.count("passed over what cannot be read") == 1
    assert backend.fault() is None


def test_a_hole_is_passed_over_and_said_once(
    path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    backend, _ = start()
    for data in "12345":
        backend.publish(ROOM, Message(data), keep=True)
    change(
        path,
        "DELETE FROM log WHERE seq = 3",
        "INSERT INTO log SELECT 99, topic, seq, at, epoch, sender, mid, kind,"
        " recipient, extra, said, data, tag, before FROM log WHERE seq = 4",
        "UPDATE log SET id = 5 WHERE seq = 5",
    )
    page = backend.history(ROOM)
    assert [e.data for e in page.entries] == ["1", "2", "null", "4", "5"]
    assert [e.data for e in backend.history(ROOM, max_bytes=5).entries] == ["4", "5"]
    resumed = backend.history(ROOM, after=1, epoch=page.epoch)
    assert not resumed.recovered and len(resumed.entries) == 5
    assert backend.history(ROOM, after=4, epoch=page.epoch).recovered
    assert caplog.text.count("passed over what cannot be read") == 1


@pytest.mark.parametrize(
    "values",
    [
        "'room:a', 0, 2e9, '', NULL, NULL, 0, NULL, 'no JSON', 0, 'x', '', ''",
        "'room:a', 0, 2e9, '', NULL, NULL, 0, NULL, '[1]', 0, 'x', '', ''",
        "'room:a', 0, 2e9, '', NULL, NULL, 0, NULL, NULL, 0, NULL, '', ''",
        "'room:a', 'x', 2e9, '', 5, NULL, 0, NULL, NULL, 0, 'x', '', ''",
        "CAST(x'ff' AS TEXT), 0, 2e9, '', 5, NULL, 0, NULL, NULL, 0, 'x', '', ''",
        "'room:a', 0, 2e9, '', CAST(x'ff' AS TEXT), '', 0, NULL, NULL, 0, 'x', '', ''",
    ],
)
def test_a_strange_publication_is_passed_over(
    path: Path, start: Start, values: str
) -> None:
    (one, host), (other, _) = start(), start()
    one.subscribe([ROOM])
    one.publish(ROOM, Message("1"))
    change(path, f"INSERT INTO log VALUES (NULL, {values})")
    other.publish(ROOM, Message("2"))
    host.wait_for(lambda: host.data(ROOM) == ["1", "2"])
    assert host.losses == []


# -- a log that grows

READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM topics").fetchone()
print("reads", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a program read an old state of the file."""
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin is not None and reader.stdout is not None
        assert reader.stdout.readline() == "reads\n"
        yield reader
        reader.stdin.close()


def test_who_makes_the_log_grow_is_named_and_it_shrinks_after(
    path: Path,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_wschat.backends.sqlite.journal.KEEP", 100_000)
    monkeypatch.setattr("flask_wschat.backends.sqlite.journal.LARGE", 400_000)
    backend, _ = start()
    backend.publish(ROOM, Message("x"), keep=True)
    wal = path.with_name("chat.db-wal")
    with reading(path) as reader:
        while wal.stat().st_size <= 400_000:
            backend.publish(ROOM, Message("x" * 20_000), keep=True)
        eventually(lambda: "end the shell, backup or transaction" in caplog.text)
        assert "chat.db-wal has" in caplog.text
        if sys.platform == "linux":
            assert f"in process {reader.pid} (" in caplog.text
        assert caplog.text.count("chat.db-wal has") == 1
    eventually(lambda: wal.stat().st_size <= 100_000)
    eventually(lambda: "chat.db-wal is small again" in caplog.text)


def test_it_leaves_something_of_the_disk_and_goes_on_after(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_wschat.backends.sqlite.journal.KEEP", 100_000)
    monkeypatch.setattr("flask_wschat.backends.sqlite.journal.LARGE", 400_000)
    monkeypatch.setattr("flask_wschat.backends.sqlite.journal.SPARE", 1 << 60)
    backend, host = start()
    backend.subscribe([ROOM])
    stored = ["0"]
    backend.publish(ROOM, Message("0"), keep=True)
    wal = path.with_name("chat.db-wal")
    with reading(path):
        while wal.stat().st_size <= 400_000:
            stored.append(f"{len(stored)} " + "x" * 20_000)
            backend.publish(ROOM, Message(stored[-1]), keep=True)
        eventually(lambda: "by" in (backend.fault() or ""))
        with pytest.raises(BackendError, match=r"full but for .*chat\.db-wal has"):
            backend.publish(ROOM, Message("too much"), keep=True)
        page = backend.history(ROOM, limit=1000)  # to read goes on
        assert [entry.data for entry in page.entries] == stored
    eventually(lambda: backend.fault() is None)
    assert wal.stat().st_size <= 100_000
    receipt = backend.publish(ROOM, Message("again"), keep=True)
    assert receipt.seq == len(stored) + 1
    host.wait_for(lambda: host.data(ROOM) == [*stored, "again"])


# -- network disks


@pytest.mark.parametrize(
    ("kind", "refused"), [("nfs4", True), ("fuse.sshfs", True), ("ext4", False)]
)
def test_a_network_disk_is_refused_with_words(
    path: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    refused: bool,
) -> None:
    device = path.parent.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = path.with_name("mountinfo")
    mounts.write_text(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        f"29 27 {number} / {path.parent} rw shared:1 - {kind} server:/chat rw\n"
    )
    monkeypatch.setattr(system, "MOUNTS", mounts)
    backend, _ = start()
    if refused:
        with pytest.raises(BackendError, match=rf"network disk.*\({kind}\)"):
            backend.publish(ROOM, Message("x"), keep=True)
        assert "name one on a local disk" in str(backend.fault())
        assert not path.exists()
    else:
        assert backend.publish(ROOM, Message("x"), keep=True).seq == 1


@pytest.mark.parametrize("text", [None, "", "\n\n", "x - nfs\n", "a b - nfs\n" * 3])
def test_where_nothing_is_known_of_disks_and_locks_all_goes_on(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    strange = path.with_name("strange")
    if text is not None:
        strange.write_text(text)
    monkeypatch.setattr(system, "MOUNTS", strange)
    monkeypatch.setattr(system, "LOCKS", strange)
    backend, _ = start()
    assert backend.publish(ROOM, Message("x"), keep=True).seq == 1
    assert system.readers(path) == []
