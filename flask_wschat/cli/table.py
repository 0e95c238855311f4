"""A table of all workers, as wide as the terminal is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..logs import printable

UNKNOWN = "-"
_NAME = 12  # characters of a worker's name that are always there
_CELL = 5  # and of a figure


class Column(NamedTuple):
    """One figure of each worker."""

    key: str
    title: str
    text: Callable[[float], str]


def count(value: float) -> str:
    """Return a number in five characters: 0.5, 81234, 812k, 4.5M."""
    if value < 99_999.5:
        return f"{value:.1f}" if value < 10 and value % 1 else f"{value:.0f}"
    for unit in ("k", "M", "G"):
        value /= 1000
        if value < 999.5 or unit == "G":
            break
    return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"


def size(value: float) -> str:
    """Return bytes in five characters: 512B, 1.5K, 64K."""
    for unit in ("B", "K", "M", "G"):
        if value < 1023.5 or unit == "G":
            break
        value /= 1024
    return (
        f"{value:.0f}{unit}" if unit == "B" or value >= 9.95 else f"{value:.1f}{unit}"
    )


def seconds(value: float) -> str:
    """Return a time in six characters: 0.4ms, 25ms, 1.5s."""
    if value < 0.00995:
        return f"{value * 1000:.1f}ms"
    return f"{value * 1000:.0f}ms" if value < 0.9995 else f"{value:.1f}s"


def age(value: float) -> str:
    """Return a time in four characters: 59s, 12m, 23h, 400d."""
    for unit, length in (("s", 60), ("m", 60), ("h", 24)):
        if value < length:
            return f"{value:.0f}{unit}"
        value /= length
    return f"{value:.0f}d"


COLUMNS = (
    Column("connections", "conns", count),
    Column("in_per_second", "in/s", count),
    Column("out_per_second", "out/s", count),
    Column("queued_bytes", "queued", size),
    Column("loop_lag", "lag", seconds),
    Column("backend_latency", "backend", seconds),
    Column("errors", "errors", count),
    Column("rooms", "rooms", count),
    Column("users", "users", count),
    Column("slow_closes", "slow", count),
    Column("refused", "refused", count),
    Column("uptime", "up", age),
    Column("opened_per_second", "opened/s", count),
    Column("deliveries_per_second", "deliv/s", count),
    Column("dropped", "dropped", count),
)
"""The more important ones first: the others are there where there is room."""


def lines(rows: Sequence[dict[str, Any]], width: int) -> list[str]:
    """Return ``rows``, each with its ``worker``, below a line of titles.

    None of them is longer than ``width`` characters, of 20 at least.
    """
    names = [printable(row["worker"]) for row in rows]
    longest = max(map(len, ("worker", *names)))
    left = width - min(longest, _NAME)
    columns = []
    for column in COLUMNS:
        cells = [column.title, *(_cell(row, column) for row in rows)]
        space = 2 + max(_CELL, *map(len, cells))  # so that they seldom jump
        if space > left:
            break
        left -= space
        columns.append([cell.rjust(space) for cell in cells])
    room = min(longest, _NAME) + left
    first = [_cut(name, room).ljust(min(longest, room)) for name in ("worker", *names)]
    return ["".join(line) for line in zip(first, *columns, strict=True)]


def _cell(row: dict[str, Any], column: Column) -> str:
    value = row.get(column.key)
    return UNKNOWN if value is None else column.text(value)


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else "\N{HORIZONTAL ELLIPSIS}" + name[1 - room :]
