"""The chat beside a model of it that fits on a page: whatever people do, in any order.

People join, leave, speak, write to each other and vote; their connections are cut and
come back; processes end and are replaced. Whatever comes of that is compared with lists
of what was acknowledged.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from flask import Flask
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flask_wschat import ChatListener, WSChat
from flask_wschat.errors import ConnectionClosed
from flask_wschat.testing import WSChatClient, WSChatSession
from flask_wschat.transports import ending
from tests.support.chat_client import Json
from tests.support.redis_server import RedisServer
from tests.support.waiting import DEADLINE, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEPT = 6
"""Messages of a room that are kept; who misses more is told so."""
USERS = ["ann", "ann", "ben", "cat"]
"""Of each connection: one user has two."""
ROOMS = ["a", "b"]
CHOICES = ["green", "black"]

some, rooms = st.integers(0, 11), st.sampled_from(ROOMS)
Topic = tuple[str, str]
"""``("room", its name)`` or ``("inbox", whose)``."""


class Server:
    """One process, as it were."""

    def __init__(self, url: str) -> None:
        app = Flask("a_process")
        app.config.update(
            WSCHAT_URL=url,
            WSCHAT_HISTORY_SIZE=KEPT,
            WSCHAT_INBOX_SHARE=1,
            WSCHAT_RATE_LIMIT=None,
        )
        self.chat = WSChat(app)
        self.chat.poll("Tea", CHOICES)

        @self.chat.listener("/chat")
        class Chat(ChatListener):
            def can_join(self, user: str | None, room: str) -> bool:
                return True

        self.client = WSChatClient(app)

    def is_calm(self) -> bool:
        """Nobody is there, and the storage knows."""
        hub = self.chat._hub()
        return hub.count() == 0 and not hub.is_busy()

    def stop(self) -> None:
        """Let go of the storage."""
        self.chat._hub().backend.stop()

    def end(self) -> None:
        """Do as a process that was killed: nobody tells the storage who is gone."""
        self.stop()
        vars(ending)["_open"].discard(
            self.chat._hub()
        )  # nor at the end of this process


class Topics:
    """What one who follows the protocol's page has of one topic."""

    def __init__(self) -> None:
        self.at: Json = {}
        """The position: ``after``, ``epoch`` and ``tag``."""
        self.shown: dict[int, Any] = {}
        """By number: what was shown, each once."""
        self.told = False
        """A gap, and not read again since."""


class Person:
    """Somebody with one connection, or none just now."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.server: Server | None = None
        self.rooms: set[str] = set()
        self.topics: dict[Topic, Topics] = {}
        self.present: dict[str, set[str]] = {}
        self._stack = contextlib.ExitStack()
        self._session: WSChatSession | None = None
        self._replies: dict[int, Json] = {}
        self._ref = 0

    # -- the connection

    def connect(self, server: Server) -> None:
        self.server = server
        self._session = self._stack.enter_context(
            server.client.connect("/chat", user=self.name)
        )
        self.hear()
        self.read("inbox", self.name)
        for room in sorted(self.rooms):
            self.read("room", room)

    def cut(self) -> None:
        assert self._session is not None
        self._session.vanish()
        self._session = self.server = None
        with contextlib.suppress(ConnectionClosed):
            self._stack.close()
        self._replies.clear()

    # -- what it asks

    def put(self, kind: str, **fields: Any) -> int:
        assert self._session is not None
        self._ref += 1
        self._session.send({"type": kind, "ref": self._ref, **fields})
        return self._ref

    def reply(self, ref: int) -> Json:
        while ref not in self._replies:
            self.hear()
        return self._replies.pop(ref)

    def ask(self, kind: str, **fields: Any) -> Json:
        return self.reply(self.put(kind, **fields))

    def read(self, kind: str, name: str) -> None:
        """Read a topic from where it was read before, or from its newest on."""
        topic = self.topics.setdefault((kind, name), Topics())
        before = dict(topic.at)
        page: Json = {"more": True}
        while page["more"]:
            topic.told = False
            asked = {"room": name} if kind == "room" else {}
            ref = self.put("join" if kind == "room" else "inbox", **asked, **topic.at)
            page = self.reply(ref)
            assert page["ok"], page
            if not page["recovered"]:
                assert (
                    topic.at == {}
                    or page["epoch"] != before["epoch"]
                    or (page["seq"] - before["after"] > KEPT)
                ), f"nothing was missed: {before}, {page}"
                topic.shown.clear()
                first = page["seq"] - len(page["messages"]) + 1
                tag = page["tag"]
                topic.at = {"after": first - 1, "epoch": page["epoch"], "tag": tag}
            for message in page["messages"]:
                self.show(topic, message)
            assert page["more"] or topic.at["after"] >= page["seq"]
        if kind == "room":
            self.present[name] = set(page["present"])

    # -- what it hears

    def hear(self, seconds: float = DEADLINE) -> None:
        assert self._session is not None
        event = json.loads(self._session.receive(seconds))
        kind = event["type"]
        if kind == "reply":
            self._replies[event["ref"]] = event
        elif kind == "message" and event["room"] in self.rooms:
            self.show(self.topics["room", event["room"]], event)
        elif kind == "direct":
            self.show(self.topics["inbox", self.name], event)
        elif kind == "gap":
            name = event["room"]
            key = ("inbox", self.name) if name is None else ("room", name)
            self.topics[key].told = True
        elif kind == "presence" and event["room"] in self.present:
            present = self.present[event["room"]]
            present |= set(event["joined"])
            present -= set(event["left"])

    def show(self, topic: Topics, message: Json) -> None:
        seq = message["seq"]
        if seq <= topic.at["after"]:
            return  # a page and what is live may both have it
        assert seq == topic.at["after"] + 1, "a hole that nobody was told of"
        topic.at |= {"after": seq, "tag": message.get("tag", "")}
        topic.shown[seq] = [message["from"], message["data"]]

    def hear_all(self, logs: dict[Topic, list[Any]]) -> None:
        """Hear what there is; fail where it is not what was acknowledged."""
        self.ask("ping")
        for key in [("inbox", self.name), *(("room", room) for room in self.rooms)]:
            topic, log = self.topics[key], logs.get(key, [])
            while topic.told or topic.at["after"] < len(log):
                if topic.told:
                    self.read(*key)
                else:
                    self.hear()
            assert topic.at["after"] == len(log)
            assert topic.shown == {seq: log[seq - 1] for seq in topic.shown}


T = TypeVar("T")


def one_of(those: list[T], number: int) -> T:
    return those[number % len(those)]


class Chat(RuleBasedStateMachine):
    """The rules; ``url`` says where the messages are, ``processes`` how many share."""

    url = "memory://"
    processes = 1
    fresh: Callable[[], str]
    """Return the URL of a storage that has nothing."""

    def __init__(self) -> None:
        super().__init__()
        url = type(self).fresh()
        self.new_server: Callable[[], Server] = functools.partial(Server, url)
        self.servers = [self.new_server() for _ in range(self.processes)]
        self.people = [Person(user) for user in USERS]
        self.logs: dict[Topic, list[Any]] = {}
        self.votes: dict[str, str] = {}
        self.ended = False
        self.count = 0

    def teardown(self) -> None:
        try:
            for person in self.connected():
                person.cut()
        finally:
            for server in self.servers:
                eventually(server.is_calm)
                server.stop()

    def connected(self) -> list[Person]:
        return [person for person in self.people if person.server is not None]

    def away(self) -> list[Person]:
        return [person for person in self.people if person.server is None]

    def members(self, room: str) -> list[Person]:
        return [person for person in self.connected() if room in person.rooms]

    def acknowledged(self, topic: Topic, reply: Json, sender: str, data: Any) -> None:
        assert reply["ok"], reply
        log = self.logs.setdefault(topic, [])
        log.append([sender, data])
        assert reply["seq"] == len(log), "numbered with a hole, or stored twice"

    # -- what people do

    @initialize()
    def begin(self) -> None:
        for number, person in enumerate(self.people):
            person.connect(self.servers[number % self.processes])
            person.rooms.add("a")
            person.read("room", "a")

    @precondition(lambda self: self.away())
    @rule(which=some, index=some)
    def connect(self, which: int, index: int) -> None:
        one_of(self.away(), which).connect(one_of(self.servers, index))

    @precondition(lambda self: self.connected())
    @rule(which=some)
    def cut(self, which: int) -> None:
        one_of(self.connected(), which).cut()

    @precondition(lambda self: self.connected())
    @rule(which=some, room=rooms)
    def join(self, which: int, room: str) -> None:
        person = one_of(self.connected(), which)
        person.rooms.add(room)
        person.read("room", room)

    @precondition(lambda self: self.connected())
    @rule(which=some, room=rooms)
    def leave(self, which: int, room: str) -> None:
        person = one_of(self.connected(), which)
        assert person.ask("leave", room=room)["ok"]
        person.rooms.discard(room)
        person.present.pop(room, None)
        refused = person.ask("say", room=room, data="no", mid="0")
        assert refused["error"]["code"] == "not_joined"

    @rule(which=st.lists(some, min_size=1, max_size=KEPT + 2), room=rooms)
    def say(self, which: list[int], room: str) -> None:
        """All at the same time."""
        if not (members := self.members(room)):
            return
        asked = []
        for number in which:
            person = one_of(members, number)
            self.count += 1
            ref = person.put("say", room=room, data=self.count, mid=str(self.count))
            asked.append((person, ref, self.count))
        replies = [(each.reply(ref), each.name, data) for each, ref, data in asked]
        for reply, name, data in sorted(replies, key=lambda each: each[0]["seq"]):
            self.acknowledged(("room", room), reply, name, data)

    @rule(which=some, room=rooms, index=some)
    def say_and_be_cut(self, which: int, room: str, index: int) -> None:
        """Say it again after coming back, as it was not acknowledged."""
        if not (members := self.members(room)):
            return
        person = one_of(members, which)
        self.count += 1
        said = {"room": room, "data": self.count, "mid": str(self.count)}
        person.put("say", **said)
        person.cut()
        person.connect(one_of(self.servers, index))
        reply = person.ask("say", **said)
        self.acknowledged(("room", room), reply, person.name, self.count)

    @precondition(lambda self: self.connected())
    @rule(which=some, to=st.sampled_from(USERS))
    def tell(self, which: int, to: str) -> None:
        person = one_of(self.connected(), which)
        self.count += 1
        reply = person.ask("tell", to=to, data=self.count, mid=str(self.count))
        assert reply["ok"], reply
        for owner in {person.name, to}:
            log = self.logs.setdefault(("inbox", owner), [])
            log.append([person.name, self.count])
        assert reply["seq"] == len(self.logs["inbox", person.name])

    @precondition(lambda self: self.connected())
    @rule(which=some, choice=st.sampled_from(CHOICES))
    def vote(self, which: int, choice: str) -> None:
        person = one_of(self.connected(), which)
        self.votes[person.name] = choice
        counts = {each: list(self.votes.values()).count(each) for each in CHOICES}
        assert person.ask("vote", poll="Tea", choice=choice)["counts"] == counts

    @precondition(lambda self: self.processes > 1)
    @rule(index=some)
    def end_a_process(self, index: int) -> None:
        """Its people are cut off, and nobody announces it."""
        ended = self.servers[index := index % self.processes]
        ended.end()
        for person in self.connected():
            if person.server is ended:
                person.cut()
        self.ended = True
        self.servers[index] = self.new_server()

    # -- what has to hold

    @invariant()
    def all_have_what_was_acknowledged(self) -> None:
        for person in self.connected():
            person.hear_all(self.logs)

    def wait_for_who(self, person: Person, room: str, there: list[str]) -> None:
        """Who has just gone may be told of until the backend knows it."""
        eventually(
            lambda: person.ask("who", room=room)["present"] == there,
            f"{person.name} sees {there} in {room}",
        )

    @rule()
    def people_see_who_is_there(self) -> None:
        for room in ROOMS:
            there = sorted({person.name for person in self.members(room)})
            for server in self.servers:
                online = functools.partial(server.chat.online, room)
                eventually(lambda: online() == there, f"{there} are in {room}")  # noqa: B023
            for person in self.members(room):
                self.wait_for_who(person, room, there)
                while not self.ended and person.present[room] != set(there):
                    person.hear()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
@pytest.mark.pain(15)
def test_the_chat_is_what_its_model_says(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = 0

    def fresh() -> str:
        nonlocal made
        made += 1
        if kind == "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            with server.client() as client:
                client.flushall()
            return server.url
        return "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/{made}.db"

    machine = type(
        "Chat",
        (Chat,),
        {"fresh": staticmethod(fresh), "processes": 1 if kind == "memory" else 2},
    )
    examples = hypothesis.settings().max_examples // 10
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(machine, settings=settings)
