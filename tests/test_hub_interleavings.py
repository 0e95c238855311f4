"""Threads that open, join, leave and subscribe, switched at each line of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.errors import BackendError
from flask_wschat.hub import subscriptions
from flask_wschat.messages import Message, room_of, room_topic
from tests.support.interleaving import Explorer, Gate, Threads
from tests.support.stepped import Pair, SteppedLoop, loop, make_hub

__all__ = ["loop"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

FILES = ["hub/rooms.py", "hub/members.py", "hub/subscriptions.py"]


@pytest.fixture(scope="module")
def another_loop() -> Iterator[SteppedLoop]:
    loop = SteppedLoop()
    yield loop
    loop.stop()


@pytest.fixture
def explorer(loop: SteppedLoop) -> Explorer:
    return Explorer(loop, files=FILES)


def say(pair: Pair, room: str) -> list[Any]:
    """Speak in ``room``; return what the peer of ``pair`` has heard by then."""
    pair.hub.publish(room_topic(room), Message(f"in {room}"))
    pair.loop.settle()
    return pair.hear()


def test_who_has_joined_hears_the_room(explorer: Explorer, loop: SteppedLoop) -> None:
    def scenario() -> Threads:
        with Pair(loop) as one, Pair(loop, hub=one.hub) as other:
            joined: list[bool] = []

            def join(pair: Pair) -> None:
                joined.append(pair.ws.join("a"))
                # At once, and not as soon as the backend delivers.
                pair.hub.publish(room_topic("a"), Message(pair.ws.id))

            yield [lambda: join(one), lambda: join(other)]
            assert joined == [True, True]
            for pair in (one, other):
                assert pair.ws.id in pair.hear()

    explorer.explore(scenario)


def test_of_two_joins_and_leaves_of_one_each_is_told_once(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            ws, told = pair.ws, list[bool]()
            yield [lambda: told.append(ws.join("a"))] * 2
            assert sorted(told) == [False, True]
            assert ws.rooms == {"a"}
            assert say(pair, "a") == ["in a"]
            told.clear()

    def leaving() -> Threads:
        with Pair(loop) as pair:
            ws, told = pair.ws, list[bool]()
            loop.do(pair.hub.rooms._enter, ws, "a")
            yield [lambda: told.append(ws.leave("a"))] * 2
            assert sorted(told) == [False, True]
            assert not ws.rooms and not pair.hub.members.wants(room_topic("a"))

    explorer.explore(scenario)
    explorer.explore(leaving)


def test_who_joins_while_the_topic_is_given_up_hears_the_room(
    explorer: Explorer, loop: SteppedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "LINGER", 0.0)

    def scenario() -> Threads:
        with Pair(loop) as one, Pair(loop, hub=one.hub) as other:
            topics = one.hub._topics
            loop.do(one.hub.rooms._enter, one.ws, "a")
            loop.settle()

            def leave() -> None:
                one.ws.leave("a")
                loop.call(topics.tick, loop, 1e12)

            yield [leave, lambda: other.ws.join("a")]
            assert say(other, "a") == ["in a"]
            assert not say(one, "a")

    explorer.explore(scenario)


def test_who_joins_and_ends_is_nowhere(explorer: Explorer, loop: SteppedLoop) -> None:
    def scenario() -> Threads:
        with Pair(loop, user="ann") as pair:
            ws, members = pair.ws, pair.hub.members
            yield [lambda: ws.join("a"), lambda: ws.close(4001)]
            assert not ws.rooms
            assert not members.wants(room_topic("a"))
            assert members.count() == members.count("user:ann") == 0
            assert not list(members.everyone())

    explorer.explore(scenario)


class Failing(MemoryBackend):
    """It cannot subscribe to a room at first."""

    failed = False

    def subscribe(self, topics: Sequence[str]) -> None:
        if not self.failed and any(map(room_of, topics)):
            self.failed = True
            raise BackendError("not now")
        super().subscribe(topics)


def test_a_join_whose_subscription_fails_says_so_and_waits_for_nothing(
    loop: SteppedLoop,
) -> None:
    def scenario() -> Threads:
        hub = make_hub(Failing())
        with Pair(loop, hub=hub) as one, Pair(loop, hub=hub) as other:
            told: dict[Pair, Any] = {}

            def join(pair: Pair) -> None:
                try:
                    told[pair] = pair.ws.join("a")
                except BackendError:
                    told[pair] = None

            yield [lambda: join(one), lambda: join(other)]
            assert None in told.values()
            for pair, joined in told.items():
                assert pair.ws.rooms == ({"a"} if joined else set())
                assert say(pair, "a").count("in a") == (2 if pair is other else 1) * (
                    joined is True
                )

    Explorer(loop, files=["hub/subscriptions.py"]).explore(scenario)


def test_what_is_asked_while_people_come_and_go_is_answered(
    loop: SteppedLoop,
) -> None:
    """From other threads, in whose middle the sets change."""

    def scenario() -> Threads:
        with Pair(loop, user="ann") as one, Pair(loop, hub=one.hub, user="bob") as bob:
            hub, topic = one.hub, room_topic("a")

            def look() -> None:
                assert set(hub.users()) <= {"ann", "bob"}
                assert set(hub.users(topic)) <= {"ann", "bob"}
                assert 0 <= hub.count(topic) <= 2
                assert 0 <= hub.members.count_of("ann", topic) <= 1
                assert {ws.user for ws in list(hub.everyone())} <= {"ann", "bob"}
                assert set(hub.members.attendance()) >= set()

            def change() -> None:
                one.ws.join("a")
                bob.ws.close(4001)
                one.ws.leave("a")

            yield [look, change]

    Explorer(loop, files=["hub/members.py", "hub/feeds.py"]).explore(scenario)


def test_who_comes_to_two_loops_at_once_lives_in_one(
    loop: SteppedLoop, another_loop: SteppedLoop
) -> None:
    def scenario() -> Threads:
        hub = make_hub()
        with (
            Pair(loop, hub=hub, open_now=False) as one,
            Pair(another_loop, hub=hub, open_now=False) as other,
        ):
            yield [one.open_where_the_others_are, other.open_where_the_others_are]
            home = hub.home.loop
            assert home in (loop, another_loop)
            assert one.ws._transport.loop is other.ws._transport.loop is home
            assert set(hub.everyone()) == {one.ws, other.ws}
            for pair in (one, other):
                pair.loop = home

    explorer = Explorer(loop, another_loop, files=["hub/home.py"])
    explorer.explore(scenario)


def test_each_task_has_a_worker(loop: SteppedLoop) -> None:
    """Also where one becomes free while another is asked for."""

    def scenario() -> Threads:
        done: list[str] = []
        first, second = Gate(), Gate()

        def wait() -> None:
            second.open()
            first.wait()
            done.append("a")

        def open_it() -> None:
            second.wait()
            first.open()
            done.append("b")

        yield [
            lambda: loop.call(loop.run, lambda: done.append("c")),
            lambda: loop.call(loop.run, wait),
            lambda: loop.call(loop.run, open_it),
        ]
        assert sorted(done) == ["a", "b", "c"]

    Explorer(loop, files=["transports/threaded.py"]).explore(scenario)
