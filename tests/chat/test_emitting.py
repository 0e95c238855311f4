"""``emit``: events of the application's own, to whom they are for, each once."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from flask import Flask

from flask_wschat import ChatListener, Events, WebSocket, WSChat, envelope, event
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.chat.chat import Chat
from flask_wschat.chat.emitting import emit as emit_of
from flask_wschat.hub.hub import Hub
from flask_wschat.messages import Message, room_topic, user_topic
from flask_wschat.settings import Settings
from tests.support.chat_client import ChatClient, Json
from tests.support.following import chat, make_chat, server, url
from tests.support.in_memory import Reader, another
from tests.support.live import LiveServer, Serve
from tests.support.waiting import eventually

from ..protocol.peers import EVENTS, REQUESTS, Peer

__all__ = ["chat", "make_chat", "server", "url"]

stored = pytest.mark.parametrize("url", ["memory", "sqlite", "redis"], indirect=True)
in_memory = pytest.mark.parametrize("url", ["memory"], indirect=True)


@stored
def test_it_reaches_whom_it_is_for_in_every_process(
    make_chat: Callable[..., WSChat], serve: Serve, url: str
) -> None:
    here = make_chat()
    there = here if url == "memory://" else make_chat()
    ann = Peer(serve(here._app()), "ann")
    server = serve(there._app())
    ben, cleo, ben_too = (Peer(server, user) for user in ("ben", "cleo", "ben"))
    for peer in (ann, ben, cleo):
        peer.ask("join", room="Lobby" if peer is not cleo else "Attic")
    here.emit("moved", room="Lobby", x=1.5, y=None)
    here.emit("poked", user="ben", key="a key", by=["ann", {"ü": "é"}])
    here.emit("closing")
    moved = {"type": "moved", "room": "Lobby", "from": None, "x": 1.5, "y": None}
    poked = {"type": "poked", "room": None, "from": None, "by": ["ann", {"ü": "é"}]}
    closing = {"type": "closing", "room": None, "from": None}
    for peer, expected in (
        (ann, [moved, closing]),
        (ben, [moved, poked, closing]),
        (cleo, [closing]),
        (ben_too, [poked, closing]),
    ):
        got = []
        while closing not in got:
            got.append(peer.hear())
        # Between two topics there is no order.
        mine = [event for event in got if event["type"] not in EVENTS]
        assert sorted(mine, key=str) == sorted(expected, key=str)
    assert here.history("Lobby") == []
    assert ann.ask("history", room="Lobby")["seq"] == 0


@stored
def test_one_connection_may_be_left_out(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    sockets: dict[str, WebSocket] = {}

    class Noting(ChatListener):
        def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
            super().on_open(ws)
            sockets[str(ws.user)] = ws

    chat = make_chat(Noting)
    server = serve(chat._app())
    ann, ben = Peer(server, "ann"), Peer(server, "ben")
    for peer in (ann, ben):
        peer.ask("join", room="Lobby")
    for number in range(3):
        chat.emit("typing", room="Lobby", exclude=sockets["ann"], number=number)
        chat.emit("typing", room="Lobby", exclude=sockets["ann"], key=number, number=-1)
    chat.emit("done", room="Lobby")
    for peer, expected in ((ann, []), (ben, [0, -1, 1, -1, 2, -1])):
        numbers = []
        while (event := peer.hear())["type"] != "done":
            numbers += [event["number"]] if event["type"] == "typing" else []
        assert numbers == expected


@in_memory
def test_a_server_may_join_a_room_for_a_client(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    class Board(ChatListener):
        def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
            super().on_open(ws)
            ws.join("board")

    chat = make_chat(Board)
    ann = Peer(serve(chat._app()), "ann")
    ann.ask("ping")
    chat.broadcast("for who has a page", room="board")
    chat.emit("moved", room="board")
    assert ann.hear()["type"] == "moved"
    page = ann.ask("join", room="board")
    assert [each["data"] for each in page["messages"]] == ["for who has a page"]
    chat.broadcast("and more", room="board")
    chat.emit("moved", room="board")
    assert ann.pick("message")["seq"] == 2 and ann.pick("moved")


# -- in the hub


@pytest.fixture
def hub() -> Hub:
    return Hub(Settings(), MemoryBackend(), dumps=json.dumps, loads=json.loads)


def emit(hub: Hub, type: str, fields: Any, **options: Any) -> None:
    emit_of(Chat(hub), type, fields, **options)


def told(hub: Hub, type: str = "moved", **options: Any) -> None:
    emit(hub, type, {}, **options)


def test_none_comes_before_the_page_and_each_once_after_it(hub: Hub) -> None:
    first, reader = Reader(hub), Reader(hub)
    first.read(0)
    reader.ask()
    told(hub, "one", room="a")
    told(hub, "two", room="a", exclude=reader.ws)
    told(hub, "three", room="a", key="k")
    assert first.got == ["one", "two", "three"] and reader.got == []
    reader.land(0)
    told(hub, "four", room="a")
    assert reader.got == ["one", "three", "four"]


def test_none_comes_before_hello(hub: Hub) -> None:
    ws, peer = another(hub, "ann", plain=False)
    told(hub, user="ann")
    told(hub)
    assert peer.events == []
    hub.attach(ws)
    told(hub, user="ann")
    told(hub)
    assert len(peer.events) == 2
    hub.publish(user_topic("ann"), Message("to the inbox"), keep=True)
    assert len(peer.events) == 2


def test_one_that_is_not_attached_is_closed_all_the_same(hub: Hub) -> None:
    ws, _ = another(hub, "ann", plain=False)
    hub.publish(user_topic("ann"), Message("bye", close_code=4000))
    assert ws.closed


def test_of_those_with_a_key_a_peer_that_is_behind_gets_the_newest(hub: Hub) -> None:
    reader = Reader(hub)
    hub.join(reader.ws, "b")
    reader.peer.transport.pause()
    for number in range(5):
        for room in ("a", "b"):
            for type in ("moved", "typing"):
                emit(hub, type, {"n": number}, room=room, key="ann")
        emit(hub, "moved", {"n": number}, key="ann")
        emit(hub, "moved", {"n": number}, room="a", key="ben")
    emit(hub, "dropped", {"n": 0}, room="a")
    emit(hub, "dropped", {"n": 1}, room="a")
    reader.peer.transport.resume()
    got = [json.loads(str(text)) for text in reader.peer.events]
    assert [(e["type"], e["room"], e["n"]) for e in got] == [
        ("moved", "a", 4),
        ("typing", "a", 4),
        ("moved", "b", 4),
        ("typing", "b", 4),
        ("moved", None, 4),
        ("moved", "a", 4),
        ("dropped", "a", 0),
        ("dropped", "a", 1),
    ]


def test_who_is_not_of_the_chat_gets_all_as_it_comes(hub: Hub) -> None:
    ws, peer = another(hub, "ann", plain=False)
    plain, plain_peer = another(hub)
    plain.join("a")
    ws.join("before")
    hub.attach(ws, hearing=True)
    ws.join("a")
    ws.join("left")
    ws.leave("left")
    room = room_topic("a")
    hub.publish(room, Message("kept"), keep=True)
    hub.publish(room, Message('{"a":1}', json=True, exclude=ws.id))
    hub.publish(room, Message("said", sender="ben"), keep=True)  # to the chat alone
    hub.publish(room, Message("shared", sender="ben", plain=True), keep=True)
    hub.publish(user_topic("ann"), Message("note"), keep=True)
    hub.publish(user_topic("ann"), Message("copy", sender="ann", to="ben"), keep=True)
    for name in ("left", "before", "a"):
        emit(hub, "moved", {}, room=name)
    emit(hub, "poked", {}, user="ann")
    emit(hub, "closing", {})
    hub.backend.delete(room, 1)
    got = [json.loads(str(text)) for text in peer.events]
    assert [(e["type"], e.get("room"), e.get("data")) for e in got] == [
        ("message", "a", "kept"),
        ("message", "a", "shared"),
        ("direct", None, "note"),
        ("moved", "before", None),
        ("moved", "a", None),
        ("poked", None, None),
        ("closing", None, None),
        ("deleted", "a", None),
    ]
    assert plain_peer.events == ["kept", '{"a":1}', "shared"]
    assert hub.users(room) == ["ann"] and hub.count(room) == 2
    assert hub.count() == 2 and hub.users() == ["ann"]
    hub.publish(user_topic("ann"), Message("bye", close_code=4000))
    assert ws.closed and hub.count() == hub.count(room) == 1
    assert hub.presence.online(room) == []


def test_its_rooms_are_closed_to_the_chat(hub: Hub) -> None:
    ws, _ = another(hub, plain=False)
    hub.attach(ws, hearing=True)
    stranger, peer = another(hub, plain=False)
    hub.attach(stranger)
    stranger.join("a")
    ws.join("a")
    assert stranger.rooms == frozenset()
    assert [json.loads(str(text))["type"] for text in peer.events] == ["gap"]
    with pytest.raises(PermissionError):
        stranger.join("a")
    hub.publish(room_topic("a"), Message("secret"), keep=True)
    ws.leave("a")
    with pytest.raises(PermissionError):
        stranger.join("a")


# -- what makes no sense


@dataclasses.dataclass
class Point:
    x: float
    y: float


class Line(msgspec.Struct):
    points: list[Point]


class Own:
    def __html__(self) -> str:
        return "as the provider has it"


def test_fields_are_what_msgspec_or_the_application_can_encode(app: Flask) -> None:
    fields = {
        "line": Line([Point(1, 2.5)]),
        "id": uuid.UUID(int=7),
        "price": Decimal("1.50"),
        "own": [Own()],
        "big": 1 << 70,
        "nothing": None,
    }
    assert envelope.encoder(app.json.dumps)(fields) == (
        '{"line":{"points":[{"x":1,"y":2.5}]},'
        '"id":"00000000-0000-0000-0000-000000000007","price":"1.50",'
        '"own":["as the provider has it"],"big":1180591620717411303424,"nothing":null}'
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_an_error(app: Flask, number: float) -> None:
    encode = envelope.encoder(app.json.dumps)
    for value in (number, {"a": [None, number]}, [Point(1, number)]):
        with pytest.raises(ValueError, match="no NaN"):
            encode(value)
    assert encode({"a": "null", "b": [None, Own()]}).startswith('{"a":"null"')


def deep() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@in_memory
@pytest.mark.parametrize(
    ("type", "options", "error", "words"),
    [
        *((type, {}, ValueError, "the protocol's own") for type in EVENTS + REQUESTS),
        *((type, {}, ValueError, "own") for type in ("reply", "append", "discard")),
        *((type, {}, TypeError, "type is a text") for type in (None, 5, b"x", Point)),
        *(
            (type, {}, ValueError, "an event's type")
            for type in ("", "a\nb", "x" * 256)
        ),
        ("\ud800", {}, ValueError, "an event's type"),
        ("moved", {"room": "a", "user": "ann"}, ValueError, "not for both"),
        ("moved", {"room": ""}, ValueError, "a room"),
        ("moved", {"room": object()}, TypeError, "a room"),
        ("moved", {"user": 0}, ValueError, "a user id"),
        ("moved", {"user": b"ann"}, TypeError, "a user id"),
        ("moved", {"key": 1.5}, TypeError, "a key"),
        ("moved", {"key": "a\nb"}, ValueError, "a key"),
        ("moved", {"exclude": "ann"}, TypeError, "exclude is a WebSocket"),
        ("moved", {"from": "ann"}, ValueError, "'from' is set for you"),
        ("moved", {"x": object()}, TypeError, "object"),
        ("moved", {"x": "\ud800"}, ValueError, "half a surrogate pair"),
        ("moved", {"\ud800": 1}, ValueError, "half a surrogate pair"),
        ("moved", {"x": deep()}, ValueError, "nested too deeply"),
        ("moved", {"x": {(1, 2): 3}}, TypeError, "no such key"),
    ],
)
def test_what_makes_no_sense_is_refused(
    chat: WSChat, type: Any, options: Any, error: Any, words: str
) -> None:
    with pytest.raises(error, match=words):
        chat.emit(type, **options)


# -- from a connection


class Board(Events):
    """One who is no chat: its rooms are those that the server joins."""

    def on_open(self, ws: WebSocket, room: str) -> None:
        ws.join(room)
        self.room = room

    @event
    def move(self, x: float, echo: bool = True, key: str | None = None) -> None:
        self.emit("moved", room=self.room, key=key, echo=echo, x=x)

    @event
    def poke(self, user: str) -> None:
        self.emit("poked", user=user)

    @event
    def shout(self) -> None:
        self.emit("shouted", echo=False)

    @event
    def look(self, room: str) -> None:
        self.emit("looked", room=room)

    @event
    def go(self) -> bool:
        return self.ws.leave(self.room)


class Caller(ChatClient):
    def __init__(self, server: LiveServer, user: str, path: str) -> None:
        super().__init__(server.connect(f"{path}?user={user}"))

    def got(self, until: str) -> list[Json]:
        """Return what comes, up to an event of this type, without that."""
        events = []
        while (event := self.events.pop(0) if self.events else self.hear())[
            "type"
        ] != until:
            events.append(event)
        return events


@stored
def test_a_connection_tells_the_others_of_its_room(
    make_chat: Callable[..., WSChat], serve: Serve, url: str
) -> None:
    here = make_chat()
    there = here if url == "memory://" else make_chat()
    for each in {here, there}:
        each.listener("/boards/<room>")(Board)
    server = serve(here._app())
    ann = Caller(server, "ann", "/boards/a")
    cleo = Caller(server, "cleo", "/boards/b")
    ben = Caller(serve(there._app()), "ben", "/boards/a")
    nobody = Caller(server, "", "/boards/a")
    for peer in (ann, ben, cleo, nobody):
        assert peer.ask("ping")["ok"]
    assert ann.ask("move", x=1)["ok"] and ann.ask("move", x=2, echo=False)["ok"]
    assert nobody.ask("move", x=3, key="k")["ok"]
    assert ann.ask("poke", user="cleo")["ok"] and ann.ask("shout")["ok"]
    here.broadcast({"all": 1}, room="a")
    here.send_to_user("ben", "note")
    here.emit("end")
    one, two = ({"room": "a", "from": "ann", "x": float(x)} for x in (1, 2))
    three = {"room": "a", "from": None, "x": 3.0}
    shouted = {"room": None, "from": "ann"}

    def fields(events: list[Json], *kinds: str) -> list[Json]:
        found = [event for event in events if event["type"] in kinds]
        return [{k: v for k, v in each.items() if k != "type"} for each in found]

    for peer, moves, others in (
        (ann, [one, three], []),
        (ben, [one, two, three], [shouted]),
        (cleo, [], [{"room": None, "from": "ann"}, shouted]),
        (nobody, [one, two, three], [shouted]),
    ):
        got = peer.got("end")
        assert fields(got, "moved") == moves
        assert fields(got, "poked", "shouted") == others
        data = [each["data"] for each in got if each["type"] == "message"]
        assert data == ([] if peer is cleo else [{"all": 1}])
        assert [e["data"] for e in got if e["type"] == "direct"] == (
            ["note"] if peer is ben else []
        )
    error = cleo.ask("look", room="a")["error"]
    assert error["code"] == "not_joined"
    assert ben.ask("go")["result"] is True
    assert ben.ask("move", x=4)["error"]["code"] == "not_joined"
    # Nothing of it is kept but the one that is said.
    assert [entry.data for entry in here.history("a")] == [{"all": 1}]
    eventually(lambda: here.online("a") == ["ann"])


@in_memory
def test_what_an_event_emits_wrongly_is_an_error_in_the_server(
    make_chat: Callable[..., WSChat], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(Events):
        @event
        def bad(self, name: Any, room: Any = None) -> None:
            self.emit(name, room=room, x="\ud800")

    chat = make_chat()
    chat.listener("/wrong")(Wrong)
    ann = Caller(serve(chat._app()), "ann", "/wrong")
    for options in ({"name": "reply"}, {"name": 5}, {"name": "x"}):
        assert ann.ask("bad", **options)["error"]["code"] == "internal"
    assert ann.ask("bad", name="x", room=[])["error"]["code"] == "internal"
    assert ann.ask("ping")["ok"]
    assert len(caplog.records) == 4
