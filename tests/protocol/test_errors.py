"""What is refused, why, and how connections end."""

from __future__ import annotations

import ast
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from websockets.exceptions import ConnectionClosed

from flask_wschat import WSChat
from tests.support.chat_client import Json
from tests.support.live import LiveServer

from .peers import DEFS, Meet, check


def is_refused(error: Json, code: str, *words: str) -> None:
    assert error["code"] == code, error
    for word in words:
        assert word in error["message"]


def test_what_is_no_request_is_answered_too(meet: Meet) -> None:
    ann = meet("ann")
    for data in ("no json", "[1]", "7", "", '{"type":', "NaN", b'{"type":"who"}'):
        ann.client.send(data)
        error = check("error.reply", ann.reply(None))["error"]
        is_refused(error, "bad_json")
    for text in (
        '{"type":"who","room":"Lobby"}',
        '{"type":"who","ref":-1,"room":"Lobby"}',
        '{"type":"who","ref":"1","room":"Lobby"}',
        '{"type":"who","ref":true,"room":"Lobby"}',
        '{"type":"who","ref":1e3,"room":"Lobby"}',
        '{"type":"who","ref":9007199254740992,"room":"Lobby"}',
    ):
        ann.client.send(text)
        error = check("error.reply", ann.reply(None))["error"]
        is_refused(error, "bad_request", "ref")
    ann.client.send('{"ref":5}')
    is_refused(check("error.reply", ann.reply(5))["error"], "bad_request", "type")
    is_refused(ann.fail("enter"), "unknown_type")


NAMES = [
    None,
    7,
    "",
    "x" * 101,
    " a",
    "a ",
    "a\nb",
    "a\u0000b",
    "\u2028",
    ["a"],
    "e\u0301",
    "\u200d",
    "a\u200c",
    "\u200da",
    "a \u200d b",
    "a\u200d\u200db",
    "a\u202eb",
    "a\u200bb",
]
WRONG: dict[tuple[str, str], list[Any]] = {
    ("join", "room"): NAMES,
    ("join", "after"): [None, -1, 1.5, "1", True, 1 << 53],
    ("join", "epoch"): [None, 7, "", "x" * 101],
    ("join", "tag"): [None, 7, "x" * 101, "a\nb"],
    ("inbox", "after"): [-1],
    ("inbox", "epoch"): [7],
    ("leave", "room"): NAMES[:4],
    ("say", "room"): NAMES[:4],
    ("say", "mid"): [None, 7, "", "x" * 65, "a\nb"],
    ("say", "prev"): [None, 7, "", "x" * 65, "a\nb"],
    ("tell", "to"): NAMES[:4],
    ("tell", "mid"): [None, ""],
    ("tell", "prev"): [None, "", "a\u0000b"],
    ("history", "room"): NAMES[:4],
    ("history", "before"): [None, 0, -1, 1.5, "1", True],
    ("history", "limit"): [None, 0, -1, 1.5, "1", True],
    ("who", "room"): NAMES[:4],
    ("vote", "poll"): NAMES[:4],
    ("vote", "choice"): NAMES[:4],
    ("poll", "poll"): NAMES[:4],
}
GOOD: dict[str, Json] = {
    "join": {"room": "Lobby", "after": 0, "epoch": "e", "tag": "t"},
    "inbox": {"after": 0, "epoch": "e"},
    "say": {"room": "Lobby", "data": 1, "mid": "1"},
    "tell": {"to": "ben", "data": 1, "mid": "1"},
    "history": {"room": "Lobby", "before": 9, "limit": 9},
    "who": {"room": "Lobby"},
    "vote": {"poll": "Drinks", "choice": "tea"},
    "poll": {"poll": "Drinks"},
    "leave": {"room": "Lobby"},
    "ping": {},
}


@pytest.mark.parametrize(("kind", "field"), WRONG)
def test_a_wrong_field_is_named(meet: Meet, kind: str, field: str) -> None:
    ann = meet("ann", "Lobby")
    for value in WRONG[kind, field]:
        is_refused(ann.fail(kind, **{**GOOD[kind], field: value}), "bad_request", field)
    assert ann.ask("history", room="Lobby")["messages"] == []


def test_a_missing_field_is_named_and_an_unknown_one_ignored(meet: Meet) -> None:
    ann = meet("ann", "Lobby")
    for kind, good in GOOD.items():
        for field in set(good) - {"before", "limit", "after", "epoch", "tag"}:
            rest = {key: value for key, value in good.items() if key != field}
            is_refused(ann.fail(kind, **rest), "bad_request", field)
        ann.reply(ann.put(kind, **good, other=7))
    ann.ask("join", room="Lobby")
    assert ann.ask("history", room="Lobby")["seq"] == 1


def test_who_has_no_user_id_is_told(meet: Meet) -> None:
    nobody = meet("", "Lobby")
    for kind in ("inbox", "tell", "vote"):
        is_refused(nobody.fail(kind, **GOOD[kind]), "unauthorized")
    assert nobody.ask("say", room="Lobby", data=1, mid="1")["seq"] == 1
    assert nobody.ask("say", room="Lobby", data=1, mid="1")["seq"] == 1
    assert nobody.expect("message")["from"] is None
    # A mid is the connection's own, where there is no user.
    assert meet("", "Lobby").ask("say", room="Lobby", data=1, mid="1")["seq"] == 2


def test_what_the_application_forbids(meet: Meet) -> None:
    ann = meet("ann", "Lobby")
    is_refused(ann.fail("join", room="Cellar"), "forbidden")
    is_refused(ann.fail("say", room="Lobby", data="rude", mid="1"), "forbidden")
    is_refused(ann.fail("tell", to="the boss", data=1, mid="1"), "forbidden")
    for kind in ("say", "who", "history"):
        fields = GOOD[kind] | {"room": "Elsewhere"}
        is_refused(ann.fail(kind, **fields), "not_joined")
        fields = GOOD[kind] | {"room": "Cellar"}
        is_refused(ann.fail(kind, **fields), "not_joined")


def test_a_message_is_stored_only_after_the_one_that_it_follows(meet: Meet) -> None:
    ann, ben = meet("ann", "Lobby"), meet("ben", "Lobby")
    for kind, to in (("say", {"room": "Lobby"}), ("tell", {"to": "ben"})):
        for _ in range(2):
            assert ann.ask(kind, **to, data=1, mid="1")["seq"] == 1
            assert ann.ask(kind, **to, data=2, mid="2", prev="1")["seq"] == 2
        for mid, prev in (("4", "3"), ("5", "4")):
            is_refused(ann.fail(kind, **to, data=4, mid=mid, prev=prev), "out_of_order")
        # Those before it have replies by now.
        assert ann.ask(kind, **to, data=3, mid="3")["seq"] == 3
        assert ann.ask(kind, **to, data=4, mid="4", prev="3")["seq"] == 4
    assert [ben.expect("message")["data"] for _ in "1234"] == [1, 2, 3, 4]
    for peer in (ann, ben):
        told = peer.ask("inbox")["messages"]
        assert [message["data"] for message in told] == [1, 2, 3, 4]


def test_limits(meet: Meet) -> None:
    ann = meet("ann", "Lobby")
    limits = ann.hello["limits"]
    most = "x" * (limits["data"] - 2)  # the quotes count
    assert ann.ask("say", room="Lobby", data=most, mid="1")["seq"] == 1
    error = ann.fail("say", room="Lobby", data=most + "x", mid="2")
    is_refused(error, "too_big", str(limits["data"]))
    is_refused(ann.fail("tell", to="ben", data=most + "x", mid="2"), "too_big")
    is_refused(
        ann.fail("say", room="Lobby", data="é" * (len(most) // 2 + 1), mid="3"),
        "too_big",
    )
    longest = "ä" * limits["name"]
    ann.ask("join", room=longest)
    ann.ask("say", room=longest, data=1, mid="x" * limits["mid"])
    for number in range(limits["rooms"] - 2):
        ann.ask("join", room=str(number))
    is_refused(ann.fail("join", room="one more"), "too_many", str(limits["rooms"]))
    ann.ask("join", room="Lobby")  # in it: reads on
    ann.ask("leave", room="Lobby")
    ann.ask("join", room="one more")


def test_polls_that_cannot_be_voted_in(meet: Meet, chat: WSChat) -> None:
    ann = meet("ann")
    is_refused(ann.fail("vote", poll="None", choice="tea"), "unknown_poll")
    is_refused(ann.fail("poll", poll="None"), "unknown_poll")
    is_refused(ann.fail("vote", poll="Drinks", choice="gin"), "unknown_choice", "tea")
    chat.poll("Drinks", ["tea", "coffee"]).close()
    assert ann.expect("tally")["closed"]
    is_refused(ann.fail("vote", **GOOD["vote"]), "poll_closed")


def test_what_does_not_grow_can_be_asked_about_by_nobody(
    meet: Meet, chat: WSChat
) -> None:
    ann, nobody = meet("ann", "Lobby"), meet()
    for kind in "stream", "stop":
        is_refused(ann.fail(kind, room="Lobby", id="x"), "unknown_stream")
        is_refused(ann.fail(kind, id="x"), "unknown_stream")
        is_refused(ann.fail(kind, room="Attic", id="x"), "not_joined")
        is_refused(nobody.fail(kind, id="x"), "unauthorized")
    with chat.stream(room="Lobby", sender="ben") as answer:
        is_refused(ann.fail("stop", room="Lobby", id=answer.id), "forbidden")
        is_refused(ann.fail("stream", id=answer.id), "unknown_stream")
        answer.append("x")
    is_refused(ann.fail("stream", room="Lobby", id=answer.id), "unknown_stream")


def test_what_the_application_and_the_storage_fail_at(
    app: Flask, meet: Meet, caplog: pytest.LogCaptureFixture
) -> None:
    ann = meet("ann", "Lobby")
    is_refused(ann.fail("say", room="Lobby", data="fail", mid="1"), "internal")
    assert "the application's own" in caplog.text
    hub = app.extensions["wschat.hub"]
    hub.backend.stop()
    is_refused(ann.fail("say", room="Lobby", data="well", mid="1"), "unavailable")
    is_refused(ann.fail("tell", to="ben", data="well", mid="1"), "unavailable")
    hub.backend.start(hub)
    assert ann.ask("say", room="Lobby", data="well", mid="1")["seq"] == 1
    assert ann.ask("tell", to="ben", data="well", mid="1")["seq"] == 1


@pytest.mark.parametrize("chat", [{"WSCHAT_RATE_LIMIT": (1, 10)}], indirect=True)
@pytest.mark.pain(5)
def test_who_asks_too_much_is_refused_and_then_closed(meet: Meet) -> None:
    ann = meet("ann")
    assert ann.hello["limits"]["rate"] == {"per_second": 1, "burst": 10}
    for _ in range(10):
        ann.ask("leave", room="Lobby")
    tab = meet("ann")  # of the same user
    for peer in (ann, tab):
        error = peer.fail("leave", room="Lobby")
        is_refused(error, "rate_limited")
    assert 0 < error["retry_after"] <= 1
    with pytest.raises(ConnectionClosed):
        for _ in range(1000):
            ann.put("leave", room="Lobby")
            ann.hear()
    assert ann.closed()[0] == 1008
    meet("ben").ask("leave", room="Lobby")


def test_every_code_of_the_page_was_provoked_here() -> None:
    provoked = {
        node.args[1].value
        for node in ast.walk(ast.parse(Path(__file__).read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "is_refused"
        and isinstance(node.args[1], ast.Constant)
    }
    assert provoked == set(DEFS["error"]["properties"]["code"]["enum"])


# ---- the end ------------------------------------------------------------------------


def test_close_codes(meet: Meet, server: LiveServer, chat: WSChat) -> None:
    ann, ben, cy, dan = (meet(name) for name in ("ann", "ben", "cy", "dan"))
    ann.put("say", room="Lobby", data="x" * ann.hello["limits"]["message"], mid="1")
    assert ann.closed()[0] == 1009
    ben.client.socket.sendall(b"\x81\x00")  # not masked
    assert ben.closed()[0] == 1002
    chat.disconnect_user("cy", reason="logged out")
    assert cy.closed() == (4000, "logged out")
    chat.disconnect_user("dan", 4321)
    assert dan.closed()[0] == 4321
    eve = meet("eve")
    urllib.request.urlopen(server.url("/restart", "http")).close()
    assert eve.closed()[0] == 1012
