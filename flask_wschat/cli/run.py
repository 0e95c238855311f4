"""``run``, which serves the application, and ``routes``, which lists what it serves."""

from __future__ import annotations

import os
import queue
import sys
import traceback
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import ScriptInfo
from flask.helpers import get_debug_flag

from ..chat.events import Events
from ..chat.listener import ChatListener
from ..opening.views import SERVES, Served
from ..running.debugging import is_reloaded, watch_files
from ..server import prepare
from ..websocket import Listener
from .group import as_json, command, require, show


@command(needs_app=False)
@click.option(
    *("--host", "-h"),
    envvar="FLASK_RUN_HOST",
    show_envvar=True,
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on; 0.0.0.0: all.",
)
@click.option(
    *("--port", "-p"),
    type=click.IntRange(0, 65535),
    envvar="FLASK_RUN_PORT",
    show_envvar=True,
    default=5000,
    show_default=True,
    help="The port; 0: a free one.",
)
@click.option("--debug/--no-debug", default=None, help="Show errors in the browser.")
@click.option(
    "--reload/--no-reload",
    default=None,
    help="Start again when a file changes.  [default: with --debug]",
)
@click.option(
    "--access-log/--no-access-log",
    default=True,
    show_default=True,
    help="A line for each request and socket.",
)
@click.option("--workers", "-w", type=click.IntRange(1), help="Processes, by gunicorn.")
@click.option("--cert", type=click.Path(exists=True, dir_okay=False), help="For TLS.")
@click.option("--key", type=click.Path(exists=True, dir_okay=False), help="Its key.")
@click.pass_context
def run(
    context: click.Context,
    host: str,
    port: int,
    debug: bool | None,
    reload: bool | None,
    access_log: bool,
    workers: int | None,
    cert: str | None,
    key: str | None,
) -> None:
    """Serve the application with gevent, for development and for production.

    It is loaded in a process that gevent has patched, so that a view which waits stops
    no other. With --workers it is gunicorn that serves; its gunicorn.conf.py counts.
    """
    info = context.ensure_object(ScriptInfo)
    if (cert is None) is not (key is None):
        raise click.UsageError("--cert and --key go together, as two files in PEM")
    if debug is not None:
        os.environ["FLASK_DEBUG"] = "1" if debug else "0"
    debug = get_debug_flag()
    if workers is not None:
        if debug or reload:
            raise click.UsageError("--workers is for production: without --debug")
        _become_gunicorn(info, host, port, access_log, workers, cert, key)
    prepare(reload=debug if reload is None else reload, patch=True)
    app = _load(info)
    with app.app_context():
        chat = require()
    os.environ.pop("FLASK_RUN_FROM_CLI", None)  # which says that others do not
    chat.run(
        *(app, host, port),
        reload=reload,
        ssl_context=(cert, key) if cert and key else None,
        log="stderr" if access_log else None,
    )


def _load(info: ScriptInfo) -> Flask:
    """Return the application; where it is to be reloaded, wait until it can be."""
    try:
        return info.load_app()
    except Exception:
        if not is_reloaded():
            raise
        traceback.print_exc()
    click.echo(" * Waiting until a file changes", err=True)
    codes: queue.Queue[int] = queue.Queue()
    watch_files(codes.put)
    sys.exit(codes.get())


def _become_gunicorn(
    info: ScriptInfo,
    host: str,
    port: int,
    access_log: bool,
    workers: int,
    cert: str | None,
    key: str | None,
) -> None:
    try:
        import gunicorn.workers.ggevent  # noqa: F401  # which needs packaging, too
    except (ImportError, RuntimeError):  # RuntimeError: gevent is too old for it
        raise click.ClickException(
            '--workers needs gunicorn: pip install "gunicorn[gevent]"'
        ) from None
    if info.create_app is not None:
        raise click.ClickException(
            "gunicorn's workers load the application by its name: give it by --app"
        )
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    words = ["-k", "flask_wschat.gunicorn.Worker", "-w", str(workers), "-b", address]
    words += ["--access-logfile", "-"] if access_log else []
    words += ["--certfile", cert, "--keyfile", key] if cert and key else []
    words.append(f"flask_wschat.gunicorn:load_app({info.app_import_path!r})")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *words])  # nosec B606


@command()
@as_json
def routes(is_json: bool) -> None:
    """List the WebSocket routes, and what they take."""
    rows = [row for row in map(_row, current_app.url_map.iter_rules()) if row]
    if not is_json:
        rows = [{key: _shown(value) for key, value in row.items()} for row in rows]
    if rows or is_json:
        show(rows, is_json)
    else:
        click.echo("no WebSocket routes: see chat.route and chat.listener", err=True)


def _row(rule: Any) -> dict[str, Any]:
    view = current_app.view_functions.get(rule.endpoint)
    if not rule.websocket or view is None:
        return {}
    served: Served | None = getattr(view, SERVES, None)
    by = served and served.by
    return {
        "rule": rule.rule,
        "endpoint": rule.endpoint,
        "kind": _kind(by),
        "subprotocols": list(served.subprotocols) if served else [],
        "limit": list(served.limit) if served and served.limit else None,
        "events": _events(by),
        "host": rule.host,
    }


def _kind(by: Any) -> str:
    """Return what serves a route: "other" is an application's or extension's own."""
    for name, kind in _KINDS.items():
        if isinstance(by, type) and issubclass(by, kind):
            return name
    return "other" if by is None else "view"


_KINDS = {"chat": ChatListener, "events": Events, "listener": Listener}


def _events(by: Any) -> list[str]:
    """Return those that the application has made, not the protocol's."""
    if _kind(by) not in ("chat", "events"):
        return []
    return [name for name, handler in by._handlers.items() if not handler.own]


def _shown(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value
