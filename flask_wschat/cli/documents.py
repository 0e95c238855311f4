"""``asyncapi`` and ``types``: what the sockets of an application say."""

from __future__ import annotations

import json

import click
from flask import current_app

from ..documents.asyncapi import document
from ..documents.typescript import module
from .group import command


@command()
@click.option("--title", help="Its title; the application's name unless given.")
@click.option("--version", default="1.0.0", show_default=True, help="Its version.")
def asyncapi(title: str | None, version: str) -> None:
    """Print an AsyncAPI 3 document of all WebSocket routes.

    It is made of the hints of their events, for generators of clients and of pages.
    """
    found = document(current_app, title or current_app.name, version)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@command()
def types() -> None:
    """Print TypeScript types of the events, for wschat.js.

    Write them to a file beside your page's code:

        flask wschat types >src/chat.ts

    The types of wschat.js itself are served beside it: save /_wschat/wschat.d.ts
    there as well, and tell the compiler in tsconfig.json, below "compilerOptions":

        "paths": {"/_wschat/wschat.js": ["./src/wschat.d.ts"]}
    """
    click.echo(module(current_app), nl=False)
