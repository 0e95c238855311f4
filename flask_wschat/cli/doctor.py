"""``doctor``: finds what is wrong with a set-up, and says what helps."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from flask import Flask
from flask.cli import NoAppException, ScriptInfo

from ..logs import redacted
from ..operate.doctor import program
from ..operate.doctor.examining import (
    LOOKS,
    examine,
    import_apart,
    name_of,
    read_gunicorn,
)
from ..operate.doctor.finding import Finding, Setup
from ..transports.patched import unpatching
from .group import as_json, command

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@command(needs_app=False)
@click.option("--url", help="Where browsers find the site: it is visited as they do.")
@click.option("--gunicorn", "arguments", help='gunicorn\'s arguments: "-k … -w 4".')
@click.option("-c", "--config", help="gunicorn's file, where it is another one.")
@as_json
@click.option("--quiet", is_flag=True, help="Say nothing; the exit code tells.")
@click.option("--verbose", is_flag=True, help="Say as well what was looked at.")
@click.pass_context
def doctor(
    context: click.Context,
    url: str | None,
    arguments: str | None,
    config: str | None,
    is_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Find out what is wrong with this set-up, and what helps.

    Exit code 1: there is an error or a warning. Looks at the application, its
    configuration, its storage and this machine; changes nothing. Give it the
    environment that the server has, tell it how that is started, and where the site is:

        flask wschat doctor --gunicorn "-k flask_wschat.gunicorn.Worker -w 4"

        flask wschat doctor --url https://chat.example.org

    Without --gunicorn it reads GUNICORN_CMD_ARGS and gunicorn.conf.py, as gunicorn
    would. Each kind of finding is in docs/operate/doctor.md.
    """
    info = context.ensure_object(ScriptInfo)
    setup = Setup(url=url, environ=dict(os.environ))
    with _said_elsewhere():
        found = _prepared(setup, info, _gunicorns(arguments, config))
        with contextlib.ExitStack() as stack:
            if setup.app is not None:
                stack.enter_context(setup.app.app_context())
            found += examine(setup)
    bad = any(each.severity != "note" for each in found)
    if is_json:
        click.echo(json.dumps([_row(each) for each in found], ensure_ascii=False))
    elif not quiet:
        _print(found, setup, verbose)
    context.exit(1 if bad else 0)


def _gunicorns(arguments: str | None, config: str | None) -> list[str] | None:
    """Return gunicorn's arguments; None: nothing says that it is to serve."""
    words = None
    if arguments is not None:
        try:
            words = shlex.split(arguments)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--gunicorn") from None
        if words and Path(words[0]).name == "gunicorn":
            del words[0]
    if config is not None:
        words = [*(words or ()), "-c", config]
    implied = os.environ.get("GUNICORN_CMD_ARGS") or os.path.exists("gunicorn.conf.py")
    return words if words is not None else [] if implied else None


def _prepared(
    setup: Setup, info: ScriptInfo, gunicorn: list[str] | None
) -> list[Finding]:
    """Find gunicorn's settings and the app for ``setup``; return what is wrong."""
    found = []
    target = info.app_import_path
    if gunicorn is not None:
        read = read_gunicorn(gunicorn)
        if isinstance(read, Finding):
            found.append(read)
        else:
            setup.gunicorn = read
            target = target or read["app"]
    if info.create_app is None:
        target = target or next(filter(os.path.exists, ("wsgi.py", "app.py")), None)
        if target is not None:
            preloads = setup.gunicorn is not None and setup.gunicorn["preload_app"]
            patched = setup.is_gevent and not preloads
            seen = import_apart(target, patched=patched)
            if isinstance(seen, Finding):
                return [*found, seen]
            setup.imported = seen
            info.app_import_path = target
    app = _loaded(info)
    if isinstance(app, Finding):
        return [*found, app]
    setup.app = app
    return found


def _loaded(info: ScriptInfo) -> Flask | Finding:
    try:
        with unpatching():
            return info.load_app()
    except NoAppException as error:
        return program.NO_APP(why=error.format_message())
    except BaseException as error:  # a program may raise, or end, as it likes
        if isinstance(error, KeyboardInterrupt):
            raise
        said = {"type": type(error).__name__, "text": str(error)[:500]}
        return program.broken(said)


@contextlib.contextmanager
def _said_elsewhere() -> Iterator[None]:
    """Keep off stdout what the program prints, and off stderr what findings say."""
    logger = logging.getLogger("flask_wschat")
    disabled, logger.disabled = logger.disabled, True
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.disabled = disabled


def _row(found: Finding) -> dict[str, Any]:
    names = ("severity", "name", "what", "means", "remedy")
    return {name: getattr(found, name) for name in names}


def _print(found: list[Finding], setup: Setup, verbose: bool) -> None:
    tty = sys.stdout.isatty()
    width = min(shutil.get_terminal_size().columns, 100) if tty else 0
    colours = False if os.environ.get("NO_COLOR") else None  # no-color.org
    for each in found:
        head = click.style(each.severity, fg=_COLOURS[each.severity], bold=True)
        label = f"{head}{' ' * (7 - len(each.severity))}  "
        lines = [*_wrapped(each.what, width, each.name), *_wrapped(each.means, width)]
        click.echo(label + ("\n" + " " * 9).join(lines), color=colours)
        click.echo(" " * 9 + click.style(each.remedy, bold=True), color=colours)
    if verbose:
        click.echo(f"looked at {', '.join(map(name_of, LOOKS))}")
        for words in setup.unseen:
            click.echo(f"could not see {redacted(words)}")
    if not found or all(each.severity == "note" for each in found):
        click.echo("fine")


def _wrapped(text: str, width: int, name: str = "") -> list[str]:
    text = f"{text} [{name}]" if name else text
    return textwrap.wrap(text, max(width - 9, 20)) if width else [text]
