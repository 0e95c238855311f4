"""What the workers of one server have counted, whichever of them is asked."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flask_wschat.hub.figures import PLACES, SIZE, Figures
from flask_wschat.operate import folder as folders
from flask_wschat.operate import sharing as module
from flask_wschat.operate.folder import GIVEN, Folder
from flask_wschat.operate.sharing import Sharing
from tests.support.processes import Process
from tests.support.waiting import LONG, eventually

from .worker import ENOUGH

Start = Callable[..., Process]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where all workers of the server share."""
    path = tmp_path / "given"
    path.mkdir()
    monkeypatch.setenv(GIVEN, str(path))
    monkeypatch.setattr(module, "_made", Counter())
    return path


@pytest.fixture
def worker(given: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a worker, which is ready then: see `tests.operate.worker`."""
    started: list[Process] = []

    def start(*arguments: object) -> Process:
        command = ["-m", "tests.operate.worker", *map(str, arguments)]
        log = tmp_path / f"{len(started)}.log"
        process = Process(command, log, {GIVEN: str(given)}, forked="plain")
        started.append(process)
        process.start()
        if "die" not in arguments:
            process.heard("ready\n")
        return process

    yield start
    (given / ENOUGH).touch()
    for process in started:
        process.kill()


@pytest.fixture
def sharing(given: Path) -> Iterator[Sharing]:
    """That of this process, whose own figures are nothing."""
    sharing = Sharing(Figures(), "app")
    yield sharing
    if sharing._own is not None:
        sharing._own.close()


def received(sharing: Sharing) -> int:
    count = sharing.read()[0]["messages_in"]
    assert isinstance(count, int)
    return count


def files(given: Path, kind: str = "*-*") -> list[Path]:
    return sorted((given / "wschat").glob(kind))


def test_all_that_were_counted_are_told_and_gauges_of_the_living(
    given: Path, worker: Start, sharing: Sharing
) -> None:
    workers = [worker(count) for count in (1, 20, 300)]
    figures, living = sharing.read()
    assert (living, figures["messages_in"], figures["connections"]) == (4, 321, 321)
    workers[1].kill()
    workers[2].kill()
    for _ in range(3):  # at once, and as often as it is asked
        figures, living = sharing.read()
        assert (living, figures["messages_in"], figures["connections"]) == (2, 321, 1)
    assert figures["backend_up"] is True
    assert len(files(given)) == 2 and len(files(given, "*")) == 4


def test_gauges_of_who_has_no_connections_are_old(
    given: Path, worker: Start, sharing: Sharing
) -> None:
    """Nobody writes them there: for one, that the backend was away when they left."""
    for count in (0, 3):
        worker(count)
    figures, living = sharing.read()
    assert (living, figures["connections"], figures["users"]) == (3, 3, 9)
    assert figures["backend_up"] is True


def test_what_one_counts_is_there_at_once(sharing: Sharing) -> None:
    assert sharing.read()[1] == 1
    sharing._figures.add("messages_in", 7)
    sharing._figures.counts.took(PLACES["handler_seconds"], time.monotonic())
    figures, _ = sharing.read()
    assert (figures["messages_in"], figures["handler_seconds"]["count"]) == (7, 1)


def test_who_comes_after_the_dead_finds_what_they_counted(
    given: Path, worker: Start, sharing: Sharing
) -> None:
    """Also where nobody asks, workers that come and go leave one file for them all."""
    for _ in range(5):
        worker(10, "leave").wait()
    assert len(files(given)) == 1  # that of the last one
    assert received(sharing) == 50


def test_whoever_is_killed_while_adding_up_the_dead_neither_loses_nor_doubles(
    given: Path, worker: Start, sharing: Sharing
) -> None:
    worker(1, "leave").wait()
    (one,) = files(given)
    like = given / "like"
    shutil.copy(one, like)
    expected = received(sharing)
    for step in itertools.count():
        for number in range(2):
            shutil.copy(like, given / "wschat" / f"{one.name}-{step}-{number}")
        code = worker(0, "die", step).wait()
        expected += 2
        assert received(sharing) == expected == received(sharing), f"step {step}"
        if not code:
            break
        assert code == -signal.SIGKILL
    assert step >= 12
    assert files(given) == [given / "wschat" / sharing._own.name]  # type: ignore[union-attr]


def test_while_one_adds_up_the_dead_others_do_not_wait_for_it(
    given: Path, worker: Start, sharing: Sharing
) -> None:
    worker(5).kill()
    sharing.join()
    (given / "wschat" / "lock").touch()
    with (given / "wschat" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        worker(7).kill()
        assert received(sharing) == 12
        assert len(files(given)) == 2
    assert received(sharing) == 12
    assert len(files(given)) == 1


def test_who_reads_meanwhile_reads_again(
    given: Path,
    worker: Start,
    sharing: Sharing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As what was one of the files is in that of the dead then."""
    sharing.join()
    dying, others = worker(5), sharing._others

    def meanwhile(*args: Any) -> list[str]:
        if dying.running:
            dying.kill()
            worker(0, "leave").wait()  # it adds up, before it counts
            assert len(files(given, "*.total")) == 1
        return others(*args)

    monkeypatch.setattr(sharing, "_others", meanwhile)
    assert received(sharing) == 5
    assert not dying.running


def test_sums_only_grow_while_workers_die_and_others_add_them_up(
    given: Path, worker: Start, sharing: Sharing
) -> None:
    asking = worker(0, "ask")
    seen = [0]
    for _ in range(12):
        worker(10, "leave")
        seen += [received(sharing) for _ in range(20)]
    eventually(lambda: received(sharing) == 120, seconds=LONG)
    asking.heard("\n120\n")
    (given / ENOUGH).touch()
    asking.wait()
    theirs = [int(line) for line in asking.log.split()[1:]]
    assert seen == sorted(seen) and theirs == sorted(theirs)
    assert theirs[-1] == 120


def test_a_child_of_a_worker_is_none(
    given: Path, worker: Start, sharing: Sharing
) -> None:
    """It counts for itself, and does not make its parent live on."""
    parent = worker(3, "fork")
    assert received(sharing) == 3
    parent.kill()
    figures, living = sharing.read()
    assert (living, figures["messages_in"], figures["connections"]) == (1, 3, 0)


def test_where_files_are_cleaned_up_workers_make_new_ones(
    given: Path, sharing: Sharing
) -> None:
    sharing._figures.add("messages_in", 5)
    assert received(sharing) == 5
    for path in files(given, "*"):
        path.unlink()
    sharing._figures.add("messages_in", 5)
    assert received(sharing) == 10
    shutil.rmtree(given / "wschat")
    sharing._figures.add("messages_in", 5)
    assert received(sharing) == 15
    assert len(files(given)) == 1
    other = Folder(str(given / "wschat"))
    assert sharing._own is not None and other.has(sharing._own.name, sharing._own.fd)
    other.close()


@pytest.mark.parametrize("data", [b"", b"{", b'["1", {}', bytes(100)])
def test_what_a_power_failure_leaves_is_nothing(
    given: Path, sharing: Sharing, data: bytes
) -> None:
    sharing.join()
    (given / "wschat" / sharing._total).write_bytes(data)
    (given / "wschat" / f"{sharing._key}.9-9").write_bytes(data)
    assert received(sharing) == 0
    assert len(files(given)) == 1


# ---- where it cannot be --------------------------------------------------------------


def refuse_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def refuse_open(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


def refuse_file(path: Path) -> None:
    path.touch()


def refuse_nothing_there(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize(
    "refuse", [refuse_link, refuse_open, refuse_file, refuse_nothing_there]
)
def test_a_folder_that_is_not_ours_alone_is_not_used(
    given: Path, caplog: pytest.LogCaptureFixture, refuse: Callable[[Path], None]
) -> None:
    refuse(given / "wschat")
    sharing = Sharing(Figures(), "app")
    sharing._figures.add("messages_in", 3)
    assert received(sharing) == 3 == received(sharing)
    assert sharing.read()[1] == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert GIVEN in record.getMessage() and str(given) in record.getMessage()
    assert not given.exists() or not [*given.rglob("*.*")]


def test_a_folder_of_another_user_is_not_used(
    given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (given / "wschat").mkdir(mode=0o700)
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(PermissionError, match="not this user's alone"):
        Folder(str(given / "wschat"))


def test_a_handler_of_signals_may_ask_while_the_program_does(
    given: Path, sharing: Sharing
) -> None:
    """Else it would wait for ever for whom it interrupts."""
    sharing.join()
    seen = sharing._with(lambda own: sharing.read())
    assert seen is not None and seen[1] == 1


@pytest.mark.parametrize("room", [0, 100])
def test_on_a_full_disk_each_worker_counts_for_itself(
    given: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    room: int,
) -> None:
    def full(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(28, "No space left on device")
        return room

    monkeypatch.setattr(os, "write", full)
    sharing = Sharing(Figures(), "app")
    assert sharing.read()[1] == 1
    assert "No space left" in caplog.text
    assert files(given) == []


def test_where_the_dead_cannot_be_added_up_they_are_counted_all_the_same(
    given: Path, worker: Start, sharing: Sharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing.join()
    (given / "wschat" / f"{sharing._total}.new").mkdir()  # it cannot be written
    for number in (1, 2):
        worker(7).kill()
        assert received(sharing) == 7 * number
    assert sharing.read()[1] == 1


def test_applications_of_one_process_do_not_mix(given: Path) -> None:
    names = ("app", "app", "other")
    several = [Sharing(Figures(), name) for name in names]
    for number, sharing in enumerate(several):
        sharing._figures.add("messages_in", 10**number)
    assert [received(sharing) for sharing in several] == [1, 10, 100]
    assert len({sharing._key for sharing in several}) == 3
    for sharing in several:
        assert sharing._own is not None
        sharing._own.close()


# ---- whose it is ---------------------------------------------------------------------


def test_alone_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(GIVEN, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sharing = Sharing(Figures(), "app")
    assert sharing.read()[1] == 1
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def told_by_gunicorn(worker: Any) -> Iterator[None]:
    """Have SIGTERM handled by a method of ``worker``, as in gunicorn's processes."""

    class Gunicorn(SimpleNamespace):
        def handle_exit(self, *args: object) -> None: ...

    before = signal.signal(signal.SIGTERM, Gunicorn(**worker).handle_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def test_gunicorns_master_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GIVEN, raising=False)
    cfg = SimpleNamespace(uid=os.geteuid())
    with told_by_gunicorn({"cfg": cfg, "ppid": os.getppid()}):  # a worker
        path = folders.shared_by_server()
        assert path is not None and f"-{os.getppid()}-" in path
    with told_by_gunicorn({"cfg": cfg, "pid": os.getppid()}):  # just forked
        assert folders.shared_by_server() == path
    with told_by_gunicorn({"cfg": cfg, "pid": os.getppid(), "ppid": 1}):
        assert folders.shared_by_server() is None  # another one's child
    assert folders.shared_by_server() is None


def test_what_root_begins_for_another_user_is_that_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    was: list[int] = []
    monkeypatch.setattr(os, "seteuid", was.append)
    uid = os.geteuid()
    for soon in (uid, uid + 1):
        with (
            told_by_gunicorn({"cfg": SimpleNamespace(uid=soon)}),
            contextlib.suppress(ZeroDivisionError),
            folders.as_its_user(),
        ):
            was.append(-1)
            raise ZeroDivisionError
    assert was == [-1, uid + 1, -1, uid]


def test_a_master_is_not_taken_for_another_one_with_its_number() -> None:
    one = folders._name(os.getpid())
    assert one == folders._name(os.getpid())
    born = {folders._name(pid).rpartition("-")[2] for pid in (os.getpid(), 1)}
    assert len(born) == 2


def test_what_masters_have_left_is_removed(
    tmp_path: Path, worker: Start, given: Path
) -> None:
    uid = os.geteuid()
    gone = tmp_path / f"wschat-{uid}-{os.getpid()}-0123456789abcdef"
    runs = tmp_path / folders._name(os.getpid())
    serves = tmp_path / f"wschat-{uid}-{os.getpid()}-fedcba9876543210"
    others = tmp_path / f"wschat-{uid + 1}-1-0123456789abcdef"
    redis = tmp_path / "wschat-redis-1-2"
    for path in (gone, runs, others, redis):
        path.mkdir(mode=0o700)
        (path / "1.2-3").write_bytes(bytes(SIZE))
        (path / "lock").touch()
    link = tmp_path / f"wschat-{uid}-1-0000000000000000"
    link.symlink_to(redis)
    worker(1)  # of a container with which we share the folder
    (given / "wschat").rename(serves)
    folders.sweep(str(runs))
    left = {path.name for path in tmp_path.glob("wschat-*")}
    assert left == {path.name for path in (runs, serves, others, redis, link)}
    assert [*redis.iterdir()]
