"""Strangers of the ready-made chat, and the rooms of routes that are not for them."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from flask import abort, request
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from flask_wschat import ChatListener, WebSocket, WSChat
from flask_wschat.messages import room_topic
from tests.support.following import Quick, in_threads, make_chat, url
from tests.support.live import LiveServer, Serve
from tests.support.waiting import DEADLINE, eventually

__all__ = ["make_chat", "url"]

Make = Callable[..., WSChat]
STAFF = room_topic("staff")


class Shared(ChatListener):
    plain_rooms = True


class House:
    """An app in one process, or in two where the storage is for several."""

    def __init__(self, make: Make, serve: Serve, url: str, *args: Any, **config: Any):
        count = 1 if url == "memory://" else 2
        self.chats = [make(*args, **config) for _ in range(count)]
        for chat in self.chats:
            add_routes(chat)
        self.servers = [serve(chat._app()) for chat in self.chats]

    @property
    def here(self) -> LiveServer:
        return self.servers[0]

    @property
    def there(self) -> LiveServer:
        return self.servers[-1]

    def staff(self, room: str = "staff") -> ClientConnection:
        client = self.there.connect(f"/staff/{room}?user=boss")
        assert client.recv(DEADLINE) == "in"
        return client


def add_routes(chat: WSChat) -> None:
    @chat.route("/staff/<room>")
    def staff(ws: WebSocket, room: str) -> None:
        if request.args.get("user") != "boss":
            abort(403)
        ws.join(room)
        ws.send("in")
        for message in ws:
            if message == "leave":
                ws.send(str(ws.leave(room)))
            else:
                chat.broadcast(message, room=room)


@pytest.fixture
def make(make_chat: Make, serve: Serve, url: str) -> Iterator[Callable[..., House]]:
    yield lambda *args, **config: House(make_chat, serve, url, *args, **config)


@pytest.fixture
def house(make: Callable[..., House]) -> House:
    return make()


def is_shut(stranger: Quick, room: str = "staff") -> None:
    """Assert that nothing of ``room`` is to be had."""
    positions: list[Any] = [{}, {"after": 0}, {"after": 1, "epoch": "e"}]
    for position in positions:
        assert stranger.fail("join", room=room, **position)["code"] == "forbidden"
    requests: dict[str, Any] = {"history": {}, "who": {}}
    requests["say"] = {"data": "raw", "mid": "m"}
    for kind, more in requests.items():
        assert stranger.fail(kind, room=room, **more)["code"] == "not_joined"
    assert all("secret" not in json.dumps(event) for event in stranger.events)


def test_a_room_that_plain_connections_are_in_is_shut(house: House) -> None:
    with house.staff() as staff:
        staff.send("secret 1")
        assert staff.recv(DEADLINE) == "secret 1"
        mallory = Quick(house.here, "mallory")
        is_shut(mallory)
        house.chats[0].broadcast("secret 2", room="staff")
        house.chats[0].broadcast("secret 3", room="staff", key="k")
        assert [staff.recv(DEADLINE) for _ in "23"] == ["secret 2", "secret 3"]
        is_shut(mallory)
        staff.send("leave")
        assert staff.recv(DEADLINE) == "True"
    # They are all gone, and what they heard is still kept.
    is_shut(mallory)
    house.chats[0].broadcast("secret 4", room="staff")
    is_shut(mallory)
    assert len(house.chats[0].history("staff")) == 3
    assert mallory.ask("join", room="Lobby")["messages"] == []


def test_who_was_there_first_is_put_out(house: House) -> None:
    mallory, trent = Quick(house.here, "mallory"), Quick(house.there, "")
    for stranger in (mallory, trent):
        stranger.ask("join", room="staff")
        stranger.ask("say", room="staff", data="mine", mid="1")
    with house.staff() as staff:
        for stranger in (mallory, trent):
            stranger.expect("gap", room="staff")
        for key, chat in enumerate(house.chats):  # one key would leave one of two out
            chat.broadcast("secret", room="staff")
            chat.broadcast("secret", room="staff", key=key)
            chat.poll("P", ["a", "b"], room="staff").vote("boss", "a")
        assert [staff.recv(DEADLINE) for _ in house.chats * 2]
        for stranger in (mallory, trent):
            stranger.events.clear()
            is_shut(stranger)
            assert stranger.events == []
        eventually(lambda: house.chats[0].online("staff") == ["boss"])


def test_what_the_chat_s_clients_say_reaches_no_plain_connection(house: House) -> None:
    mallory = Quick(house.here, "mallory")
    mallory.ask("join", room="staff")
    with house.staff() as staff:
        refs = [
            mallory.put("say", room="staff", data="raw", mid=f"{n}") for n in range(50)
        ]
        mallory.put("tell", to="boss", data="raw", mid="t")
        for ref in refs:
            mallory.reply(ref)
        mallory.reply(refs[-1] + 1)
        house.chats[0].broadcast("end", room="staff")
        house.chats[0].send_to_user("boss", "of all")
        assert [staff.recv(DEADLINE) for _ in "12"] == ["end", "of all"]


def test_the_application_still_speaks_in_the_chat_s_rooms(house: House) -> None:
    ann = Quick(house.here, "ann")
    with house.staff():
        ann.ask("join", room="Lobby")
        assert house.chats[-1].broadcast("hello", room="Lobby") == 1
        event = ann.expect("message", room="Lobby")
        assert (event["data"], event["seq"], event["from"]) == ("hello", 1, None)
        ann.ask("say", room="Lobby", data="hi", mid="1")
        entries = house.chats[-1].history("Lobby")
        assert [(entry.sender, entry.seq) for entry in entries] == [
            (None, 1),
            ("ann", 2),
        ]


def test_a_listener_of_the_chat_does_not_join_such_a_room(
    make_chat: Make, serve: Serve, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Eager(ChatListener):
        def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
            super().on_open(ws)
            ws.join("staff")

    chat = make_chat(Eager)
    add_routes(chat)
    server = serve(chat._app())
    with server.connect("/staff/staff?user=boss") as staff:
        assert staff.recv(DEADLINE) == "in"
        mallory = Quick(server, "mallory")
        with pytest.raises(ConnectionClosed) as end:
            mallory.client.recv(DEADLINE)
        assert end.value.rcvd is not None and end.value.rcvd.code == 1011
        assert "plain_rooms = True" in caplog.text
        assert chat.online("staff") == ["boss"]


def test_rooms_are_shared_on_purpose(make: Callable[..., House]) -> None:
    house = make(Shared)
    ann = Quick(house.here, "ann")
    ann.ask("join", room="staff")
    with house.staff() as staff:
        ann.expect("presence", joined=["boss"])
        ann.ask("say", room="staff", data={"n": 1}, mid="1")
        assert staff.recv(DEADLINE) == '{"n":1}'
        staff.send("raw")
        assert staff.recv(DEADLINE) == "raw"
        assert [ann.expect("message")["data"] for _ in "12"] == [{"n": 1}, "raw"]
        ben = Quick(house.there, "ben")
        page = ben.ask("join", room="staff")
        assert [message["data"] for message in page["messages"]] == [{"n": 1}, "raw"]
        assert page["present"] == ["ann", "ben", "boss"]
        assert ann.ask("who", room="staff")["present"] == ["ann", "ben", "boss"]
        assert not any(event["type"] == "gap" for event in ann.events)


@pytest.mark.parametrize("size", [0, 5])
def test_a_claim_lasts_as_long_as_somebody_is_there(
    make: Callable[..., House], size: int
) -> None:
    house = make(HISTORY_TTL=0.4, HISTORY_SIZE=size)
    mallory = Quick(house.here, "mallory")
    with house.staff():
        first = house.chats[0].broadcast("secret", room="staff")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert mallory.fail("join", room="staff")["code"] == "forbidden"
            threading.Event().wait(0.02)
        assert first in (0, 1)


@pytest.mark.slow
@pytest.mark.timeout(30)
def test_no_moment_lets_a_stranger_hear(house: House) -> None:
    """They join again and again, while the first plain connection comes and is told."""
    heard: list[str] = []
    done = threading.Event()

    def knock(server: LiveServer) -> None:
        stranger = Quick(server, "mallory")
        while not done.is_set():
            for kind in ("join", "history", "who", "say"):
                more = {"data": "raw", "mid": "m"} if kind == "say" else {}
                reply = stranger.reply(stranger.put(kind, room=room_names[-1], **more))
                heard.append(json.dumps(reply))
        heard.extend(map(json.dumps, stranger.events))

    def tell() -> None:
        try:
            for number in range(20):
                room_names.append(f"staff-{number}")
                with house.staff(room_names[-1]) as staff:
                    for chat in house.chats:
                        chat.broadcast("secret kept", room=room_names[-1])
                        chat.broadcast("secret", room=room_names[-1], key="k")
                    staff.send("secret end")
                    told = ""
                    while told != "secret end":
                        told = str(staff.recv(DEADLINE))
                        assert told.startswith("secret"), "a stranger spoke raw"
        finally:
            done.set()

    room_names = ["staff"]
    in_threads(tell, *[functools.partial(knock, s) for s in house.servers * 2])
    assert len(heard) > 100
    assert [e for e in heard if "secret" in e or "boss" in e] == []


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_a_storage_that_forgets_opens_no_room(house: House, url: str) -> None:
    def is_claimed() -> bool:
        return house.chats[0]._hub().backend.history(STAFF).plain

    with house.staff() as staff, redis.Redis.from_url(url) as storage:
        same, other = Quick(house.there, "mallory"), Quick(house.here, "trent")
        storage.flushall()
        assert same.fail("join", room="staff")["code"] == "forbidden"
        eventually(is_claimed)
        storage.flushall()
        # Its process can't know it, until it is told: before the reply, or after it.
        reply = other.reply(other.put("join", room="staff"))
        if reply["ok"]:
            other.expect("gap", room="staff")
        else:
            assert reply["error"]["code"] == "forbidden"
        eventually(is_claimed)
        storage.flushall()
        house.chats[0].broadcast("secret 1", room="staff")
        assert staff.recv(DEADLINE) == "secret 1"
        eventually(is_claimed)
        for stranger in (same, other):
            is_shut(stranger)
