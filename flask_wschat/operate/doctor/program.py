"""The application itself: whether it can be imported, its routes, its neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ..dashboard import Dashboard
from .finding import Finding, Kind, Setup

BROKEN = Kind(
    "app-broken",
    "error",
    "the app cannot be imported: {error}{where}",
    "No server can start it.",
    "{remedy}",
)
SERVES = Kind(
    "app-serves-at-import",
    "error",
    "the app serves where it is only imported{where}",
    "gunicorn and flask import it: they would hang there, or find the port taken.",
    'if __name__ == "__main__": chat.run(app)   # at the program\'s end',
)
SLOW = Kind(
    "app-import-slow",
    "error",
    "the app was still being imported after {seconds} s",
    "It waits for something, or works for long: gunicorn kills workers that do.",
    "python -X faulthandler -X importtime -c 'import app'   # Ctrl-\\ shows where",
)
NO_APP = Kind(
    "app-not-found",
    "error",
    "there is no Flask application to look at: {why}",
    "Only what does not depend on it was looked at.",
    "flask --app app wschat doctor   # the module's name, or its path",
)
NO_CHAT = Kind(
    "no-wschat",
    "error",
    "the application {app} has no WSChat",
    "It serves no WebSockets.",
    "chat = WSChat(app)   # or chat.init_app(app), or --app names another one",
)
NO_ROUTES = Kind(
    "no-routes",
    "warning",
    "the application has no WebSocket route",
    "Every WebSocket gets 404: perhaps the module that has the routes is not imported.",
    '@chat.route("/chat")   # or @chat.listener; import its module beside WSChat(app)',
    early="note",
)
OUR_NAME = Kind(
    "route-of-our-name",
    "warning",
    "the app's own route {rule} begins like ours",
    "One of the two is never reached.",
    "@app.route(…)   # a path that does not begin with /_wschat/",
)
CAUGHT = Kind(
    "health-blocked",
    "warning",
    "/_wschat/live answers {status}: something of the app's comes before it",
    "What watches over the server takes it for dead, and restarts it, or sends nobody.",
    'if request.endpoint == "wschat.health": return None   # in before_request',
)
CATCH_ALL = Kind(
    "socketio-route",
    "note",
    "Flask-SocketIO is in this application as well",
    "It takes /socket.io/, with clients and workers of its own; both work beside each"
    " other only under gevent.",
    "gunicorn -k flask_wschat.gunicorn.Worker …   # async_mode='gevent'",
)
SOCK = Kind(
    "flask-sock",
    "note",
    "Flask-Sock is in this application as well",
    "Its routes take the server's socket by another way, and do not drain.",
    "@chat.route(…)   # instead of @sock.route(…): view(ws) is the same",
)
DASHBOARD = Kind(
    "dashboard-open",
    "warning",
    "the dashboard at {rule} lets everybody in",
    "Who opens it sees rooms and users, closes their connections and speaks to them.",
    "chat.dashboard({rule!r}, allow=lambda: session.get('user') in ADMINS)",
)
TESTING = Kind(
    "testing",
    "warning",
    "the app's TESTING is on",
    "Errors go through to the server, and extensions leave out what protects.",
    "unset FLASK_TESTING   # and no app.testing = True",
)


_URL = "redis://user:password@127.0.0.1:6379/0"


def broken(error: dict[str, Any], target: str = "app") -> Finding:
    """Return the finding about an app that raised when it was imported."""
    kind, text = str(error.get("type", "")), str(error.get("text") or "")
    remedy = f"flask --app {target} routes   # shows the whole traceback"
    if named := re.search(r"pip install ('[^']+'|[^\s']+)", text):
        remedy = named[0]
    elif missing := error.get("missing"):
        remedy = (
            f"pip install {missing}   # or the folder that it is in: cd, PYTHONPATH"
        )
    elif kind == "ConfigError":
        name = text.partition(" ")[0]
        like = _URL if name == "WSCHAT_URL" else "…"
        remedy = f"FLASK_{name}={like}   # or in app.config, as the message says"
    elif kind == "RuntimeError" and "already has a WSChat" in text:
        remedy = "chat = WSChat(); chat.init_app(app)   # once for each app"
    where = f" ({error['where']})" if error.get("where") else ""
    if kind == "Serves":
        return SERVES(where=where)
    return BROKEN(error=f"{kind}: {text}".lstrip(": "), where=where, remedy=remedy)


def routes(setup: Setup) -> Iterator[Finding]:
    """Look for WebSocket routes, and for others in their way."""
    app = setup.app
    if app is None:
        return
    if setup.hub is None:
        yield NO_CHAT(app=app.name)
        return
    rules = list(app.url_map.iter_rules())
    if not any(rule.websocket for rule in rules):
        yield NO_ROUTES()
    for rule in rules:
        ours = rule.endpoint.startswith("wschat.")
        if rule.rule.startswith("/_wschat") and not ours:
            yield OUR_NAME(rule=rule.rule)
    if app.testing and not setup.is_early:
        yield TESTING()


def neighbours(setup: Setup) -> Iterator[Finding]:
    """Look for others who serve WebSockets in the same application."""
    if setup.app is None:
        return
    if "socketio" in setup.app.extensions:
        yield CATCH_ALL()
    if "sock" in setup.app.extensions:
        yield SOCK()


def health(setup: Setup) -> Iterator[Finding]:
    """Ask the application itself whether it lives, as a supervisor would."""
    app = setup.app
    if app is None or setup.hub is None:
        return
    base = _base(setup)
    answer = app.test_client().get("/_wschat/live", base_url=base)
    if str(answer.location).startswith("https:"):  # it wants to be asked so
        base = base.replace("http:", "https:", 1)
        answer = app.test_client().get("/_wschat/live", base_url=base)
    if answer.status_code != 200:
        yield CAUGHT(status=answer.status_code)


def dashboards(setup: Setup) -> Iterator[Finding]:
    """Ask for each dashboard, as a stranger would."""
    app = setup.app
    if app is None or setup.hub is None:
        return
    for rule in app.url_map.iter_rules():
        view = app.view_functions.get(rule.endpoint)
        page = getattr(view, "__self__", None)
        if rule.arguments or not isinstance(page, Dashboard):
            continue
        if f"{rule.rule.rstrip('/')}/".endswith(page.folder):
            answer = app.test_client().get(
                rule.rule, base_url=_base(setup), environ_base=_STRANGER
            )
            if answer.status_code == 200:
                yield DASHBOARD(rule=rule.rule)


_STRANGER = {"REMOTE_ADDR": "192.0.2.66"}  # of nobody: RFC 5737


def _base(setup: Setup) -> str:
    """Return a URL that the application takes for its own."""
    assert setup.app is not None
    netloc = urlsplit(setup.url or "").netloc.rpartition("@")[2]
    trusted = setup.app.config.get("TRUSTED_HOSTS") or ()
    known = [name.lstrip(".") for name in trusted]
    host = known[0] if known else netloc or setup.app.config.get("SERVER_NAME")
    return f"{'https' if setup.is_https else 'http'}://{host or 'localhost'}"
