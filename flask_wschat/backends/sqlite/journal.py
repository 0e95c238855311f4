"""``Journal``: SQLite's own log beside the file, which a reader can make grow.

Whoever reads an old state of the file, such as a shell with a transaction open, needs
all that was written since: it can be copied into the file only when that has ended.
Until then it may have what is free on its disk but for ``SPARE``.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from pathlib import Path

from . import system

logger = logging.getLogger("flask_wschat")

KEEP = 1 << 24
"""Bytes that it may have when it was copied into the file, to be used again."""
LARGE = 1 << 26
"""Bytes over which the log of the program tells of it."""
SPARE = 1 << 28
"""Bytes that are left of its disk where it is large: to copy it into the file takes
some, and others on the host are to go on."""


class Journal:
    """The log beside the file at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._warned = False
        self._fault = ""

    def check(self) -> None:
        """:raises sqlite3.OperationalError: nothing may be written now."""
        if self._fault:
            raise sqlite3.OperationalError(self._fault)

    def look(self, db: sqlite3.Connection) -> None:
        """Cut it, if it is large and can be cut; outside of a transaction."""
        size = self._size()
        if size > KEEP:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            size = self._size()
        was, self._fault = self._fault, ""
        if size > LARGE:
            space = shutil.disk_usage(self._path.parent).free
            # Once it is full enough, a little that others free is no reason to go on.
            if space < (2 * SPARE if was else SPARE):
                self._fault = (
                    f"the disk is full but for {space // 1_000_000} MB by"
                    f" {self._blame(size)}"
                )
        if size > LARGE and not self._warned:
            self._warned = True
            logger.warning("%s", self._blame(size))
        elif size <= KEEP and self._warned:
            self._warned = False
            logger.warning("%s-wal is small again", self._path)

    def _blame(self, size: int) -> str:
        who = ", ".join(system.readers(self._path))
        return (
            f"{self._path}-wal has {size // 1_000_000} MB and grows, as a program reads"
            " an old state of the file: end the shell, backup or transaction that has"
            f" it open{f', in process {who}' if who else ''}"
        )

    def _size(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0
