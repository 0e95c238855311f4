"""``flask wschat``: commands that look at an application."""

from __future__ import annotations

import json

import click
from flask import current_app
from flask.cli import AppGroup

from .documents.asyncapi import document
from .documents.typescript import module

wschat = AppGroup("wschat", help="Look at the WebSockets of the application.")


@wschat.command()
@click.option("--title", help="Its title; the application's name unless given.")
@click.option("--version", default="1.0.0", show_default=True, help="Its version.")
def asyncapi(title: str | None, version: str) -> None:
    """Print an AsyncAPI 3 document of all WebSocket routes.

    It is made of the hints of their events, for generators of clients and of pages.
    """
    _require()
    found = document(current_app, title or current_app.name, version)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@wschat.command()
def types() -> None:
    """Print TypeScript types of the events, for wschat.js.

    Write them to a file beside your page's code:

        flask wschat types >src/chat.ts

    The types of wschat.js itself are served beside it: save /_wschat/wschat.d.ts
    there as well, and tell the compiler in tsconfig.json, below "compilerOptions":

        "paths": {"/_wschat/wschat.js": ["./src/wschat.d.ts"]}
    """
    _require()
    click.echo(module(current_app), nl=False)


def _require() -> None:
    """:raises click.ClickException: the application has no sockets of ours."""
    if "wschat" not in current_app.extensions:
        raise click.ClickException(
            f"the application {current_app.name!r} has no WSChat: call"
            " WSChat(app), or name another one by --app"
        )
