"""``who``, ``history``, ``send`` and the like, for a server's people.

They reach them from another process, by what the server's processes share.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
from flask import current_app
from flask.cli import ScriptInfo

from ..logs import printable
from .group import as_json, command, require, shared, show

COMPLETED = 50
"""Names of users that a shell is offered."""
ANONYMOUS = "who has no user id is counted by: flask wschat stats"
PERIOD = 1.0
"""Seconds between two looks at what is followed."""


def complete_user(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return who is connected and so begins; no one where that cannot be known."""
    try:
        with context.ensure_object(ScriptInfo).load_app().app_context():
            names = [name for name in shared().online() if name.startswith(incomplete)]
            return [name for name in names if name.isprintable()][:COMPLETED]
    except Exception:  # nothing may be printed at a prompt
        return []


user = click.argument("user", shell_complete=complete_user)
as_data = click.option(
    "--data-json", "is_data_json", is_flag=True, help="DATA is JSON, not text."
)


@command()
@click.argument("room", required=False)
@as_json
def who(room: str | None, is_json: bool) -> None:
    """List the users who are connected, or in ROOM: of all processes, each once."""
    with _checked():
        names = shared().online(room)
    if not names and not is_json:
        place = "" if room is None else f" in {_name(room)}"
        click.echo(f"no users{place}; {ANONYMOUS}", err=True)
    else:
        show([{"user": name} for name in names], is_json)


@command()
@click.argument("room")
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many."
)
@click.option("--after", type=click.IntRange(0), help="Those after this number.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@as_json
def history(
    room: str, limit: int, after: int | None, follow: bool, is_json: bool
) -> None:
    """Print the messages that are kept of ROOM: the newest, or those --after one.

    With --json and --follow each is a line of its own.
    """
    chat = shared()
    with _checked():
        entries = chat.history(room, after=after, limit=limit)
    if not follow:
        show([_row(entry, is_json) for entry in entries], is_json, HEADINGS)
        return
    with contextlib.suppress(KeyboardInterrupt):
        for row in _followed(chat, room, entries, after or 0, is_json):
            told = json.dumps(row, ensure_ascii=False)
            cells = [printable(row[key], 500) for key in HEADINGS]
            click.echo(told if is_json else "\t".join(cells))


def _followed(
    chat: Any, room: str, entries: list[Any], seq: int, is_json: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``entries``, and of those after them, or after ``seq``."""
    while True:
        yield from (_row(entry, is_json) for entry in entries)
        seq = entries[-1].seq if entries else seq
        time.sleep(PERIOD)
        entries = chat.history(room, after=seq, limit=1000)
        if not entries:  # after a loss of the storage its numbers begin anew
            newest = chat.history(room, limit=1)
            seq = 0 if newest and newest[-1].seq < seq else seq


HEADINGS = ("seq", "at", "sender", "data")


def _row(entry: Any, is_json: bool) -> dict[str, Any]:
    data, at = entry.data, entry.at
    if isinstance(data, bytes):
        data = {"base64": base64.b64encode(data).decode()}
    if not is_json:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        data = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        data = "(deleted)" if entry.deleted else data
    row = {"seq": entry.seq, "at": at, "sender": entry.sender or "", "data": data}
    return {**row, "sender": entry.sender, "deleted": entry.deleted} if is_json else row


@command()
@user
@click.argument("data")
@as_data
@click.option("--mid", help="Its name: of those with the same, one is stored.")
def send(user: str, data: str, is_data_json: bool, mid: str | None) -> None:
    """Send DATA to all connections of USER, and keep it in their inbox.

    DATA is text; "-" reads it from stdin.
    """
    with _checked():
        count = shared(to_keep=True).send_to_user(
            user, _data(data, is_data_json), mid=mid
        )
    click.echo(f"sent to {_name(user)}, connections: {count}")


@command()
@click.argument("data")
@click.option("--room", help="Only this room; everybody unless given.")
@click.option("--key", help="Of those with this key, a slow peer gets the newest only.")
@click.option("--no-keep", is_flag=True, help="Keep it in no history.")
@click.option("--mid", help="Its name: of those with the same, one is stored.")
@as_data
def broadcast(
    data: str,
    room: str | None,
    key: str | None,
    no_keep: bool,
    mid: str | None,
    is_data_json: bool,
) -> None:
    """Publish DATA to everybody, or to a --room, where it is kept.

    DATA is text; "-" reads it from stdin.
    """
    with _checked():
        seq = shared(to_keep=True).broadcast(
            _data(data, is_data_json), room=room, key=key, keep=not no_keep, mid=mid
        )
    place = "everybody" if room is None else _name(room)
    click.echo(f"published to {place}" + (f", number: {seq}" if seq else ""))


@command()
@user
@click.option("--code", type=int, default=4000, show_default=True, help="Close code.")
@click.option("--reason", default="", help="What the client is told, if that shows it.")
def kick(user: str, code: int, reason: str) -> None:
    """Close every connection of USER, in all processes.

    Whom your application still lets in may come back at once.
    """
    with _checked():
        count = shared().disconnect_user(user, code, reason)
    click.echo(f"closed those of {_name(user)}, connections: {count}")


@command()
@user
@click.option(
    "--seconds", type=float, default=30.0, show_default=True, help="How long it counts."
)
def ticket(user: str, seconds: float) -> None:
    """Print a ticket, with which USER connects once.

    It is signed with the application's SECRET_KEY, which has to be the server's.

        flask wschat connect ws://host/chat --ticket $(flask wschat ticket ann)
    """
    chat = require()
    if not current_app.secret_key:
        raise click.ClickException(
            "the application has no SECRET_KEY, which signs tickets: set the server's"
        )
    with _checked():
        click.echo(chat.ticket(user, seconds))


@contextlib.contextmanager
def _checked() -> Iterator[None]:
    """Make what an argument cannot be a wrong usage: exit code 2."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def _data(text: str, is_json: bool) -> Any:
    if text == "-":
        text = sys.stdin.buffer.read().decode().removesuffix("\n")
    if not is_json:
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"DATA is no JSON: {error}") from error


def _name(text: str) -> str:
    return f"'{printable(text)}'"
