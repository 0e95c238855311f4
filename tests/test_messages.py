"""Names: what may be a room's, a user's or a key's, and what is an error at once."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from werkzeug.local import LocalProxy

from flask_wschat import WSChat
from flask_wschat.messages import LONGEST_NAME, Message, News, as_name, as_user
from flask_wschat.testing import WSChatClient


class User:
    def __init__(self, name: str) -> None:
        self.name = name


class NamedUser(User):
    def __str__(self) -> str:
        return self.name


class Text(str):
    """One that would go on with all it carries."""

    def __str__(self) -> str:
        return "something else"


class Colour(enum.IntEnum):
    RED = 5


ID = uuid.UUID(int=7)
PROXIED = (LocalProxy(lambda: NamedUser("ann")), LocalProxy(lambda: "ann"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Lobby", "Lobby"),
        (
            "茶 室 👨\u200d👩\u200d👧 क\u094d\u200dष",
            "茶 室 👨\u200d👩\u200d👧 क\u094d\u200dष",
        ),
        ("None", "None"),
        (5, "5"),
        (-1, "-1"),
        (Colour.RED, "5"),
        (ID, str(ID)),
        (NamedUser("ann"), "ann"),
        (Text("a"), "a"),
        (PROXIED[0], "ann"),
        (PROXIED[1], "ann"),
        (LocalProxy(lambda: 5), "5"),
        ("x" * LONGEST_NAME, "x" * LONGEST_NAME),
    ],
)
def test_a_name_is_a_text_or_has_one(value: Any, text: str) -> None:
    assert as_name(value, "a room") == as_user(value) == text
    assert type(as_name(value, "a room")) is str


NOT_NAMES = [
    None,
    True,
    False,
    1.5,
    float("nan"),
    2j,
    b"bytes",
    bytearray(b"x"),
    memoryview(b"x"),
    ["a"],
    ("a",),
    {"a": 1},
    {"a"},
    object(),
    User("ann"),
    User,
    LocalProxy(lambda: None),
    LocalProxy(lambda: User("ann")),
]
NOT_TEXTS = [
    "",
    "\ud800",
    "a\udc00b",
    "\0",
    "\0anonymous",
    "a\nb",
    "a\r",
    "\x1b[31m",
    "a\u2028b",
    "\x85",
    "x" * (LONGEST_NAME + 1),
    "x" * 1_000_000,
    10**300,
    NamedUser(""),
    NamedUser("\ud800"),
]


@pytest.mark.parametrize("value", NOT_NAMES, ids=lambda value: type(value).__name__)
def test_what_has_no_text_of_its_own_is_no_name(value: Any) -> None:
    for function in (as_name, as_user):
        with pytest.raises(TypeError, match=r"a room must be a text.* UUID; not "):
            function(value, "a room")


@pytest.mark.parametrize("value", NOT_TEXTS, ids=range(len(NOT_TEXTS)))
def test_a_text_that_no_backend_could_keep_is_no_name(value: Any) -> None:
    for function in (as_name, as_user):
        with pytest.raises(ValueError, match="a key must ") as error:
            function(value, "a key")
        assert len(str(error.value)) < 200
        str(error.value).encode()  # it can be logged


def test_zero_is_a_room_and_nobody() -> None:
    assert as_name(0, "a room") == as_user("0") == "0"
    with pytest.raises(ValueError, match="unlike 0"):
        as_user(0)


CALLS: dict[str, Callable[[WSChat, Any], Any]] = {
    "broadcast": lambda chat, name: chat.broadcast("x", room=name),
    "key": lambda chat, name: chat.broadcast("x", room="a", key=name),
    "send_to_user": lambda chat, name: chat.send_to_user(name, "x"),
    "user key": lambda chat, name: chat.send_to_user("ann", "x", key=name),
    "disconnect_user": lambda chat, name: chat.disconnect_user(name),
    "online": lambda chat, name: chat.online(name),
    "is_online": lambda chat, name: chat.is_online(name),
    "history": lambda chat, name: chat.history(name),
    "poll": lambda chat, name: chat.poll("p", ["a", "b"], room=name),
    "vote": lambda chat, name: chat.poll("q", ["a", "b"]).vote(name, "a"),
    "tally": lambda chat, name: chat.poll("q", ["a", "b"]).tally(name),
}
NONE_MEANS_ALL = ("broadcast", "key", "user key", "online", "poll", "tally")


@pytest.mark.parametrize("call", CALLS)
def test_each_call_that_takes_a_name_looks_at_it_first(app: Flask, call: str) -> None:
    chat = WSChat(app)

    @chat.route("/in/<room>")
    def enter(ws: Any, room: str) -> None:
        ws.join(room)
        ws.send("in")
        ws.receive()

    with WSChatClient(app).connect("/in/a", user="ann") as ann:
        ann.assert_received("in")
        for name in [*NOT_NAMES, *NOT_TEXTS]:
            if name.__class__ is type(None) and call in NONE_MEANS_ALL:
                continue
            with pytest.raises((TypeError, ValueError)):
                CALLS[call](chat, name)
        chat.broadcast("the first", room="a", key="k")
        ann.assert_received("the first")
    assert chat._chat().polls.keys() <= {"q"}
    assert chat.poll("q", ["a", "b"]).tally().version == 0
    assert chat.history("a") == []


def test_an_integer_names_the_same_everywhere(app: Flask) -> None:
    chat = WSChat(app)

    @chat.route("/in/<int:room>")
    def enter(ws: Any, room: int) -> None:
        assert ws.join(room)
        assert not ws.join(str(room))
        for message in ws:
            if message == "leave":
                assert ws.leave(room)
            ws.send(sorted(ws.rooms))

    with WSChatClient(app).connect("/in/5", user="7") as ann:
        ann.send("where?")
        ann.assert_received(["5"])
        chat.broadcast("one", room=5)
        chat.broadcast("two", room="5")
        ann.assert_received("one")
        ann.assert_received("two")
        assert chat.online(5) == chat.online("5") == ["7"]
        assert [entry.data for entry in chat.history(5)] == ["one", "two"]
        chat.send_to_user(7, "you")
        ann.assert_received("you")
        ann.send("leave")
        ann.assert_received([])
        assert chat.disconnect_user(7) == 1


@pytest.mark.parametrize(
    "news",
    [
        News([], [], 0),
        News(["ann", 'b"\\\n', "\U0001f600"], ["żółw", "\0"], 2**53, first=True),
        News(["half a pair \ud800"], ["\udfff", "ann"], 7),
    ],
)
def test_news_of_who_is_there_comes_as_it_was_told(news: News) -> None:
    assert News.of(news.as_message()) == news


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"joined": ["ann"], "left": []}',
        '{"joined": ["ann"], "left": [], "version": "1"}',
        '{"joined": ["ann"], "left": [], "version": true}',
        '{"joined": ["ann", 1], "left": [], "version": 1}',
        '{"joined": "ann", "left": [], "version": 1}',
        '{"joined": ["\\ud800"], "left": [2], "version": 1}',
        "[" * 100_000,
    ],
)
def test_what_is_no_news_of_who_is_there_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no news of who is there"):
        News.of(Message(text))


def test_news_of_a_later_version_may_have_more() -> None:
    text = '{"joined": ["ann"], "left": [], "version": 3, "why": "?"}'
    assert News.of(Message(text)) == News(["ann"], [], 3)
