"""Who is in a room, as its clients are told: right for all, and bounded in size."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import redis

from flask_wschat import ChatListener, WSChat
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.errors import BackendError
from flask_wschat.hub import rosters
from flask_wschat.hub.hub import Hub
from flask_wschat.messages import Attendance, Delivery, News, room_topic, user_topic
from flask_wschat.settings import Settings
from tests.support.chat_client import Json
from tests.support.following import Quick, in_threads, make_chat, url
from tests.support.in_memory import Reader
from tests.support.live import LiveServer, Serve
from tests.support.waiting import eventually

__all__ = ["make_chat", "url"]

ROOM = room_topic("a")
OBSERVERS, FLAPPING, TURNS = 40, 8, 25


class Observer(Quick):
    """Keeps a list by the reply to its join and what came after it."""

    def __init__(self, server: LiveServer, user: str) -> None:
        super().__init__(server, user)
        reply = self.ask("join", room="Lobby")
        # What came before the reply is older.
        self.events.clear()
        self.people = set(reply["present"])
        self.heard: list[Json] = []

    def follow(self) -> set[str]:
        self.ask("ping")
        for event in self.events:
            if event["type"] == "presence":
                self.people = after(self.people, event)
        self.heard += self.events
        self.events.clear()
        return self.people


def after(people: set[str], news: Json) -> set[str]:
    """Return who is there after ``news``, as docs/protocol.md tells clients to do."""
    if "joined" in news:
        return (people | set(news["joined"])) - set(news["left"])
    return set(news.get("present", ()))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
def test_many_come_and_go_and_every_observer_is_right(
    make_chat: Callable[..., WSChat], serve: Serve, url: str
) -> None:
    chats = [make_chat() for _ in "12"]
    servers = [serve(chat._app()) for chat in chats]
    observers: list[Observer] = []

    def flap(number: int) -> None:
        chance = random.Random(number)
        tabs = [Quick(server, f"u{number}") for server in servers]
        for _ in range(TURNS):
            tab = chance.choice(tabs)
            tab.ask(chance.choice(["join", "leave"]), room="Lobby")
        chance.choice(tabs).client.close_socket()  # the other one stays, or is out

    def watch(number: int) -> None:
        for turn in range(OBSERVERS // 4):
            server = servers[(number + turn) % 2]
            observers.append(Observer(server, f"o{number}.{turn}"))

    calls: list[Callable[[], None]] = []
    for number in range(FLAPPING):
        calls.append(lambda number=number: flap(number))  # type: ignore[misc]
    for number in range(4):
        calls.append(lambda number=number: watch(number))  # type: ignore[misc]
    in_threads(*calls)

    def wrong() -> list[tuple[str, set[str]]]:
        truth = set(chats[0].online("Lobby")) | {str(each.user) for each in observers}
        differ = ((str(o.user), o.follow() ^ truth) for o in observers)
        return [(user, people) for user, people in differ if people]

    assert len(observers) == OBSERVERS
    eventually(lambda: not wrong(), lambda: str(wrong()))
    for chat in chats:
        for observer in observers[:3]:
            assert set(chat.online("Lobby")) == observer.people


# -- one process, step by step


class Store(MemoryBackend):
    """Its news may be lost, and it can be made to say anything."""

    def __init__(self) -> None:
        super().__init__()
        self.says: Attendance | None = None
        self.down = False
        self.reads = 0

    def attend(self, changes: Sequence[tuple[str, str, int]]) -> None:
        if self.down:
            raise BackendError("down")
        super().attend(changes)

    def present(self, topic: str, *, heard: bool = False) -> Attendance:
        if self.down:
            raise BackendError("down")
        self.reads += 1
        return self.says or super().present(topic)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def hub(store: Store) -> Hub:
    return Hub(Settings(), store, dumps=json.dumps, loads=json.loads)


def present(hub: Hub) -> list[str]:
    text, _ = hub.presence.rosters.answer(ROOM)
    people: list[str] = json.loads("{" + text[1:] + "}")["present"]
    return people


def tell(hub: Hub, version: int, joined: str = "", left: str = "") -> None:
    """Deliver what another process has done."""
    news = News(joined.split(), left.split(), version)
    hub.deliver(Delivery(ROOM, news.as_message()))


def told(reader: Reader) -> list[Json]:
    """Return the news that ``reader`` got since it was asked last."""
    events = [json.loads(str(event)) for event in reader.peer.events]
    reader.peer.events.clear()
    return [event for event in events if event["type"] == "presence"]


@pytest.fixture
def watcher(hub: Hub, store: Store) -> Reader:
    """Somebody in a room with cy and dan, who are elsewhere; as of version 7."""
    store.says = Attendance(7, {"cy": 1, "dan": 1}, {})
    watcher = Reader(hub)
    watcher.read(0)
    assert (present(hub), store.reads) == (["cy", "dan"], 1)
    return watcher


def test_news_is_applied_in_its_order_without_a_read(
    hub: Hub, store: Store, watcher: Reader
) -> None:
    tell(hub, 7, joined="old")
    tell(hub, 8, joined="eve", left="cy")
    assert (present(hub), store.reads) == (["dan", "eve"], 1)
    (news,) = told(watcher)
    assert (news["joined"], news["left"]) == (["eve"], ["cy"])


def test_where_news_is_missing_it_is_read_again(
    hub: Hub, store: Store, watcher: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rosters, "_AGAIN", 0)
    store.says = Attendance(9, {"dan": 1, "eve": 1}, {})
    tell(hub, 9, left="cy")
    # Of cy nobody knows whether they went or were forgotten: they have some time.
    assert (present(hub), store.reads) == (["cy", "dan", "eve"], 2)
    loop = watcher.ws._transport.loop
    hub.presence.tick(loop, time.monotonic())
    assert present(hub) == ["cy", "dan", "eve"]
    hub.presence.tick(loop, time.monotonic() + rosters.GRACE + 1)
    assert present(hub) == ["dan", "eve"]
    assert [(e["joined"], e["left"]) for e in told(watcher)] == [
        (["eve"], []),
        ([], ["cy"]),
    ]


def test_a_storage_that_forgot_everybody_takes_nobody_out(
    hub: Hub, store: Store, watcher: Reader
) -> None:
    Reader(hub, "ann").read(0)
    told(watcher)
    store.says = Attendance(1_000_000, {}, {})
    hub.lost(None)
    assert present(hub) == ["ann", "cy", "dan"]
    tell(hub, 1_000_001, joined="dan cy")
    tell(hub, 1_000_002, left="dan ann")  # she is here
    assert present(hub) == ["ann", "cy"]
    changes = [(e["joined"], e["left"]) for e in told(watcher)]
    assert changes == [(["ann"], []), ([], ["dan"])]


def test_an_outage_is_over_by_itself(hub: Hub, store: Store, watcher: Reader) -> None:
    store.down = True
    hub.lost([ROOM])
    tell(hub, 8, joined="eve")
    assert present(hub) == ["cy", "dan"]
    store.down, store.says = False, Attendance(8, {"cy": 1, "dan": 1, "eve": 1}, {})
    hub.presence.tick(watcher.ws._transport.loop, time.monotonic())
    assert present(hub) == ["cy", "dan", "eve"]
    tell(hub, 9, joined="fay")
    assert present(hub) == ["cy", "dan", "eve", "fay"]


def test_who_was_answered_in_between_is_told_of_who_is_gone_again(
    hub: Hub, store: Store, watcher: Reader
) -> None:
    for version in range(8, 8 + rosters.NEWS):
        tell(hub, version, joined=f"u{version}")
    told(watcher)
    tell(hub, 12, joined="eve")
    assert "eve" in present(hub) and not told(watcher)  # it is to be told soon
    tell(hub, 13, left="eve")
    roster = hub.presence.rosters._rosters[ROOM]
    hub.presence.rosters._tell(roster, ROOM)
    (news,) = told(watcher)
    assert (news["joined"], news["left"]) == ([], ["eve"])


def test_of_many_the_number_is_told(hub: Hub, store: Store, watcher: Reader) -> None:
    loop = watcher.ws._transport.loop
    hub.presence.rosters.know(loop, ROOM, 3)
    tell(hub, 8, joined="eve")
    tell(hub, 9, joined="fay")
    assert hub.presence.rosters.answer(ROOM) == (',"count":4', 4)
    tell(hub, 10, left="cy")
    few = ["dan", "eve", "fay"]
    changes = [{k: v for k, v in e.items() if k != "room"} for e in told(watcher)]
    assert changes == [
        {"type": "presence", "joined": ["eve"], "left": []},
        {"type": "presence", "count": 4},
        {"type": "presence", "count": 3, "present": few},
    ]
    page = hub.presence.rosters.page
    assert page(ROOM, None, 2) == (["dan", "eve"], 3, True)
    assert page(ROOM, "eve", 9) == (["fay"], 3, False)
    assert page(ROOM, "zoe", None) == ([], 3, False)


# -- what the ready-made chat makes of it


class Small(ChatListener):
    max_present = 2

    def has_presence(self, room: str) -> bool:
        return room != "quiet"


@pytest.fixture
def server(make_chat: Callable[..., WSChat], serve: Serve) -> Iterator[LiveServer]:
    yield serve(make_chat(Small)._app())


@pytest.mark.parametrize("url", ["memory", "redis"], indirect=True)
def test_names_over_a_size_come_in_pages(server: LiveServer) -> None:
    ann, ben = Quick(server, "ann"), Quick(server, "ben")
    assert ann.ask("join", room="a")["present"] == ["ann"]
    reply = ben.ask("join", room="a")
    assert (reply["present"], reply["count"]) == (["ann", "ben"], 2)
    cy = Quick(server, "cy")
    reply = cy.ask("join", room="a")
    assert (reply.get("present"), reply["count"]) == (None, 3)
    assert ann.expect("presence", count=3).keys() == {"type", "room", "count"}
    names: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = cy.ask("who", room="a", limit=1, **after)
        names += page["present"]
        after["after"] = names[-1]
        assert page["count"] == 3 and len(page["present"]) == 1
        if not page["more"]:
            break
    assert names == ["ann", "ben", "cy"]
    cy.client.close()
    assert ann.expect("presence", count=2)["present"] == ["ann", "ben"]


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_room_without_presence_notes_nobody(server: LiveServer) -> None:
    ann, ben = Quick(server, "ann"), Quick(server, "ben")
    for each in (ann, ben):
        reply = each.ask("join", room="quiet")
        assert not {"present", "count"} & reply.keys()
    assert ben.fail("who", room="quiet")["code"] == "forbidden"
    ben.ask("say", room="quiet", data="hello", mid="1")
    assert ann.expect("message")["data"] == "hello"
    ben.client.close()
    ann.ask("ping")
    assert [event for event in ann.events if event["type"] == "presence"] == []


def test_a_room_that_is_quiet_now_has_nobody_from_before(
    hub: Hub, store: Store
) -> None:
    """Who was to be noted when the storage was away, and is there again unnoted."""
    store.down = True
    ann = Reader(hub, "ann")
    hub.leave(ann.ws, "a")
    hub.rooms.enter(ann.ws, "a", quiet=True)
    store.down = False
    loop = hub.home.loop
    assert loop is not None
    hub.presence.tick(loop, 0.0)
    assert store.present(user_topic("ann")).users == {"ann": 1}
    assert store.present(ROOM).users == {}


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_a_redis_that_forgets_all_takes_nobody_out(
    make_chat: Callable[..., WSChat], serve: Serve, url: str
) -> None:
    here, there = (serve(make_chat()._app()) for _ in "12")
    ann, ben = Observer(here, "ann"), Observer(there, "ben")
    eventually(lambda: ann.follow() == ben.follow() == {"ann", "ben"})
    with redis.Redis.from_url(url) as storage:
        storage.flushall()
    cy = Observer(there, "cy")
    everybody = {"ann", "ben", "cy"}
    eventually(lambda: ann.follow() == ben.follow() == cy.follow() == everybody)
    gone = [e for o in (ann, ben, cy) for e in o.heard if e.get("left")]
    assert gone == []
    eventually(lambda: ann.ask("who", room="Lobby")["present"] == sorted(everybody))
