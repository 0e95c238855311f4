"""Asks pages, then sockets, of an app; prints what went wrong, or ``fine``.

As a program: ``python -m tests.next.pages CHANGE...``, where a change is ``next`` (the
simulated next Flask and Werkzeug), ``unnamed`` (the same, called by today's version
numbers) or ``module.name``, which nothing of ours can then import.
"""

from __future__ import annotations

import builtins
import sys
import warnings
from collections.abc import Callable
from typing import Any


def forbid(*names: str) -> None:
    """Let nothing of ours import these; the packages themselves may go on to."""
    real = builtins.__import__

    def import_(
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        if str((globals or {}).get("__name__")).startswith("flask_wschat"):
            for wanted in [name, *(f"{name}.{item}" for item in fromlist or ())]:
                if wanted in names:
                    raise ImportError(f"{wanted} is gone")
        return real(name, globals, locals, fromlist, level)

    builtins.__import__ = import_


def make(*extensions: Callable[[Any], Any]) -> Any:
    """Return an app with pages of many kinds."""
    from flask import (
        Flask,
        abort,
        flash,
        g,
        get_flashed_messages,
        redirect,
        request,
        session,
        stream_with_context,
        url_for,
    )

    app = Flask("an_app", static_folder=None)
    app.config.update(SECRET_KEY="key", SECRET_KEY_FALLBACKS=["old"])
    for extend in extensions:
        extend(app)
    ends: list[str] = []

    @app.before_request
    def begin() -> None:
        g.user = session.get("user")

    @app.after_request
    def sign(response: Any) -> Any:
        response.headers["X-Ends"] = str(len(ends))
        return response

    @app.teardown_request
    def end(error: Any) -> None:
        ends.append(f"request of {g.get('user')}: {error!r}")

    @app.teardown_appcontext
    def end_all(error: Any) -> None:
        ends.append(f"app: {error!r}")

    @app.get("/")
    def page() -> str:
        return f"{g.user} {request.cookies.get('a')} {url_for('login', next='/')}"

    @app.post("/login")
    def login() -> Any:
        session["user"] = request.form["name"]
        session.permanent = "stay" in request.args
        flash("hello")
        return redirect("/", 302)

    @app.get("/flashed/<int:n>")
    def flashed(n: int) -> list[Any]:
        return [n, get_flashed_messages(), sorted(request.args.getlist("x"))]

    @app.get("/stream")
    def stream() -> Any:
        return app.response_class(stream_with_context(iter([request.path, "!"])))

    @app.get("/denied")
    def denied() -> str:
        abort(403, "no")

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError

    @app.errorhandler(ZeroDivisionError)
    def mend(error: ZeroDivisionError) -> Any:
        return {"mended": request.path}, 500

    return app


QUESTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/", {}),
    ("POST", "/login?stay", {"data": {"name": "ann"}}),
    ("GET", "/", {"headers": {"Upgrade": "h2c", "Connection": "Upgrade"}}),
    ("GET", "/", {"base_url": "http://other.example:81/root/"}),
    ("GET", "/flashed/3?x=2&x=1", {}),
    ("GET", "/flashed/x", {}),
    ("PUT", "/login", {}),
    ("OPTIONS", "/login", {}),
    ("HEAD", "/", {}),
    ("GET", "/stream", {}),
    ("GET", "/denied", {}),
    ("GET", "/broken", {}),
    ("POST", "/login", {"data": {"name": "bob"}}),
    ("GET", "/", {}),
)


def answers(app: Any) -> list[Any]:
    """Return all that a client can tell of how ``app`` answers."""
    client = app.test_client()
    client.set_cookie("a", "b")
    told = []
    for method, path, options in QUESTIONS:
        reply = client.open(path, method=method, **options)
        headers = [pair for pair in reply.headers if pair[0] != "Set-Cookie"]
        with client.session_transaction() as session:
            cookies = dict(session)
        told.append((method, path, reply.status, headers, reply.data, cookies))
    return told


def check_pages() -> None:
    """A page is what it is without us."""
    from flask_wschat import WSChat

    with_us, without = answers(make(WSChat)), answers(make())
    for ours, theirs in zip(with_us, without, strict=True):
        assert ours == theirs, (ours, theirs)
    statuses = [status[:3] for _, _, status, *_ in without]
    expected = "200 302 200 200 200 404 405 200 200 200 403 500 302 200"
    assert statuses == expected.split(), statuses
    assert without[-1][4].startswith(b"bob b "), without[-1]


def check_sockets() -> None:
    """Listeners, blocking views and refusals; the session, ``g`` and the user."""
    from flask import Flask, abort, current_app, g, request, session

    from flask_wschat import Listener, WSChat
    from flask_wschat.testing import Refused, WSChatClient

    app: Flask = make()
    chat = WSChat(app)

    @chat.authenticate
    def who() -> Any:
        if session.get("user") == "eve":
            abort(403)
        return session.get("user")

    @chat.listener("/listener/<room>")
    class Echo(Listener):
        def on_open(self, ws: Any, room: str) -> None:
            ws.send(f"{ws.user} {request.path} {room}")

        def on_message(self, ws: Any, message: Any) -> None:
            ws.send(f"{current_app.name} {message} {'seen' in g}")
            g.seen = True

    @chat.route("/blocking/<int:n>")
    def blocking(ws: Any, n: int) -> None:
        ws.send(f"{session['user']} {request.path} {n} {'seen' in g}")
        g.seen = True
        for message in ws:
            ws.send(message)

    @app.get("/legacy")
    def legacy() -> str:
        socket = request.environ["wsgi.websocket"]
        socket.send(f"{g.user} {socket.receive()}")
        return ""

    person = WSChatClient(app)

    def refusal(path: str) -> int | None:
        try:
            with person.connect(path):
                return None
        except Refused as refused:
            return refused.response.status_code

    for user in ("ann", "eve", "bob"):
        assert person.http.post("/login", data={"name": user}).status_code == 302
        if user == "eve":
            for path in ("/listener/a", "/legacy"):
                assert refusal(path) == 403, path
            continue
        for _ in range(2):  # made, and known
            with person.connect("/listener/a") as client:
                client.assert_received(f"{user} /listener/a a")
                for text in ("one", "two"):
                    client.send(text)
                    client.assert_received(f"an_app {text} False")
            with person.connect("/blocking/7") as client:
                client.assert_received(f"{user} /blocking/7 7 False")
                client.send("hello")
                client.assert_received("hello")
            with person.connect("/legacy") as client:
                client.send("hello")
                client.assert_received(f"{user} hello")
    for path, status in (("/nowhere", 404), ("/blocking/x", 404)):
        assert refusal(path) == status, path
    assert person.http.get("/listener/a").status_code == 426


def main(changes: list[str]) -> None:
    warnings.simplefilter("error")
    if {"next", "unnamed"}.intersection(changes):
        from .simulated import simulate

        simulate(tell="next" in changes)
    forbid(*changes)
    check_pages()
    check_sockets()
    print("fine")


if __name__ == "__main__":
    main(sys.argv[1:])
