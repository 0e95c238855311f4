"""The demos over real sockets: what they promise, and what they do about bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.demos.serving import DEADLINE, ROOT, DemoServer, Person, Tab

# Starting the program takes up to a second.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(30)]

MEGABYTE = "x" * 1_000_000


def person(demo: DemoServer, name: str = "") -> Person:
    someone = Person(demo)
    if name:
        assert someone.login(name) == 302
    else:
        assert someone.http("GET", "/vote")[0] == 200
    return someone


def enter(someone: Person, room: str = "Lobby") -> Tab:
    tab = someone.connect("/ws/group")
    assert tab.ask("join", room=room)["ok"]
    return tab


def go_online(someone: Person) -> Tab:
    tab = someone.connect("/ws/private")
    assert tab.ask("inbox")["ok"]
    return tab


def close_code(tab: Tab) -> int:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            tab.receive()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


def of_type(messages: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [message for message in messages if message["type"] == kind]


# ---- bad input ----------------------------------------------------------------------

NOT_A_REQUEST: list[str | bytes] = [
    "",
    "hello",
    "{",
    "null",
    "true",
    "7",
    '"vote"',
    "[]",
    '[{"type": "vote", "ref": 1}]',
    "{}",
    '{"type": "vote"}',
    '{"ref": 1}',
    '{"ref": null, "type": "vote"}',
    '{"ref": true, "type": "vote"}',
    '{"ref": "1", "type": "vote"}',
    '{"ref": 1.5, "type": "vote"}',
    '{"ref": NaN, "type": "vote"}',
    '{"ref": -1e999, "type": "vote"}',
    '{"ref": [1], "type": "vote"}',
    f'{{"ref": {2**80}, "type": "vote"}}',
    f'{{"ref": {"9" * 5000}, "type": "vote"}}',
    '{"ref": 1, "type": null}',
    '{"ref": 1, "type": 7}',
    '{"ref": 1, "type": ["vote"]}',
    '{"ref": 1, "type": ""}',
    '{"ref": 1, "type": "nonsense"}',
    '{"ref": 1, "type": "__class__"}',
    '{"ref": 1, "type": "\\ud800"}',
    f'{{"ref": 1, "type": "{MEGABYTE}"}}',
    "[" * 200_000,
    '{"a":' * 100_000,
    '{"ref": 1, "type": ' + "[" * 900 + "]" * 900 + "}",
    "\ufeff{}",
    "\x00",
    b"",
    b"\x00\xff\xfe",
    b'{"type": "vote", "ref": 1, "choice": "A team chat"}',
]

# What may stand where a text belongs. A lone surrogate is JSON, but no character.
NOT_A_TEXT: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    [],
    ["Lobby"],
    {},
    {"a": {"b": []}},
    "",
    "  \n ",
    MEGABYTE,
]
NOT_A_NAME: list[Any] = [*NOT_A_TEXT, "x" * 25, "a\x00b", "\u202eadA", "\ud800"]

BAD_REQUESTS: dict[str, list[dict[str, Any]]] = {
    "/ws/home": [{"type": "vote", "choice": "A team chat"}],
    "/ws/vote": [
        *({"type": "vote", "choice": value} for value in NOT_A_NAME),
        {"type": "vote"},
        {"type": "vote", "choice": "a team chat"},
        {"type": "say", "room": "Lobby", "data": "hi", "mid": "1"},
    ],
    "/ws/group": [
        *({"type": "join", "room": value} for value in NOT_A_NAME),
        *({"type": "join", "room": value, "create": True} for value in NOT_A_NAME),
        {"type": "join"},
        {"type": "join", "room": "No such room"},
        {"type": "join", "room": "No such room", "create": "yes"},
        {"type": "say", "room": "Flask", "data": "not in there", "mid": "1"},
        {"type": "say", "room": "No such room", "data": "hi", "mid": "1"},
        {"type": "say", "data": "hi", "mid": "1"},
        *(
            {"type": "say", "room": "Lobby", "data": value, "mid": "1"}
            for value in [*NOT_A_TEXT, "x" * 2001]
        ),
        *(
            {"type": "say", "room": "Lobby", "data": "hi", "mid": value}
            for value in [*NOT_A_TEXT, "x" * 65]
        ),
        {"type": "tell", "to": "Ben", "data": "hi", "mid": "1"},
    ],
    "/ws/private": [
        *({"type": "tell", "to": value, "data": "hi"} for value in NOT_A_NAME),
        {"type": "tell", "to": "Nobody", "data": "hi", "mid": "1"},
        {"type": "tell", "data": "hi", "mid": "1"},
        {"type": "tell", "to": "Ben", "data": None, "mid": "1"},
        {"type": "tell", "to": "Ben", "data": "hi"},
        {"type": "say", "room": "Lobby", "data": "hi", "mid": "1"},
    ],
}
GOOD_REQUESTS: dict[str, dict[str, Any]] = {
    "/ws/vote": {"type": "vote", "choice": "A team chat"},
    "/ws/group": {"type": "say", "room": "Lobby", "data": "hi", "mid": "good"},
    "/ws/private": {"type": "tell", "to": "Ben", "data": "hi", "mid": "good"},
}


@pytest.mark.parametrize("path", BAD_REQUESTS)
def test_bad_input_is_answered_and_harms_nobody(demo: DemoServer, path: str) -> None:
    sender, other = person(demo, "Ada"), person(demo, "Ben")
    tabs = [sender.connect(path), other.connect(path)]
    if path == "/ws/group":
        for tab in tabs:
            assert tab.ask("join", room="Lobby")["ok"]
    for tab in tabs:
        tab.heard()
    bad, witness = tabs
    requests = [json.dumps({"ref": 1, **fields}) for fields in BAD_REQUESTS[path]]
    for raw in [*NOT_A_REQUEST, *requests]:
        bad.client.send(raw)
        message = bad.receive()
        shown = raw[:80]
        assert message["type"] == "error", (shown, message)
        assert message["ok"] is False, shown
        assert set(message["error"]) == {"code", "message"}, shown
        assert len(json.dumps(message)) < 300, shown
    assert bad.heard() == []
    assert witness.heard() == []
    if good := GOOD_REQUESTS.get(path):
        assert bad.ask(good.pop("type"), **good)["ok"]
        assert witness.heard() != []


def test_lone_surrogates_in_words_break_nothing(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    assert ada.ask("say", room="Lobby", data="\ud83d", mid="\ud83d")["ok"]
    assert ben.expect("message")["data"] == "\ud83d"


def test_a_message_over_the_limit_ends_only_its_sender(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    ada.client.send("x" * (2 * 1024 * 1024))
    assert close_code(ada) == 1009
    assert ben.expect("presence")["left"] == ["Ada"]
    assert ben.ask("say", room="Lobby", data="still here", mid="1")["ok"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("", 400),
        ("   ", 400),
        ("x" * 25, 400),
        ("a\x00b", 400),
        ("\u202eadA", 400),
        (MEGABYTE, 400),
    ],
    ids=["empty", "blank", "long", "nul", "bidi", "megabyte"],
)
def test_a_bad_name_is_refused(demo: DemoServer, name: str, status: int) -> None:
    someone = Person(demo)
    assert someone.login(name) == status
    assert someone.http("GET", "/private")[0] == 302
    assert close_code(someone.connect("/ws/private")) == 4001


def test_a_login_without_a_name_is_refused(demo: DemoServer) -> None:
    assert Person(demo).http("POST", "/group/login")[0] == 400


# ---- who is who ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/home", "/ws/vote", "/ws/group", "/ws/private"])
def test_a_socket_without_a_session_is_closed(demo: DemoServer, path: str) -> None:
    assert close_code(Person(demo).connect(path)) == 4001


def test_a_forged_session_is_nobody(demo: DemoServer) -> None:
    ada = person(demo, "Ada")
    head, _, _ = ada.cookie.rpartition(".")
    ada.cookie = head + ".AAAAAAAAAAAAAAAAAAAAAAAAAAA"
    assert close_code(ada.connect("/ws/private")) == 4001


def test_nobody_can_speak_as_another(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    fields = {"from": "Ben", "user": "Ben", "at": 0, "seq": 99}
    assert ada.ask("say", room="Lobby", data="hi", mid="1", **fields)["ok"]
    message = ben.expect("message")
    assert message["from"] == "Ada"
    assert message["at"] > 0


def test_a_taken_name_is_refused_until_it_is_free(demo: DemoServer) -> None:
    ada, other = person(demo, "Ada"), Person(demo)
    tab = go_online(ada)
    status, body = other.http("POST", "/private/login", {"name": " Ada "})
    assert status == 409
    assert "is taken" in body
    assert close_code(other.connect("/ws/private")) == 4001
    # Its owner may log in again, and open more tabs.
    assert ada.login("Ada") == 302
    second = go_online(ada)
    # Away for a moment, to reload the page, is not gone.
    tab.close()
    second.close()
    watch = person(demo, "Watch")
    go_online(watch)
    assert other.login("Ada") == 409
    third = go_online(ada)
    # Logged out is gone, with all tabs.
    assert ada.http("POST", "/logout")[0] == 302
    assert close_code(third) == 4001
    assert other.login("Ada") == 302
    assert close_code(ada.connect("/ws/private")) == 4001
    assert go_online(other).ask("inbox")["messages"] == []


def test_another_name_in_the_same_browser_gives_the_first_back(
    demo: DemoServer,
) -> None:
    ada, other = person(demo, "Ada"), Person(demo)
    tab = go_online(ada)
    assert ada.login("Ada Two") == 302
    assert close_code(tab) == 4001
    assert other.login("Ada") == 302


def test_a_session_outlives_a_restart(demo: DemoServer) -> None:
    ada = person(demo, "Ada")
    go_online(ada)
    demo.stop()
    demo.start()
    tab = go_online(ada)
    assert tab.ask("inbox")["present"] == ["Ada"]
    assert Person(demo).login("Ada") == 409


# ---- the vote -----------------------------------------------------------------------


def test_one_vote_per_browser_in_all_its_tabs(demo: DemoServer) -> None:
    ada, ben = person(demo), person(demo)
    first, second, third = (who.connect("/ws/vote") for who in (ada, ada, ben))
    for tab in (first, second, third):
        tab.heard()
    assert first.ask("vote", choice="A team chat")["ok"]
    assert second.expect("mine")["choice"] == "A team chat"
    assert third.ask("vote", choice="A whiteboard")["ok"]
    _, heard = second.ask_and_hear("vote", choice="A whiteboard")
    assert of_type(heard, "mine")[-1]["choice"] == "A whiteboard"
    tally = of_type(third.heard(), "tally")[-1]
    assert tally["counts"] == {
        "A live dashboard": 0,
        "A multiplayer game": 0,
        "A team chat": 0,
        "A whiteboard": 2,
    }
    assert tally["total"] == 2
    assert tally["online"] == 2
    # Another browser's choice is nobody else's business.
    assert of_type(third.heard(), "mine") == []


def test_the_vote_is_shown_to_who_comes_later(demo: DemoServer) -> None:
    ada = person(demo)
    assert ada.connect("/ws/vote").ask("vote", choice="A team chat")["ok"]
    later = ada.connect("/ws/vote")
    assert later.expect("mine")["choice"] == "A team chat"
    assert later.expect("tally")["total"] == 1
    stranger = person(demo).connect("/ws/vote")
    assert stranger.expect("mine")["choice"] is None
    assert stranger.expect("tally")["online"] == 2


# ---- the group chat -----------------------------------------------------------------


def test_a_message_reaches_the_room_and_its_sender_once(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    mia = enter(person(demo, "Mia"), "Flask")
    for tab in (ada, ben, mia):
        tab.heard()
    answer, heard = ada.ask_and_hear("say", room="Lobby", data="hi\nyou", mid="m1")
    assert answer["seq"] == 1
    (own,) = of_type(heard + ada.heard(), "message")
    (theirs,) = of_type(ben.heard(), "message")
    assert own == theirs
    assert own.pop("at") > 0
    assert own == {
        "type": "message",
        "room": "Lobby",
        "from": "Ada",
        "data": "hi\nyou",
        "mid": "m1",
    }
    assert mia.heard() == []


def test_who_enters_gets_the_last_messages(demo: DemoServer) -> None:
    ada = enter(person(demo, "Ada"))
    for number in range(60):
        assert ada.ask("say", room="Lobby", data=f"{number}", mid=f"{number}")["ok"]
    ben = person(demo, "Ben").connect("/ws/group")
    reply = ben.ask("join", room="Lobby")
    assert [m["data"] for m in reply["messages"]] == [f"{n}" for n in range(10, 60)]
    assert reply["present"] == ["Ada", "Ben"]


def test_people_come_and_go_not_their_tabs(demo: DemoServer) -> None:
    watch = enter(person(demo, "Watch"))
    ada = person(demo, "Ada")
    watch.heard()
    first = enter(ada)
    assert watch.expect("presence")["joined"] == ["Ada"]
    second = enter(ada)
    first.close()
    assert second.ask("join", room="Lobby")["present"] == ["Ada", "Watch"]
    assert of_type(watch.heard(), "presence") == []
    assert second.ask("join", room="Flask")["ok"]
    assert watch.expect("presence")["left"] == ["Ada"]


def test_a_new_room_is_shown_to_everybody(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    ben.heard()
    assert ada.ask("join", room="  Tea \n time ", create=True)["room"] == "Tea time"
    assert ["Tea time", 1] in of_type(ben.heard(), "rooms")[-1]["rooms"]


def test_rooms_cannot_be_made_without_end(demo: DemoServer) -> None:
    ada = enter(person(demo, "Ada"))
    answers = [ada.ask("join", room=f"Room {n}", create=True) for n in range(40)]
    assert answers[0]["ok"]
    assert answers[-1]["error"]["code"] == "unknown_room"


# ---- the private chat ---------------------------------------------------------------


def test_a_private_message_reaches_only_its_addressee(demo: DemoServer) -> None:
    people = {name: person(demo, name) for name in ("Ada", "Ben", "Mia")}
    tabs = [go_online(people[name]) for name in ("Ada", "Ada", "Ben", "Ben", "Mia")]
    elsewhere = enter(people["Mia"])
    for tab in [*tabs, elsewhere]:
        tab.heard()
    assert tabs[0].ask("tell", to="Ben", data="psst", mid="m1")["ok"]
    for tab in tabs[1:4]:
        (message,) = of_type(tab.heard(), "direct")
        assert (message["from"], message["to"]) == ("Ada", "Ben")
        assert (message["data"], message["mid"]) == ("psst", "m1")
    assert tabs[4].heard() == []
    assert elsewhere.heard() == []
    assert tabs[4].ask("inbox")["messages"] == []
    # A tab that comes later finds it.
    assert [m["data"] for m in go_online(people["Ben"]).ask("inbox")["messages"]] == [
        "psst"
    ]


def test_an_offline_addressee_is_said_to_be_offline(demo: DemoServer) -> None:
    ada, ben = person(demo, "Ada"), person(demo, "Ben")
    mine, theirs = go_online(ada), go_online(ben)
    in_group = enter(ben)
    mine.heard()
    theirs.close()
    assert mine.expect("presence")["left"] == ["Ben"]
    answer = mine.ask("tell", to="Ben", data="there?", mid="1")
    assert answer["error"]["code"] == "offline"
    assert "Ben is offline" in answer["error"]["message"]
    assert of_type(in_group.heard(), "direct") == []
    assert go_online(ben).ask("inbox")["messages"] == []


# ---- pages --------------------------------------------------------------------------


def test_pages_and_their_parts_are_there(demo: DemoServer) -> None:
    someone = Person(demo)
    for path in ("/", "/vote", "/group/login", "/private/login"):
        status, body = someone.http("GET", path)
        assert status == 200
        assert "//cdn" not in body
    for path in ("/group", "/private"):
        assert someone.http("GET", path)[0] == 302
    assert someone.http("GET", "/_wschat/wschat.js")[0] == 200


def test_a_name_is_escaped_in_pages(demo: DemoServer) -> None:
    ada = person(demo, "<b>Ada</b>")
    _, body = ada.http("GET", "/private")
    assert "<b>Ada</b>" not in body
    assert "&lt;b&gt;Ada&lt;/b&gt;" in body


def test_a_taken_port_is_said_to_be_taken(demo: DemoServer) -> None:
    answer = subprocess.run(
        [sys.executable, str(ROOT / "example_app.py")],
        env={**os.environ, "PORT": str(demo.port)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert answer.returncode == 1
    assert str(demo.port) in answer.stderr
    assert "Traceback" not in answer.stderr
