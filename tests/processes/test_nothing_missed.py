"""Each acknowledged message reaches all once, in order, whatever is killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer

from .chaos import Talk, Trouble
from .cluster import Cluster
from .member import Member

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MESSAGES = int(os.environ.get("MESSAGES", "4800"))
"""How many are said through Redis: 400 from one trouble to the next.

Those of 40 members on 4 workers are on their way when it comes; what is said long
before and after it meets no trouble. ``MESSAGES=100000`` has as many, further apart."""

MEMBERS, ROOMS = 40, 10


def members(cluster: Cluster) -> list[Member]:
    """Return clients who are in two rooms each, not connected yet."""
    return [
        Member(
            cluster.address,
            f"user {number}",
            [f"room {number % ROOMS}", f"room {number * 3 // ROOMS % ROOMS}"],
        )
        for number in range(MEMBERS)
    ]


def hold_talk(
    url: str, folder: Path, workers: int, count: int, troubles: Sequence[Trouble | None]
) -> Talk:
    """Have ``count`` messages said under ``troubles``, and return the talk, checked.

    None as a trouble: the oldest worker is killed, and replaced by the master.
    """
    with Cluster(url, folder, workers, HISTORY_SIZE=count) as cluster:

        async def kill() -> None:
            cluster.kill()
            await cluster.recovery()

        talk = Talk(members(cluster), count, [trouble or kill for trouble in troubles])
        asyncio.run(talk.run(deadline=100))
        assert "Traceback" not in cluster.log, cluster.log
    print(f"\n{len(cluster.killed)} kills; {talk.report()}")
    talk.check()
    assert sum(map(len, talk.acknowledged.values())) == count
    assert talk.total("unrecovered") == talk.total("jumps") == 0
    assert len(set(cluster.killed)) == troubles.count(None)
    return talk


def test_redis_with_four_workers(tmp_path: Path) -> None:
    """Redis ends twice: by SIGKILL and by SHUTDOWN; its file has all that it said."""
    redis = RedisServer("appendonly yes", "appendfsync always")
    redis.start()

    async def kill() -> None:
        await asyncio.to_thread(redis.restart)

    async def shut_down() -> None:
        with redis.client() as client:
            await asyncio.to_thread(client.shutdown)
        await asyncio.to_thread(redis.restart)

    troubles = [None, None, None, kill, None, None, None, shut_down, None, None]
    try:
        hold_talk(redis.url, tmp_path, 4, MESSAGES, troubles)
    finally:
        redis.stop()


@pytest.mark.pain(6)
def test_sqlite_with_two_workers(tmp_path: Path) -> None:
    hold_talk(f"sqlite:///{tmp_path}/chat.db", tmp_path, 2, MESSAGES // 4, [None] * 6)
