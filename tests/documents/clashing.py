"""An application whose types and events have names that are others' already."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from flask import Flask

from flask_wschat import ChatListener, Events, WSChat, event


class Board:
    class Point(msgspec.Struct):
        x: int
        near: list[Board.Point] = []


class Map:
    class Point(msgspec.Struct):
        x: str


class Error(msgspec.Struct):
    why: str


class Message(msgspec.Struct):
    words: list[str]


class Requests(msgspec.Struct):
    count: int


class GameEvents(msgspec.Struct):
    count: int


class Record(msgspec.Struct):
    free: dict[str, int]


app = Flask(__name__)
chat = WSChat(app)


@chat.listener("/game")
@chat.listener("/game/<name>")
class Game(ChatListener):
    emits: ClassVar = {"moved / far": Message, "moved_/_far": Requests}

    @event("go/far")
    def go(
        self,
        to: Board.Point,
        error: Error,
        name: Annotated[int, msgspec.Meta(title="name", ge=0)] = 7,
        price: Annotated[int, msgspec.Meta(title="a price/kg")] = 8,
    ) -> Map.Point:
        return Map.Point("x")

    @event("go_far")
    def back(self, why: Error | None) -> list[Board.Point]:
        return []

    @event("go_far.reply")
    def reply(self) -> None: ...

    @event
    def sends(self, count: GameEvents) -> Record: ...  # type: ignore[empty-body]


@chat.listener("/plain", endpoint="game.go")
class Plain(Events):
    @event
    def far(self) -> None: ...
