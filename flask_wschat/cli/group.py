"""The group of all commands, what they have in common, and how they print."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from ..backends import MemoryBackend
from ..errors import WSChatError
from ..logs import printable

wschat = AppGroup("wschat", help="Look after the WebSockets of the application.")


def command(
    *args: Any, needs_app: bool = True, **options: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Add a function to ``flask wschat``; arguments as for ``click.Group.command``.

    With ``needs_app`` it runs in an application's context, and that has a ``WSChat``.
    What it raises of ours is a message and exit code 1, never a traceback.
    """

    def register(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(*given: Any, **named: Any) -> Any:
            if needs_app:
                require()
            try:
                return function(*given, **named)
            except WSChatError as error:
                raise click.ClickException(str(error)) from error

        return wschat.command(*args, with_appcontext=needs_app, **options)(run)

    return register


def require() -> Any:
    """Return the application's ``WSChat``.

    :raises click.ClickException: it has none.
    """
    found = current_app.extensions.get("wschat")
    if found is None:
        raise click.ClickException(
            f"the application {current_app.name!r} has no WSChat: call"
            " WSChat(app), or name another one by --app"
        )
    return found


def shared(*, to_keep: bool = False) -> Any:
    """Return the ``WSChat``, which reaches the server's clients from here.

    ``to_keep``: what it is asked to do is of use also where no server is yet.

    :raises click.ClickException: it cannot.
    """
    chat, backend = require(), current_app.extensions["wschat.hub"].backend
    if isinstance(backend, MemoryBackend):
        raise click.ClickException(
            "WSCHAT_URL is memory://, which is of the server's process alone: nobody"
            " would be reached from here. Start server and commands with the same"
            " sqlite:////path/chat.db or redis://host:6379/0"
        )
    path = getattr(backend, "_path", None)
    if isinstance(path, Path) and not path.exists():
        fault = (
            f"there is no {path}: no server has used it yet. If one has, its file is in"
            " another folder: begin WSCHAT_URL with sqlite://// and the whole path"
        )
        if not to_keep:
            raise click.ClickException(fault)
        click.echo(f"Warning: {fault}", err=True)
    return chat


as_json = click.option("--json", "is_json", is_flag=True, help="JSON, for scripts.")
"""The option of each command that prints rows: ``is_json``."""


def show(
    rows: Sequence[dict[str, Any]], is_json: bool, headings: Sequence[str] = ()
) -> None:
    """Print ``rows``: as one JSON array, or as columns.

    ``headings``: the keys to show, in order; all of the first row unless given. On a
    terminal the columns have headings; in a pipe, tabs are between them.
    """
    if is_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    keys = list(headings or (rows[0] if rows else ()))
    cells = [[_text(row.get(key)) for key in keys] for row in rows]
    if not sys.stdout.isatty():
        for line in cells:
            click.echo("\t".join(line))
        return
    titles = [key.replace("_", " ") for key in keys]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    click.secho(_line(titles, widths), bold=True)
    for line in cells:
        click.echo(_line(line, widths))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(map(str.ljust, cells, widths)).rstrip()


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, float):
        text = f"{value:.6g}"
    return printable(text, 500)
