"""A file that the processes of one host share: durable, with nothing to install."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote

from ...errors import BackendError, ConfigError, PollError
from ...logs import redacted
from ...messages import Attendance, MadePoll, Message, Page, Receipt, Tally
from ..contract import Host, only
from . import made, once, polls
from .file import File
from .log import Log
from .people import People
from .topics import Publication, Topics
from .writer import Writer

T = TypeVar("T")

# What a fork left behind. Closed or collected in the child, a connection could take the
# file's locks and its log from the parent.
_inherited: list[object] = []


class SQLiteBackend:
    """Topics, presence and polls in ``path``; several processes may share it.

    **What survives.** A call returns when its transaction is synced to the disk, so
    what was acknowledged survives a kill -9 and a loss of power (as far as the disk is
    honest about its own cache). What was not may or may not be there: a message tried
    again with its ``mid`` is stored once.

    **Latency.** A process sees its own publications when their transaction is over,
    those of others within 10 ms more; within 50 ms after some quiet seconds.

    **Fork.** A process opens the file at its first call; one forked off opens its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: int = 256,
        max_bytes: int = 1 << 20,
        ttl: float = 86400.0,
        presence_ttl: float = 45.0,
        share: float = 0.25,
        linger: float = 10.0,
        pragmas: Sequence[str] = (),
    ) -> None:
        """
        ``linger``: seconds for which everything published stays readable for processes
        that lag; those that lag more are told what they lost. ``pragmas`` are further
        settings of the connection, such as ``"mmap_size = 268435456"``.
        """
        self._path = Path(path).absolute()  # a server may change its directory
        self._size = size
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._presence_ttl = presence_ttl
        self._share = share
        self._linger = linger
        self._pragmas = tuple(pragmas)
        self._host: Host | None = None
        self._processes: dict[int, _Process] = {}

    @classmethod
    def from_url(
        cls,
        url: str,
        **options: Any,
    ) -> SQLiteBackend:
        """Return a backend for ``sqlite:///file.db``, or ``sqlite:////absolute.db``.

        :raises ConfigError: it names no file.
        """
        scheme, _, path = url.partition(":///")
        if scheme != "sqlite" or not path or path == ":memory:":
            raise ConfigError(
                "WSCHAT_URL must name a file, as sqlite:///file.db (in the working"
                " directory) or sqlite:////var/lib/file.db do, not"
                f" {redacted(url)!r}"
            )
        return cls(unquote(path), **options)

    def start(self, host: Host) -> None:
        self._host = only(host, self._host)

    def stop(self) -> None:
        self._host = None  # first, so that nobody makes another process's part
        process = self._processes.pop(os.getpid(), None)
        if process is not None:
            process.writer.stop(process.people.leave)

    def fault(self) -> str | None:
        if self._host is None:
            return "the backend is not started, or stopped"
        writer = self._process().writer
        try:
            writer.start()  # it opens the file, so that the next one who asks knows
        except BackendError as error:
            return str(error)
        return writer.fault

    # -- messages

    def subscribe(self, topics: Sequence[str]) -> None:
        self._process().writer.subscribe(topics)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        self._process().writer.unsubscribe(topics)

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> Receipt:
        return self._process().writer.publish(Publication(topic, message, keep))

    def submit(
        self,
        topic: str,
        message: Message,
        done: Callable[[Receipt | Exception], None],
        *,
        keep: bool = False,
    ) -> None:
        try:
            writer = self._process().writer
        except BackendError as error:
            done(error)
        else:
            writer.submit(Publication(topic, message, keep), done)

    def delete(self, topic: str, seq: int) -> bool:
        topics = self._process().topics
        return self._call(lambda db: topics.delete(db, topic, seq))

    def taken_back(self, topic: str) -> list[int]:
        process = self._process()
        return process.writer.call(
            lambda db: process.topics.taken_back(db, topic), writes=False
        )

    def history(
        self,
        topic: str,
        *,
        after: int | None = None,
        epoch: str | None = None,
        tag: str | None = None,
        before: int | None = None,
        limit: int = 50,
        max_bytes: int | None = None,
        growing: bool = True,
    ) -> Page:
        process = self._process()

        def step(db: sqlite3.Connection) -> Page:
            return process.topics.history(
                *(db, topic),
                after=after,
                epoch=epoch,
                tag=tag,
                before=before,
                limit=limit,
                max_bytes=max_bytes,
                growing=growing,
            )

        page = process.writer.call(step, writes=False)
        process.writer.note(topic, page.epoch, page.seq)
        return page

    def claim(self, topics: Sequence[str], message: Message) -> None:
        known = self._process().topics

        def step(db: sqlite3.Connection) -> None:
            for topic in topics:
                known.claim(db, topic, message)

        self._call(step, writes=False)

    # -- people

    def attend(self, changes: Sequence[tuple[str, str, int]]) -> None:
        people = self._process().people
        self._call(lambda db: people.attend(db, changes))

    def present(self, topic: str, *, heard: bool = False) -> Attendance:
        people = self._process().people
        return self._call(lambda db: people.present(db, topic, heard), writes=False)

    def refresh(self) -> bool:
        people = self._process().people
        self._call(people.refresh)
        dead, people.dead = people.dead, False
        return dead

    # -- what may happen once

    def once(self, key: str, seconds: float) -> bool:
        return self._call(lambda db: once.ask(db, key, seconds))

    def taken(self, key: str) -> bool:
        return self._call(lambda db: once.taken(db, key), writes=False)

    def lease(self, key: str, holder: str, seconds: float) -> bool:
        return self._call(lambda db: once.lease(db, key, holder, seconds))

    def release(self, key: str, holder: str) -> None:
        self._call(lambda db: once.release(db, key, holder))

    # -- polls

    def make_poll(self, poll: str, id: str, text: str, seconds: float) -> MadePoll:
        return self._poll(lambda db: made.make(db, poll, id, text, seconds))

    def made_poll(self, poll: str) -> MadePoll | None:
        return self._call(lambda db: made.find(db, poll), writes=False)

    def made_polls(self) -> list[MadePoll]:
        return self._call(made.find_all, writes=False)

    def delete_poll(self, poll: str, id: str) -> bool:
        return self._call(lambda db: made.delete(db, poll, id))

    def vote(self, poll: str, voter: str, choice: str, id: str = "") -> Tally | None:
        return self._poll(
            lambda db: polls.vote(db, made.key(db, poll, id), voter, choice)
        )

    def tally(self, poll: str, voter: str | None = None, id: str = "") -> Tally:
        return self._poll(
            lambda db: polls.tally(db, made.key(db, poll, id), voter), writes=False
        )

    def close_poll(self, poll: str, closed: bool = True, id: str = "") -> Tally:
        return self._poll(lambda db: polls.close(db, made.key(db, poll, id), closed))

    def _poll(self, step: Callable[[sqlite3.Connection], T], writes: bool = True) -> T:
        """Return what ``step`` returns, or raise a ``PollError`` of it."""

        def quiet(db: sqlite3.Connection) -> T | PollError:
            try:
                return step(db)
            except PollError as error:
                return error  # raised here, it would undo what others do with it

        return cast("T", self._call(quiet, writes))

    # -- within

    def _call(self, step: Callable[[sqlite3.Connection], T], writes: bool = True) -> T:
        return self._process().writer.call(step, writes)

    def _process(self) -> _Process:
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            if self._host is None:
                raise BackendError("the backend is not started, or stopped")
            _inherited.extend(self._processes.values())
            # Two threads may come here at once: one of theirs is used, the other
            # never starts.
            process = self._processes.setdefault(pid, _Process(self, self._host))
        return process


class _Process:
    """What one process has of a backend; another one, forked off, makes its own."""

    def __init__(self, backend: SQLiteBackend, host: Host) -> None:
        file, log = File(backend._path, backend._pragmas), Log(host)
        self.topics = Topics(
            log,
            size=backend._size,
            max_bytes=backend._max_bytes,
            ttl=backend._ttl,
            linger=backend._linger,
            share=backend._share,
        )
        self.people = People(backend._presence_ttl, self.topics.announce)
        self.writer = Writer(file, host, log, self.topics)
