"""What clients and the log are told while Redis is not there; then all is well."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from pathlib import Path

import pytest

from flask_wschat.backends.redis.backend import RedisBackend
from flask_wschat.messages import Message
from tests.support.redis_server import RedisServer

from .chaos import Talk
from .cluster import Cluster, spread
from .member import Feed, Member

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

WORKERS = 2

FULL = "its memory is full: raise maxmemory, or lower WSCHAT_HISTORY_SIZE"


async def come_too_early(cluster: Cluster, redis: RedisServer) -> None:
    members = [Member(cluster.address, f"user {n}", ["Lobby"]) for n in range(10)]
    for member in members:
        member.start()
    try:
        for member in members:
            await member.until(functools.partial(len, member.refusals), "a refusal")
        await asyncio.to_thread(redis.start)
        for member in members:
            await member.until(member.ready.is_set, "it is let in")
            assert set(member.refusals) == {(503, "2")}
            assert member.closes == []
    finally:
        for member in members:
            await member.stop()
    remedy = f"Redis at 127.0.0.1:{redis.port} cannot be reached; does it run?"
    lines = [line for line in cluster.log.splitlines() if remedy in line]
    refusals = [line for line in lines if line.startswith("connections are refused")]
    failures = [line for line in lines if line.endswith("trying again")]
    assert 1 <= len(refusals) <= WORKERS
    assert 1 <= len(failures) <= WORKERS
    assert len(lines) == len(refusals) + len(failures), lines


def test_redis_comes_after_the_workers(tmp_path: Path) -> None:
    redis = RedisServer()
    try:
        with Cluster(redis.url, tmp_path, WORKERS) as cluster:
            asyncio.run(come_too_early(cluster, redis))
    finally:
        redis.stop()


async def miss_the_last_message(cluster: Cluster, redis: RedisServer) -> None:
    elsewhere = RedisBackend(redis.url)

    def make() -> Member:
        return Member(cluster.address, "ann", ["Lobby"])

    async with spread(make, WORKERS) as members:
        for number in range(1, 6):
            with redis.client() as client:
                await asyncio.to_thread(client.client_kill_filter, _type="pubsub")
            message = Message(f"Tea {number}")
            await asyncio.to_thread(elsewhere.publish, "room:Lobby", message, keep=True)
            for member in members:
                feed = member.feeds["Lobby"]
                await member.until(
                    functools.partial(has_read, feed, number), "the missed message"
                )
    elsewhere.stop()
    for member in members:
        feed = member.feeds["Lobby"]
        assert [message["data"] for message in feed.messages] == (
            [f"Tea {number}" for number in range(1, 6)]
        )
        assert feed.unrecovered == feed.jumps == 0


def has_read(feed: Feed, number: int) -> bool:
    """Whether all is read: sent on by the process, or asked for after a gap."""
    return feed.joined and feed.seq == number


def test_what_was_missed_comes_though_nothing_follows(
    redis: RedisServer, tmp_path: Path
) -> None:
    with Cluster(redis.url, tmp_path, WORKERS) as cluster:
        asyncio.run(miss_the_last_message(cluster, redis))


def test_nothing_is_lost_while_redis_fails(redis: RedisServer, tmp_path: Path) -> None:
    """It is paused, drops its clients, and has no memory left."""
    members: list[Member] = []

    async def pause() -> None:
        redis.pause()
        await cluster.logged("does not answer", WORKERS)
        redis.resume()
        await cluster.logged("is back after", WORKERS)

    async def drop() -> None:
        with redis.client() as client:
            for kind in ("normal", "pubsub"):
                await asyncio.to_thread(
                    client.execute_command, "CLIENT", "KILL", "TYPE", kind
                )
        await cluster.logged("is back after", 2 * WORKERS)

    async def fill() -> None:
        with redis.client() as client:
            client.config_set("maxmemory", 1)
            await cluster.logged(FULL, WORKERS)
            client.config_set("maxmemory", 0)

    with Cluster(redis.url, tmp_path, WORKERS, HISTORY_SIZE=2000) as cluster:
        rooms = [f"room {number}" for number in range(4)]
        members += [
            Member(cluster.address, f"user {n}", rooms[n % 2 :: 2]) for n in range(12)
        ]
        talk = Talk(members, 3000, [pause, drop, fill], cuts=False)

        async def hold() -> None:
            # Every worker has somebody, so each looks after its connection to Redis.
            async with spread(lambda: Member(cluster.address, "idle"), WORKERS):
                await talk.run(deadline=60)

        asyncio.run(hold())
        log = cluster.log
    print(talk.report())
    talk.check()
    assert talk.total("unrecovered") == talk.total("jumps") == 0
    lines = Counter(line for line in log.splitlines() if redis.url[8:-2] in line)
    counts = {
        words: sum(count for line, count in lines.items() if words in line)
        for words in ("does not answer", "closed the connection", "is back after", FULL)
    }
    assert list(counts.values()) == [WORKERS, WORKERS, 2 * WORKERS, WORKERS], log
    assert sum(lines.values()) == sum(counts.values()), log
