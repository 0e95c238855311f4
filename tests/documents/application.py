"""An application with events of every kind of hint."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any, ClassVar, Literal, TypedDict

import msgspec
from flask import Flask

from flask_wschat import ChatListener, Events, Listener, WebSocket, WSChat, event


class Level(enum.Enum):
    EASY = "easy"
    HARD = "hard"


@dataclasses.dataclass
class Point:
    """A place on the board."""

    x: float
    y: float
    label: str | None = None


class Guess(msgspec.Struct):
    """What became of a guess."""

    right: bool
    tries: Annotated[int, msgspec.Meta(ge=1, description="So far.")]
    near: list[Point] = []


@dataclasses.dataclass
class User:
    """One of the application's own, though the protocol has such a name, too."""

    name: str


class Cell(msgspec.Struct, array_like=True):
    row: int
    column: int | None = None


class Undone(TypedDict):
    cells: list[Cell | None]


class Moved(TypedDict):
    """Somebody moved."""

    at: Point
    steps: dict[str, int]


app = Flask(__name__)
chat = WSChat(app)


class Movable:
    @event(limit=(30, 60))
    def move(self, room: str, to: Point, by: list[float] | None = None) -> None:
        """Move on the board."""


@chat.listener("/board/<game>")
class Board(Movable, ChatListener):
    """Games for two."""

    emits: ClassVar = {"moved": Moved, "done": Guess, "undone": Undone}

    @event("guess")
    def on_guess(self, word: str, level: Literal["easy", "hard"] = "easy") -> Guess:
        """Guess a word."""
        return Guess(word == "tea" and level == "hard", 1)

    @event
    def set_level(self, level: Level, extra: dict[str, Any]) -> str | None:
        return None

    @event
    def opponent(self) -> User | None: ...

    @event("a-b.c")
    def odd(self, pair: tuple[int, str], some: bool | str | None = None) -> list[Point]:
        return []


@chat.listener("/tools")
class Tools(Events):
    @event
    def add(self, a: int, b: int) -> int:
        """Add two numbers. */ end of comment"""
        return a + b

    @event
    def unsaid(self):  # type: ignore[no-untyped-def]
        return {}


@chat.listener("/raw")
class Raw(Listener):
    """Lines of text."""


@chat.route("/echo/<int:times>/<path:rest>")
def echo(ws: WebSocket, times: int, rest: str) -> None:
    for message in ws:
        ws.send(message)
