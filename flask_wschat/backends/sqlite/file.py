"""The file: opened for its user alone, and what to do where that cannot be done."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path

from . import journal, schema, system
from .schema import WrongFile

try:
    from fcntl import LOCK_EX
    from fcntl import flock as _flock
except ImportError:  # Windows, where nobody replaces a file that is open

    def flock(descriptor: int) -> None:
        pass

else:

    def flock(descriptor: int) -> None:
        """Let one process in at a time, until ``descriptor`` is closed."""
        _flock(descriptor, LOCK_EX)


logger = logging.getLogger("flask_wschat")

LOCK_TIMEOUT = 5.0
"""Seconds to wait for others to let go of the file."""

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


_NETWORK = (
    "is on a network disk: its processes would not see each other's writes; name one on"
    " a local disk, or use Redis"
)
_Identity = tuple[int, int]


class File:
    """The file at ``path``, whose connections have further ``pragmas``."""

    def __init__(self, path: Path, pragmas: Sequence[str]) -> None:
        self.path = path
        self._pragmas = pragmas
        self._paths = [f"{path}{beside}" for beside in ("", "-wal", "-shm")]
        self._files: list[_Identity | None] = []  # opened last, with those beside it
        self._warned = False

    def open(self) -> sqlite3.Connection:
        """Return a connection; the file has the tables.

        :raises WrongFile: it is another program's, for example.
        """
        if kind := system.network_disk(self.path.parent):
            raise WrongFile(f"{_NETWORK} ({kind})")
        self._make_private()
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            schema.version(db)  # before anything is changed in a file not ours
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise WrongFile(_NETWORK)
            # Synced at each commit. With 40 callers, who share one, that is 12,000
            # messages per second, and 13,900 with NORMAL, which syncs only now and
            # then and may lose the last ones with the power (ext4 on a virtual disk
            # that takes 0.5 ms for a sync; one of 5 ms still allows 40 / 5 ms):
            # python -m benchmarks.backends --only says
            db.execute("PRAGMA synchronous = FULL")
            # 16 MiB: with 100,000 rooms a fifth more per second than with 2 MiB
            # (the same with --only rooms).
            db.execute("PRAGMA cache_size = -16384")
            db.execute(f"PRAGMA journal_size_limit = {journal.KEEP}")
            for pragma in self._pragmas:
                db.execute(f"PRAGMA {pragma}")
            db.execute("BEGIN IMMEDIATE")
            schema.create(db)
            db.execute("COMMIT")
            self._files = self._there()
        except BaseException:
            db.close()
            raise
        return db

    def is_another(self) -> bool:
        """Whether another one, or none, is there than was opened last."""
        return bool(self._files) and self._files[:1] != self._there(1)

    def is_replaced(self) -> bool:
        """The same for one that is open, whose log must be there, too."""
        return self._files[:2] != self._there(2)

    def _there(self, count: int = 3) -> list[_Identity | None]:
        return [_identity(path) for path in self._paths[:count]]

    def put_away(self) -> None:
        """Delete the log of a file that was replaced, and is still open here.

        SQLite would take it for the new file's, and damage that. Only the one that was
        ours, and one process at a time: another one may have made the new one's. (Its
        number is nobody else's for as long as it is open.)
        """
        if not self.is_another():
            return
        with contextlib.suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                flock(folder)
                for path, known in list(zip(self._paths, self._files, strict=True))[1:]:
                    if known is not None and known == _identity(path):
                        os.unlink(path)
            finally:
                os.close(folder)

    def explain(self, error: Exception) -> str:
        """Return in words what is wrong, and the remedy."""
        if isinstance(error, WrongFile):
            return f"{self.path} {error}"
        if not self.path.parent.is_dir():
            return f"{self.path} cannot be made: create the directory first"
        for words, remedy in _REMEDIES.items():
            if words in str(error):
                return f"{self.path} {remedy.format(timeout=LOCK_TIMEOUT)} ({error})"
        return f"{self.path}: {error}"

    def _make_private(self) -> None:
        """Make the file, if there is none, for its user alone: it has all that is said.

        SQLite itself would let everybody read it, and gives the files beside it the
        mode that it has.
        """
        try:
            # Made, or left alone: to close a file that another connection of this
            # process has open would take its locks away.
            how = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            os.close(os.open(os.path.realpath(self.path), how, 0o600))
        except FileExistsError:
            self._warn_of_readers()
        except OSError:
            pass  # SQLite says it better

    def _warn_of_readers(self) -> None:
        if self._warned or os.name != "posix":
            return
        self._warned = True
        with contextlib.suppress(OSError):
            place = self.path.resolve()
            readable = place.stat().st_mode & stat.S_IROTH
            if readable and place.parent.stat().st_mode & stat.S_IXOTH:
                logger.warning(
                    "%s may be read by every user of this host: chmod o= %s*",
                    self.path,
                    self.path,
                )


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
