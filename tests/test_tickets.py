"""Who connects with a ticket, and who does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort, request, session

from flask_wschat import ChatListener, WebSocket, WSChat
from flask_wschat.backends import MemoryBackend
from flask_wschat.errors import BackendError
from flask_wschat.testing import Refused, WSChatClient
from tests.support.waiting import DEADLINE


def make(name: str = "app", key: Any = "secret", **config: Any) -> tuple[Flask, WSChat]:
    app = Flask(name)
    app.config.update(SECRET_KEY=key, **config)
    chat = WSChat(app)

    @chat.route("/me", subprotocols=["v1"])
    def me(ws: WebSocket) -> None:
        ws.send_json([ws.user, ws.subprotocol])
        ws.receive()

    return app, chat


@pytest.fixture
def app() -> Flask:
    return make()[0]


@pytest.fixture
def chat(app: Flask) -> WSChat:
    found: WSChat = app.extensions["wschat"]
    return found


@pytest.fixture
def client(app: Flask) -> WSChatClient:
    return WSChatClient(app)


def user_of(client: WSChatClient, path: str, **options: Any) -> Any:
    with client.connect(path, **options) as ws:
        return ws.receive_json()[0]


def refused(client: WSChatClient, path: str, **options: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as found, client.connect(path, **options):
        pass
    return found.value.response.status_code, found.value.response.text


def test_a_ticket_says_who_it_is_once(chat: WSChat, client: WSChatClient) -> None:
    ticket = chat.ticket("ann")
    assert user_of(client, f"/me?ticket={ticket}") == "ann"
    status, why = refused(client, f"/me?ticket={ticket}")
    assert status == 401 and "used before" in why
    assert user_of(client, f"/me?a=b&ticket={chat.ticket(7)}&c=d") == "7"


def test_a_ticket_may_be_a_subprotocol_which_is_not_chosen(
    chat: WSChat, client: WSChatClient
) -> None:
    ticket = "ticket." + chat.ticket("ann")
    with client.connect("/me", subprotocols=[ticket, "v1"]) as ws:
        assert ws.receive_json() == ["ann", "v1"]
        assert ws.subprotocol == "v1"
    with client.connect("/me", subprotocols=["ticket." + chat.ticket("bob")]) as ws:
        assert ws.receive_json() == ["bob", None]
        assert ws.subprotocol is None
    assert refused(client, "/me", subprotocols=[ticket])[0] == 401


@pytest.mark.parametrize(
    "user",
    [
        "x",
        "0",
        "Ann Ü. 🐢",
        "a'\"&?=#%+./",
        "n" * 255,
        "🐢" * 255,
        "".join(map(chr, range(0x4E00, 0x4EFF))),
    ],
)
def test_a_user_id_of_any_kind_comes_through(
    chat: WSChat, client: WSChatClient, user: str
) -> None:
    assert user_of(client, f"/me?ticket={chat.ticket(user)}") == user
    offered = ["ticket." + chat.ticket(user)]
    assert user_of(client, "/me", subprotocols=offered) == user


@pytest.mark.parametrize(
    ("ticket", "why"),
    [
        ("", "not one of"),
        ("x", "not one of"),
        ("%00", "not one of"),
        ("%F0%9F%90%A2", "not one of"),
        ("%ED%A0%80", "not one of"),
        ("a.b.c", "not one of"),
        ("x" * 5000, "not one of"),
        ("{}&ticket={}", "more than one"),
        ("{}x", "not one of"),
        ("x{}", "not one of"),
        (".{}", "not one of"),
    ],
)
def test_what_is_no_ticket_is_refused(
    chat: WSChat, client: WSChatClient, ticket: str, why: str
) -> None:
    text = ticket.replace("{}", chat.ticket("ann"))
    status, answer = refused(client, f"/me?ticket={text}")
    assert status == 401 and why in answer


def test_every_change_of_a_ticket_spoils_it(chat: WSChat, client: WSChatClient) -> None:
    ticket = chat.ticket("ann")
    for place in range(0, len(ticket) - 1, 7):
        other = "A" if ticket[place] != "A" else "B"
        changed = ticket[:place] + other + ticket[place + 1 :]
        assert refused(client, f"/me?ticket={changed}")[0] == 401, place
    assert user_of(client, f"/me?ticket={ticket}") == "ann"


def test_a_ticket_ends(
    chat: WSChat, client: WSChatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = chat.ticket("ann", seconds=5)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 6)
    status, why = refused(client, f"/me?ticket={ticket}")
    assert status == 401 and "expired" in why
    # Set back by an hour: nobody can have it yet.
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    assert "of the future" in refused(client, f"/me?ticket={ticket}")[1]
    monkeypatch.undo()
    assert user_of(client, f"/me?ticket={ticket}") == "ann"


def test_a_used_ticket_is_used_for_as_long_as_it_lives(
    chat: WSChat, client: WSChatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = chat.ticket("ann", seconds=40)
    assert user_of(client, f"/me?ticket={ticket}") == "ann"
    now, goes_on = time.time, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: goes_on() + 39)
    for change in (39, -50):
        monkeypatch.setattr(time, "time", lambda by=change: now() + by)
        assert "used before" in refused(client, f"/me?ticket={ticket}")[1]


def test_a_ticket_of_another_application_is_none(client: WSChatClient) -> None:
    _, other = make(key="another secret")
    assert refused(client, f"/me?ticket={other.ticket('ann')}")[0] == 401


def test_a_cookie_is_no_ticket_nor_a_ticket_a_cookie(
    app: Flask, chat: WSChat, client: WSChatClient
) -> None:
    interface: Any = app.session_interface
    cookie = interface.get_signing_serializer(app).dumps(["ann", 0, 9e9, "k"])
    assert refused(client, f"/me?ticket={cookie}")[0] == 401


def test_older_keys_count_as_for_cookies() -> None:
    _, old = make(key="old")
    ticket = old.ticket("ann")
    app, new = make(key="new", SECRET_KEY_FALLBACKS=["older", "old"])
    assert user_of(WSChatClient(app), f"/me?ticket={ticket}") == "ann"
    assert user_of(WSChatClient(app), f"/me?ticket={new.ticket('bob')}") == "bob"


def test_without_a_key_there_are_no_tickets() -> None:
    _, other = make()
    app, chat = make(key=None)
    with pytest.raises(RuntimeError, match="secret_key"):
        chat.ticket("ann")
    status, why = refused(WSChatClient(app), f"/me?ticket={other.ticket('ann')}")
    assert status == 401 and "SECRET_KEY" in why


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 90000])
def test_a_ticket_lives_for_a_day_at_most(chat: WSChat, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        chat.ticket("ann", seconds)


@pytest.mark.parametrize(
    ("user", "seconds"),
    [(None, 30), (True, 30), (b"ann", 30), ("ann", "30"), ("ann", True)],
)
def test_a_ticket_is_of_a_user_and_for_seconds(
    chat: WSChat, user: Any, seconds: Any
) -> None:
    with pytest.raises(TypeError):
        chat.ticket(user, seconds)


def test_a_ticket_stands_for_the_login_and_before_the_cookie(
    app: Flask, chat: WSChat, client: WSChatClient
) -> None:
    @app.get("/login")
    def login() -> str:
        session["user"] = "bob"
        return ""

    @chat.authenticate
    def who() -> Any:
        return session.get("user") or abort(401)

    assert refused(client, "/me")[0] == 401
    client.http.get("/login")
    assert user_of(client, "/me") == "bob"
    path = f"/me?ticket={chat.ticket('ann')}"
    assert user_of(client, path) == "ann"
    # Who comes with a bad one is nobody, and not the cookie's user.
    assert refused(client, path)[0] == 401


def test_a_ticket_does_not_let_a_foreign_page_in(
    chat: WSChat, client: WSChatClient
) -> None:
    path = f"/me?ticket={chat.ticket('ann')}"
    foreign = [("Origin", "https://evil.example")]
    assert refused(client, path, headers=foreign)[0] == 403
    assert user_of(client, path) == "ann"  # it was not used up


def test_a_page_can_ask_whether_its_ticket_counts(app: Flask, chat: WSChat) -> None:
    chat.listener("/chat")(ChatListener)
    chat.authenticate(lambda: abort(401))
    http, client = app.test_client(), WSChatClient(app)
    ticket = chat.ticket("ann")
    for _ in range(2):
        assert http.get(f"/me?ticket={ticket}").status_code == 426
        assert http.get(f"/chat?ticket={ticket}").status_code == 426
    assert http.get("/me").status_code == 401
    assert user_of(client, f"/me?ticket={ticket}") == "ann"
    answer = http.get(f"/me?ticket={ticket}")
    assert answer.status_code == 401 and "used before" in answer.text
    assert http.get("/me?ticket=x").status_code == 401


def test_a_page_of_an_allowed_origin_can_read_the_answer() -> None:
    origin = "https://b.example"
    app, chat = make(WSCHAT_ORIGINS=[origin])
    http = app.test_client()
    for path, status in (("/me", 426), ("/me?ticket=x", 401)):
        answer = http.get(path, headers={"Origin": origin})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    chat.authenticate(lambda: abort(403, "not you"))
    answer = http.get("/me", headers={"Origin": origin})
    assert answer.status_code == 403 and "not you" in answer.text
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    answer = http.get("/me", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_log_tells_of_refused_tickets_sparingly(
    chat: WSChat, client: WSChatClient, caplog: pytest.LogCaptureFixture
) -> None:
    ticket = chat.ticket("ann")
    for text in ("x", "y", ticket[:-3] + "AAA"):
        refused(client, f"/me?ticket={text}")
    (record,) = caplog.records
    assert "ticket" in record.message and ticket[:10] not in record.message


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Flask]]:
    """Two applications as two processes have them."""
    url = f"sqlite:///{tmp_path}/chat.db"
    apps = [make(WSCHAT_URL=url)[0] for _ in range(2)]
    yield apps
    for app in apps:
        app.extensions["wschat.hub"].backend.stop()


def come(app: Flask, ticket: str, ready: threading.Barrier, answers: list[str]) -> None:
    client = WSChatClient(app)
    ready.wait(DEADLINE)
    try:
        answers.append(user_of(client, f"/me?ticket={ticket}"))
    except Refused as error:
        answers.append(error.response.status)


def test_of_many_at_the_same_instant_one_gets_in(workers: list[Flask]) -> None:
    for _ in range(3):
        ticket = workers[0].extensions["wschat"].ticket("ann")
        answers: list[str] = []
        ready = threading.Barrier(8)
        threads = [
            threading.Thread(
                target=come, args=(workers[number % 2], ticket, ready, answers)
            )
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(answers) == ["401 UNAUTHORIZED"] * 7 + ["ann"]


class Away(MemoryBackend):
    """Storage that can be asked for all but what was used."""

    def once(self, key: str, seconds: float) -> bool:
        raise BackendError("away")

    def taken(self, key: str) -> bool:
        raise BackendError("away")


def test_where_it_cannot_be_known_nobody_gets_in() -> None:
    app, chat = make(WSCHAT_URL=Away())
    client, path = WSChatClient(app), f"/me?ticket={chat.ticket('ann')}"
    assert refused(client, path)[0] == 503
    answer = client.http.get(path)
    assert answer.status_code == 503 and "Retry-After" in answer.headers
    assert user_of(client, "/me") is None


def test_what_a_plain_view_calls_a_ticket_is_its_own(
    app: Flask, client: WSChatClient
) -> None:
    @app.route("/old")
    def old() -> str:
        request.environ["wsgi.websocket"].send(request.args["ticket"])
        return ""

    with client.connect("/old?ticket=42") as ws:
        ws.assert_received("42")


def test_the_chat_takes_a_ticket_beside_its_protocol(
    app: Flask, chat: WSChat, client: WSChatClient
) -> None:
    chat.listener("/chat")(ChatListener)
    offered = ["wschat.v1.json", "ticket." + chat.ticket("ann")]
    with client.connect("/chat", subprotocols=offered) as ws:
        assert ws.subprotocol == "wschat.v1.json"
        assert ws.receive_json()["user"] == "ann"
