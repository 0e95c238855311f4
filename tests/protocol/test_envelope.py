"""What the package builds is what the schema says, and is built in one file."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

import flask_wschat
from flask_wschat import envelope
from flask_wschat.messages import ANONYMOUS, EVERYONE, Entry, Grown, Message
from flask_wschat.rate import Bucket

from .peers import DEFS, EVENTS, REQUESTS, check, definition

PACKAGE = Path(flask_wschat.__file__).parent
LIMITS: Any = dict.fromkeys(
    ("message", "data", "depth", "name", "mid", "page", "rooms"), 1
)
RATES = ("rate", "new_rooms")
A = envelope.rate(Bucket(2.5, 9))
STANDING: Any = {"counts": {"tea": 2, "Grüner Tee": 0}, "total": 2, "version": 3}
MORE: Any = {"closed": True, "mine": None, "options": ["tea", "Grüner Tee"]}
SAID = Message("Tea?", sender="ann", mid="a-1")
A_MESSAGE = envelope.message("room:Lobby", SAID, 7, 1.5)
GROWN = Grown("s1", "bot", 1.5, 3, "Żółw\n", "ann")
GROWS = envelope.stream("room:Lobby", GROWN)
A_DIRECT = envelope.message("user:ben", SAID, 7, 1.5)


def a_page(messages: str) -> str:
    return envelope.page("e", 7, "t", messages, recovered=True, more=True)


def entry(data: Any, **fields: Any) -> Entry:
    return Entry(7, data, 1.5, **fields)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "hello",
            envelope.hello(
                "9f86", "ann", ping=25.0, limits={**LIMITS, **dict.fromkeys(RATES, A)}
            ),
        ),
        (
            "hello",
            envelope.hello(
                "9f86", None, ping=25.0, limits={**LIMITS, **dict.fromkeys(RATES)}
            ),
        ),
        (
            "join.reply",
            envelope.read(
                *(1, a_page(f"{A_MESSAGE},{A_MESSAGE}"), f"{GROWS},{GROWS}"),
                envelope.people(1, ["ann"]),
            ),
        ),
        (
            "join.reply",
            envelope.read(1, a_page(A_MESSAGE), "", envelope.people(101, None)),
        ),
        ("join.reply", envelope.read(1, a_page(A_MESSAGE), "")),
        ("inbox.reply", envelope.read(1, a_page(A_DIRECT), "")),
        ("history.reply", envelope.history(1, "e", 7, "")),
        ("leave.reply", envelope.reply(1)),
        ("say.reply", envelope.stored(1, 7, 1.5)),
        ("tell.reply", envelope.stored(1, 7, 1.5)),
        ("who.reply", envelope.who(1, ["ann"], 1, False)),
        ("vote.reply", envelope.reply(1, **STANDING, closed=False)),
        ("poll.reply", envelope.reply(1, **STANDING, **MORE)),
        ("stream.reply", envelope.standing(1, "user:ben", GROWN)),
        ("stop.reply", envelope.reply(1)),
        ("ping.reply", envelope.reply(1)),
        *(
            ("error.reply", envelope.refusal(1, code, "why"))
            for code in get_args(envelope.ErrorCode)
        ),
        ("error.reply", envelope.refusal(None, "bad_json", "this is not JSON")),
        ("error.reply", envelope.refusal(1, "rate_limited", "why", retry_after=0.5)),
        ("message", A_MESSAGE),
        ("message", envelope.message(EVERYONE, Message("to all"), 0, 1.5)),
        ("message", envelope.message("room:ü", entry('{"a":"ü"}', json=True), 7, 1.5)),
        ("message", envelope.message("room:a", entry(b"\xff"), 7, 1.5, "tag")),
        ("message", envelope.message("room:a", entry("", sender=ANONYMOUS), 7, 1.5)),
        ("direct", A_DIRECT),
        ("direct", envelope.message("user:ben", entry("", to="cy"), 7, 1.5)),
        (
            "message",
            envelope.message("room:a", entry("null", json=True, deleted=True), 7, 1.5),
        ),
        ("deleted", envelope.deleted("room:Lobby", 7)),
        ("stream.event", GROWS),
        ("stream.event", envelope.stream("user:ben", GROWN._replace(sender=None))),
        ("append", envelope.append("room:Lobby", "s1", 4, 'a "piece"')),
        ("append", envelope.append("user:ben", "s1", 4, "")),
        ("discard", envelope.discard("room:Lobby", "s1", "stopped")),
        ("presence", envelope.presence_count("a", 101)),
        ("presence", envelope.presence_all("a", ["ann", "ben"])),
        ("presence", envelope.presence("Lobby", ["ann"], [])),
        ("tally", envelope.tally("Drinks", {**STANDING, "closed": False})),
        ("gap", envelope.gap("room:Lobby")),
        ("gap", envelope.gap("user:ann", 2.5)),
        ("emitted", envelope.emitted("moved", "a", "ann", '{"x":[1]}')),
        ("emitted", envelope.emitted("moved", None, None, "{}")),
    ],
)
def test_each_message_is_what_the_schema_says(name: str, text: str) -> None:
    check(name, json.loads(text))


def test_no_message_is_forgotten_here() -> None:
    (mark,) = test_each_message_is_what_the_schema_says.pytestmark  # type: ignore[attr-defined]
    names = {name for name, _ in mark.args[1]}
    events = map(definition, EVENTS)
    replies = {f"{name}.reply" for name in REQUESTS}
    assert names == {*events, *replies, "error.reply", "emitted"}


def test_the_error_codes_are_those_of_the_schema() -> None:
    codes = DEFS["error"]["properties"]["code"]["enum"]
    assert sorted(get_args(envelope.ErrorCode)) == sorted(codes)


def test_they_stand_in_the_order_of_the_page() -> None:
    built = re.findall(r'"type":\s?"(\w+)', inspect.getsource(envelope))
    order = list(dict.fromkeys(built))
    assert order == ["hello", "reply", *EVENTS[1:]]


def test_no_other_file_spells_a_message() -> None:
    clients = {"client.py", "terminal.py"}  # they read what others wrote
    spelled = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(r'"type":\s?["{]', path.read_text())
        and path.name not in clients
        and path.parent.name != "documents"  # schemas have a field of this name
    }
    assert spelled == {"envelope.py"}
