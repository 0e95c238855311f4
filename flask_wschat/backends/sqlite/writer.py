"""The one thread that touches a process's SQLite file: it writes, reads and delivers.

Whoever wants something puts a step on its queue and waits. The thread takes all that
waits, does it in one transaction, commits, delivers what the log has by then, and
answers: so many callers share one sync of the disk, and nobody is told of what is not
stored (see docs/decisions/17). The queue is the C type, which no monkey-patching
changes: one side of it is a thread of the system's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import stat
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...errors import BackendError
from ...transports import Event
from ..contract import Host
from ..pages import Seen
from . import tables
from .forks import Unforked

logger = logging.getLogger("flask_wschat")
_random = random.Random()  # the application's own may be seeded

T = TypeVar("T")
Step = Callable[[sqlite3.Connection], Any]

POLL = 0.01
"""Seconds between two looks for what other processes have published."""
LOCK_TIMEOUT = 5.0
"""Seconds to wait for others to let go of the file."""
TIDY = 2.0
"""Seconds between two looks for what can be deleted."""
PROBE = 1.0
"""Seconds between two attempts while nothing works."""
_PATIENCE = 30.0  # seconds a caller waits for an answer; over any disk's own timeout
_ROOM = 1 << 19  # bytes that a disk that was full has to have before all is well again
_BATCH = 500  # steps of one transaction: others wait meanwhile

_REMEDIES = {
    "locked": "is held by another program for over {timeout:g} s: end the shell,"
    " backup or transaction that has it open",
    "full": "cannot grow: free space on its disk",
    "readonly": "cannot be written: give the server's user the right to write the file"
    " and its directory, on a disk that is not mounted read-only",
    "unable to open": "cannot be opened: give the server's user the right to read and"
    " write it and its directory",
    "disk I/O": "cannot be read or written, the disk reports an error: check the disk"
    " and the system's log",
    "not a database": "is not an SQLite database: name another file",
    "malformed": "is damaged: restore it from a backup, or delete it with all it keeps",
}


class _Job:
    __slots__ = ("answer", "done", "error", "step", "writes")

    def __init__(
        self, step: Step | None, writes: bool, done: Event | None = None
    ) -> None:
        self.step = step  # None: end
        self.writes = writes
        self.done = done
        self.answer: Any = None
        self.error: Exception | None = None


class Writer:
    """A process's thread, queue and connection; of no use to a process forked off."""

    def __init__(
        self,
        path: Path,
        host: Host,
        tidy: Callable[[sqlite3.Connection], bool],
        seen: Seen,
        pragmas: Sequence[str],
    ) -> None:
        self._path = path
        self._host = host
        self._tidy = tidy
        self._seen = seen
        self._pragmas = pragmas
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._nothing: SimpleQueue[None] = SimpleQueue()  # to wait for, natively
        self._starters = [host.start_thread]
        self._at_work = Unforked()
        self._ended = False
        self.fault: str | None = None
        # Only the thread uses what follows.
        self._db: sqlite3.Connection | None = None
        self._topics: set[str] = set()
        self._last: int | None = None  # the log's row delivered last; None: no reading
        self._version = -1
        self._inode = 0
        self._warned = False
        self._tidy_at = 0.0
        self._probe_at = 0.0

    # -- for the callers

    def start(self) -> None:
        """Start the thread, unless that was done; ``BackendError``: there is none."""
        with contextlib.suppress(IndexError):
            start = self._starters.pop()  # of two callers only one gets it
            try:
                start(self._run)
            except OSError as error:
                self._starters.append(start)  # for the next one who calls
                raise BackendError(f"{self._path} needs a thread: {error}") from error

    def call(self, step: Callable[[sqlite3.Connection], T], writes: bool = True) -> T:
        """Return what ``step`` returns, when it is on the disk.

        With ``writes`` False the step most often only reads, and then waits for no
        other process.

        :raises BackendError: it is not done, or not known to be done.
        """
        job = self._put(step, writes)
        assert job.done is not None
        if not job.done.wait(_PATIENCE):
            raise BackendError(f"{self._path} gave no answer in {_PATIENCE:g} s")
        if job.error is not None:
            raise BackendError(self._explain(job.error)) from job.error
        answer: T = job.answer
        return answer

    def subscribe(self, topics: Sequence[str]) -> None:
        """Deliver ``topics`` from now on."""

        def step(db: sqlite3.Connection) -> None:
            self._topics.update(topics)

        self.call(step, writes=False)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        self._topics.difference_update(topics)
        self._seen.forget(topics)

    def note(self, topic: str, epoch: str, seq: int) -> None:
        """Note that a page which went out has told of ``seq``."""
        if topic in self._topics:
            self._seen.note(topic, epoch, seq)

    def stop(self, step: Step) -> None:
        """Do a last step, close the file and end the thread."""
        with contextlib.suppress(BackendError):
            self.call(step)
        if done := self._put(None, False).done:
            done.wait(LOCK_TIMEOUT)

    def _put(self, step: Step | None, writes: bool) -> _Job:
        if self._ended:
            raise BackendError(f"{self._path} is closed: this backend was stopped")
        self.start()
        job = _Job(step, writes, self._host.event())
        self._queue.put(job)
        return job

    # -- the thread

    def _run(self) -> None:
        jobs: list[_Job] = []  # the first turn opens the file, so that `fault` knows
        ended = False
        while not ended:
            ended = any(job.step is None for job in jobs)
            steps = [job for job in jobs if job.step is not None]
            try:
                with self._at_work:
                    self._work(steps)
            except Exception as error:  # a fault of ours must not end the thread
                logger.exception("error in the thread of %s", self._path)
                for job in steps:
                    job.error = job.error or error
            # Only now: who is answered finds delivered here what was stored before.
            _answer(steps)
            if not ended:
                jobs = self._take()
        self._ended = True
        self._close()
        _answer(jobs)

    def _take(self) -> list[_Job]:
        """Wait for work, or until it is time to look after the file."""
        jobs: list[_Job] = []
        with contextlib.suppress(Empty):
            jobs.append(self._queue.get(timeout=self._idle_time()))
            while len(jobs) < _BATCH and jobs[-1].step is not None:
                jobs.append(self._queue.get_nowait())
        return jobs

    def _idle_time(self) -> float:
        if self._db is None:
            return PROBE
        return TIDY if self._last is None else POLL

    def _work(self, jobs: list[_Job]) -> None:
        now = time.monotonic()
        try:
            if jobs:
                self._transact(jobs, now + LOCK_TIMEOUT)
            elif (self.fault or self._db is None) and now >= self._probe_at:
                self._probe_at = now + PROBE
                until = now if self.fault else now + LOCK_TIMEOUT
                self._transact([_Job(self._probe, True)], until)
            if not self._topics:
                self._last = None
            self._look(written=bool(jobs))
            if now >= self._tidy_at:
                self._clean()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def _transact(self, jobs: list[_Job], until: float) -> None:
        """Do all of ``jobs`` and commit; where that fails, each alone."""
        writes = any(job.writes for job in jobs)
        for job in jobs:
            job.error = None
        try:
            db = self._begin(writes, until)
        except (sqlite3.Error, OSError, tables.WrongFile) as error:
            for job in jobs:
                job.error = error
            self._fail(error)
            return
        try:
            if self._last is None:  # one of the steps may be the first to subscribe
                self._last = tables.newest(db)
            for job in jobs:
                assert job.step is not None
                job.answer = job.step(db)
            db.execute("COMMIT")
        except Exception as error:
            self._rollback()
            if not writes and _is_locked(error):
                jobs[0].writes = True  # it had to write, and others did meanwhile
                self._transact(jobs, until)
            elif len(jobs) > 1:
                for job in jobs:
                    self._transact([job], until)
            else:
                jobs[0].error = error
                if _is_of_the_file(error):
                    self._fail(error)
            return
        if writes and self.fault is not None:  # reading may work without writing
            logger.warning("%s works again", self._path)
            self.fault = None

    def _probe(self, db: sqlite3.Connection) -> None:
        """Write something that changes nothing, to learn whether that works."""
        db.execute(f"PRAGMA user_version = {tables.SCHEMA_VERSION}")
        disk = os.statvfs(self._path.parent)
        if self.fault is not None and disk.f_bavail * disk.f_frsize < _ROOM:
            raise sqlite3.OperationalError("the disk is full but for a little")

    def _begin(self, writes: bool, until: float) -> sqlite3.Connection:
        """Begin a transaction, delivering what others write while it waits for them.

        SQLite's own waiting sleeps up to 100 ms at a time, in which a process that is
        always busy is served again and again, and one that is not waits for seconds.
        """
        while True:
            try:
                db = self._open()
                db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                return db
            except sqlite3.OperationalError as error:
                if not _is_locked(error) or time.monotonic() >= until:
                    raise
            self._nap(_random.uniform(0.0003, 0.0015))
            if self._db is not None:
                self._look()

    def _look(self, written: bool = False) -> None:
        """Deliver what the log has that was not delivered here yet."""
        db = self._db
        if db is None or self._last is None:
            return
        if not written:
            version = db.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return
            self._version = version
        found = False
        for row in tables.read(db, self._last):
            found = True
            if row[0] != self._last + 1:
                self._host.lost(None)  # paused for so long that others deleted it
            self._last = row[0]
            if row[1] in self._topics:
                try:
                    delivery = tables.as_delivery(row)
                    if delivery.seq:
                        self._seen.note(delivery.topic, delivery.epoch, delivery.seq)
                    self._host.deliver(delivery)
                except Exception:
                    logger.exception("error in a delivery to %s", row[1])
        if not found and not written and tables.newest(db) < self._last:
            # An older copy of the file took its place.
            self._last = tables.newest(db)
            self._host.lost(None)

    def _clean(self) -> None:
        self._tidy_at = time.monotonic() + TIDY
        if self._db is None:
            return
        if not self._path.exists() or os.stat(self._path).st_ino != self._inode:
            self._close()  # it was deleted or replaced, and other processes use another
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _is_locked(error):
                return
            raise
        try:
            if self._tidy(self._db):
                self._tidy_at = time.monotonic() + POLL
            self._db.execute("COMMIT")
        finally:
            self._rollback()

    # -- the connection

    def _open(self) -> sqlite3.Connection:
        if self._db is not None:
            return self._db
        self._make_private()
        db = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            tables.is_made(db)  # before anything is changed in a file not ours
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise tables.WrongFile("is on a network disk: name one on a local disk")
            # Synced at each commit. With 40 callers, who share one, that is 12,000
            # messages per second, and 13,900 with NORMAL, which syncs only now and
            # then and may lose the last ones with the power (ext4 on a virtual disk
            # that takes 0.5 ms for a sync; one of 5 ms still allows 40 / 5 ms):
            # python -m benchmarks.backends --only says
            db.execute("PRAGMA synchronous = FULL")
            # 16 MiB: with 100,000 rooms a fifth more per second than with 2 MiB
            # (the same with --only rooms).
            db.execute("PRAGMA cache_size = -16384")
            db.execute("PRAGMA journal_size_limit = 16777216")
            for pragma in self._pragmas:
                db.execute(f"PRAGMA {pragma}")
            db.execute("BEGIN IMMEDIATE")
            tables.create(db)
            db.execute("COMMIT")
            inode = os.stat(self._path).st_ino
        except BaseException:
            db.close()
            raise
        if self._inode not in (0, inode):
            logger.error("%s was replaced: what the old one kept is lost", self._path)
            if self._last is not None:
                self._last = tables.newest(db)
                self._host.lost(None)
        self._db, self._inode = db, inode
        self._version = -1
        self._tidy_at = time.monotonic() + TIDY
        return db

    def _make_private(self) -> None:
        """Make the file, if there is none, for its user alone: it has all that is said.

        SQLite itself would let everybody read it, and gives the files beside it the
        mode that it has.
        """
        try:
            # Made, or left alone: to close a file that another connection of this
            # process has open would take its locks away.
            how = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            os.close(os.open(os.path.realpath(self._path), how, 0o600))
        except FileExistsError:
            self._warn_of_readers()
        except OSError:
            pass  # SQLite says it better

    def _warn_of_readers(self) -> None:
        if self._warned or os.name != "posix":
            return
        self._warned = True
        with contextlib.suppress(OSError):
            place = self._path.resolve()
            readable = place.stat().st_mode & stat.S_IROTH
            if readable and place.parent.stat().st_mode & stat.S_IXOTH:
                logger.warning(
                    "%s may be read by every user of this host: chmod o= %s*",
                    self._path,
                    self._path,
                )

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _rollback(self) -> None:
        if self._db is not None and self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _nap(self, seconds: float) -> None:
        with contextlib.suppress(Empty):
            self._nothing.get(timeout=seconds)

    def _fail(self, error: Exception) -> None:
        if self.fault is None:
            logger.error("%s", self._explain(error))
        self.fault = self._explain(error)
        if not _is_locked(error) and "full" not in str(error):
            self._close()  # the next attempt opens what is there then

    def _explain(self, error: Exception) -> str:
        if isinstance(error, tables.WrongFile):
            return f"{self._path} {error}"
        if not self._path.parent.is_dir():
            return f"{self._path} cannot be made: create the directory first"
        for words, remedy in _REMEDIES.items():
            if words in str(error):
                return f"{self._path} {remedy.format(timeout=LOCK_TIMEOUT)} ({error})"
        return f"{self._path}: {error}"


def _answer(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.done is not None:
            job.done.set()


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _is_of_the_file(error: Exception) -> bool:
    """Whether all steps would fail so, not just that with some value in it."""
    return type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError)
