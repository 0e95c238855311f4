"""The file: opened for its user alone, and what to do where that cannot be done."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path

from . import schema
from .schema import WrongFile

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


class File:
    """The file at ``path``, whose connections have further ``pragmas``."""

    def __init__(self, path: Path, pragmas: Sequence[str]) -> None:
        self.path = path
        self._pragmas = pragmas
        self.inode = 0
        """That of the file opened last."""
        self._warned = False

    def open(self) -> sqlite3.Connection:
        """Return a connection; the file has the tables.

        :raises WrongFile: it is another program's, for example.
        """
        self._make_private()
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            schema.is_made(db)  # before anything is changed in a file not ours
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise WrongFile("is on a network disk: name one on a local disk")
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
            schema.create(db)
            db.execute("COMMIT")
            self.inode = os.stat(self.path).st_ino
        except BaseException:
            db.close()
            raise
        return db

    def is_replaced(self) -> bool:
        """Whether another one, or none, is there now."""
        try:
            return os.stat(self.path).st_ino != self.inode
        except OSError:
            return True

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
