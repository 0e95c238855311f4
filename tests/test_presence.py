"""Who is in a room: users, over processes that come, go and die."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.backends.redis.backend import RedisBackend
from flask_wschat.backends.sqlite.backend import SQLiteBackend
from flask_wschat.errors import BackendError
from flask_wschat.hub.hub import Hub
from flask_wschat.hub.presence import Presence
from flask_wschat.messages import EVERYONE, Attendance, room_topic, user_topic
from flask_wschat.settings import Settings
from tests.support.in_memory import Reader, another
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

ROOM = room_topic("a")


class Store(MemoryBackend):
    """Says what it is told, and what another process would make it say."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[list[tuple[str, str, int]]] = []
        self.others: dict[str, dict[str, int]] = {}
        self.refreshed: list[bool] = []
        self.calls = 0
        self.down = self.deaf = False
        self.asked: list[str] = []

    def attend(self, changes: Sequence[tuple[str, str, int]]) -> None:
        self._check()
        self.told.append(list(changes))
        super().attend(changes)
        if self.deaf:
            raise BackendError("the answer was lost")

    def present(self, topic: str, *, heard: bool = False) -> Attendance:
        self._check()
        self.asked.append(topic)
        there = super().present(topic)
        users = Counter(there.users) + Counter(self.others.get(topic, {}))
        return there._replace(users=dict(users))

    def refresh(self) -> bool:
        self._check()
        self.calls += 1
        return self.refreshed.pop() if self.refreshed else False

    def _check(self) -> None:
        if self.down:
            raise BackendError("down")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def hub(store: Store) -> Hub:
    return Hub(Settings(), store, dumps=json.dumps, loads=json.loads)


def news(reader: Reader) -> list[tuple[list[str], list[str]]]:
    """Return who joined and who left, as ``reader`` was told."""
    events = [json.loads(str(event)) for event in reader.peer.events]
    assert all(e["room"] == "a" for e in events)
    return [(e["joined"], e["left"]) for e in events if e["type"] == "presence"]


def test_users_come_and_go_once_whatever_their_tabs(hub: Hub) -> None:
    watcher = Reader(hub)
    watcher.read(0)
    tabs = [Reader(hub, "ann") for _ in range(3)]
    plain, plain_peer = another(hub, "ann")
    plain.join("a")
    assert news(watcher) == [(["ann"], [])]
    assert hub.presence.online(ROOM) == ["ann"]
    assert hub.presence.connections("ann") == 4
    for tab in tabs:
        tab.peer.close()
    assert news(watcher) == [(["ann"], [])]
    plain_peer.close()
    assert news(watcher) == [(["ann"], []), ([], ["ann"])]
    assert hub.presence.online(ROOM) == hub.presence.online(EVERYONE) == []
    assert hub.presence.connections("ann") == 0


def test_plain_connections_get_no_news(hub: Hub) -> None:
    plain, peer = another(hub, "ann")
    plain.join("a")
    Reader(hub, "ben")
    assert peer.events == []


def test_the_backend_is_told_counts(hub: Hub, store: Store) -> None:
    ann, peer = another(hub, "ann")
    another(hub, "ann")
    ann.join("a")
    peer.close()
    last: dict[Any, int] = {}
    for topic, user, count in itertools.chain(*store.told):
        last[topic, user] = count
    assert last == {
        (EVERYONE, "ann"): 1,
        (user_topic("ann"), "ann"): 1,
        (ROOM, "ann"): 0,
    }
    told = len(store.told)
    nobody, _ = another(hub)
    nobody.join("a")
    assert len(store.told) == told


def test_changes_gather_while_the_backend_is_busy(store: Store) -> None:
    tasks: list[Callable[[], Any]] = []

    class Loop:
        """One whose tasks wait to be run by the test."""

        def run_own(self, task: Callable[[], Any]) -> None:
            tasks.append(task)

        def call(self, function: Callable[..., Any], *args: Any) -> Any:
            return function(*args)

    class Members:
        def count_of(self, user: str, topic: str) -> int:
            return 1

    loop: Any = Loop()
    hub = Hub(Settings(), store, dumps=json.dumps, loads=json.loads)
    members: Any = Members()
    presence = Presence(members, hub.feeds, store, hub.home, hub.event, 45)
    for number in range(1200):
        presence.changed(loop, ROOM, f"u{number}")
    assert presence.busy and len(tasks) == 1
    tasks.pop()()
    assert [len(changes) for changes in store.told] == [500, 500, 200]
    assert not presence.busy


def test_who_was_noted_though_the_answer_was_lost_is_heard_of_once(
    hub: Hub, store: Store
) -> None:
    watcher = Reader(hub)
    watcher.read(0)
    loop = watcher.ws._transport.loop
    store.deaf = True
    ann = Reader(hub, "ann")
    for store.deaf in (True, True, False):
        hub.presence.tick(loop, 0)
        assert news(watcher) == [(["ann"], [])]
    store.deaf = True
    ann.peer.close()
    for store.deaf in (True, True, False):
        hub.presence.tick(loop, 0)
    assert news(watcher) == [(["ann"], []), ([], ["ann"])]


def test_a_backend_that_fails_is_told_later_and_logged_once(
    hub: Hub, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Reader(hub)
    watcher.read(0)
    store.down = True
    ann = Reader(hub, "ann")
    Reader(hub, "ben")
    ann.peer.close()
    loop = watcher.ws._transport.loop
    assert hub.presence.tick(loop, 0)
    assert hub.presence.tick(loop, 0)
    assert caplog.text.count("presence cannot be told now: down") == 1
    assert news(watcher) == []
    with pytest.raises(BackendError):
        hub.presence.online(ROOM)
    store.down = False
    assert not hub.presence.tick(loop, 0)
    assert news(watcher) == [(["ben"], [])]
    assert hub.presence.online(ROOM) == ["ben"]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_a_name_that_no_backend_takes_is_left_out_alone(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Today's names all can be kept; this is for one that comes in some other way."""
    backend: Any = Store()
    redis: RedisServer | None = None
    if kind == "sqlite":
        backend = SQLiteBackend(tmp_path / "db")
    elif kind == "redis":
        redis = RedisServer()
        redis.start()
        backend = RedisBackend(redis.url)
    hub = Hub(Settings(), backend, dumps=json.dumps, loads=json.loads)
    try:
        watcher = Reader(hub)
        watcher.read(0)
        half, peer = another(hub, "\ud800")
        hub.rooms._enter(half, "a")
        Reader(hub, "ann")
        eventually(lambda: (["ann"], []) in news(watcher))
        peer.close()
        Reader(hub, "ben")
        eventually(lambda: (["ben"], []) in news(watcher))
        eventually(lambda: not hub.presence.busy)
        assert hub.presence.online(ROOM) == ["ann", "ben"]
        caplog.text.encode()
    finally:
        backend.stop()
        if redis is not None:
            redis.stop()


def test_the_sweep_refreshes(hub: Hub, store: Store) -> None:
    watcher = Reader(hub)
    watcher.read(0)
    loop = watcher.ws._transport.loop
    far = 1e9
    hub.presence.tick(loop, far)
    assert (
        store.calls == 0
    )  # nobody is here: none the backend knows, none to hear of it
    hub.presence.tick(loop, far, watched=True)
    assert store.calls == 1
    store.calls = 0
    Reader(hub, "ann")
    hub.presence.tick(loop, far + 20)
    hub.presence.tick(loop, far + 21)
    assert store.calls == 1
    hub.presence.tick(loop, far + 40)
    assert store.calls == 2
    store.down = True
    hub.presence.tick(loop, far + 60)
    store.down = False
    hub.presence.tick(loop, far + 61)  # at once, not when it would be time again
    assert store.calls == 3


def test_who_was_taken_for_dead_tells_all_again(hub: Hub, store: Store) -> None:
    watcher = Reader(hub)
    watcher.read(0)
    Reader(hub, "ann")
    plain, _ = another(hub, "ben")
    plain.join("b")
    store.told.clear()
    store.refreshed = [True]
    hub.presence.tick(watcher.ws._transport.loop, 1e9)
    assert sorted(itertools.chain(*store.told)) == [
        (EVERYONE, "ann", 1),
        (EVERYONE, "ben", 1),
        (ROOM, "ann", 1),
        (room_topic("b"), "ben", 1),
        (user_topic("ann"), "ann", 1),
        (user_topic("ben"), "ben", 1),
    ]


def test_people_of_other_processes_count(hub: Hub, store: Store) -> None:
    another(hub, "ben")
    store.others = {
        EVERYONE: {"ann": 2, "ben": 1},
        user_topic("ann"): {"ann": 2},
        user_topic("ben"): {"ben": 1},
    }
    assert hub.presence.online(EVERYONE) == ["ann", "ben"]
    assert hub.presence.connections("ann") == 2
    assert hub.presence.connections("ben") == 2


def test_who_asks_for_one_user_reads_one(hub: Hub, store: Store) -> None:
    for number in range(100):
        another(hub, f"u{number}")
    store.others = {EVERYONE: {"ann": 1}, user_topic("ann"): {"ann": 1}}
    assert hub.presence.has("u7")
    assert store.asked == []
    assert hub.presence.has("ann") and not hub.presence.has("ben")
    assert store.asked == [user_topic("ann"), user_topic("ben")]


@pytest.fixture
def make_hub(tmp_path: Path) -> Iterator[Callable[[], Hub]]:
    """Make hubs of processes that share a file and are soon taken for dead."""
    hubs: list[Hub] = []

    def make() -> Hub:
        backend = SQLiteBackend(tmp_path / "db", presence_ttl=0.6)
        settings = Settings(PING_INTERVAL=0.3, PING_TIMEOUT=0.3)
        hubs.append(Hub(settings, backend, dumps=json.dumps, loads=json.loads))
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.backend.stop()


def test_a_dead_process_s_people_are_gone_in_time_and_nobody_else(
    make_hub: Callable[[], Hub],
) -> None:
    here, there = make_hub(), make_hub()
    ann, _ = another(here, "ann")
    ben, _ = another(there, "ben")
    ann.join("a")
    ben.join("a")
    assert here.presence.online(ROOM) == ["ann", "ben"]
    loop = ann._transport.loop
    # `there` never ticks again: it is as good as dead.
    seen: list[list[str]] = []

    def gone() -> bool:
        here.presence.tick(loop, 1e9 + len(seen))
        seen.append(here.presence.online(ROOM))
        return seen[-1] == ["ann"]

    eventually(gone)
    assert all("ann" in online for online in seen)
    # It was not dead after all: it is told, and all its people are back.
    there.presence.tick(ben._transport.loop, 1e9)
    assert here.presence.online(ROOM) == ["ann", "ben"]


def test_who_comes_after_a_silence_is_there_for_all(
    make_hub: Callable[[], Hub],
) -> None:
    here, there = make_hub(), make_hub()
    _, peer = another(here, "ben")
    peer.close()  # nobody is left, so nobody says that `here` lives
    another(there, "cem")
    eventually(lambda: not there.backend.present(EVERYONE, heard=True).users)
    here.presence._refresh_at = 0.0  # its time is over
    ann, _ = another(here, "ann")
    ann.join("a")
    assert there.presence.online(ROOM) == ["ann"]
