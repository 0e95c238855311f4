"""The extension through a live server and a foreign client."""

from __future__ import annotations

import json
import math
import queue
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    g,
    got_request_exception,
    request,
    session,
    url_for,
)
from websockets.exceptions import InvalidStatus

from flask_wschat import ChatListener, Listener, WebSocket, WSChat, backends
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.backends.redis.backend import RedisBackend
from flask_wschat.backends.sqlite.backend import SQLiteBackend
from flask_wschat.errors import BackendError, ConfigError
from flask_wschat.messages import Message, room_topic
from flask_wschat.opening import gate
from flask_wschat.testing import WSChatClient
from tests.support.live import LiveServer, Serve, closed, receive
from tests.support.waiting import DEADLINE, eventually


def test_init_app_is_needed_once(app: Flask) -> None:
    chat = WSChat(app)
    assert app.extensions["wschat"] is chat
    with pytest.raises(RuntimeError, match="already has a WSChat"):
        chat.init_app(app)
    with pytest.raises(RuntimeError, match="which app"):
        WSChat().online()


def test_a_factory_and_several_apps(serve: Serve) -> None:
    chat = WSChat()

    @chat.route("/name")
    def name(ws: WebSocket) -> None:
        ws.send(current_app.name)
        ws.receive()

    apps = [Flask("one"), Flask("two")]
    for app in apps:
        chat.init_app(app)

    @chat.listener("/late")
    class Late(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.join("late")

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            chat.broadcast(f"{current_app.name}: {message!s}", room="late")

    one, two = [serve(app) for app in apps]
    with one.connect("/name") as first, two.connect("/name") as second:
        assert (receive(first), receive(second)) == ("one", "two")
        with one.connect("/late") as late, two.connect("/late") as other:
            late.send("hi")
            assert receive(late) == "one: hi"
            other.send("ho")
            assert receive(other) == "two: ho"
        with pytest.raises(RuntimeError, match="which app"):
            chat.broadcast("to whom?")
        with apps[1].app_context():
            chat.broadcast("to two")
        assert receive(second) == "to two"


def test_two_rules_can_have_one_view(app: Flask, chat: WSChat, serve: Serve) -> None:
    @chat.route("/one")
    @chat.route("/two/<name>")
    def view(ws: WebSocket, name: str = "nobody") -> None:
        ws.send(name)

    @chat.listener("/three")
    @chat.listener("/four/<name>")
    class Named(Listener):
        def on_open(self, ws: WebSocket, name: str = "nobody") -> None:
            ws.send(name)

    server = serve(app)
    for path, name in {
        "/one": "nobody",
        "/two/ann": "ann",
        "/three": "nobody",
        "/four/ann": "ann",
    }.items():
        with server.connect(path) as ws:
            assert receive(ws) == name


def test_blueprints_converters_and_url_for(app: Flask, serve: Serve) -> None:
    chat = WSChat()
    bp = Blueprint("api", __name__, url_prefix="/api")

    @chat.route("/add/<int:a>/<int:b>", blueprint=bp)
    def add(ws: WebSocket, a: int, b: int) -> None:
        ws.send_json(a + b)

    @chat.listener("/rooms/<room>", blueprint=bp, endpoint="room")
    class Room(Listener):
        def on_open(self, ws: WebSocket, room: str) -> None:
            ws.send(url_for("api.room", room=room))

    chat.init_app(app)
    app.register_blueprint(bp)
    server = serve(app)
    with server.connect("/api/add/2/3") as client:
        assert receive(client) == "5"
        assert closed(client) == (1000, "")
    with server.connect("/api/rooms/a%20b") as client:
        assert receive(client) == server.url("/api/rooms/a%20b")


def test_a_blocking_view_has_the_request_in_a_context_of_its_own(
    app: Flask, chat: WSChat, server: LiveServer
) -> None:
    events: list[str] = []

    @app.before_request
    def load() -> None:
        g.loaded = True
        events.append(f"before {session.get('user')}")

    @app.after_request
    def after(response: Response) -> Response:
        events.append("after")
        return response

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        events.append(f"request ends {'loaded' in g}")

    @app.teardown_appcontext
    def end(error: BaseException | None) -> None:
        events.append("context ends")

    @app.get("/login")
    def login() -> str:
        session["user"] = "ann"
        return ""

    @chat.route("/who/<int:number>")
    def who(ws: WebSocket, number: int) -> None:
        events.append("view")
        ws.send_json([request.args["q"], request.view_args, session["user"], number])
        ws.send_json([request.endpoint, "loaded" in g, url_for("who", number=1)])
        ws.receive()

    cookie = app.test_client().get("/login").headers["Set-Cookie"].partition(";")[0]
    events.clear()
    with server.connect("/who/3?q=7", additional_headers={"Cookie": cookie}) as client:
        assert json.loads(receive(client)) == ["7", {"number": 3}, "ann", 3]
        assert json.loads(receive(client)) == ["who", False, server.url("/who/1")]
        handshake = ["before ann", "after", "request ends True", "context ends"]
        assert events == [*handshake, "view"]
        client.send("")
        assert closed(client) == (1000, "")
    eventually(lambda: events[5:] == ["request ends False", "context ends"])


def test_a_view_does_not_begin_after_an_error_in_after_request(
    app: Flask, chat: WSChat, server: LiveServer
) -> None:
    begun: list[bool] = []

    @app.after_request
    def fail(response: Response) -> Response:
        raise ZeroDivisionError

    @chat.route("/view")
    def view(ws: WebSocket) -> None:
        begun.append(True)

    with server.connect("/view") as client:
        assert closed(client) == (1011, "the handshake failed after its answer")
    assert not begun


@pytest.mark.parametrize("status", [401, 403, None])
def test_a_page_can_ask_why_its_socket_is_refused(
    app: Flask, chat: WSChat, status: int | None
) -> None:
    chat.authenticate(lambda: None if status is None else abort(status, "no entry"))
    chat.route("/echo")(lambda ws: None)
    chat.listener("/chat")(ChatListener)
    for path in ("/echo", "/chat"):
        answer = app.test_client().get(path)
        assert answer.status_code == (status or 426)
        assert ("no entry" in answer.text) is (status is not None)


def test_what_goes_wrong_when_a_page_asks_is_answered_by_the_application(
    app: Flask, chat: WSChat
) -> None:
    errors = iter([BackendError("the storage is away"), ZeroDivisionError()])

    @chat.authenticate
    def who() -> str:
        raise next(errors)

    @app.errorhandler(BackendError)
    def unavailable(error: BackendError) -> tuple[str, int]:
        return f"later: {error}", 503

    chat.route("/echo")(lambda ws: None)
    answer = app.test_client().get("/echo")
    assert (answer.status_code, answer.text) == (503, "later: the storage is away")
    assert app.test_client().get("/echo").status_code == 500  # nobody takes that one


def test_authenticate_says_who_or_refuses(
    app: Flask, chat: WSChat, server: LiveServer
) -> None:
    @app.get("/login/<user>")
    def login(user: str) -> str:
        session["user"] = user
        return ""

    @chat.authenticate
    def who() -> str | None:
        if "X-Forbidden" in request.headers:
            abort(401)
        return session.get("user")

    @chat.route("/me")
    def me(ws: WebSocket) -> None:
        ws.send_json(ws.user)

    cookie = app.test_client().get("/login/ann").headers["Set-Cookie"]
    headers = {"Cookie": cookie.split(";")[0]}
    with server.connect("/me", additional_headers=headers) as client:
        assert receive(client) == '"ann"'
    with server.connect("/me") as client:
        assert receive(client) == "null"


class Member(Listener):
    """Joins the room in the URL and sends what it gets to the others."""

    chat: WSChat

    def on_open(self, ws: WebSocket, room: str) -> None:
        self.room = room
        ws.join(room)

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        self.chat.broadcast(message, room=self.room, exclude=ws)


@pytest.fixture
def rooms(chat: WSChat, server: LiveServer) -> LiveServer:
    @chat.authenticate
    def who() -> str | None:
        return request.args.get("user")

    class ThisMember(Member):
        pass

    ThisMember.chat = chat
    chat.listener("/rooms/<room>")(ThisMember)
    return server


def test_broadcast_reaches_a_room_or_all(chat: WSChat, rooms: LiveServer) -> None:
    with (
        rooms.connect("/rooms/a") as ann,
        rooms.connect("/rooms/a") as bob,
        rooms.connect("/rooms/b") as cleo,
    ):
        eventually(lambda: chat._hub().count() == 3)
        ann.send("to a, not to me")
        ann.send(b"\x00\xff")
        assert receive(bob) == "to a, not to me"
        assert receive(bob) == b"\x00\xff"
        assert chat.broadcast({"n": [1, None]}) == 0
        for client in (ann, bob, cleo):
            assert receive(client).replace(" ", "") == '{"n":[1,null]}'
        assert chat.broadcast("kept", room="b") == 1
        assert chat.broadcast("not kept", room="b", key="k") == 0
        assert receive(cleo) == "kept"
        assert receive(cleo) == "not kept"
    assert [(e.seq, e.data) for e in chat.history("b")] == [(1, "kept")]
    assert [e.data for e in chat.history("a")] == ["to a, not to me", b"\x00\xff"]
    assert [e.seq for e in chat.history("a", after=1)] == [2]
    assert [e.seq for e in chat.history("a", after=0, limit=1)] == [1]
    assert [e.seq for e in chat.history("a", limit=1)] == [2]


@pytest.mark.parametrize(
    "data",
    ["half \ud800", {"x": float("nan")}, [1, -float("inf")], ["Infinity", 1e999]],
)
def test_what_nobody_could_read_is_refused_to_who_says_it(
    chat: WSChat, data: Any
) -> None:
    """Kept, it would make the pages of its room unreadable for all."""
    with pytest.raises(ValueError, match=r"surrogate|is not JSON"):
        chat.broadcast(data, room="a")
    with pytest.raises(ValueError, match=r"surrogate|is not JSON"):
        chat.send_to_user("ann", data)
    for fine in ("NaN", ["NaN", "-Infinity"], {"NaN": "ż"}, "Infinity \U0001f9c9"):
        chat.broadcast(fine, room="a")
    assert len(chat.history("a")) == 4


def test_history_has_what_was_said_not_its_json(chat: WSChat) -> None:
    values = ["text", '"hi"', b"\x00\xff", {"a": [1, None, "ż"]}, 7, None, True, ""]
    for value in values:
        chat.broadcast(value, room="a")
    said = Message('"said"', json=True, sender="ann", mid="m")
    chat._hub().publish(room_topic("a"), said, keep=True)
    entries = chat.history("a")
    assert [entry.data for entry in entries] == [*values, "said"]
    assert [entry.seq for entry in entries] == list(range(1, len(values) + 2))


@pytest.mark.pain(13)
def test_users_are_reached_listed_and_disconnected(
    chat: WSChat, rooms: LiveServer
) -> None:
    with (
        rooms.connect("/rooms/a?user=ann") as tab,
        rooms.connect("/rooms/b?user=ann") as other_tab,
        rooms.connect("/rooms/a?user=7") as bob,
        rooms.connect("/rooms/a"),
    ):
        eventually(lambda: chat._hub().count() == 4)
        assert chat.online() == ["7", "ann"]
        assert chat.online("b") == ["ann"]
        assert chat.online("nowhere") == []
        assert chat.send_to_user("ann", {"type": "ping"}) == 2
        assert chat.send_to_user(7, "seven") == 1
        assert chat.send_to_user("nobody", "x") == 0
        assert receive(bob) == "seven"
        for client in (tab, other_tab):
            assert receive(client).replace(" ", "") == '{"type":"ping"}'
        assert chat.disconnect_user("ann", 4003, "banned") == 2
        assert closed(tab) == closed(other_tab) == (4003, "banned")
        assert chat.online() == ["7"]


@pytest.mark.pain(9)
def test_a_native_thread_may_publish_and_keeps_its_order(
    chat: WSChat, rooms: LiveServer
) -> None:
    with rooms.connect("/rooms/a") as client:
        eventually(lambda: chat._hub().count() == 1)

        def publish() -> None:
            for number in range(3000):
                chat.broadcast(str(number), room="a")

        threads = [threading.Thread(target=publish) for _ in range(2)]
        for thread in threads:
            thread.start()
        got = [int(receive(client)) for _ in range(6000)]
        for thread in threads:
            thread.join()
    kept = [int(str(entry.data)) for entry in chat.history("a", limit=256)]
    assert got[-256:] == kept
    assert sorted(got) == sorted([*range(3000), *range(3000)])


def test_a_native_thread_may_send(chat: WSChat, server: LiveServer) -> None:
    @chat.route("/threads")
    def threads(ws: WebSocket) -> None:
        def send(letter: str) -> None:
            for size in range(200):
                ws.send(letter * size * 10)

        workers = [threading.Thread(target=send, args=(x,)) for x in "abc"]
        for worker in workers:
            worker.start()
        ws.receive()
        for worker in workers:
            worker.join()

    with server.connect("/threads") as client:
        got = [receive(client) for _ in range(600)]
        client.send("thanks")
    for letter in "abc":
        mine = [message for message in got if message[:1] == letter]
        assert mine == [letter * size * 10 for size in range(1, 200)]


@pytest.mark.parametrize(
    "how",
    ["client closes", "client vanishes", "server closes", "error", "error in on_open"],
)
def test_on_close_comes_once_whatever_ends_it(
    app: Flask, chat: WSChat, server: LiveServer, how: str
) -> None:
    calls: queue.Queue[tuple[int, str]] = queue.Queue()
    errors: list[Exception] = []

    @got_request_exception.connect_via(app)
    def note(sender: Flask, exception: Exception) -> None:
        errors.append(exception)

    @chat.listener("/ends")
    class Ends(Listener):
        def on_open(self, ws: WebSocket) -> None:
            if how == "error in on_open":
                raise ValueError("in on_open")

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            if how == "server closes":
                ws.close(4000, "go")
            else:
                raise ValueError("in on_message")

        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            assert current_app.name == app.name
            calls.put((code, reason))

    client = server.connect("/ends")
    if how == "client closes":
        client.close(4321, "bye")
        expected = (4321, "bye")
    elif how == "client vanishes":
        client.socket.shutdown(2)
        expected = (1006, "connection lost")
    elif how == "server closes":
        client.send("x")
        expected = (4000, "go")
        assert closed(client) == expected
    else:
        if how == "error":
            client.send("x")
        expected = (1011, "internal error")
        assert closed(client) == expected
    assert calls.get(timeout=DEADLINE) == expected
    client.close()
    eventually(lambda: chat._hub().count() == 0)
    assert calls.empty()
    assert [str(e) for e in errors] == [f"in {how[9:] or 'on_message'}"] * (
        "error" in how
    )


def test_a_view_that_raises_or_aborts_closes_with_the_reason(
    app: Flask, chat: WSChat, server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    @chat.route("/raise")
    def broken(ws: WebSocket) -> None:
        raise ZeroDivisionError("oops")

    @chat.route("/abort")
    def aborted(ws: WebSocket) -> None:
        abort(403, "not you")

    @chat.route("/asks")
    def asking(ws: WebSocket) -> None:
        raise BackendError("away")

    @chat.listener("/listens")
    class Asking(Listener):
        def on_open(self, ws: WebSocket) -> None:
            raise BackendError("away")

    @chat.route("/unread")
    def unread(ws: WebSocket) -> None:
        while True:
            ws.send(ws.receive())

    with server.connect("/raise") as client:
        assert closed(client) == (1011, "internal error")
    with server.connect("/abort") as client:
        assert closed(client) == (1008, "403 Forbidden: not you")
    assert caplog.text.count("ZeroDivisionError: oops") == 1
    for path in ("/asks", "/listens"):
        with server.connect(path) as client:
            assert closed(client) == (1013, "no storage")
    assert "BackendError: away" in caplog.text
    caplog.clear()
    with server.connect("/unread") as client:
        client.send("x")
        assert receive(client) == "x"
    eventually(lambda: chat._hub().count() == 0)
    assert caplog.text == ""


def test_subprotocols_are_chosen_in_our_order(chat: WSChat, server: LiveServer) -> None:
    @chat.route("/sub", subprotocols=["v2", "v1"])
    def sub(ws: WebSocket) -> None:
        ws.send(str(ws.subprotocol))

    with server.connect("/sub", subprotocols=["v1", "other", "v2"]) as client:
        assert (client.subprotocol, receive(client)) == ("v2", "v2")
    with server.connect("/sub", subprotocols=["other"]) as client:
        assert (client.subprotocol, receive(client)) == (None, "None")


def test_a_listener_may_wait_and_others_go_on(chat: WSChat, server: LiveServer) -> None:
    @chat.listener("/wait/<name>")
    class Waits(Listener):
        def on_open(self, ws: WebSocket, name: str) -> None:
            self.name = name

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            if self.name == "slow":
                message = ws.receive()  # a listener may wait for the next one
            ws.send(message)

    with server.connect("/wait/slow") as slow, server.connect("/wait/fast") as fast:
        slow.send("question")
        fast.send("hello")
        assert receive(fast) == "hello"
        slow.send("answer")
        assert receive(slow) == "answer"


def test_a_listener_without_app_context(chat: WSChat, server: LiveServer) -> None:
    @chat.listener("/bare")
    class Bare(Listener):
        app_context = False

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.send(str(bool(current_app)))

    with server.connect("/bare") as client:
        client.send("x")
        assert receive(client) == "False"


@pytest.mark.pain(7)
def test_silent_peers_are_found_dead(app: Flask, serve: Serve) -> None:
    app.config.update(WSCHAT_PING_INTERVAL=0.1, WSCHAT_PING_TIMEOUT=0.1)
    chat = WSChat(app)
    calls: queue.Queue[tuple[int, str]] = queue.Queue()

    @chat.listener("/")
    class Silent(Listener):
        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            calls.put((code, reason))

    server = serve(app)
    with server.connect("/") as answers:
        silent = server.connect("/")
        # What arrives is not understood any more, so that no pong goes out.
        setattr(silent.protocol, "receive_data", lambda data: None)  # noqa: B010
        assert calls.get(timeout=DEADLINE) == (1006, "ping timeout")
        silent.close_socket()
        answers.send("still here")
    assert calls.get(timeout=DEADLINE)[0] == 1000


def test_the_url_names_the_backend(tmp_path: Path) -> None:
    assert isinstance(backends.open("memory://"), MemoryBackend)
    assert isinstance(backends.open(f"sqlite:///{tmp_path}/chat.db"), SQLiteBackend)
    for url in ("redis://h/0", "rediss://h", "valkey://h", f"unix://{tmp_path}/s"):
        assert isinstance(backends.open(url), RedisBackend)
    for url in ("mysql://h", "sqlite://", "memory", "", "redis"):
        with pytest.raises(ConfigError, match="WSCHAT_URL"):
            WSChat(configured(url))
    for nothing in (None, 6379, b"memory://"):
        with pytest.raises(ConfigError, match="a URL or a backend, not"):
            WSChat(configured(nothing))


def test_a_backend_can_be_handed_in() -> None:
    backend = backends.open("memory://", size=2)
    chat = WSChat(configured(backend))
    for text in ("one", "two", "three"):
        chat.broadcast(text, room="Lobby")
    assert [entry.data for entry in chat.history("Lobby")] == ["two", "three"]
    assert len(backend.history("room:Lobby", limit=9).entries) == 2


def test_a_backend_serves_one_app() -> None:
    """The first one's connections would be told nothing any more."""
    backend = backends.open("memory://")
    chat = WSChat(configured(backend))
    with pytest.raises(ConfigError, match="another app already"):
        WSChat(configured(backend))
    assert chat.broadcast("It still serves", room="Lobby") == 1
    backend.stop()
    assert WSChat(configured(backend)).broadcast("And now another", room="Lobby") == 2


def test_workers_that_were_handed_a_memory_each_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Worker:
        """As gunicorn's, by whose method SIGTERM is handled."""

        cfg = SimpleNamespace(workers=2, max_requests=0)
        alive = True

        def handle_exit(self, *_: object) -> None: ...

    app = configured(backends.open("memory://"))
    WSChat(app).listener("/listen")(Listener)
    before = signal.signal(signal.SIGTERM, Worker().handle_exit)
    try:
        with WSChatClient(app).connect("/listen"):
            assert "each of 2 workers has rooms and users of its own" in caplog.text
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("graceful", "timeout", "seconds"),
    [(30, 30, 27.5), (30, 10, 7.5), (10, 0, 7.5), (2, 30, 1.0), (None, None, math.inf)],
)
def test_gunicorn_waits_for_its_workers_so_long(
    graceful: int | None, timeout: int | None, seconds: float
) -> None:
    """What is told within that is told before it kills them."""

    class Worker:
        cfg = SimpleNamespace(graceful_timeout=graceful or 0, timeout=timeout or 0)

        def handle_exit(self, *_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, Worker().handle_exit)
    try:
        assert gate.Worker().grace == seconds
    finally:
        signal.signal(signal.SIGTERM, before)


def configured(url: object) -> Flask:
    app = Flask("an_app")
    app.config["WSCHAT_URL"] = url
    return app


def test_nobody_is_let_in_while_nothing_can_be_stored(
    app: Flask, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "not there yet"
    app.config["WSCHAT_URL"] = f"sqlite:///{folder}/chat.db"
    chat = WSChat(app)
    chat.listener("/chat")(ChatListener)
    hub = chat._hub()
    server = serve(app)
    eventually(hub.backend.fault)
    with pytest.raises(InvalidStatus) as refused:
        server.connect("/chat")
    response = refused.value.response
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "2"
    assert str(folder) in caplog.text
    assert str(folder).encode() not in response.body
    with pytest.raises(BackendError):
        chat.broadcast("lost", room="a")
    folder.mkdir()
    eventually(lambda: hub.backend.fault() is None)
    with server.connect("/chat") as client:
        assert '"hello"' in receive(client)
    hub.backend.stop()


def test_a_poll_is_one(chat: WSChat) -> None:
    poll = chat.poll("Tea?", ["yes", "no"])
    assert chat.poll("Tea?", ["yes", "no"]) is poll
    assert poll.vote("ann", "yes").counts == {"yes": 1, "no": 0}
    for options, room in ((["no", "yes"], None), (["yes", "no"], "Lobby")):
        with pytest.raises(ValueError, match="other options"):
            chat.poll("Tea?", options, room=room)


def test_what_is_sent_to_a_user_is_kept(chat: WSChat) -> None:
    assert chat.send_to_user(7, {"n": 1}) == 0
    chat.send_to_user(7, "typing", key="typing")
    page = chat._hub().backend.history("user:7")
    assert [(entry.data, entry.json) for entry in page.entries] == [('{"n": 1}', True)]
