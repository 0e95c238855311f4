"""An application's own events: what they take, answer and refuse."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import flask
import msgspec
import pytest
from flask import Flask

from flask_wschat import (
    Events,
    WSChat,
    event,
)
from tests.support.chat_client import ChatClient, Json
from tests.support.live import Serve


class Asker(ChatClient):
    """One that asks for events."""

    def call(self, kind: str, **fields: Any) -> Any:
        """Return the result of an event; ...: it has none."""
        return self.result(self.ask(kind, **fields))

    def result(self, reply: Json) -> Any:
        assert reply.pop("ok") is True, reply
        assert {"type", "ref"} <= reply.keys() <= {"type", "ref", "result"}
        return reply.get("result", ...)

    def error(self, kind: str, **fields: Any) -> tuple[str, str]:
        """Return code and message of what an event is refused with."""
        return self.refusal(self.ask(kind, **fields))

    def refusal(self, reply: Json) -> tuple[str, str]:
        assert reply["ok"] is False, reply
        return reply["error"]["code"], reply["error"]["message"]

    def send(self, text: str) -> Json:
        """Return the reply to a text."""
        self.client.send(text)
        while (message := self.hear())["type"] != "reply":
            pass
        return message


Meet = Callable[..., Asker]


@pytest.fixture
def meet(app: Flask, chat: WSChat, serve: Serve) -> Meet:
    """Return a function that connects a user to a class of events."""
    made: dict[type[Events], str] = {}
    chat.authenticate(lambda: flask.request.args.get("user"))

    def meet(cls: type[Events], user: str = "ann", **options: Any) -> Asker:
        if cls not in made:
            made[cls] = f"/{len(made)}"
            chat.listener(made[cls], endpoint=made[cls], **options)(cls)
        return Asker(serve(app).connect(f"{made[cls]}?user={user}"))

    return meet


# -- what they take


class Level(enum.Enum):
    EASY = "easy"
    HARD = "hard"


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0

    def __post_init__(self) -> None:
        if self.x > 1000:
            raise ValueError("x is off the board")


class Card(TypedDict):
    suit: Literal["clubs", "hearts"]
    points: list[Point]


class Square(msgspec.Struct):
    file: Annotated[str, msgspec.Meta(pattern="^[a-h]$")]
    rank: Annotated[int, msgspec.Meta(ge=1, le=8)]


class Board(Events):
    @event
    def move(self, room: str, x: float, y: float = 0.5) -> Any:
        return [room, x, y]

    @event("guess")
    def on_guess(self, word: str, level: Literal["easy", "hard"] = "easy") -> Json:
        return {"word": word, "level": level}

    @event()
    def nothing(self) -> None:
        pass

    @event
    def many(
        self,
        flag: bool = False,
        *,
        names: list[str],
        scores: dict[str, int],
        maybe: int | None = None,
        either: int | str = "",
        level: Level = Level.EASY,
        size: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1,
    ) -> Any:
        return [flag, names, scores, maybe, either, level, size]

    @event
    def put(
        self, point: Point, card: Card | None = None, square: Square | None = None
    ) -> Any:
        assert type(point) is Point and point == Point(point.x)
        return {"point": point, "card": card, "square": square}

    @event
    def when(self, day: datetime.date, by: dict[int, str]) -> Any:
        return [day.year, by]

    @event
    def whatever(self, data: Any, more: list[Any] = []) -> Any:  # noqa: B006
        return {"data": data, "more": more}


def test_fields_are_arguments_and_what_is_returned_is_the_result(meet: Meet) -> None:
    ann = meet(Board)
    assert ann.call("move", room="a", x=1.5, y=2) == ["a", 1.5, 2.0]
    assert ann.call("move", room="a", x=1, unknown=[1]) == ["a", 1.0, 0.5]
    assert ann.call("guess", word="tea") == {"word": "tea", "level": "easy"}
    assert ann.call("guess", word="tea", level="hard")["level"] == "hard"
    assert ann.call("nothing", x=1) is ...
    given = {"names": ["a"], "scores": {"b": 1}}
    assert ann.call("many", **given) == [False, ["a"], {"b": 1}, None, "", "easy", 1]
    more = {"flag": True, "maybe": 3, "either": 4, "level": "hard", "size": 9}
    assert ann.call("many", **given, **more) == [True, ["a"], {"b": 1}, 3, 4, "hard", 9]
    card = {"suit": "clubs", "points": [{"x": 1.0, "y": 2.0}]}
    put = ann.call("put", point={"x": 1}, card=card, square={"file": "a", "rank": 8})
    assert put["point"]["x"] == 1.0 and put["card"] == card
    assert ann.call("when", day="2026-02-03", by={"7": "x"}) == [2026, {"7": "x"}]
    assert ann.call("whatever", data=None) == {"data": None, "more": []}
    ann.close()


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("move", {"room": "a", "x": "1"}, "x: expected float, got str"),
        ("move", {"room": "a", "x": True}, "x: expected float, got bool"),
        ("move", {"room": "a", "x": None}, "x: expected float, got null"),
        ("move", {"room": 5, "x": 1}, "room: expected str, got int"),
        ("move", {"room": "a"}, "x: missing"),
        ("move", {"room": "a", "x": 10**400}, None),
        ("many", {"names": ["a", 1], "scores": {}}, "names[1]: expected str, got int"),
        ("many", {"names": [], "scores": {"a": 1.5}}, "scores[...]: expected int, got"),
        ("many", {"names": [], "scores": {}, "size": 10}, "size: expected int <= 9"),
        ("many", {"names": [], "scores": {}, "either": 1.5}, "either: expected int"),
        ("put", {"point": [1]}, "point: expected object, got array"),
        ("put", {"point": {"y": 1}}, "point.x: missing"),
        ("put", {"point": {"x": 1001}}, "point: x is off the board"),
        (
            "put",
            {"point": {"x": 1}, "card": {"suit": "clubs", "points": [{"x": "1"}]}},
            "card.points[0].x: expected float, got str",
        ),
        ("when", {"day": "tomorrow", "by": {}}, "day: invalid RFC3339 encoded date"),
        (
            "when",
            {"day": "2026-02-03", "by": {"a": ""}},
            "by: a key: expected int, got",
        ),
    ],
)
def test_a_wrong_field_is_named(
    meet: Meet, kind: str, fields: Json, words: str | None
) -> None:
    ann = meet(Board)
    code, message = ann.error(kind, **fields)
    assert code == "bad_request"
    assert words is None or message.startswith(words), message
    ann.close()


def test_requests_of_no_event_are_refused(meet: Meet) -> None:
    ann = meet(Board)
    assert ann.error("dance") == (
        "unknown_type",
        "no such type of request: 'dance'",
    )
    assert ann.error("join", room="a")[0] == "unknown_type"  # it is no chat
    assert ann.refusal(ann.send('{"type":"move","room":"a","x":1}'))[0] == "bad_request"
    assert ann.refusal(ann.send("junk"))[0] == "bad_json"
    assert ann.ask("ping")["ok"]
    ann.close()
