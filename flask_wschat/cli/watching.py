"""``stats`` and ``top``: the figures of all workers, once and again and again."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
from flask import current_app

from ..hub.figures import add_up
from ..logs import printable
from ..operate.rates import COUNTERS, Rates, added
from ..operate.reports import REPORTS, Reports
from .group import as_json, command, shared, show
from .table import COLUMNS, lines

HOME, REST_OF_LINE, REST, ALL = "\033[H", "\033[K", "\033[J", "\033[H\033[2J"
"""Where to write on a terminal, and what to clear of it."""

PATIENCE = 4
"""Tables that ``--once`` waits at most for workers that are slow to answer."""

NOBODY = (
    "no worker answers: is a server up that has the same WSCHAT_URL? One of gunicorn's"
    " own kinds (-k gevent, gthread) answers from its first WebSocket on, or once"
    " somebody has asked it for /_wschat/ready"
)

waiting = click.option(
    "--wait",
    type=click.FloatRange(0.05, 60),
    default=0.5,
    show_default=True,
    help="Seconds that workers have to answer.",
)


@command()
@waiting
@as_json
def stats(wait: float, is_json: bool) -> None:
    """Print the figures of all workers together, as counted since each began.

    With --json those of each worker, too. See docs/operate/metrics.md for each.
    """
    figures = shared().stats(everywhere=True, wait=wait)
    if not figures["workers"]:
        raise click.ClickException(NOBODY)
    if is_json:
        click.echo(json.dumps(figures))
        return
    total: list[dict[str, Any]] = [
        {"figure": "workers", "value": len(figures["workers"])}
    ]
    for name, value in figures["total"].items():
        if isinstance(value, dict) and "buckets" in value:
            mean = value["sum"] / value["count"] if value["count"] else None
            value = {"count": value["count"], "mean": mean}
        for label, count in value.items() if isinstance(value, dict) else [("", value)]:
            figure = f"{name} {label}".rstrip()
            total.append({"figure": figure, "value": count})
    show(total, False, ("figure", "value"))


@command()
@click.option("--once", is_flag=True, help="Print one table, of a second, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two tables.",
)
@as_json
def top(once: bool, interval: float, is_json: bool) -> None:
    """Show a live table of all workers, until Ctrl-C: what each does a second.

    With --json each table is a line; in a pipe each worker is. A dash is for what is
    not known yet.
    """
    shared()
    reports: Reports = current_app.extensions[REPORTS]
    screen = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if screen and not once:  # the table says what else would be written across it
        logging.getLogger("flask_wschat").disabled = True
    try:
        for number, (rows, fault) in enumerate(tables(reports, interval)):
            unknown = any(each["in_per_second"] is None for each in rows)
            if once and (not number or (unknown and number < PATIENCE)):
                continue  # what they do a second is known when all have told twice
            if is_json:
                click.echo(json.dumps(as_object(rows, fault)))
            elif screen and not once:
                draw(rows, fault, interval, first=not number)
            else:
                if fault or not rows:
                    click.echo(f"Error: {fault or NOBODY}", err=True)
                elif sys.stdout.isatty():
                    width = shutil.get_terminal_size().columns
                    click.echo("\n".join(lines(rows, max(width, 20))))
                else:
                    show(rows, False, ("worker", *(column.key for column in COLUMNS)))
            sys.stdout.flush()
            if once:
                sys.exit(1 if fault or not rows else 0)
    except KeyboardInterrupt:
        if screen:
            click.echo()


def tables(
    reports: Reports, interval: float
) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """Yield a row for each worker, and the last for all of several; and what is wrong
    with asking them.
    """
    rates, watch = Rates(), reports.watch(interval)
    for workers in watch:
        rated = rates.of(workers)
        rows = [row(*each) for each in zip(workers, rated, strict=True)]
        if len(rows) > 1:
            rows.append(row(add_up(workers), added(rated)))
        yield rows, watch.fault


def row(figures: dict[str, Any], rates: dict[str, float | None]) -> dict[str, Any]:
    """Return what a table says of a worker, or of the total, which has no uptime."""
    told = {"worker": "total", "uptime": None, **figures}
    told["refused"] = sum(figures["refused"].values())
    for name in COUNTERS:
        told[f"{name.removeprefix('messages_')}_per_second"] = rates[name]
    return {key: told[key] for key in ("worker", *(column.key for column in COLUMNS))}


def as_object(rows: list[dict[str, Any]], fault: str | None) -> dict[str, Any]:
    """Return a table for scripts."""
    total = rows[-1] if rows else None
    workers = rows[:-1] if len(rows) > 1 else rows
    return {"at": time.time(), "fault": fault, "workers": workers, "total": total}


def draw(
    rows: list[dict[str, Any]], fault: str | None, interval: float, *, first: bool
) -> None:
    """Write a table over the one before."""
    width, height = shutil.get_terminal_size()
    width, height = max(width, 20), max(height, 5)
    count = max(len(rows) - 1, min(len(rows), 1))
    workers = f"{count} worker{'' if count == 1 else 's'}"
    title = f"{workers}, every {interval:g} s, Ctrl-C ends"
    told = [click.style(title[:width], dim=True)]
    if fault or not rows:
        words = printable(fault or NOBODY, 1000)
        parts = [words[at : at + width] for at in range(0, len(words), width)]
        told += [click.style(part, fg="red") for part in parts]
    if rows:
        heading, *table = lines(rows, width)
        room = height - len(told) - 2
        if len(table) > room:  # the total stays
            more = f"\N{HORIZONTAL ELLIPSIS} {len(table) - room + 1} more"
            table = [*table[: max(room - 2, 0)], more, table[-1]]
        told += [click.style(heading, bold=True), *table]
    clear = ALL if first else HOME
    click.echo(
        clear + "".join(f"{each}{REST_OF_LINE}\n" for each in told) + REST, nl=False
    )
