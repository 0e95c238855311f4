"""Messages that grow, read by members of several workers that are killed."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

from .cluster import Cluster, connected
from .member import Feed, Member

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

IDS = ("a", "b", "c", "d")
PIECES = 150
SOON = {"PING_INTERVAL": 0.5, "PING_TIMEOUT": 1.5}
"""A writer is taken for dead after two seconds."""


async def begin(cluster: Cluster, *given: object) -> asyncio.subprocess.Process:
    """Return a writer that has begun: see ``writer``."""
    settings = {**os.environ, **cluster.env}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.processes.writer", *map(str, given)),
        cwd=ROOT,
        env=settings,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    return process


def is_whole(feed: Feed) -> bool:
    return {m["mid"] for m in feed.messages} == set(IDS) and not feed.streams


async def read_while_workers_die(cluster: Cluster) -> None:
    members = [Member(cluster.address, f"user {n}", ["Lobby"]) for n in range(12)]
    whole = "".join(f"{number} " for number in range(PIECES))
    async with connected(*members):
        writer = await begin(cluster, "Lobby", ",".join(IDS), PIECES, 0.02)
        for number in range(3):
            grown = functools.partial(_has_grown, members[0].feeds["Lobby"], number)
            await members[0].until(grown, "it grows")
            cluster.kill()
            for member in random.sample(members, 3):
                member.cut()
            await cluster.recovery()
        assert await writer.wait() == 0
        for member in members:
            done = functools.partial(is_whole, member.feeds["Lobby"])
            await member.until(done, "all of it")
        await asyncio.gather(
            *(member.until(member.ready.is_set, "") for member in members)
        )
    for member in members:
        feed = member.feeds["Lobby"]
        assert {m["mid"]: m["data"] for m in feed.messages} == dict.fromkeys(IDS, whole)
        assert feed.discarded == {}
        assert feed.jumps == feed.unrecovered == 0
        for id in IDS:  # nothing lost, nothing twice, at no time
            states = [(n, text) for each, n, text in feed.grew if each == id]
            assert states == sorted(states), "it has shrunk"
            assert all(whole.startswith(text) for _, text in states)
        assert len(feed.grew) > len(IDS)
    print("\n", sum(member.feeds["Lobby"].holes for member in members), "holes")


def _has_grown(feed: Feed, number: int) -> bool:
    texts = [stream["text"] for stream in feed.streams.values()]
    return any(f"{20 + 30 * number} " in text for text in texts)


def test_no_piece_is_lost_or_doubled(url: str, tmp_path: Path) -> None:
    with Cluster(url, tmp_path, 3) as cluster:
        asyncio.run(read_while_workers_die(cluster))
        assert "Traceback" not in cluster.log, cluster.log


async def kill_the_writer(cluster: Cluster) -> None:
    ann, ben = (Member(cluster.address, name, ["Lobby"]) for name in ("ann", "ben"))
    async with connected(ann):
        writer = await begin(cluster, "Lobby", "x", 10_000, 0.01)
        feed = ann.feeds["Lobby"]
        await ann.until(lambda: feed.streams.get("x", {"n": 0})["n"] > 3, "it grows")
        writer.kill()
        await writer.wait()
        await ann.until(lambda: "x" in feed.discarded, "it is discarded")
        assert feed.discarded["x"]
        assert feed.messages == []
        async with connected(ben):
            assert ben.feeds["Lobby"].streams == {}


def test_a_dead_writers_message_is_discarded(url: str, tmp_path: Path) -> None:
    with Cluster(url, tmp_path, 2, **SOON) as cluster:
        asyncio.run(kill_the_writer(cluster))
        assert "Traceback" not in cluster.log, cluster.log
