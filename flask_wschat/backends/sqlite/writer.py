"""The one thread that touches a process's SQLite file: it writes, reads and delivers.

Whoever wants something puts a step on its queue, and waits or is called. The thread
takes all that waits, does it in one transaction, commits, delivers what was published,
and answers: so many callers share one sync of the disk, and nobody is told of what is
not stored (see docs/decisions/17). The queue is the C type, which no monkey-patching
changes: one side of it is a thread of the system's.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import sqlite3
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from ...errors import BackendError, WSChatError
from ...messages import Receipt
from ..contract import Host
from .file import LOCK_TIMEOUT, File
from .forks import Unforked
from .journal import Journal
from .log import Log
from .schema import SCHEMA_VERSION, WrongFile
from .topics import Publication, Topics

logger = logging.getLogger("flask_wschat")
_random = random.Random()  # the application's own may be seeded

T = TypeVar("T")
Step = Callable[[sqlite3.Connection], Any]

POLL = 0.01
"""Seconds between two looks for what other processes have published."""
CALM_POLL = 0.05
"""The same where nothing was for ``CALM`` seconds: a look of a thread that has slept
takes 0.05 to 0.1 ms of CPU, which is 0.5 to 1 % of a core at 100 in a second."""
CALM = 5.0
TIDY = 2.0
"""Seconds between two looks for what can be deleted."""
PROBE = 1.0
"""Seconds between two attempts while nothing works."""
_SHORT = 0.05  # seconds to wait for others while nothing works
_PATIENCE = 30.0  # seconds a caller waits for an answer; over any disk's own timeout
_ROOM = 1 << 19  # bytes that a disk that was full has to have before all is well again
_BATCH = 500  # steps of one transaction: others wait meanwhile


class _Job:
    """A step, or a publication; ``done`` gets what became of it."""

    __slots__ = ("done", "outcome", "step", "writes")

    def __init__(
        self,
        step: Step | Publication | None,
        writes: bool,
        done: Callable[[Any], None] | None = None,
    ) -> None:
        self.step = step  # None: end
        self.writes = writes
        self.done = done
        self.outcome: Any = None  # an exception, if that is what it came to

    def answer(self) -> None:
        done, self.done = self.done, None
        if done is not None:
            try:
                done(self.outcome)
            except Exception:
                logger.exception("error in an answer")


class Writer:
    """A process's thread, queue and connection; of no use to a process forked off."""

    def __init__(
        self,
        file: File,
        host: Host,
        log: Log,
        topics: Topics,
    ) -> None:
        self._path = file.path
        self._file = file
        self._host = host
        self._journal = Journal(file.path)
        self._log = log
        self._topics = topics
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._nothing: SimpleQueue[None] = SimpleQueue()  # to wait for, natively
        self._starters = [host.start_thread]
        self._at_work = Unforked()
        self._ended = False
        self.fault: str | None = None
        # Only the thread uses what follows.
        self._db: sqlite3.Connection | None = None
        self._version = -1
        self._replaced = False
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
        outcome: T = self._wait(step, writes)
        return outcome

    def publish(self, publication: Publication) -> Receipt:
        """Return what became of it, when it is on the disk."""
        receipt: Receipt = self._wait(publication, True)
        return receipt

    def submit(
        self, publication: Publication, done: Callable[[Receipt | Exception], None]
    ) -> None:
        """Have ``done`` called with what ``publish`` returns or raises."""

        def explain(outcome: Receipt | Exception) -> None:
            if isinstance(outcome, Exception):
                outcome = self._as_raised(outcome)
            done(outcome)

        try:
            self._put(_Job(publication, True, explain))
        except BackendError as error:
            done(error)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Deliver ``topics`` from now on."""

        def step(db: sqlite3.Connection) -> None:
            self._log.topics.update(topics)

        self.call(step, writes=False)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        self._log.topics.difference_update(topics)
        self._log.seen.forget(topics)

    def note(self, topic: str, epoch: str, seq: int) -> None:
        """Note that a page which went out has told of ``seq``."""
        if topic in self._log.topics:
            self._log.seen.note(topic, epoch, seq)

    def stop(self, step: Step) -> None:
        """Do a last step, close the file and end the thread."""
        with contextlib.suppress(BackendError):
            self.call(step)
        ended = self._host.event()
        with contextlib.suppress(BackendError):
            self._put(_Job(None, False, lambda _: ended.set()))
            ended.wait(LOCK_TIMEOUT)

    def _wait(self, step: Step | Publication, writes: bool) -> Any:
        event, outcomes = self._host.event(), []

        def done(outcome: Any) -> None:
            outcomes.append(outcome)
            event.set()

        self._put(_Job(step, writes, done))
        if not event.wait(_PATIENCE):
            raise BackendError(f"{self._path} gave no answer in {_PATIENCE:g} s")
        outcome = outcomes[0]
        if isinstance(outcome, Exception):
            raise self._as_raised(outcome) from outcome
        return outcome

    def _as_raised(self, error: Exception) -> Exception:
        if isinstance(error, WSChatError):
            return error
        return BackendError(self._file.explain(error))

    def _put(self, job: _Job) -> None:
        if self._ended:
            raise self._closed()
        self.start()
        self._queue.put(job)
        if self._ended:
            self._refuse()

    def _refuse(self) -> None:
        """Answer those who came too late; from any thread."""
        with contextlib.suppress(Empty):
            while True:
                job = self._queue.get_nowait()
                job.outcome = self._closed()
                job.answer()

    def _closed(self) -> BackendError:
        return BackendError(f"{self._path} is closed: this backend was stopped")

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
                    job.outcome = error
            # Only now: who is answered finds delivered here what was stored before.
            for job in steps:
                job.answer()
            if not ended:
                jobs = self._take()
        self._ended = True
        self._close()
        jobs[-1].answer()
        self._refuse()

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
        if not self._log.reads:
            return TIDY
        return POLL if time.monotonic() < self._log.used_at + CALM else CALM_POLL

    def _work(self, jobs: list[_Job]) -> None:
        now = time.monotonic()
        try:
            if jobs:
                # Of all who wait while it is held only the first ones wait for long.
                patience = LOCK_TIMEOUT if self.fault is None else _SHORT
                self._transact(jobs, now + patience)
            elif self._db is not None and self._file.is_another():
                self._renew()
            elif (self.fault or self._db is None) and now >= self._probe_at:
                self._probe_at = now + PROBE
                until = now if self.fault else now + LOCK_TIMEOUT
                self._transact([_Job(self._probe, True)], until)
            self._log.rest()
            if not jobs:
                self._look()
            if now >= self._tidy_at:
                self._clean()
        except (sqlite3.Error, OSError, WrongFile) as error:
            self._fail(error)

    def _transact(self, jobs: list[_Job], until: float) -> None:
        """Do ``jobs``, commit and deliver; where that fails, in smaller parts."""
        writes = any(job.writes for job in jobs)
        try:
            db = self._begin(writes, until)
        except (sqlite3.Error, OSError, WrongFile) as error:
            for job in jobs:
                job.outcome = error
            self._fail(error)
            return
        try:
            self._log.begin(db)
            self._do(db, jobs)
            db.execute("COMMIT")
        except Exception as error:
            self._rollback()
            if not writes and _is_locked(error):
                jobs[0].writes = True  # it had to write, and others did meanwhile
                self._transact(jobs, until)
            elif len(jobs) > 1:
                half = len(jobs) // 2
                self._transact(jobs[:half], until)
                self._transact(jobs[half:], until)
            else:
                jobs[0].outcome = error
                if _is_of_the_file(error):
                    self._fail(error)
            return
        if self._file.is_replaced():
            # It is in a file that nobody will read: once more, in the one there is.
            self._log.undo()
            self._transact(jobs, until)
            return
        self._log.hand_on()
        if writes and self.fault is not None:  # reading may work without writing
            logger.warning("%s works again", self._path)
            self.fault = None

    def _do(self, db: sqlite3.Connection, jobs: list[_Job]) -> None:
        """Do ``jobs`` in their order; publications that follow each other as one."""
        for together, group in itertools.groupby(
            jobs, lambda job: isinstance(job.step, Publication)
        ):
            some = list(group)
            if together:
                publications = [cast("Publication", job.step) for job in some]
                outcomes = self._topics.publish(db, publications)
                for job, outcome in zip(some, outcomes, strict=True):
                    job.outcome = outcome
            else:
                for job in some:
                    job.outcome = cast("Step", job.step)(db)

    def _renew(self) -> None:
        """Go on with the file that is there now."""
        self._transact([_Job(self._probe, True)], time.monotonic() + LOCK_TIMEOUT)

    def _probe(self, db: sqlite3.Connection) -> None:
        """Write something that changes nothing, to learn whether that works."""
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
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
                if writes:
                    self._journal.check()
                db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                return db
            except sqlite3.OperationalError as error:
                if not _is_locked(error) or time.monotonic() >= until:
                    raise
            self._nap(_random.uniform(0.0003, 0.0015))
            if self._db is not None:
                self._look()

    def _look(self) -> None:
        """Deliver what others have published since the last look."""
        db = self._db
        if db is None or not self._log.reads:
            return
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version = version
            self._log.follow(db)

    def _clean(self) -> None:
        self._tidy_at = time.monotonic() + TIDY
        db = self._db
        if db is None:
            return
        if self._file.is_replaced():
            self._renew()
            return
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _is_locked(error):
                return
            raise
        try:
            if self._topics.leftovers.tidy(db):
                self._tidy_at = time.monotonic() + POLL
            db.execute("COMMIT")
        finally:
            self._rollback()
        self._journal.look(db)
        self._journal.check()

    # -- the connection

    def _open(self) -> sqlite3.Connection:
        if self._db is not None and self._file.is_replaced():
            self._file.put_away()
            self._close()
            self._replaced = True
        if self._db is None:
            self._replaced = self._replaced or self._file.is_another()
            self._db = db = self._file.open()
            if self._replaced:
                logger.error(
                    "%s was replaced: what the old one kept is lost", self._path
                )
                self._log.restart(db)
                self._replaced = False
            self._version = -1
            self._tidy_at = time.monotonic() + TIDY
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _rollback(self) -> None:
        if self._db is not None and self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
        self._log.undo()

    def _nap(self, seconds: float) -> None:
        with contextlib.suppress(Empty):
            self._nothing.get(timeout=seconds)

    def _fail(self, error: Exception) -> None:
        if self.fault is None:
            logger.error("%s", self._file.explain(error))
        self.fault = self._file.explain(error)
        if not _is_locked(error) and "full" not in str(error):
            self._close()  # the next attempt opens what is there then


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _is_of_the_file(error: Exception) -> bool:
    """Whether all steps would fail so, not just that with some value in it."""
    return type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError)
