"""``chat.dashboard``: who gets the page and its figures, and what can be done there."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, g, redirect, request, session
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from flask_wschat import ChatListener, WSChat
from flask_wschat.documents.requests import routes
from flask_wschat.opening.script import FOLDER, GLOBAL, file
from flask_wschat.operate import dashboard
from flask_wschat.operate.dashboard import FILES
from flask_wschat.operate.sources import COLUMNS
from tests.support.chat_client import ChatClient, Json
from tests.support.live import HANDLERS, LiveServer, Serve, closed
from tests.support.waiting import eventually

PAGE = "/admin/live"


class Watcher(ChatClient):
    """One that has the page, or is in the chat."""

    def __enter__(self) -> Watcher:
        return self

    def call(self, kind: str, **fields: Any) -> Any:
        reply = self.ask(kind, **fields)
        assert reply["ok"], reply
        return reply.get("result")

    def error(self, kind: str, **fields: Any) -> Json:
        reply = self.ask(kind, **fields)
        assert not reply["ok"], reply
        error: Json = reply["error"]
        return error

    def figures(self) -> list[Json]:
        """Return the next figures of each process."""
        rows = self.expect("figures")["workers"]
        return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


class Stage:
    """An application whose answer to "may they?" the test gives."""

    def __init__(self, app: Flask, chat: WSChat, serve: Serve) -> None:
        self.app, self.chat, self._serve = app, chat, serve
        self.answer: Callable[[], Any] = lambda: True
        self.asked: list[str] = []
        chat.authenticate(lambda: request.args.get("user"))
        chat.listener("/chat")(ChatListener)
        chat.dashboard(PAGE, allow=self.allow)
        self.server: LiveServer = serve(app)

    def allow(self) -> Any:
        self.asked.append(request.path)
        return self.answer()

    def watch(self, **options: Any) -> Watcher:
        options.setdefault("origin", Origin(f"http://127.0.0.1:{self.server.port}"))
        return Watcher(self.server.connect(f"{PAGE}/socket", **options))

    def refused(self, **options: Any) -> Any:
        """Return the answer to who wants a socket and gets none."""
        with pytest.raises(InvalidStatus) as caught:
            self.watch(**options)
        return caught.value.response

    def person(self, user: str, *rooms: str) -> Watcher:
        person = Watcher(self.server.connect(f"/chat?user={user}"))
        for room in rooms:
            person.ask("join", room=room)
        return person


@pytest.fixture
def stage(app: Flask, chat: WSChat, serve: Serve) -> Stage:
    return Stage(app, chat, serve)


# ---- who may ------------------------------------------------------------------------


def test_without_allow_nobody_may_and_is_told_what_to_write(
    app: Flask, chat: WSChat, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    chat.dashboard(PAGE)
    assert 'chat.dashboard("/admin/live") has no allow=' in caplog.text
    answer = app.test_client().get(PAGE)
    assert answer.status_code == 403
    assert 'chat.dashboard("/admin/live", allow=is_admin)' in answer.text
    with pytest.raises(InvalidStatus) as caught:
        serve(app).connect(f"{PAGE}/socket")
    assert caught.value.response.status_code == 403
    assert b"allow=is_admin" in (caught.value.response.body or b"")
    assert app.test_client().get(f"{PAGE}/socket").status_code == 403


def test_who_is_not_allowed_gets_neither_page_nor_socket(stage: Stage) -> None:
    http = stage.app.test_client()
    answers: list[tuple[Callable[[], Any], int]] = [
        (lambda: False, 403),
        (lambda: None, 403),
        (lambda: abort(401), 401),
        (lambda: abort(404), 404),
    ]
    for answer, status in answers:
        stage.answer = answer
        page = http.get(PAGE)
        assert page.status_code == status
        assert "socket" not in page.text
        assert stage.refused().status_code == status
        assert http.get(f"{PAGE}/socket").status_code == status


def test_a_login_page_of_the_applications_own_is_where_it_leads(stage: Stage) -> None:
    http = stage.app.test_client()
    ways: list[Callable[[], Any]] = [
        lambda: redirect("/login"),
        lambda: abort(redirect("/login")),
    ]
    for stage.answer in ways:
        page = http.get(PAGE)
        assert (page.status_code, page.location) == (302, "/login")
        assert stage.refused().status_code == 401
        assert http.get(f"{PAGE}/socket").status_code == 401


def test_what_is_neither_true_nor_false_allows_nothing(stage: Stage) -> None:
    stage.app.config["PROPAGATE_EXCEPTIONS"] = False
    for strange in ("yes", {"allow": True}, object()):
        stage.answer = functools.partial(lambda answer: answer, strange)
        assert stage.app.test_client().get(PAGE).status_code == 500


def test_allow_may_take_the_user(app: Flask, chat: WSChat, serve: Serve) -> None:
    chat.authenticate(lambda: request.args.get("user"))
    asked = []

    def allow(user: str | None) -> bool:
        asked.append(user)
        return user == "ann"

    chat.dashboard(PAGE, allow=allow)
    http = app.test_client()
    assert http.get(f"{PAGE}?user=ann").status_code == 200
    assert http.get(f"{PAGE}?user=ben").status_code == 403
    assert http.get(PAGE).status_code == 403
    assert asked == ["ann", "ben", None]
    with Watcher(serve(app).connect(f"{PAGE}/socket?user=ann")) as watcher:
        watcher.call("kick", user="ben")
    assert asked[3:] == ["ann", "ann"]


@pytest.mark.parametrize(
    ("allow", "words"),
    [
        (True, "a function that returns True or False"),
        (lambda one, two: True, "with the user's id, or without arguments"),
    ],
)
def test_an_allow_that_cannot_be_asked_is_told_of(
    chat: WSChat, allow: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        chat.dashboard(PAGE, allow=allow)


def test_an_async_allow_is_told_of(chat: WSChat) -> None:
    async def allow() -> bool:
        return False

    with pytest.raises(TypeError, match="async"):
        chat.dashboard(PAGE, allow=allow)


def test_a_rule_is_needed(chat: WSChat) -> None:
    with pytest.raises(TypeError, match="with the URL first"):
        chat.dashboard(lambda: True)  # type: ignore[arg-type]


@pytest.mark.parametrize("allowed", [None, "*", "http://other.example"])
def test_a_page_of_another_origin_gets_no_socket(
    stage: Stage, allowed: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    settings = stage.app.extensions["wschat.hub"].settings
    own = f"http://127.0.0.1:{stage.server.port}"
    origins = [allowed, own] if allowed == "http://other.example" else allowed
    object.__setattr__(settings, "ORIGINS", origins)
    for origin in ("http://other.example", "null"):
        assert stage.refused(origin=Origin(origin)).status_code == 403
    if allowed == "*":
        assert "nobody else's pages get this socket" in caplog.text
    with stage.watch() as watcher:
        assert watcher.call("watch")


# ---- and may still ------------------------------------------------------------------


def test_who_may_no_more_is_closed_while_watching(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "ASK_AGAIN", 0.0)
    watcher = stage.watch()
    watcher.call("watch")
    assert watcher.figures()
    stage.answer = lambda: abort(401)
    while True:
        try:
            watcher.hear()
        except Exception:
            break
    assert closed(watcher.client)[0] == 1008


def test_who_only_looks_is_not_asked_about_each_time(stage: Stage) -> None:
    with stage.watch() as watcher:
        asked = len(stage.asked)
        for _ in range(3):
            watcher.call("find", what="users")
        watcher.call("watch")
        assert len(stage.asked) == asked


def test_who_may_no_more_does_nothing_more(stage: Stage) -> None:
    ann = stage.person("ann")
    watcher = stage.watch()
    stage.answer = lambda: False
    watcher.put("kick", user="ann")
    assert closed(watcher.client)[0] == 1008
    assert ann.call("ping") is None


def test_an_error_in_allow_is_no_permission(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "ASK_AGAIN", 0.0)
    watcher = stage.watch()

    def fail() -> bool:
        raise OSError("the users' database is away")

    stage.answer = fail
    assert watcher.error("find", what="users")["code"] == "internal"
    stage.answer = lambda: True
    watcher.call("watch")
    stage.answer = fail
    while True:
        try:
            watcher.hear()
        except Exception:
            break
    assert closed(watcher.client)[0] == 1011


def test_what_is_done_before_each_request_is_there_for_allow(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a ``g.user`` that is loaded there; and as the page is asked for."""
    monkeypatch.setattr(dashboard, "ASK_AGAIN", 0.0)
    app = stage.app
    left: list[str] = []

    @app.before_request
    def load() -> None:
        g.user = session.get("name")

    @app.teardown_request
    def leave(error: Any) -> None:
        left.append(request.path)

    @app.get("/login")
    def login() -> str:
        session["name"] = "ann"
        return ""

    stage.answer = lambda: g.user == "ann" and request.method == "GET"
    http = app.test_client()
    assert http.get(PAGE).status_code == 403
    http.get("/login")
    cookie = http.get_cookie("session")
    assert cookie is not None
    assert http.get(PAGE).status_code == 200
    stage.asked.clear()
    with stage.watch(
        additional_headers={"Cookie": f"session={cookie.value}"}
    ) as watcher:
        watcher.call("watch")
        assert watcher.figures()
        watcher.call("kick", user="ann")
    assert stage.asked[:2] == [f"{PAGE}/socket", PAGE]
    assert left.count(PAGE) >= 3


# ---- the page -----------------------------------------------------------------------


def test_the_page_has_nothing_inline_and_is_small(stage: Stage) -> None:
    http = stage.app.test_client()
    page = http.get(PAGE)
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Frame-Options"] == "DENY"
    own = ' data-origin="http://localhost"'
    assert own in page.text
    for inline in ("<style", " style=", " onclick=", "javascript:", "http:", "https:"):
        assert inline not in page.text.replace(own, "")
    assert page.text.count("<script") == page.text.count("</script>") == 2
    assert 'data-socket="/admin/live/socket"' in page.text
    size = len(page.data)
    for name, kind in FILES.items():
        more = GLOBAL if name == "wschat.js" else b""
        answer = http.get(f"{PAGE}/{name}?v={file(name, more).version}")
        assert answer.content_type == f"{kind}; charset=utf-8"
        assert answer.data == (FOLDER / name).read_bytes() + more
        assert "immutable" in answer.headers["Cache-Control"]
        size += 0 if more else len(answer.data)
    assert size <= 60_000


def test_without_a_dashboard_there_are_no_files_of_it(app: Flask, chat: WSChat) -> None:
    http = app.test_client()
    for path in (f"{PAGE}/dashboard.js", "/_wschat/dashboard.js", PAGE):
        assert http.get(path).status_code == 404


def test_an_applications_documents_say_nothing_of_it(stage: Stage) -> None:
    assert [route.address for route in routes(stage.app)] == ["/chat"]


def test_the_name_of_an_application_is_text(serve: Serve) -> None:
    app = Flask("an_app")
    app.name = "<script>{x}"
    WSChat(app).dashboard(PAGE, allow=lambda: True)
    page = app.test_client().get(PAGE)
    assert "&lt;script&gt;{x}" in page.text


@pytest.mark.parametrize("rule", ["/", "/live", "/live/", "/of/<int:tenant>/live"])
def test_it_can_be_mounted_anywhere(serve: Serve, rule: str) -> None:
    app = Flask("an_app")
    chat = WSChat()
    admin = Blueprint("admin", __name__, url_prefix="/admin")
    asked = []

    def allow() -> bool:
        asked.append((request.path, request.endpoint, request.view_args))
        return True

    chat.dashboard(rule, allow=allow, blueprint=admin)
    chat.dashboard("/second", allow=allow, endpoint="second")
    app.register_blueprint(admin)
    chat.init_app(app)
    path = f"/admin{rule}".replace("<int:tenant>", "7")
    below = Client(DispatcherMiddleware(Flask("outer"), {"/app": app}), Response)
    page = below.get(f"/app{path}")
    assert page.status_code == 200
    folder = path.rstrip("/")
    assert f'data-socket="/app{folder}/socket"' in page.text
    assert f'src="/app{folder}/dashboard.js?v=' in page.text
    assert f'src="/app{folder}/wschat.js?v=' in page.text
    with Watcher(serve(app).connect(f"{folder}/socket")) as watcher:
        asked.clear()
        watcher.call("kick", user="ben")
    args = {"tenant": 7} if "tenant" in rule else {}
    assert asked == [(path, "admin.dashboard", args)]
    assert app.test_client().get("/second").status_code == 200


def test_all_of_it_is_of_the_host_that_it_is_mounted_at() -> None:
    app = Flask("an_app", subdomain_matching=True)
    app.config["SERVER_NAME"] = "flask.example"
    WSChat(app).dashboard("/live", allow=lambda: True, subdomain="admin")
    http = app.test_client()
    page = http.get("/live", base_url="http://admin.flask.example")
    assert page.status_code == 200
    used = re.findall(r'(?:src|href|data-socket)="([^"#]+)"', page.text)
    assert len(used) == 5
    assert all(path.startswith("/live/") for path in used), used
    assert http.get("/live", base_url="http://flask.example").status_code == 404


def test_one_extension_serves_several_applications(serve: Serve) -> None:
    chat = WSChat()
    chat.dashboard(PAGE, allow=lambda: True)
    for name in ("one", "other"):
        app = Flask(name)
        chat.init_app(app)
        assert name in app.test_client().get(PAGE).text
        with Watcher(serve(app).connect(f"{PAGE}/socket")) as watcher:
            watcher.call("watch")
            assert watcher.figures()[0]["connections"] == 1


# ---- figures ------------------------------------------------------------------------


def test_figures_come_each_second_while_they_are_wanted(stage: Stage) -> None:
    ann = stage.person("ann", "a")
    one, other = stage.watch(), stage.watch()
    for watcher in (one, other):
        assert watcher.call("watch") == {"columns": list(COLUMNS)}
    (before,) = one.figures()
    assert before["connections"] == 3
    assert ":" in before["worker"]
    ann.ask("ping")
    eventually(lambda: one.figures()[0]["messages_in"] > before["messages_in"])
    assert other.figures()[0]["worker"] == before["worker"]
    source = stage.app.extensions[dashboard.SOURCE]
    one.call("pause")
    one.client.close()
    other.client.close()
    eventually(lambda: source._watch is None)
    assert not source._watchers


def test_who_watches_after_the_server_was_started_anew_has_figures(
    app: Flask, chat: WSChat
) -> None:
    chat.dashboard(PAGE, allow=lambda: True)
    for _ in range(2):
        server = LiveServer(app, *HANDLERS["ours"])
        watcher = Watcher(server.connect(f"{PAGE}/socket"))
        watcher.call("watch")
        assert watcher.figures()
        server.stop()


def test_what_is_said_to_all_is_not_told_to_a_dashboard(stage: Stage) -> None:
    with stage.watch() as watcher:
        stage.chat.broadcast("to all")
        stage.chat.emit("moved", x=1)
        watcher.call("ping")
        assert watcher.events == []


# ---- who is there, and what can be done ---------------------------------------------


def test_rooms_and_users_are_found_and_a_users_connections(stage: Stage) -> None:
    stage.person("Ann", "a", "b")
    stage.person("Ann", "a")
    stage.person("ben", "a")
    watcher = stage.watch()
    found = watcher.call("find", what="users")
    assert found["total"] == 2
    assert [(row["name"], row["connections"]) for row in found["found"]] == [
        ("Ann", 2),
        ("ben", 1),
    ]
    rooms = watcher.call("find", what="rooms")["found"]
    assert [(r["name"], r["connections"], r["people"]) for r in rooms] == [
        ("a", 3, 2),
        ("b", 1, 1),
    ]
    assert [r["name"] for r in watcher.call("find", what="users", part="an")["found"]]
    assert watcher.call("find", what="users", part="zoe") == {"found": [], "total": 0}
    connections = watcher.call("connections", user="Ann")
    assert sorted(c["rooms"] for c in connections) == [["a"], ["a", "b"]]
    assert {c["route"] for c in connections} == {"/chat"}
    assert {c["address"] for c in connections} == {"127.0.0.1"}
    assert watcher.call("connections", user="zoe") == []


def test_a_user_or_one_connection_is_disconnected(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one, other = stage.person("ann"), stage.person("ann")
    watcher = stage.watch()
    assert watcher.call("kick", user="ann", id=one.hello["id"], reason="bye") == 1
    assert closed(one.client) == (4000, "bye")
    assert other.call("ping") is None
    assert watcher.call("kick", user="ann", id=one.hello["id"]) == 0
    assert watcher.call("kick", user="ann", id="nothing") == 0
    assert watcher.call("kick", user="ann", reason="é" * 100) == 1
    assert closed(other.client)[0] == 4000
    assert watcher.call("kick", user="ann") == 0
    assert "disconnects ann" in caplog.text


def test_something_is_sent_to_a_user_or_a_room(stage: Stage) -> None:
    ann = stage.person("ann", "a")
    ann.ask("inbox")
    watcher = stage.watch()
    assert watcher.call("send", user="ann", text="Hello") == 1
    assert ann.expect("direct")["data"] == "Hello"
    assert watcher.call("send", room="a", text="To all") == 1
    assert ann.expect("message")["data"] == "To all"
    for fields in ({}, {"user": "ann", "room": "a"}):
        error = watcher.error("send", text="To whom?", **fields)
        assert error["code"] == "bad_request"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("find", {"what": "passwords"}),
        ("find", {"what": "rooms", "part": "x" * 256}),
        ("connections", {"user": 5}),
        ("connections", {}),
        ("kick", {"user": ""}),
        ("kick", {"user": "ann", "id": ["x"]}),
        ("kick", {"user": "a\nb"}),
        ("send", {"user": "ann", "text": "x" * 4001}),
        ("send", {"room": "a\x00b", "text": "x"}),
        ("shutdown", {}),
    ],
)
def test_junk_is_refused_and_nothing_is_done(
    stage: Stage, kind: str, fields: Json
) -> None:
    with stage.watch() as watcher:
        code = watcher.error(kind, **fields)["code"]
        assert code in ("bad_request", "unknown_type")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"type": 5}', "\x00"])
def test_what_is_no_request_is_answered(stage: Stage, text: str) -> None:
    with stage.watch() as watcher:
        watcher.client.send(text)
        assert json.loads(watcher.client.recv(5))["ok"] is False
        assert watcher.call("watch")
