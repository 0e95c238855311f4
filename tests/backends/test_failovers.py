"""A primary is killed under load: what was acknowledged is there, or is told lost."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_wschat.backends.redis import RedisBackend
from flask_wschat.backends.redis.slots import slot_of
from flask_wschat.backends.redis.subscriber import Timings
from flask_wschat.messages import Delivery
from tests.backends.cluster import RecordingHost
from tests.backends.talk import Talk
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer, Sentinels
from tests.support.waiting import LONG, eventually

SEEDS = range(int(os.environ.get("SEEDS", "1")))
QUICK = Timings(probe=0.2, deaf=1.0, answer=3.0)
ROOMS = [f"room:{number}" for number in range(8)]

Pair = tuple[str, RedisServer, RedisServer]


@contextlib.contextmanager
def sentinels() -> Iterator[Pair]:
    with Sentinels("repl-diskless-sync-delay 0") as them:
        yield them.url, them.primary, them.replica


@contextlib.contextmanager
def cluster() -> Iterator[Pair]:
    with RedisCluster() as them:
        slot = slot_of("{room:3}")
        yield them.url, them.primary_of(slot), them.replica_of(slot)


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("wait", [0, 1])
@pytest.mark.parametrize("kind", [sentinels, cluster])
def test_a_primary_is_killed_under_load(
    kind: Callable[[], Any], wait: int, seed: int
) -> None:
    chance = random.Random(seed)
    with kind() as (url, primary, replica), contextlib.ExitStack() as stack:

        def begin() -> tuple[RedisBackend, RecordingHost]:
            made = RedisBackend(url, timings=QUICK, wait=wait, size=10_000)
            host = RecordingHost()
            made.start(host)
            stack.callback(made.stop)
            return made, host

        (speaker, _), (listener, host) = begin(), begin()
        listener.subscribe(ROOMS)
        talk = Talk(speaker, ROOMS)
        try:
            talk.go_on(chance.randrange(100, 400))
            # What the primary acknowledges from here on, the replica has not.
            replica.pause()
            with primary.client() as client:
                client.client_kill_filter(_type="replica")
            if not wait:
                talk.go_on(20)
            primary.kill()
            replica.resume()
            heard = _newest(host)
            eventually(listener.fault, "the fault is told", LONG)
            eventually(lambda: not listener.fault(), "another takes over", LONG)
            # Empty, and so not before: it becomes the replica of the other one.
            primary.start()
            talk.go_on()
        finally:
            talk.end()
        told = {topic for topics in host.losses for topic in topics or ()}
        stranger, _ = begin()
        missing = 0
        for room, known in talk.acknowledged.items():
            page = stranger.history(room, limit=10_000)
            kept = {entry.seq: entry.data for entry in page.entries}
            entries = {(entry.seq, entry.tag, entry.data) for entry in page.entries}
            assert list(kept) == list(range(1, page.seq + 1)), room
            assert len(set(kept.values())) == len(kept), room
            lost = [seq for seq, mid in known if kept.get(seq) != mid]
            missing += len(lost)
            assert not lost or room in told, room
            numbers = [d.seq for d in host.deliveries if d.topic == room]
            assert numbers == sorted(set(numbers)) or room in told
            # Who comes back with what is lost learns it, from whomever: also where it
            # was never acknowledged, and has been said again since.
            last = heard.get(room)
            if last is not None:
                resumed = stranger.history(
                    room, after=last.seq, epoch=last.epoch, tag=last.tag
                )
                same = (last.seq, last.tag, last.message.data) in entries
                assert resumed.recovered == same, room
        assert bool(missing) == (not wait)


def _newest(host: RecordingHost) -> dict[str, Delivery]:
    return {delivery.topic: delivery for delivery in host.deliveries}
