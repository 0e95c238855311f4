"""Mistakes are told where they are made, or at least once and with the remedy."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Blueprint, Flask, session

from flask_wschat import ChatListener, Listener, WebSocket, WSChat, event
from flask_wschat.testing import WSChatClient


def no_socket() -> None: ...
def only_the_room(room: str) -> None: ...
def the_room_first(room: str, ws: WebSocket) -> None: ...
async def waits(ws: WebSocket) -> None: ...
async def waits_and_yields(ws: WebSocket) -> Any:
    yield ""


def yields(ws: WebSocket) -> Iterator[str]:
    yield ""


class NoListener: ...


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (no_socket, r"no_socket\(\) .*write no_socket\(ws, room\)"),
        (only_the_room, r"write only_the_room\(ws, room\)"),
        (the_room_first, r"write the_room_first\(ws, room\)"),
        (waits, "waits is async, and would never run: write def"),
        (waits_and_yields, "waits_and_yields is async"),
        (functools.partial(waits), "is async"),
        (yields, "yields has a yield, and would never run: use ws.send"),
        (NoListener, "NoListener is a class: register it by @chat.listener"),
        ("view", "a view is a function"),
    ],
)
def test_a_view_that_cannot_serve(chat: WSChat, view: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        chat.route("/rooms/<string(length=2):room>")(view)


def test_a_decorated_one_that_did_not_run_is_an_error(
    chat: WSChat, app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    def decorated(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def call(*args: Any, **kwargs: Any) -> Any:
            return view(*args, **kwargs)

        return call

    async def allows(self: Any, *args: Any) -> bool:
        return False

    for name, view in [("waits", waits), ("both", waits_and_yields), ("all", yields)]:
        chat.route(f"/{name}", endpoint=name)(decorated(view))
    for name in ("can_join", "can_tell"):
        decided = type(f"{name}_chat", (ChatListener,), {name: decorated(allows)})
        chat.listener(f"/{name}")(decided)
    client = WSChatClient(app)
    for path in ("/waits", "/both", "/all"):
        did_not = pytest.raises(TypeError, match="did not run: write def")
        with did_not, client.connect(path) as ws:
            ws.assert_closed(1011)
    join = {"type": "join", "ref": 1, "room": "Lobby"}
    tell = {"type": "tell", "ref": 1, "to": "ben", "data": 1, "mid": "1"}
    for path, request in [("/can_join", join), ("/can_tell", tell)]:
        did_not = pytest.raises(TypeError, match="did not run: write def")
        with did_not, client.connect(path, user="ann") as ws:
            assert ws.receive_json()["type"] == "hello"
            ws.send(request)
            assert ws.receive_json()["error"]["code"] == "internal"


def test_views_that_can(chat: WSChat) -> None:
    def decorated(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def call(*args: Any, **kwargs: Any) -> Any:
            return view()

        return call

    class Called:
        __name__ = "called"

        def __call__(self, socket: WebSocket, room: str) -> None: ...

    def keywords(ws: WebSocket, **url_args: Any) -> None: ...
    def everything(*args: Any, room: str) -> None: ...
    def positional(ws: WebSocket, /, room: str) -> None: ...

    views: tuple[Callable[..., Any], ...]
    views = (decorated(no_socket), Called(), keywords, everything, positional)
    for n, view in enumerate(views):
        chat.route(f"/{n}/<room>")(view)
    blueprint = Blueprint("rooms", __name__, url_prefix="/<house>")

    @chat.route("/<room>", blueprint=blueprint)
    def both(ws: WebSocket, house: str, room: str) -> None: ...


def listener(**methods: Any) -> type[Listener]:
    return type("Mine", (Listener,), methods)


def chat_listener(**methods: Any) -> type[Listener]:
    return type("Mine", (ChatListener,), methods)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (NoListener, "NoListener is no subclass of flask_wschat.Listener"),
        (Listener(), "register the class Listener, not an instance"),
        (no_socket, "no_socket is no subclass .* @chat.route"),
        (None, "None is no subclass"),
        (listener(on_open=waits), "Mine.on_open is async"),
        (listener(on_message=waits), "Mine.on_message is async"),
        (listener(on_close=waits), "Mine.on_close is async"),
        (chat_listener(can_join=waits), "Mine.can_join is async"),
        (chat_listener(before_event=waits), "Mine.before_event is async"),
        (
            chat_listener(before_event=lambda self, name: 1),
            r"write before_event\(self, ws, name, request\)",
        ),
        (
            chat_listener(can_say=yields),
            "Mine.can_say has a yield, and would never run: use return",
        ),
        (listener(on_connect=no_socket), "nobody calls Mine.on_connect: .* on_open"),
        (chat_listener(on_connect=no_socket), "on_connect: the method .* on_open"),
        (
            chat_listener(can_enter=no_socket),
            "nobody calls Mine.can_enter: .* can_join",
        ),
        (chat_listener(can_jion=no_socket), "nobody calls Mine.can_jion: .* can_join"),
        (chat_listener(can_send=no_socket), "can_send: .* can_say"),
        (chat_listener(can_votes=no_socket), "can_votes: .* can_vote"),
        (chat_listener(can_join=lambda self, room: 1), r"can_join\(self, user, room\)"),
        (
            chat_listener(can_say=lambda self, user, room: 1),
            r"\(self, user, room, data\)",
        ),
        (chat_listener(can_tell=lambda self, user: 1), r"can_tell\(self, user, to\)"),
        (listener(on_disconnect=no_socket), "on_disconnect: .* on_close"),
        (listener(onmessage=no_socket), "onmessage: .* on_message"),
        (listener(onOpen=no_socket), "onOpen: .* on_open"),
        (listener(on_open=lambda self: None), r"write on_open\(self, ws, room\)"),
        (listener(on_open=lambda self, room: None), r"write on_open\(self, ws, room\)"),
        (listener(on_message=lambda self, ws: None), r"\(self, ws, message\)"),
        (listener(on_close=lambda self, ws: None), r"\(self, ws, code, reason\)"),
        (listener(__init__=lambda self, room: None), "without arguments"),
        (
            listener(move=event(lambda self: 1)),
            r"Mine\.move is an event, .* class Mine\(Events\), or \(ChatListener\)",
        ),
    ],
)
def test_a_listener_that_cannot_listen(chat: WSChat, cls: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        chat.listener("/<room>")(cls)


def test_listeners_that_can(chat: WSChat) -> None:
    def on_open(self: Any, ws: WebSocket, room: str = "", *, more: str = "") -> None:
        self.on_connect()

    def on_close(self: Any, *args: Any) -> None: ...
    def once(self: Any) -> None: ...

    chat.listener("/<room>")(
        listener(on_open=on_open, on_close=on_close, on_connect=once, once=once)
    )
    own = {"on_guess": once, "can_moderate": once, "can_say": lambda self, *args: True}
    chat.listener("/any/<room>", endpoint="any")(chat_listener(**own))
    chat.listener("/mine/<room>", endpoint="mine")(
        listener(can_join=once, before_event=once)
    )

    def can_send(self: Any) -> bool:
        return True

    both = chat_listener(can_say=lambda self, *args: self.can_send(), can_send=can_send)
    chat.listener("/both/<room>", endpoint="both")(both)


def test_decorators_without_what_belongs_to_them(chat: WSChat) -> None:
    with pytest.raises(TypeError, match=r'write @chat.route\("/url"\)'):
        chat.route(no_socket)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r'write @chat.listener\("/url"\)'):
        chat.listener(Listener)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write @chat.authenticate above"):
        chat.authenticate()
    with pytest.raises(TypeError, match="only_the_room is called without arguments"):
        chat.authenticate(only_the_room)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="waits is async"):
        chat.authenticate(waits)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="not a Flask application: 'app'"):
        WSChat("app")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not a Flask application: '127.0.0.1'"):
        chat.run("127.0.0.1")  # type: ignore[arg-type]


# ---- told once, in the log ----------------------------------------------------------


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what was warned of since the last call."""
    caplog.set_level(logging.WARNING)

    def take() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    return take


def test_a_setting_that_comes_too_late(
    app: Flask, warnings: Callable[[], list[str]]
) -> None:
    app.config.update(WSCHAT_ORIGINS=["https://a.example"], WSCHAT_MAX_QUEUE=100_000)
    chat = WSChat(app)
    chat.route("/echo")(lambda ws: None)
    app.config["WSCHAT_ORIGINS"].append("https://b.example")
    app.config["WSCHAT_PING_INTERVAL"] = 5
    app.config["WSCHAT_MAX_QUEUE"] = 100_000
    for _ in range(2):
        with WSChatClient(app).connect("/echo"):
            pass
    [line] = warnings()
    assert line.startswith(
        "WSCHAT_ORIGINS, WSCHAT_PING_INTERVAL came too late and has no effect:"
        " set it before WSChat(app)"
    )


def test_a_setting_of_the_environment_that_nobody_read(
    app: Flask, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_WSCHAT_MAX_QUEUE", "100000")
    app.config["WSCHAT_MAX_QUEUE"] = 200_000  # it has its own mind
    monkeypatch.setenv("FLASK_WSCHAT_HISTORY_SIZE", "10")
    WSChat(app)
    [line] = warnings()
    assert line.startswith("FLASK_WSCHAT_HISTORY_SIZE is in the environment, but not")
    other = Flask("other")
    other.config.from_prefixed_env()
    WSChat(other)
    assert warnings() == []


def test_no_word_of_settings_that_came_in_time(
    app: Flask, warnings: Callable[[], list[str]]
) -> None:
    app.config.update(WSCHAT_ORIGINS=["https://a.example"], WSCHAT_RATE_LIMIT=[1, 2])
    chat = WSChat(app)
    chat.route("/echo")(lambda ws: None)
    with WSChatClient(app).connect("/echo"):
        pass
    assert warnings() == []


@pytest.mark.pain(13)
def test_what_is_written_to_a_session_in_a_socket_is_told(
    app: Flask, chat: WSChat, warnings: Callable[[], list[str]]
) -> None:
    @app.get("/login")
    def login() -> str:
        session["user"] = "ann"
        session.permanent = True
        return ""

    @chat.route("/view")
    def view(ws: WebSocket) -> None:
        ws.send(session["user"])
        session["view"] = 1  # here
        session.permanent = True  # and here

    @chat.listener("/listener")
    class Room(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.send(session.get("user"))
            session.update(listener=1)  # and there

    client = WSChatClient(app)
    client.http.get("/login")
    assert warnings() == []
    for _ in range(2):
        for path in ("/view", "/listener"):
            with client.connect(path) as ws:
                ws.assert_received("ann")
    lines = warnings()
    assert len(lines) == 3
    for line in lines:
        assert re.match(r"what .*test_mistakes\.py:\d+ writes to the session is", line)
    client.http.get("/login")
    assert warnings() == []
