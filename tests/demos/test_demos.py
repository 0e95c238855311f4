"""The demos over real sockets: what they promise, and what they do about bad input."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.demos.serving import DEADLINE, DemoServer, Person, Tab, serving
from tests.support.ports import free_port
from tests.support.processes import ROOT
from tests.support.waiting import eventually

# Starting the program takes up to a second.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(30)]

MEGABYTE = "x" * 1_000_000


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """A server for all who leave nothing in it."""
    with serving(tmp_path_factory.mktemp("common") / "server.log") as server:
        yield server


def person(demo: DemoServer, name: str = "") -> Person:
    someone = Person(demo)
    if name:
        assert someone.login(name) == 302
    else:
        assert someone.http("GET", "/vote")[0] == 200
    return someone


def enter(someone: Person, room: str = "Lobby") -> Tab:
    tab = someone.connect("/ws/chat")
    assert tab.ask("join", room="group")["ok"]
    assert tab.ask("join", room="#" + room)["ok"]
    return tab


def go_online(someone: Person) -> Tab:
    tab = someone.connect("/ws/private")
    assert tab.ask("join", room="private")["ok"]
    assert tab.ask("inbox")["ok"]
    return tab


def login_soon(someone: Person, name: str) -> None:
    """Log in with a name that is being given back."""
    until = time.monotonic() + DEADLINE
    while someone.login(name) != 302:
        assert time.monotonic() < until, "it is not given back"


def close_code(tab: Tab) -> int:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            tab.hear()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


def wait_for_presence(tab: Tab, change: str, who: Tab, room: str = "#Lobby") -> None:
    while True:
        news = tab.expect("presence")
        if news["room"] == room and who.user in news[change]:
            return


def told(tab: Tab) -> list[dict[str, Any]]:
    """What the tab has heard, besides who came and went."""
    return [message for message in tab.heard() if message["type"] != "presence"]


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
NOT_A_NAME: list[Any] = [*NOT_A_TEXT, "x" * 35, "a\x00b", "\u202eadA", "\ud800"]
NOT_A_ROOM = ["Lobby", "#", "# a", "#a  b", "#" + "x" * 25, "vote", "#e\u0301"]

VOTE = {"type": "vote", "poll": "demo"}
SAY = {"type": "say", "room": "#Lobby", "data": "hi", "mid": "1"}
TELL = {"type": "tell", "to": "Ben#12345678", "data": "hi", "mid": "1"}

BAD_REQUESTS: dict[str, list[dict[str, Any]]] = {
    "/ws/home": [
        {**VOTE, "choice": "A team chat"},
        {"type": "join", "room": "#No such room"},
        {"type": "inbox"},
        {**SAY, "room": "group"},
        SAY,
        TELL,
    ],
    "/ws/vote": [
        *({**VOTE, "choice": value} for value in NOT_A_NAME),
        VOTE,
        {**VOTE, "choice": "a team chat"},
        {"type": "vote", "poll": "Demo", "choice": "A team chat"},
        {"type": "join", "room": "#Lobby"},
        {**SAY, "room": "vote"},
        SAY,
        TELL,
    ],
    "/ws/chat": [
        *({"type": "join", "room": room} for room in [*NOT_A_NAME, *NOT_A_ROOM]),
        {"type": "join"},
        {**SAY, "room": "#Flask"},
        {**SAY, "room": "#No such room"},
        {**SAY, "room": "group", "data": "#A room of mine"},
        *({**SAY, "data": value} for value in [*NOT_A_TEXT, "x" * 2001]),
        *({**SAY, "mid": value} for value in [*NOT_A_TEXT, "x" * 65]),
        TELL,
        {**VOTE, "choice": "A team chat"},
    ],
    "/ws/private": [
        {"type": "join", "room": "group"},
        {"type": "join", "room": "#Lobby"},
        {**SAY, "room": "private"},
        SAY,
        *({**TELL, "to": value} for value in [*NOT_A_NAME, "Ben", "#12345678"]),
        {**TELL, "data": MEGABYTE},
        {"type": "tell", "to": "Ben#12345678", "mid": "1"},
        {"type": "tell", "to": "Ben#12345678", "data": "hi"},
        {**VOTE, "choice": "A team chat"},
    ],
}
GOOD_REQUESTS: dict[str, dict[str, Any]] = {
    "/ws/vote": {**VOTE, "choice": "A team chat"},
    "/ws/chat": {**SAY, "mid": "good"},
}


@pytest.mark.parametrize("path", BAD_REQUESTS)
def test_bad_input_is_answered_and_harms_nobody(demo: DemoServer, path: str) -> None:
    sender, other = person(demo, "Ada"), person(demo, "Ben")
    tabs = bad, witness = sender.connect(path), other.connect(path)
    rooms = {
        "/ws/home": ["group"],
        "/ws/vote": ["vote"],
        "/ws/private": ["private"],
    }
    for tab in tabs:
        for room in rooms.get(path, ["group", "#Lobby"]):
            assert tab.ask("join", room=room)["ok"]
    requests = [json.dumps({"ref": 1, **fields}) for fields in BAD_REQUESTS[path]]
    for raw in [*NOT_A_REQUEST, *requests]:
        bad.client.send(raw)
        message = bad.hear()
        while message["type"] == "presence":
            message = bad.hear()
        shown = raw[:80]
        assert message["type"] == "reply", (shown, message)
        assert message["ok"] is False, shown
        assert set(message["error"]) == {"code", "message"}, shown
        assert len(json.dumps(message)) < 300, shown
    assert told(bad) == []
    assert told(witness) == []
    if good := GOOD_REQUESTS.get(path):
        good = dict(good)
        assert bad.ask(good.pop("type"), **good)["ok"]
        assert told(witness) != []


def test_lone_surrogates_in_words_break_nothing(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    for data, mid in [("\ud83d", "1"), ("hi", "\ud83d")]:
        answer = ada.ask("say", room="#Lobby", data=data, mid=mid)
        assert answer["error"]["code"] == "bad_request"
    assert ada.ask("say", room="#Lobby", data="hi", mid="2")["ok"]
    assert ben.expect("message")["data"] == "hi"


def test_a_message_over_the_limit_ends_only_its_sender(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    ada.client.send("x" * (2 * 1024 * 1024))
    assert close_code(ada) == 1009
    wait_for_presence(ben, "left", ada)
    assert ben.ask("say", room="#Lobby", data="still here", mid="1")["ok"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("", 400),
        ("   ", 400),
        ("x" * 25, 400),
        ("a\x00b", 400),
        ("\u202eadA", 400),
        (MEGABYTE, 413),
    ],
    ids=["empty", "blank", "long", "nul", "bidi", "megabyte"],
)
def test_a_bad_name_is_refused(common: DemoServer, name: str, status: int) -> None:
    someone = Person(common)
    assert someone.login(name) == status
    assert someone.http("GET", "/private")[0] == 302
    assert close_code(someone.connect("/ws/chat")) == 4001


@pytest.mark.parametrize(
    "name",
    ["👨\u200d👩\u200d👧", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"],
    ids=["family", "persian"],
)
def test_a_name_is_spelt_as_people_spell_it(demo: DemoServer, name: str) -> None:
    tab = enter(person(demo, name), name)
    assert tab.user.startswith(name + "#")
    ben = go_online(person(demo, "Ben"))
    assert ben.ask("tell", to=tab.user, data="hi", mid="1")["ok"]


def test_a_name_with_what_cannot_be_seen_is_no_other_name(demo: DemoServer) -> None:
    tab = enter(person(demo, "Ada"))
    assert Person(demo).login("A\u200dda") == 409
    assert Person(demo).login("Ada\ufe0f") == 409
    for name in ("\u3164", "\u2800", "A\u034fda", "\ufe0f"):
        assert Person(demo).login(name) == 400
    for name in ("\u200d", "Ada\u200d", "\u200cAda", "A\u200d\u200dda", "A\u200bda"):
        assert Person(demo).login(name) == 400
    for name in ("\u3164", "Ada\u034f", "\u2800Ada"):
        assert Person(demo).login(name) == 400
    tab.close()


def test_a_login_without_a_name_is_refused(common: DemoServer) -> None:
    assert Person(common).http("POST", "/group/login")[0] == 400


# ---- who is who ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/vote", "/ws/chat", "/ws/private"])
def test_a_socket_without_a_session_is_closed(common: DemoServer, path: str) -> None:
    assert close_code(Person(common).connect(path)) == 4001


def test_the_home_page_is_for_everybody_and_counts_nobody(demo: DemoServer) -> None:
    home = Person(demo).connect("/ws/home")
    assert home.user is None
    assert home.ask("join", room="group")["present"] == []
    ada = enter(person(demo, "Ada"))
    assert home.expect("presence")["joined"] == [ada.user]


def test_a_forged_session_is_nobody(common: DemoServer) -> None:
    ada = person(common, "Ada")
    head, _, _ = ada.cookie.rpartition(".")
    ada.cookie = head + ".AAAAAAAAAAAAAAAAAAAAAAAAAAA"
    assert close_code(ada.connect("/ws/chat")) == 4001


def test_nobody_can_speak_as_another(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    fields = {"from": ben.user, "user": ben.user, "at": 0, "seq": 99}
    assert ada.ask("say", room="#Lobby", data="hi", mid="1", **fields)["ok"]
    message = ben.expect("message")
    assert message["from"] == ada.user
    assert ada.user.startswith("Ada#")
    assert message["at"] > 0


def test_a_taken_name_is_refused_until_it_is_free(demo: DemoServer) -> None:
    ada, other = person(demo, "Ada"), Person(demo)
    tab = go_online(ada)
    assert tab.ask("tell", to=tab.user, data="a note to myself", mid="1")["ok"]
    status, body = other.http("POST", "/private/login", {"name": " Ada "})
    assert status == 409
    assert "is taken" in body
    assert close_code(other.connect("/ws/chat")) == 4001
    # Its owner may log in again, and open more tabs.
    assert ada.login("Ada") == 302
    second = go_online(ada)
    # Logged out is gone, with all tabs.
    assert ada.http("POST", "/logout")[0] == 302
    assert close_code(tab) == 4001
    assert close_code(second) == 4001
    login_soon(other, "Ada")
    assert close_code(ada.connect("/ws/chat")) == 4001
    # It is another one: nothing of what the first was told.
    third = go_online(other)
    assert third.user != tab.user
    assert third.ask("inbox")["messages"] == []


def test_a_name_that_was_taken_meanwhile_is_not_given_back(demo: DemoServer) -> None:
    ada, other = person(demo, "Ada"), Person(demo)
    go_online(ada).close()
    login_soon(other, "Ada")
    tab = go_online(other)
    assert close_code(ada.connect("/ws/chat")) == 4001
    assert ada.http("GET", "/group")[0] == 302
    tab.close()


def test_another_name_in_the_same_browser_gives_the_first_back(
    demo: DemoServer,
) -> None:
    ada, other = person(demo, "Ada"), Person(demo)
    tab = go_online(ada)
    assert ada.login("Ada Two") == 302
    assert close_code(tab) == 4001
    login_soon(other, "Ada")


@pytest.mark.parametrize("options", [{"started_anew": True}], ids=["anew"])
def test_a_session_outlives_a_restart(demo: DemoServer) -> None:
    ada = person(demo, "Ada")
    user = go_online(ada).user
    demo.stop()
    demo.start()
    tab = go_online(ada)
    assert tab.ask("who", room="private")["present"] == [user]
    assert Person(demo).login("Ada") == 409


# ---- the vote -----------------------------------------------------------------------


def test_one_vote_per_browser_in_all_its_tabs(demo: DemoServer) -> None:
    ada, ben = person(demo), person(demo)
    first, second, third = (who.connect("/ws/vote") for who in (ada, ada, ben))
    for tab in (first, second, third):
        assert tab.ask("join", room="vote")["ok"]
    assert first.ask("vote", poll="demo", choice="A team chat")["ok"]
    assert second.ask("poll", poll="demo")["mine"] == "A team chat"
    assert third.ask("vote", poll="demo", choice="A whiteboard")["ok"]
    answer = second.ask("vote", poll="demo", choice="A whiteboard")
    tally = third.expect("tally")
    while tally["version"] < answer["version"]:
        tally = third.expect("tally")
    assert tally["counts"] == {
        "A live dashboard": 0,
        "A multiplayer game": 0,
        "A team chat": 0,
        "A whiteboard": 2,
    }
    assert tally["total"] == 2
    # Another browser's choice is nobody else's business.
    assert "mine" not in tally
    assert len(third.ask("who", room="vote")["present"]) == 2


def test_the_vote_is_shown_to_who_comes_later(demo: DemoServer) -> None:
    ada = person(demo)
    first, second, other = [who.connect("/ws/vote") for who in (ada, ada, person(demo))]
    for tab in (first, second, other):
        assert tab.ask("join", room="vote")["ok"]
    assert first.ask("vote", poll="demo", choice="A team chat")["ok"]
    standing = second.ask("poll", poll="demo")
    assert (standing["mine"], standing["total"]) == ("A team chat", 1)
    standing = other.ask("poll", poll="demo")
    assert (standing["mine"], standing["total"]) == (None, 1)


# ---- the group chat -----------------------------------------------------------------


def test_a_message_reaches_the_room_and_its_sender_once(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    mia = enter(person(demo, "Mia"), "Flask")
    answer, heard = ada.ask_and_hear("say", room="#Lobby", data="hi\nyou", mid="m1")
    assert answer["seq"] == 1
    (own,) = of_type(heard + ada.heard(), "message")
    (theirs,) = of_type(ben.heard(), "message")
    assert own == theirs
    assert own.pop("at") > 0
    assert own == {
        "type": "message",
        "room": "#Lobby",
        "seq": 1,
        "from": ada.user,
        "data": "hi\nyou",
        "mid": "m1",
    }
    assert of_type(mia.heard(), "message") == []


def test_who_enters_gets_the_last_messages(demo: DemoServer) -> None:
    ada = enter(person(demo, "Ada"))
    for number in range(110):
        assert ada.ask("say", room="#Lobby", data=f"{number}", mid=f"{number}")["ok"]
    ben = person(demo, "Ben").connect("/ws/chat")
    reply = ben.ask("join", room="#Lobby")
    assert [m["data"] for m in reply["messages"]] == [f"{n}" for n in range(10, 110)]
    assert reply["present"] == [ada.user, ben.user]


def test_people_come_and_go_not_their_tabs(demo: DemoServer) -> None:
    watch = enter(person(demo, "Watch"))
    ada = person(demo, "Ada")
    first = enter(ada)
    wait_for_presence(watch, "joined", first)
    second = enter(ada)
    first.close()
    assert second.ask("who", room="#Lobby")["present"] == [first.user, watch.user]
    assert second.ask("join", room="#Flask")["ok"]
    assert second.ask("leave", room="#Lobby")["ok"]
    news = watch.expect("presence")
    assert (news["joined"], news["left"]) == ([], [first.user])


def test_who_enters_a_new_room_makes_it_for_everybody(demo: DemoServer) -> None:
    ada, ben = enter(person(demo, "Ada")), enter(person(demo, "Ben"))
    assert ada.ask("join", room="#Tea time")["ok"]
    assert ada.ask("join", room="#Tea time")["ok"]
    news = ben.expect("message")
    assert (news["room"], news["data"], news["from"]) == ("group", "#Tea time", None)
    assert of_type(ben.heard(), "message") == []
    mia = person(demo, "Mia").connect("/ws/chat")
    messages = mia.ask("join", room="group")["messages"]
    assert [message["data"] for message in messages] == ["#Tea time"]


def test_rooms_cannot_be_made_without_end(demo: DemoServer) -> None:
    ada = enter(person(demo, "Ada"))
    answers = [ada.ask("join", room=f"#Room {n}") for n in range(40)]
    assert answers[0]["ok"]
    assert answers[-1]["error"]["code"] == "forbidden"
    assert sum(answer["ok"] for answer in answers) == 27


# ---- pages --------------------------------------------------------------------------


def test_pages_and_their_parts_are_there(common: DemoServer) -> None:
    someone = Person(common)
    for path in ("/", "/vote", "/group/login", "/private/login"):
        status, body = someone.http("GET", path)
        assert status == 200
        assert "//cdn" not in body
    for path in ("/group", "/private"):
        assert someone.http("GET", path)[0] == 302
    assert someone.http("GET", "/_wschat/wschat.js")[0] == 200


def test_only_pages_set_a_cookie(common: DemoServer) -> None:
    someone = Person(common)
    for path in (
        "/static/style.css",
        "/static/talk.js",
        "/_wschat/wschat.js",
        "/nowhere",
    ):
        someone.http("GET", path)
        assert someone.cookie == "", path
    someone.http("GET", "/group/login")
    assert someone.cookie != ""


def test_who_keeps_no_cookie_is_told_so(common: DemoServer) -> None:
    someone = Person(common)
    form = {"name": "Ada"}
    someone.http("GET", "/group/login")
    someone.cookie = ""
    status, _ = someone.http("POST", "/group/login", form)
    assert status == 302
    someone.cookie = ""  # it is refused again
    status, body = someone.http("GET", "/group?from=login")
    assert status == 400
    assert "keeps no cookie" in body
    for path in ("/ws/vote", "/ws/chat"):
        with pytest.raises(ConnectionClosed) as caught:
            tab = Person(common).connect(path)
            while True:
                tab.hear()
        assert caught.value.rcvd is not None
        assert "keeps no cookie" in caught.value.rcvd.reason
    # Who is not logged in, but has one, is told that.
    other = person(common)
    with pytest.raises(ConnectionClosed, match="not logged in") as caught:
        tab = other.connect("/ws/chat")
        while True:
            tab.hear()


def test_a_name_is_escaped_in_pages(common: DemoServer) -> None:
    ada = person(common, "<b>Ada</b>")
    _, body = ada.http("GET", "/private")
    assert "<b>Ada</b>" not in body
    assert "&lt;b&gt;Ada&lt;/b&gt;" in body


def test_a_taken_port_is_said_to_be_taken(common: DemoServer) -> None:
    answer = subprocess.run(
        [sys.executable, str(ROOT / "example_app.py")],
        env={**os.environ, "PORT": str(common.port)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert answer.returncode == 1
    assert str(common.port) in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"PORT": "70000"}, "PORT=70000 is not a port number"),
        ({"WORKERS": "many"}, "WORKERS=many is not a number"),
        ({"WORKERS": "0"}, "WORKERS=0 is not a number"),
        ({"REDIS": "1", "PATH": "/", "APT": "no"}, "apt-get install redis-server"),
    ],
    ids=["port", "words", "zero", "redis"],
)
def test_what_cannot_be_served_is_said_before(env: dict[str, str], words: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tools.demo", "check"],
        cwd=ROOT,
        env={**os.environ, "PORT": str(free_port()), **env},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert answer.returncode == 1
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_all_processes_end_with_the_demo(tmp_path: Path) -> None:
    server = DemoServer(tmp_path / "server.log", workers=2, redis=True)
    workers = server.workers()
    (port,) = re.findall(r"redis://127\.0\.0\.1:(\d+)/0", server.heard("demos are on"))
    tab = go_online(person(server, "Ada"))
    server.interrupt()
    assert close_code(tab) == 1012
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(port)), DEADLINE)
    assert "Traceback" not in server.log


def test_others_can_reach_the_demos_where_that_is_asked_for(tmp_path: Path) -> None:
    for number in range(2):
        log = tmp_path / f"server{number}.log"
        server = DemoServer(log, workers=2 * number, host="0.0.0.0")
        try:
            ada = Person(server)
            assert ada.login("Ada") == 302
            said = server.heard("Others in this network")
            (name,) = re.findall(r"network: http://([\d.]+):\d+/", said)
            ada.host = name
            tab = go_online(ada)  # also where other workers serve it: one key
            assert tab.user.startswith("Ada#")
        finally:
            server.stop()


def test_a_host_that_is_none_is_said_to_be(tmp_path: Path) -> None:
    for host, words in {
        "192.0.2.1": "HOST=192.0.2.1 is no address of this machine",
        "no such host": "HOST=no such host is no address",
    }.items():
        answer = subprocess.run(
            [sys.executable, "-m", "tools.demo", "check"],
            cwd=ROOT,
            env={**os.environ, "PORT": str(free_port()), "HOST": host},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert answer.returncode == 1
        assert words in answer.stderr
