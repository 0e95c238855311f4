"""What the SQLite backend does when the disk, the file or a process fails."""

from __future__ import annotations

import contextlib
import functools
import queue
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_wschat.backends.sqlite import schema
from flask_wschat.backends.sqlite.backend import SQLiteBackend
from flask_wschat.errors import BackendError, ConfigError
from flask_wschat.messages import APPEND, DISCARD, STREAM, Growth, Message
from tests.backends.cluster import RecordingHost, Start
from tests.support.waiting import LONG, eventually

ROOM = "room:a"

pytestmark = pytest.mark.usefixtures("soon")

CHILD = """
import sys, threading
from flask_wschat.backends.sqlite.backend import SQLiteBackend
from flask_wschat.messages import Message
from tests.backends.cluster import RecordingHost

backend, host = SQLiteBackend(sys.argv[1], size=100_000), RecordingHost()
backend.start(host)
"""

PUBLISHING = """
def publish(name):
    count = 0
    while True:
        data = f"{name}-{count}"
        message = Message(data, sender=name, mid=data)
        seq = backend.publish("room:a", message, keep=True).seq
        sys.stdout.write(f"{seq} {data}\\n")  # one write: not torn by other threads
        sys.stdout.flush()
        count += 1

for number in range(20):
    threading.Thread(target=publish, args=(f"v{number}",)).start()
"""


def spawn(path: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code, str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )


# -- URLs


def test_urls_name_relative_and_absolute_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///a%20b.db", f"sqlite:///{tmp_path}/c.db"):
        backend = SQLiteBackend.from_url(url, size=3)
        backend.start(RecordingHost())
        backend.publish(ROOM, Message("x"), keep=True)
        backend.stop()
    assert {path.name for path in tmp_path.iterdir()} == {"a b.db", "c.db"}


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:/a.db", "mysql:///a"],
)
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="WSCHAT_URL"):
        SQLiteBackend.from_url(url)


# -- who may read it


def modes(path: Path) -> dict[str, int]:
    return {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}


def test_only_its_user_can_read_a_new_file(
    path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    backend, _ = start()
    backend.publish(ROOM, Message("x"), keep=True)
    assert modes(path) == dict.fromkeys(
        ["chat.db", "chat.db-wal", "chat.db-shm"], 0o600
    )
    assert caplog.text == ""


def test_a_file_behind_a_link_is_made_as_one_before_it(
    path: Path, start: Start
) -> None:
    path.symlink_to(path.with_name("real.db"))
    backend, _ = start()
    backend.publish(ROOM, Message("x"), keep=True)
    assert modes(path)["real.db"] == 0o600


@pytest.mark.parametrize(
    ("mode", "directory"), [(0o644, 0o755), (0o640, 0o755), (0o644, 0o700)]
)
def test_who_may_read_an_old_file_stays_and_is_told(
    path: Path,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    mode: int,
    directory: int,
) -> None:
    sqlite3.connect(path).close()
    path.touch()
    path.chmod(mode)
    path.parent.chmod(directory)
    backend, _ = start()
    backend.publish(ROOM, Message("x"), keep=True)
    backend.publish(ROOM, Message("x"), keep=True)
    assert set(modes(path).values()) == {mode}
    told = "may be read by every user of this host: chmod o= " in caplog.text
    assert told == ((mode, directory) == (0o644, 0o755))


# -- a process that dies


def test_all_that_was_acknowledged_outlives_a_kill(path: Path, start: Start) -> None:
    child = spawn(path, PUBLISHING)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(500)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()  # what was answered before it died
    child.wait()
    child.stdout.close()
    answered = [line.split() for line in lines if line.endswith("\n")]
    backend, host = start(size=100_000)
    page = backend.history(ROOM, limit=1_000_000)
    stored = {entry.seq: entry.data for entry in page.entries}
    assert list(stored) == list(range(1, page.seq + 1))
    assert len(set(stored.values())) == len(stored)
    assert [data for seq, data in answered if stored.get(int(seq)) != data] == []
    # The file is as good as before.
    backend.subscribe([ROOM])
    seq, data = answered[0]
    again = Message(data, sender=data.split("-")[0], mid=data)
    assert backend.publish(ROOM, again, keep=True).seq == int(seq)
    assert backend.publish(ROOM, Message("x"), keep=True).seq == page.seq + 1
    assert len(host.wait_for_count(1)) == 1


def test_another_process_is_heard(path: Path, start: Start) -> None:
    backend, host = start()
    backend.subscribe([ROOM])
    child = spawn(
        path, 'print(backend.publish("room:a", Message("hello"), keep=True).seq)'
    )
    output, _ = child.communicate(timeout=10)
    assert output == "1\n"
    assert host.wait_for_count(1)[0].message == Message("hello")


def test_a_forked_process_opens_the_file_itself(path: Path, start: Start) -> None:
    """As with gunicorn --preload."""
    child = spawn(
        path,
        """
import os
backend.subscribe(["room:a"])
backend.attend([("all", "ann", 1)])
backend.publish("room:a", Message("1"), keep=True)
pid = os.fork()
if not pid:
    backend.subscribe(["room:a"])
    there = backend.present("all")
    assert there.users == {"ann": 1}
    assert there.here == {}, "the parent is another process"
    assert backend.publish("room:a", Message("2"), keep=True).seq == 2
    backend.stop()
    os._exit(0)
print(os.waitpid(pid, 0)[1])
assert backend.publish("room:a", Message("3"), keep=True).seq == 3
print(*[d.message.data for d in host.wait_for_count(3)])
backend.stop()
""",
    )
    output, _ = child.communicate(timeout=10)
    assert output == "0\n1 2 3\n"


def test_many_may_open_a_new_file_at_once(start: Start) -> None:
    ready = threading.Barrier(8)
    seqs = []

    def publish(backend: SQLiteBackend) -> None:
        ready.wait()
        seqs.append(backend.publish(ROOM, Message("x"), keep=True).seq)

    threads = [threading.Thread(target=publish, args=(start()[0],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seqs) == list(range(1, 9))


class Watched(sqlite3.Connection):
    """A connection before whose statements something may happen."""

    before: Callable[[], object]

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self.before()
        return super().execute(*arguments)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_who_meets_tables_that_are_just_made_knows_them(path: Path, place: int) -> None:
    statements = 0

    def made() -> None:
        nonlocal statements
        statements += 1
        if statements == place:
            with contextlib.closing(sqlite3.connect(path)) as other:
                other.execute("BEGIN IMMEDIATE")
                schema.create(other)
                other.execute("COMMIT")

    with contextlib.closing(sqlite3.connect(path, factory=Watched)) as db:
        db.before = made
        assert schema.version(db) in (0, schema.SCHEMA_VERSION)
    assert statements >= place


# -- a file or disk that fails


def test_a_full_disk_is_an_error_and_nothing_is_lost(start: Start) -> None:
    backend, host = start(pragmas=["max_page_count = 60"])
    backend.subscribe([ROOM])
    stored = []
    with pytest.raises(BackendError, match="free space"):
        for number in range(1000):
            data = f"{number} " + "x" * 1000
            backend.publish(ROOM, Message(data), keep=True)
            stored.append(data)
    assert 0 < len(stored) < 1000
    page = backend.history(ROOM, limit=1000)
    assert [entry.data for entry in page.entries] == stored
    assert [d.message.data for d in host.wait_for_count(len(stored))] == stored
    # There is space again, and all goes on without a restart.
    backend._process().writer.call(
        lambda db: db.execute("PRAGMA max_page_count = 1000").fetchone(), writes=False
    )
    eventually(lambda: backend.fault() is None)
    receipt = backend.publish(ROOM, Message("x"), keep=True)
    assert receipt.seq == len(stored) + 1


def test_a_step_too_large_does_not_fail_the_others(start: Start) -> None:
    backend, _ = start(pragmas=["max_page_count = 100"])
    results: dict[int, str] = {}
    ready = threading.Barrier(8)

    def publish(number: int) -> None:
        data = "x" * (10_000_000 if number == 3 else 10)
        ready.wait()
        try:
            backend.publish(ROOM, Message(data), keep=True)
            results[number] = "stored"
        except BackendError:
            results[number] = "refused"

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: "refused" if n == 3 else "stored" for n in range(8)}
    eventually(lambda: backend.fault() is None)


def test_a_value_that_cannot_be_stored_is_its_callers_fault_alone(start: Start) -> None:
    backend, _ = start()
    with pytest.raises(BackendError, match="surrogates"):
        backend.publish(ROOM, Message("\ud800"), keep=True)
    assert backend.fault() is None
    assert backend.publish(ROOM, Message("x"), keep=True).seq == 1


def test_a_missing_directory_is_named_and_can_be_made(
    tmp_path: Path, start: Start
) -> None:
    folder = tmp_path / "missing"
    backend, _ = start(folder / "chat.db")
    with pytest.raises(BackendError, match="create the directory"):
        backend.publish(ROOM, Message("x"), keep=True)
    assert "create the directory" in str(backend.fault())
    folder.mkdir()
    eventually(lambda: backend.fault() is None)
    backend.publish(ROOM, Message("x"), keep=True)


def test_the_fault_is_known_before_anything_was_asked(
    tmp_path: Path, start: Start
) -> None:
    backend, _ = start(tmp_path / "missing" / "chat.db")
    eventually(lambda: "create the directory" in str(backend.fault()))


@pytest.mark.parametrize("existing", [False, True])
def test_a_disk_that_cannot_be_written_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, existing: bool
) -> None:
    # Rights do not bind root: a child gives them up, below a directory open to all.
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    path = folder / "chat.db"
    try:
        if existing:
            backend = SQLiteBackend(path)
            backend.start(RecordingHost())
            backend.publish(ROOM, Message("x"), keep=True)
            backend.stop()
            path.chmod(0o444)
        folder.chmod(0o555)
        child = spawn(
            path,
            """
import os
from flask_wschat.errors import BackendError
if os.geteuid() == 0:
    os.setuid(65534)
for attempt in (lambda: backend.publish("room:a", Message("y"), keep=True),
                lambda: backend.attend([("room:a", "ann", 1)])):
    try:
        print("done", attempt())
    except BackendError as error:
        print(error)
print(backend.fault())
""",
        )
        output, _ = child.communicate(timeout=10)
        lines = output.splitlines()
        assert len(lines) == 3
        assert all("the right to" in line and str(path) in line for line in lines)
    finally:
        folder.chmod(0o755)
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()


def test_a_file_of_another_program_is_left_alone(path: Path, start: Start) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE topics (name)")
    db.close()
    before = path.read_bytes()
    backend, _ = start()
    with pytest.raises(BackendError, match="another program's"):
        backend.publish(ROOM, Message("x"))
    assert "name a file of its own" in str(backend.fault())
    backend.stop()
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(path: Path, start: Start) -> None:
    path.write_bytes(b"important" * 1000)
    backend, _ = start()
    with pytest.raises(BackendError, match="is not an SQLite database"):
        backend.publish(ROOM, Message("x"))
    assert path.read_bytes() == b"important" * 1000


def test_a_file_of_a_newer_version_is_left_alone(path: Path, start: Start) -> None:
    backend, _ = start()
    backend.publish(ROOM, Message("x"))
    backend.stop()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    backend, _ = start()
    with pytest.raises(BackendError, match=r"version 99.* upgrade it"):
        backend.publish(ROOM, Message("x"))


def test_a_file_that_is_held_is_waited_for(path: Path, start: Start) -> None:
    backend, host = start()
    backend.subscribe([ROOM])
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    publisher = threading.Thread(target=backend.publish, args=(ROOM, Message("x")))
    publisher.start()
    publisher.join(0.1)
    assert publisher.is_alive()
    assert not host.deliveries
    holder.execute("COMMIT")
    publisher.join()
    assert len(host.wait_for_count(1)) == 1
    holder.close()


def test_a_question_that_has_to_write_waits_for_the_file_too(
    path: Path, start: Start
) -> None:
    backend, _ = start()
    backend.publish(ROOM, Message("x"))
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    pages = []
    asking = threading.Thread(target=lambda: pages.append(backend.history("room:b")))
    asking.start()
    asking.join(0.1)
    assert asking.is_alive()
    holder.execute("ROLLBACK")
    holder.close()
    asking.join()
    assert backend.history("room:b") == pages[0]


def test_a_file_held_for_too_long_is_an_error(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_wschat.backends.sqlite.writer.LOCK_TIMEOUT", 0.2)
    backend, _ = start()
    publish = Message("x", sender="ann", mid="m")
    page = backend.history(ROOM)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackendError, match="held by another program"):
        backend.publish(ROOM, publish, keep=True)
    assert "held by another program" in str(backend.fault())
    assert backend.history(ROOM) == page  # reading waits for nobody
    holder.execute("ROLLBACK")
    eventually(lambda: backend.fault() is None)
    assert backend.publish(ROOM, publish, keep=True).seq == 1
    holder.close()


def test_who_waits_behind_others_for_a_file_that_is_held_is_refused_at_once(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_wschat.backends.sqlite.writer.LOCK_TIMEOUT", 1.0)
    backend, _ = start()
    backend.publish(ROOM, Message("x"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert all(isinstance(r, BackendError) for r in submit(backend, 3000))
        assert time.monotonic() - began < 4  # not a second for each 500
        holder.execute("ROLLBACK")
    eventually(lambda: backend.fault() is None)
    assert [r.seq for r in submit(backend, 2)] == [1, 2]


def test_a_file_that_was_deleted_is_made_anew(path: Path, start: Start) -> None:
    backend, host = start()
    backend.subscribe([ROOM])
    backend.attend([("all", "ann", 1)])
    old = backend.publish(ROOM, Message("x"), keep=True).epoch
    for file in path.parent.iterdir():
        file.unlink()
    host.wait_for(lambda: host.losses == [None])
    assert backend.publish(ROOM, Message("y"), keep=True).epoch != old
    host.wait_for(lambda: host.data(ROOM) == ["x", "y"])
    assert backend.refresh()


def test_an_older_copy_of_the_file_is_noticed(path: Path, start: Start) -> None:
    backend, host = start()
    backend.subscribe([ROOM])
    backend.publish(ROOM, Message("1"), keep=True)
    copy, current = sqlite3.connect(path.with_name("copy.db")), sqlite3.connect(path)
    current.backup(copy)
    for data in "234":
        backend.publish(ROOM, Message(data), keep=True)
    seen = backend.history(ROOM)
    copy.backup(current)
    copy.close()
    current.close()
    host.wait_for(lambda: host.losses == [None])
    # Numbers given out again must not be taken for those that went.
    page = backend.history(ROOM, after=1, epoch=seen.epoch)
    assert not page.recovered
    assert page.epoch != seen.epoch
    assert backend.history(ROOM).epoch == page.epoch
    assert backend.publish(ROOM, Message("new"), keep=True).seq == 2
    host.wait_for(lambda: host.data(ROOM)[-1] == "new")


@pytest.mark.parametrize("by_page", [False, True])
def test_numbers_that_a_process_saw_are_not_given_again(
    path: Path, start: Start, by_page: bool
) -> None:
    backend, _ = start()
    first = backend.publish(ROOM, Message("1"), keep=True)
    if not by_page:
        backend.subscribe([ROOM])
    for data in "23":
        backend.publish(ROOM, Message(data), keep=True)
    if by_page:
        backend.subscribe([ROOM])
        assert backend.history(ROOM).seq == 3
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM log WHERE seq > 1")
        db.execute("UPDATE topics SET seq = 1")
        db.commit()
    another = backend.publish(ROOM, Message("other 2"), keep=True)
    assert (another.seq, another.epoch != first.epoch) == (2, True)
    assert not backend.history(ROOM, after=1, epoch=first.epoch).recovered
    assert backend.publish(ROOM, Message("3"), keep=True).epoch == another.epoch


def test_a_delivery_that_fails_does_not_stop_the_others(start: Start) -> None:
    backend, host = start()
    backend.subscribe([ROOM])
    deliver = host.deliver

    def fail(delivery: Any) -> None:
        host.deliver = deliver  # type: ignore[method-assign]
        raise ValueError("once")

    host.deliver = fail  # type: ignore[method-assign]
    for data in "12":
        backend.publish(ROOM, Message(data))
    host.wait_for(lambda: host.data(ROOM) == ["2"])


# -- what is deleted, and when


def rows(path: Path, table: str) -> int:
    db = sqlite3.connect(path)
    try:
        count: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count
    finally:
        db.close()


def test_the_file_keeps_no_more_than_it_must(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_wschat.backends.sqlite.leftovers.REMEMBERED", 0.2)
    backend, _ = start(size=5, linger=0.1)
    for number in range(60):
        backend.publish(ROOM, Message("x", sender="ann", mid=str(number)), keep=True)
        backend.publish(ROOM, Message("typing"))
    # The log's last row stays, whatever it is.
    eventually(lambda: rows(path, "log") <= 6 and rows(path, "mids") == 20)
    entries = backend.history(ROOM).entries
    assert [entry.seq for entry in entries] == list(range(56, 61))


def test_what_grew_leaves_the_file(path: Path, start: Start) -> None:
    backend, _ = start(linger=0.1)
    for number in range(8):
        topic, id = f"room:{number % 2}", str(number)
        growth = Growth(id, ttl=0.1)
        backend.publish(topic, Message("", event=STREAM, growth=growth))
        growth = Growth(id, 1)
        backend.publish(topic, Message("x", event=APPEND, growth=growth))
    backend.publish("room:0", Message("x", mid="0", growth=Growth("0")), keep=True)
    backend.publish("room:1", Message("", event=DISCARD, growth=Growth("1")))
    tables = ("growths", "pieces")
    assert [rows(path, table) for table in tables] == [6, 6]
    eventually(lambda: [rows(path, table) for table in tables] == [0, 0])


def test_an_idle_topic_leaves_the_file(path: Path, start: Start) -> None:
    backend, _ = start(ttl=0.1, linger=0.1)
    for number in range(30):
        message = Message("x", sender="ann", mid="m")
        backend.publish(f"room:{number}", message, keep=True)
        backend.publish(f"user:{number}", message, keep=True)
        backend.history(f"room:empty {number}")
    tables = ("log", "mids", "told", "topics")
    eventually(lambda: [rows(path, table) for table in tables] == [1, 0, 0, 0])
    assert backend.publish("room:1", Message("x"), keep=True).seq == 1


def test_a_process_that_comes_too_late_is_told(start: Start) -> None:
    late, host = start(linger=0.1)
    other, _ = start(linger=0.1)
    hold, held, holding = threading.Event(), threading.Event(), host.deliver

    def stuck(delivery: Any) -> None:
        held.set()
        hold.wait()
        holding(delivery)

    host.deliver = stuck  # type: ignore[method-assign]
    late.subscribe([ROOM])
    other.publish(ROOM, Message("first"))
    held.wait()
    host.deliver = holding  # type: ignore[method-assign]
    for number in range(20):
        other.publish(ROOM, Message(str(number)))
    path = other._path
    eventually(lambda: rows(path, "log") == 1)
    hold.set()
    host.wait_for(lambda: host.losses == [None])
    other.publish(ROOM, Message("again"))
    host.wait_for(lambda: host.data(ROOM)[-1] == "again")
    assert host.losses == [None]


def test_nothing_runs_before_the_first_call(path: Path) -> None:
    threads = threading.active_count()
    backend = SQLiteBackend(path)
    backend.start(RecordingHost())
    backend.stop()
    assert threading.active_count() == threads
    assert not path.exists()


def test_stop_lets_go_of_the_file(path: Path, start: Start) -> None:
    backend, _ = start()
    backend.publish(ROOM, Message("x"), keep=True)
    backend.stop()
    # SQLite deletes its log when the last connection is closed.
    assert [file.name for file in path.parent.iterdir()] == ["chat.db"]


FORKS = """
import os, sys, threading
from tests.backends.cluster import RecordingHost
from flask_wschat.backends.sqlite import SQLiteBackend
from flask_wschat.messages import Message

backend = SQLiteBackend(sys.argv[1])
backend.start(RecordingHost())
done = threading.Event()

def publish():
    while not done.is_set():
        backend.publish("room:a", Message("x"), keep=True)

thread = threading.Thread(target=publish)
thread.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        backend.publish("room:b", Message("y"), keep=True)
        os._exit(0)
    os.waitpid(pid, 0)
done.set()
thread.join()
print(backend.history("room:b").seq, flush=True)
backend.stop()
"""


@pytest.mark.slow
def test_who_is_forked_off_in_a_transaction_can_write(path: Path) -> None:
    """As gunicorn's workers are with --preload, whose master has published."""
    child = subprocess.run(
        [sys.executable, "-c", FORKS, str(path)],
        stdout=subprocess.PIPE,
        timeout=LONG,
    )
    assert child.stdout == b"20\n"


def test_a_file_of_an_older_version_gets_what_it_lacks(path: Path) -> None:
    backend = SQLiteBackend(path)
    backend.start(RecordingHost())
    backend.once("k", 60)
    backend.stop()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE once")
    backend.start(RecordingHost())
    assert backend.once("k", 60) and not backend.once("k", 60)
    backend.stop()


# -- what is submitted


def submit(backend: SQLiteBackend, count: int, topic: str = ROOM) -> list[Any]:
    """Submit so many, at once; return what they came to, in order."""
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for number in range(count):
        message = Message(str(number), sender="ann", mid=f"{topic} {number}")
        backend.submit(topic, message, outcomes.put, keep=True)
    return [outcomes.get(timeout=LONG) for _ in range(count)]


def test_what_waits_together_is_stored_and_handed_on_together(start: Start) -> None:
    backend, host = start(size=1000)
    backend.subscribe([ROOM])
    inside, go_on = threading.Event(), threading.Event()

    def hold(db: sqlite3.Connection) -> None:
        inside.set()
        go_on.wait()

    holder = threading.Thread(target=lambda: backend._process().writer.call(hold))
    holder.start()
    inside.wait()
    threading.Timer(0.05, go_on.set).start()
    receipts = submit(backend, 100)
    holder.join()
    assert [r.seq for r in receipts] == list(range(1, 101))
    # Of one transaction, as its word says; all are delivered before one is answered.
    assert len({d.tag for d in host.deliveries}) == 1
    assert [d.seq for d in host.deliveries] == list(range(1, 101))


def test_an_answer_that_fails_does_not_stop_the_others(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    backend, _ = start()

    def fail(outcome: object) -> None:
        raise ValueError("no good")

    backend.submit(ROOM, Message("1"), fail, keep=True)
    assert [r.seq for r in submit(backend, 3)] == [2, 3, 4]
    assert "error in an answer" in caplog.text


def test_one_that_cannot_be_stored_fails_alone_among_many(start: Start) -> None:
    backend, _ = start(size=1000)
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for number in range(60):
        data = "\ud800" if number in (0, 17, 59) else str(number)
        backend.submit(ROOM, Message(data), outcomes.put, keep=True)
    results = [outcomes.get(timeout=LONG) for _ in range(60)]
    failed = [n for n, r in enumerate(results) if isinstance(r, BackendError)]
    assert failed == [0, 17, 59]
    assert [r.seq for n, r in enumerate(results) if n not in failed] == [*range(1, 58)]
    assert backend.fault() is None


def test_each_is_answered_once_though_the_backend_stops(start: Start) -> None:
    for _ in range(5):
        backend, _ = start()
        outcomes: list[list[Any]] = []
        stopping = threading.Thread(target=backend.stop)
        while len(outcomes) < 5 or stopping.is_alive():
            mine: list[Any] = []
            outcomes.append(mine)
            backend.submit(ROOM, Message("x"), mine.append, keep=True)
            if len(outcomes) == 5:
                stopping.start()
        eventually(functools.partial(all, outcomes))
        refused = [isinstance(outcome, BackendError) for (outcome,) in outcomes]
        assert refused == sorted(refused)


def test_an_id_is_known_for_minutes_however_much_was_said(
    start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_wschat.backends.sqlite.leftovers._MOST_MIDS", 200)
    backend, _ = start(size=2, linger=0.1)
    submit(backend, 150)
    submit(backend, 1)
    eventually(lambda: rows(path, "log") <= 3)
    assert rows(path, "mids") == 150
    leftovers = backend._process().topics.leftovers
    backend._process().writer.call(
        lambda db: leftovers.forget_mids(db, time.time() + 200.0)
    )
    again = backend.publish(ROOM, Message("", sender="ann", mid=f"{ROOM} 0"), keep=True)
    assert (again.seq, again.fresh) == (1, False)
    # Of those older than that as many as ever; and never more than so many.
    backend._process().writer.call(
        lambda db: leftovers.forget_mids(db, time.time() + 400.0)
    )
    assert rows(path, "mids") == 8
    submit(backend, 250, "room:b")
    backend._process().writer.call(
        lambda db: leftovers.forget_mids(db, time.time() + 200.0)
    )
    assert rows(path, "mids") == 8 + 200


def test_what_is_taken_back_before_others_have_it_still_counts(start: Start) -> None:
    (one, _), (late, host) = start(), start()
    late.subscribe([ROOM])
    hold, held = threading.Event(), threading.Event()

    def stuck(db: sqlite3.Connection) -> None:
        held.set()
        hold.wait()

    waiting = threading.Thread(
        target=lambda: late._process().writer.call(stuck, writes=False)
    )
    waiting.start()
    held.wait()
    one.publish(ROOM, Message("secret"), keep=True)
    assert one.delete(ROOM, 1)
    hold.set()
    waiting.join()
    first, gone = host.wait_for_count(2)
    # As somebody's word in the ready-made chat, so that no plain connection has it.
    assert (first.seq, first.message) == (1, Message("null", json=True, sender=""))
    assert (gone.message.event, gone.message.data) == ("deleted", "1")


def test_a_question_reads_what_it_answers_and_not_all_that_is_kept(
    start: Start,
) -> None:
    backend, _ = start(size=3000, max_bytes=50_000)
    submit(backend, 3000)
    writer, steps = backend._process().writer, 0

    def step() -> None:
        nonlocal steps
        steps += 1

    page = backend.history(ROOM)
    writer.call(lambda db: db.set_progress_handler(step, 1))
    assert backend.history(ROOM, limit=10) == page._replace(entries=page.entries[-10:])
    tag = page.entries[-20].tag
    resumed = backend.history(ROOM, after=2981, epoch=page.epoch, tag=tag, limit=10)
    assert resumed.recovered
    backend.history(ROOM, before=2990, limit=10)
    assert backend.delete(ROOM, 2990)
    backend.publish(ROOM, Message("x" * 39_200), keep=True)  # pushes others out
    writer.call(lambda db: db.set_progress_handler(None, 0))
    # Of SQLite's instructions; one pass over all takes 10,000 and more.
    assert 500 < steps < 5000


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_a_clock_that_jumps_takes_nobody_out_and_revives_nobody(
    start: Start, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """As a host that was asleep, or began again, makes it."""
    clock = [10_000.0]
    monkeypatch.setattr("flask_wschat.backends.sqlite.system.uptime", lambda: clock[0])
    (one, _), (other, _), (dead, _) = (start(presence_ttl=10) for _ in range(3))
    for backend, user in ((one, "ann"), (other, "bob"), (dead, "eve")):
        backend.attend([(ROOM, user, 1)])
    clock[0] += jump
    for backend in (one, other):
        assert not backend.refresh()
    assert other.present(ROOM).users == {"ann": 1, "bob": 1, "eve": 1}
    for _ in range(4):
        clock[0] += 3
        for backend in (one, other):
            assert not backend.refresh()
    assert other.present(ROOM).users == {"ann": 1, "bob": 1}
