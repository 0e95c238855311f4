"""``Sharing``: the figures of all workers of one server, added up by any of them.

Each worker counts in a file of its own that is part of its memory: what it has counted
is there to be read at once, and is still there when it was killed. Who holds no lock on
its file any more is dead. Its counters are added to those in one file for all the dead,
by whoever comes across it; its gauges are gone. See docs/decisions/59.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import mmap
import os
import secrets
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from ..hub.figures import FIGURES, SIZE, Figures, add_up, read
from ..transports.patched import RLock
from . import folder as folders
from .folder import Folder, is_dead

logger = logging.getLogger("flask_wschat")

T = TypeVar("T")
Read = dict[str, Any]  # what ``figures.read`` returns

_TRIES = 50  # of what others disturb; each time one of them has just died
NOTHING = read(bytes(SIZE))
"""What one has counted who has counted nothing."""
_NO_GAUGES = {f.name: NOTHING[f.name] for f in FIGURES if f.kind == "gauge"}
_NO_GAUGES |= {f.name: None for f in FIGURES if f.kind == "seconds"}
_NO_GAUGES["backend_up"] = True  # as nobody lacks it

_made: Counter[str] = Counter()


class _Dead(NamedTuple):
    """What the dead have counted."""

    id: str = ""
    """Another one each time that it is written."""
    figures: Read | None = None
    folded: tuple[str, ...] = ()
    """The files that are in it already, whether or not they were removed."""


class _Own(NamedTuple):
    """The file of this process."""

    folder: Folder
    name: str
    fd: int
    memory: mmap.mmap

    def close(self) -> None:
        """Let go of it; what counts in its memory may still do so."""
        os.close(self.fd)
        self.folder.close()


class Sharing:
    """The figures of one application, in this process and in those beside it."""

    def __init__(self, figures: Figures, application: str) -> None:
        self._figures = figures
        # All workers make the same applications, in the same order.
        which = f"{application} {_made[application]} {FIGURES}"
        _made[application] += 1
        self._key = hashlib.sha256(which.encode()).hexdigest()[:12]
        self._total = f"{self._key}.total"
        self._begin()
        if folders.is_gunicorns():
            self.join()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = RLock()  # a signal's handler may ask in the midst of it
        self._own: _Own | None = None
        self._asked = False  # whether there are others

    def forked(self) -> None:
        """Begin anew in a process that was just forked."""
        own = self._own
        self._begin()
        if own is not None:
            own.close()
        if folders.is_gunicorns():  # with --preload
            with contextlib.suppress(OSError), folders.as_its_user():
                self.join()

    # -- this process

    def join(self) -> None:
        """Count where the others see it from now on, if there are others.

        For whoever serves: gunicorn's workers have done it when they begin.
        """
        if not self._asked:
            self._with(lambda own: None)

    def read(self) -> tuple[Read, int]:
        """Return the figures of all workers of this server, and how many they are.

        The counters of its dead ones are included.

        :raises OSError: those of the others cannot be had now.
        """
        self._figures.refresh()  # before the lock: it may wait for others
        return self._with(self._sum) or (self._figures.snapshot(), 1)

    def _with(self, do: Callable[[_Own], T]) -> T | None:
        """Call ``do`` with the file of this process, if it has one."""
        fault = None
        with self._lock:
            own = self._own
            if own is not None and not os.fstat(own.fd).st_nlink:
                self._asked = False  # somebody has cleaned up there
            if not self._asked:
                self._asked = True
                try:
                    self._own = self._begun()
                except OSError as error:
                    self._own, fault = None, error
                if own is not None:
                    own.close()
            if fault is None:
                return None if self._own is None else do(self._own)
        # Not while the lock is held: what writes logs may let others in.
        logger.warning(
            "/_wschat/metrics has the figures of one worker only, as they can share no"
            " folder: %s. Set TMPDIR, or %s, to one that they all may write to",
            fault,
            folders.GIVEN,
        )
        return None

    def _begun(self) -> _Own | None:
        """Return a file in which this process counts; None: it has no others.

        :raises OSError: there is no place for it.
        """
        path = folders.shared_by_server()
        if path is None:
            return None
        folder = Folder(path)
        try:
            own = self._made(folder)
        except OSError:
            folder.close()
            raise
        self._figures.move_to(own.memory)
        with contextlib.suppress(OSError):
            self._fold(own)  # for where workers come and go, and nobody asks
            if not os.environ.get(folders.GIVEN):
                folders.sweep(path)
        return own

    def _made(self, folder: Folder) -> _Own:
        for _ in range(_TRIES):
            name = f"{self._key}.{os.getpid()}-{secrets.token_hex(8)}"
            fd = folder.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
            try:
                # Written, not just made that long: on a full disk, to count in it would
                # end this process.
                if os.write(fd, bytes(SIZE)) < SIZE:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                with contextlib.suppress(BlockingIOError):
                    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if folder.has(name, fd):
                        return _Own(folder, name, fd, mmap.mmap(fd, SIZE))
            except OSError:
                folder.remove(name)
                os.close(fd)
                raise
            os.close(fd)  # without a lock yet, it was taken for a dead one's
        raise OSError(f"what is made in {folder.path} is gone at once")

    # -- all of them

    def _sum(self, own: _Own) -> tuple[Read, int]:
        for _ in range(_TRIES):
            dead = self._dead(own.folder)
            each = [read(own.memory)]
            if dead.figures is not None:
                each.append(dead.figures)
            living, died = 1, 0
            try:
                for name in self._others(own):
                    if name in dead.folded:
                        continue
                    with self._opened(own.folder, name) as (found, lives):
                        each.append(found)
                    living += lives
                    died += not lives
            except FileNotFoundError:
                continue  # it was added to the dead just now
            if self._dead(own.folder).id == dead.id:
                break
        if died:
            with contextlib.suppress(OSError):  # a full disk: they stay as they are
                self._fold(own)
        return add_up(each), living

    def _fold(self, own: _Own) -> None:
        """Add the files of the dead to that of all the dead, and remove them.

        Wherever this process is killed meanwhile, each of them counts once.
        """
        folder = own.folder
        with folder.locked() as alone, contextlib.ExitStack() as stack:
            if not alone:
                return
            before = self._dead(folder)
            each = [] if before.figures is None else [before.figures]
            folded = []
            for name in self._others(own):
                if name in before.folded:
                    folder.remove(name)
                    continue
                found, lives = stack.enter_context(self._opened(folder, name))
                if not lives:
                    each.append(found)
                    folded.append(name)
            if folded:
                dead = _Dead(secrets.token_hex(8), add_up(each), tuple(folded))
                folder.write(self._total, json.dumps(dead).encode())
            for name in folded:
                folder.remove(name)

    def _dead(self, folder: Folder) -> _Dead:
        try:
            return _Dead(*json.loads(folder.read(self._total) or "[]"))
        except ValueError:  # it was written when the power failed
            return _Dead()

    def _others(self, own: _Own) -> list[str]:
        """Return the names of the files of other workers, also of dead ones."""
        beside = (own.name, self._total, f"{self._total}.new")
        names = own.folder.names()
        return [n for n in names if n.startswith(f"{self._key}.") and n not in beside]

    @contextlib.contextmanager
    def _opened(self, folder: Folder, name: str) -> Iterator[tuple[Read, bool]]:
        """Have what another worker has counted, and whether it lives.

        Until this ends, who has made the file just now, and not locked it yet, cannot.
        """
        fd = folder.open(name, os.O_RDONLY)
        try:
            lives = not is_dead(fd)
            found = NOTHING
            if os.fstat(fd).st_size >= SIZE:  # else it was just made
                with mmap.mmap(fd, SIZE, access=mmap.ACCESS_READ) as memory:
                    found = read(memory[:])
            if not lives or not found["connections"]:
                found = {**found, **_NO_GAUGES}  # where nobody is, none are written
            yield found, lives
        finally:
            os.close(fd)


_all: weakref.WeakSet[Sharing] = weakref.WeakSet()


def _forked() -> None:
    for sharing in list(_all):
        sharing.forked()


# After what ``figures`` does then, as that was imported before.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
