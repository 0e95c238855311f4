"""Statements for many rows at once.

Each step of SQLite's lets go of Python's lock. To have it back takes ten times as long
as the step where the loop of the process is busy, and up to 5 ms where it takes it
(``sys.getswitchinterval``). See docs/decisions/46.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

_MOST = 64  # rows of one statement: SQLite takes 999 values in all its versions

Row = Sequence[Any]


def write(db: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    """Run ``statement``, in which ``{}`` is for the rows, until it has had all.

    For a power of two rows each time, so that few texts are to be parsed, and once.
    """
    start = 0
    while start < len(rows):
        count = min(_MOST, 1 << (len(rows) - start).bit_length() - 1)
        part = rows[start : start + count]
        db.execute(statement.format(_places(count, len(part[0]))), [*chain(*part)])
        start += count


def read(
    db: sqlite3.Connection, question: str, rows: Sequence[Row]
) -> Iterable[tuple[Any, ...]]:
    """Return what ``question`` finds, in which ``{}`` is for the rows, for any of them.

    A row that is there twice may find the same twice.
    """
    for start in range(0, len(rows), _MOST):
        part = rows[start : start + _MOST]
        count = 1 << (len(part) - 1).bit_length()
        values = [*chain(*part), *chain(*[part[-1]] * (count - len(part)))]
        yield from db.execute(
            question.format(_places(count, len(part[0]))), values
        ).fetchall()


def _places(rows: int, columns: int) -> str:
    place = "(" + ", ".join("?" * columns) + ")"
    return ", ".join([place] * rows)
