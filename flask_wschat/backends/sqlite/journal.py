"""``Journal``: SQLite's own log beside the file, which a reader can make grow.

Whoever reads an old state of the file, such as a shell with a transaction open, needs
all that was written since: it can be copied into the file only when that has ended.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from . import system

logger = logging.getLogger("flask_wschat")

KEEP = 1 << 24
"""Bytes that it may have when it was copied into the file, to be used again."""
LARGE = 1 << 26
"""Bytes over which the log of the program tells of it."""


class Journal:
    """The log beside the file at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._warned = False

    def look(self, db: sqlite3.Connection) -> None:
        """Cut it, if it is large and can be cut; outside of a transaction."""
        size = self._size()
        if size > KEEP:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            size = self._size()
        if size > LARGE and not self._warned:
            self._warned = True
            who = ", ".join(system.readers(self._path))
            logger.warning(
                "%s-wal has %d MB and grows, as a program reads an old state of the"
                " file: end the shell, backup or transaction that has it open%s",
                self._path,
                size // 1_000_000,
                f", in process {who}" if who else "",
            )
        elif size <= KEEP and self._warned:
            self._warned = False
            logger.warning("%s-wal is small again", self._path)

    def _size(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0
