"""The ready-made chat: who may do what, and how much."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from flask import Flask, abort, current_app, request

from flask_wschat import ChatListener, WebSocket, WSChat
from tests.support.chat_client import ChatClient
from tests.support.following import chat, make_chat, server, url
from tests.support.live import LiveServer, Serve
from tests.support.waiting import DEADLINE, eventually

from ..protocol.peers import Peer

__all__ = ["chat", "make_chat", "server", "url"]


# ---- who may, and how much -----------------------------------------------------------


class Strict(ChatListener):
    def can_join(self, user: str | None, room: str) -> Any:
        assert current_app.name == "process_0"
        if room == "abort":
            abort(403, "members only")
        if room == "raise":
            raise PermissionError("not you")
        if room == "broken":
            abort(500)
        return room not in self.shut

    def can_say(self, user: str | None, room: str, data: Any) -> Any:
        return data != {"forbidden": [1]}

    def can_tell(self, user: str, to: str) -> Any:
        return None if to == "root" else [user, to]

    def can_vote(self, user: str, poll: str, choice: str) -> Any:
        return choice != "the other"

    shut: ClassVar[set[str]] = set()


def test_hooks_decide(
    make_chat: Callable[..., WSChat], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    chat = make_chat(Strict)
    chat.poll("which", ["one", "the other"])
    server = serve(chat._app())
    ann = Peer(server, "ann")
    assert ann.fail("vote", poll="which", choice="the other")["code"] == "forbidden"
    assert ann.ask("vote", poll="which", choice="one")["total"] == 1
    assert ann.fail("join", room="abort")["message"] == "members only"
    assert ann.fail("join", room="raise")["message"] == "not you"
    assert ann.fail("join", room="broken")["code"] == "internal"
    assert "500 Internal Server Error" in caplog.text
    assert ann.fail("who", room="abort")["code"] == "not_joined"
    ann.ask("join", room="Lobby")
    say = {"room": "Lobby", "mid": "1"}
    assert ann.fail("say", data={"forbidden": [1]}, **say)["code"] == "forbidden"
    assert ann.ask("say", data={"forbidden": [2]}, **say)["seq"] == 1
    assert ann.fail("tell", to="root", data=1, mid="1")["code"] == "forbidden"
    ann.ask("tell", to="ben", data=1, mid="1")
    # Who may no more is let out, too.
    ben = Peer(server, "ben")
    ben.ask("join", room="Lobby")
    Strict.shut.add("Lobby")
    try:
        assert ann.fail("join", room="Lobby")["code"] == "forbidden"
    finally:
        Strict.shut.clear()
    assert ben.expect("presence", left=["ann"])
    assert ann.fail("say", data=1, **say)["code"] == "not_joined"


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_what_is_too_deep_too_big_or_no_text_is_refused(server: LiveServer) -> None:
    ann = Peer(server, "ann")
    ann.ask("join", room="Lobby")
    say = '{"type":"say","ref":%s,"room":"Lobby","mid":"1","data":%s}'
    depth = 100_000
    for ref, data, code in (
        ("1", "[" * depth + "]" * depth, "bad_request"),
        ("1", "9" * 5000, "bad_request"),
        ("1", "1e999", "bad_request"),
        ("1", '"\\ud800"', "bad_request"),
        ("9" * 400, "1", "bad_request"),
        ("1e3", "1", "bad_request"),
        ("1", '"' + "é" * 40_000 + '"', "too_big"),
    ):
        ann.client.send(say % (ref, data))
        error = ann.hear()
        assert error["error"]["code"] == code, data[:10]
    deep = 200
    for data in ("9" * 308, "1e-400", '"\\u0000"', "[" * deep + "]" * deep):
        ann.client.send(say.replace('"1"', json.dumps(data[:9])) % (7, data))
        assert ann.reply(7)["ok"], data[:10]
    page = ann.ask("history", room="Lobby")["messages"]
    assert [page[0]["data"], page[1]["data"]] == [int("9" * 308), 0.0]


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_names_may_be_joined_as_they_are_spelt(server: LiveServer) -> None:
    ann = Peer(server, "ann")
    word = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # "I want" in Persian
    for name in (word, "👨\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈"):
        assert ann.ask("join", room=name)["present"] == ["ann"]
        assert ann.ask("tell", to=name, data="hi", mid="1")["ok"]
    for name in ("\u200d", "a\u200c", "\u200da", "a \u200d b", "a\u200d\u200db"):
        assert ann.fail("join", room=name)["code"] == "bad_request"


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_names_are_normal(server: LiveServer) -> None:
    ann = Peer(server, "ann")
    ann.ask("join", room="Caf\u00e9")
    error = ann.fail("join", room="Cafe\u0301")
    assert error["code"] == "bad_request" and "NFC" in error["message"]
    ann.ask("join", room="茶 室 🍵")
    assert ann.fail("join", room="a\u200bb")["code"] == "bad_request"


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_rate_within_the_limit_is_never_refused(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    server = serve(make_chat(RATE_LIMIT=(20, 5))._app())
    ann, tab = Peer(server, "ann"), Peer(server, "ann")
    for _ in range(5):
        ann.ask("leave", room="x")
    refused = 0
    for _ in range(15):  # together they are one user
        ref = tab.put("leave", room="x")
        reply = tab.reply(ref)
        if not reply["ok"]:
            refused += 1
            time.sleep(reply["error"]["retry_after"])  # as a client does
    assert 3 < refused < 15
    others = [Peer(server), Peer(server)]
    for other in others:
        for _ in range(5):
            other.ask("leave", room="x")


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_user_says_so_many_bytes(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    chat = make_chat(RATE_LIMIT=(1000, 1000), BYTE_LIMIT=(20_000, 4000))
    server = serve(chat._app())
    ann, tab, ben = Peer(server, "ann"), Peer(server, "ann"), Peer(server, "ben")
    for peer in (ann, tab, ben):
        peer.ask("join", room="Lobby")

    def say(peer: Peer, size: int, mid: str) -> Any:
        return peer.reply(peer.put("say", room="Lobby", data="x" * size, mid=mid))

    # Two are for the quotes. What is over a whole bucket takes all of it.
    assert say(ann, 9998, "1")["ok"]
    error = say(tab, 3998, "2")["error"]
    assert error["code"] == "rate_limited"
    assert 0.05 < error["retry_after"] < 0.21
    assert ann.fail("tell", to="x", data="x" * 3998, mid="2")["code"] == "rate_limited"
    ann.ask("leave", room="x")
    assert say(ben, 3998, "1")["ok"]
    time.sleep(error["retry_after"])  # as a client does
    assert say(tab, 3998, "2")["ok"]
    assert [len(entry.data) for entry in chat.history("Lobby")] == [9998, 3998, 3998]


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_client_without_a_name_stores_little(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    chat = make_chat(RATE_LIMIT=(50, 200))
    peer = Peer(serve(chat._app()))
    for room in "abcd":
        peer.ask("join", room=room)
    refs = [
        peer.put("say", room="abcd"[number % 4], data="x" * 65_000, mid=f"{number}")
        for number in range(60)
    ]
    refused = [r["error"] for r in map(peer.reply, refs) if not r["ok"]]
    assert {error["code"] for error in refused} == {"rate_limited"}
    stored = sum(len(e.data) for room in "abcd" for e in chat.history(room, limit=99))
    assert 2_000_000 < stored < 2_000_000 + 5 * 32_768 + 65_000


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_listener_s_own_join_is_kept_from_raw_messages(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    class Eager(ChatListener):
        def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
            super().on_open(ws)
            ws.join("Lobby")

    chat = make_chat(Eager)
    ann = Peer(serve(chat._app()), "ann")
    eventually(lambda: chat.online("Lobby") == ["ann"])
    chat.broadcast("before", room="Lobby")
    page = ann.ask("join", room="Lobby")
    assert [m["data"] for m in page["messages"]] == ["before"]
    assert ann.events == []


def test_plain_connections_hear_what_they_are_told_not_what_they_tell(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    class Open(ChatListener):
        plain_rooms = True

    chat = make_chat(Open)

    @chat.route("/plain")
    def plain(ws: WebSocket) -> None:
        ws.send("ready")
        ws.receive()

    server = serve(chat._app())
    with server.connect("/plain?user=ann") as client:
        assert client.recv(DEADLINE) == "ready"
        ann, ben = Peer(server, "ann"), Peer(server, "ben")
        ann.ask("tell", to="ben", data="from ann", mid="1")
        ben.ask("tell", to="ann", data="from ben", mid="1")
        assert client.recv(DEADLINE) == '"from ben"'


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_poll_of_a_room_is_for_who_is_there(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    class Team(ChatListener):
        def can_join(self, user: str | None, room: str) -> Any:
            return user != "mallory"

        def can_vote(self, user: str, poll: str, choice: str) -> Any:
            return user != "ben"

    chat = make_chat(Team)
    poll = chat.poll("Whom?", ["her", "him"], room="staff")
    server = serve(chat._app())
    mallory, ann, ben = (Peer(server, user) for user in ("mallory", "ann", "ben"))
    vote = {"poll": "Whom?", "choice": "her"}
    for peer in (mallory, ann):
        assert peer.fail("vote", **vote)["code"] == "not_joined"
        assert peer.fail("poll", poll="Whom?")["code"] == "not_joined"
    assert mallory.fail("join", room="staff")["code"] == "forbidden"
    assert mallory.fail("vote", **vote)["code"] == "not_joined"
    assert poll.tally().version == 0
    for peer in (ann, ben):
        peer.ask("join", room="staff")
    assert ben.fail("vote", **vote)["code"] == "forbidden"
    assert ann.ask("vote", **vote)["total"] == 1
    assert ben.ask("poll", poll="Whom?")["mine"] is None
    ann.ask("leave", room="staff")
    assert ann.fail("poll", poll="Whom?")["code"] == "not_joined"
    assert [event for event in mallory.events if event["type"] == "tally"] == []


def test_whether_a_user_is_online_decides_who_is_told(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    class Here(ChatListener):
        def can_tell(self, user: str, to: str) -> Any:
            return here.is_online(to)

    here = make_chat(Here)
    server = serve(here._app())
    ann = Peer(server, "ann")
    assert ann.fail("tell", to="ben", data=1, mid="1")["code"] == "forbidden"
    with server.connect("/chat?user=ben"):
        eventually(lambda: here.is_online("ben"))
        ann.ask("tell", to="ben", data=1, mid="1")
    eventually(lambda: not here.is_online("ben"))
    assert ann.fail("tell", to="ben", data=1, mid="2")["code"] == "forbidden"


# ---- people without a user id --------------------------------------------------------


class Bare(ChatListener):
    pass


class Own(ChatListener):
    def can_join(self, user: str | None, room: str) -> bool:
        return user is not None or room == "lobby"


def open_to(app: Flask, cls: type[ChatListener], serve: Serve, *, logins: bool) -> Peer:
    chat = WSChat(app)
    chat.listener("/chat")(cls)
    if logins:
        chat.authenticate(lambda: request.args.get("user") or None)
    server = serve(app)
    if logins:
        ann = Peer(server, "ann")
        ann.ask("join", room="staff")
        ann.ask("say", room="staff", data=1, mid="a")
    return Peer(server, "")


def said(peer: Peer, room: str) -> str:
    """Return how far somebody gets."""
    reply = ChatClient.ask(peer, "join", room=room)
    if reply["ok"]:
        reply = ChatClient.ask(peer, "say", room=room, data="hi", mid=room)
        return "says" if reply["ok"] else f"reads, {reply['error']['code']}"
    return str(reply["error"]["code"])


@pytest.mark.parametrize("logins", [False, True])
@pytest.mark.parametrize(
    ("cls", "anonymous", "without", "with_logins"),
    [
        (Bare, None, "says says", "unauthorized unauthorized"),
        (Bare, "say", "says says", "says says"),
        (Bare, "read", *["reads, unauthorized reads, unauthorized"] * 2),
        (Bare, "none", *["unauthorized unauthorized"] * 2),
        (Own, None, *["says forbidden"] * 2),
        (Own, "say", *["says forbidden"] * 2),
        (Own, "read", *["reads, unauthorized forbidden"] * 2),
        (Own, "none", *["unauthorized unauthorized"] * 2),
    ],
)
def test_people_without_an_id_are_asked_for(
    app: Flask,
    serve: Serve,
    cls: type[ChatListener],
    anonymous: Any,
    without: str,
    with_logins: str,
    logins: bool,
) -> None:
    given = {} if anonymous is None else {"anonymous": anonymous}
    stranger = open_to(app, type("Chat", (cls,), given), serve, logins=logins)
    got = f"{said(stranger, 'lobby')} {said(stranger, 'staff')}"
    assert got == (with_logins if logins else without)


def test_the_log_says_once_why_strangers_get_nowhere(
    app: Flask, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = open_to(app, Bare, serve, logins=True)
    assert said(stranger, "lobby") == said(stranger, "staff") == "unauthorized"
    (record,) = caplog.records
    assert record.message.startswith("Bare refused somebody without a user id")


def test_what_people_without_an_id_may_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="anonymous"):
        type("Chat", (ChatListener,), {"anonymous": "write"})


def test_a_stranger_cannot_push_out_what_others_told(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    server = serve(make_chat(HISTORY_SIZE=100)._app())
    ann, eve, bob = (Peer(server, name) for name in ("ann", "eve", "bob"))
    at = bob.ask("inbox")
    bob.close()
    ann.ask("tell", to="bob", data="Tea?", mid="1")
    refused = 0
    for number in range(150):
        ref = eve.put("tell", to="bob", data="spam", mid=f"{number}")
        answer = eve.reply(ref)
        refused += not answer["ok"]
        assert answer["ok"] or answer["error"]["code"] == "too_many"
    assert refused == 125
    # Neither is hers full of what nobody got.
    assert eve.ask("inbox")["seq"] == 25
    bob = Peer(server, "bob")
    page = bob.ask("inbox", after=at["seq"], epoch=at["epoch"])
    assert page["recovered"]
    assert [each["from"] for each in page["messages"]] == ["ann", *["eve"] * 25]
    bob.ask("tell", to="eve", data="What?", mid="1")
    eve.ask("tell", to="bob", data="Sorry", mid="last")
    bob.close()
    ann.close()
    eve.close()
