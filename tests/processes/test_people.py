"""Who is there, and what they vote, over several processes of which some are killed."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from .app import OPTIONS
from .cluster import Cluster, connected, spread
from .member import Json, Member

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

TTL = 3.0
QUICK = {"PING_INTERVAL": 2, "PING_TIMEOUT": 1}
"""With these a silent process has nobody after 3 seconds."""


async def people_of_a_killed_worker(cluster: Cluster) -> None:
    numbers = iter(range(1000))

    def person() -> Member:
        return Member(cluster.address, f"user {next(numbers)}", ["Lobby"])

    async with spread(person, 3) as people:
        for each in people:
            for other in people:
                if other.user not in each.feeds["Lobby"].present:
                    await each.hears("presence", "joined", other.user)
        killed = people[0].pid
        lost = [each for each in people if each.pid == killed]
        rest = [each for each in people if each.pid != killed]
        for each in lost:
            each.returns = False
        at = time.monotonic()
        cluster.kill(killed)
        for each in rest:
            for gone in lost:
                await each.hears("presence", "left", gone.user)
                (left,) = each.told("presence", "left", gone.user)
                # The second is for those who compete for the processor.
                assert left - at < TTL + 1
        reply = await rest[0].insist("who", room="Lobby")
        assert reply["present"] == sorted(each.user for each in rest)
        for each in rest:
            for other in rest:
                assert not each.told("presence", "left", other.user)


@pytest.mark.pain(14)
def test_only_the_people_of_a_killed_worker_leave(url: str, tmp_path: Path) -> None:
    with Cluster(url, tmp_path, **QUICK) as cluster:
        asyncio.run(people_of_a_killed_worker(cluster))


async def many_tabs(cluster: Cluster) -> None:
    numbers = iter(range(1000))

    def watcher() -> Member:
        return Member(cluster.address, f"watcher {next(numbers)}", ["Lobby"])

    def tab() -> Member:
        return Member(cluster.address, "ann", ["Lobby"])

    async with spread(watcher, 2) as watchers:
        async with spread(tab, 3):
            # News of a room are few in a second, and who has left by then never came.
            for each in watchers:
                await each.hears("presence", "joined", "ann")
        for each in watchers:
            await each.hears("presence", "left", "ann")
        # Nothing of ann's can come after what zoe does.
        async with connected(Member(cluster.address, "zoe", ["Lobby"])):
            for each in watchers:
                await each.hears("presence", "joined", "zoe")
        for each in watchers:
            assert len(each.told("presence", "joined", "ann")) == 1
            assert len(each.told("presence", "left", "ann")) == 1


@pytest.mark.pain(14)
def test_tabs_on_several_workers_are_one_user(url: str, tmp_path: Path) -> None:
    with Cluster(url, tmp_path) as cluster:
        asyncio.run(many_tabs(cluster))


VOTERS, VOTES = 50, 30


async def votes(cluster: Cluster) -> None:
    voters = [Member(cluster.address, f"voter {n}") for n in range(VOTERS)]
    choices: dict[str, str] = {}
    chance = random.Random(6)
    count = 0

    async def vote(voter: Member) -> None:
        nonlocal count
        for _ in range(VOTES):
            choice = chance.choice(OPTIONS)
            reply = await voter.insist("vote", poll="Biscuits", choice=choice)
            choices[voter.user] = choice
            assert reply["total"] == sum(reply["counts"].values()) <= VOTERS
            count += 1
            if count in (VOTERS * VOTES // 3, VOTERS * VOTES // 3 * 2):
                cluster.kill()

    async with connected(*voters):
        begun = time.monotonic()
        await asyncio.gather(*map(vote, voters))
        seconds = time.monotonic() - begun
        for voter in voters:
            await voter.until(voter.ready.is_set, "it is back")
        # A tally may be missed on the way back, but not the one of this change.
        first = voters[0]
        choices[first.user] = OPTIONS[OPTIONS.index(choices[first.user]) - 1]
        last = await first.insist("vote", poll="Biscuits", choice=choices[first.user])
        counts = dict.fromkeys(OPTIONS, 0) | Counter(choices.values())
        for voter in voters:
            standing = await voter.insist("poll", poll="Biscuits")
            assert standing["mine"] == choices[voter.user]
            assert standing["total"] == VOTERS
            assert standing["counts"] == counts
            assert standing["version"] == last["version"]
            await voter.until(functools.partial(has_tally, voter, last), "the tally")
    densest = max(map(most_in_a_second, voters))
    print(f"{count} votes, {count / seconds:.0f}/s; {densest} tallies in a second")
    assert densest <= 12


def has_tally(voter: Member, standing: Json) -> bool:
    """Whether the newest tally on the voter's connection is as the poll stands."""
    tallies = [event for _, event in voter.events if event["type"] == "tally"]
    return bool(tallies) and tallies[-1]["version"] == standing["version"]


def most_in_a_second(member: Member) -> int:
    """Return how many tallies came in the densest second."""
    times = [at for at, event in member.events if event["type"] == "tally"]
    return max(sum(at <= t < at + 1 for t in times) for at in times)


def test_votes_are_neither_lost_nor_doubled(url: str, tmp_path: Path) -> None:
    with Cluster(url, tmp_path) as cluster:
        asyncio.run(votes(cluster))
        assert len(cluster.killed) == 2
