"""A process without a server reaches everyone; who was away gets it later."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import pytest

from .cluster import Cluster, connected, spread
from .member import INBOX, Member

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WORKERS = 3


async def publish_from_a_task(cluster: Cluster) -> None:
    def person() -> Member:
        return Member(cluster.address, "ann", ["Lobby"], inbox=True)

    async with spread(person, WORKERS) as tabs:
        said, sent, _, online, reached, total = await cluster.task(
            ("broadcast", ["Tea?"], {"room": "Lobby"}),
            ("broadcast", [{"all": 1}], {}),
            ("emit", ["moved"], {"room": "Lobby", "key": "ben", "x": 1.5}),
            ("online", [], {}),
            ("send_to_user", ["ann", "to you"], {}),
            ("vote", ["ben", "Oat"], {}),
        )
        assert (said, sent, online, total) == (1, 0, ["ann"], 1)
        assert reached == len(tabs)
        for tab in tabs:
            await tab.until(functools.partial(has_all, tab), "all of it")
            (message,) = tab.feeds["Lobby"].messages
            assert (message["data"], message["from"]) == ("Tea?", None)
            (direct,) = tab.feeds[INBOX].messages
            assert (direct["data"], direct["to"]) == ("to you", "ann")
            (passing,) = tab.passing
            assert (passing["data"], passing["room"]) == ({"all": 1}, None)
            assert tab.events[-1][1]["counts"] == {"Ginger": 0, "Oat": 1, "None": 0}

        (closed,) = await cluster.task(
            ("disconnect_user", ["ann", 4003, "banned"], {}),
        )
        assert closed == len(tabs)
        for tab in tabs:
            await tab.until(functools.partial(len, tab.closes), "the close")
            assert tab.closes == [(4003, "banned")]


def has_all(tab: Member) -> bool:
    lobby, inbox = tab.feeds["Lobby"], tab.feeds[INBOX]
    tallies = [event for _, event in tab.events if event["type"] == "tally"]
    moves = [event for _, event in tab.events if event["type"] == "moved"]
    found = (lobby.messages, inbox.messages, tab.passing, tallies, moves)
    return all(map(bool, found))


def test_a_task_reaches_all_workers(url: str, tmp_path: Path) -> None:
    with Cluster(url, tmp_path, WORKERS) as cluster:
        asyncio.run(publish_from_a_task(cluster))


async def leave_and_come_back(cluster: Cluster) -> None:
    ann = Member(cluster.address, "ann", inbox=True)
    ben = Member(cluster.address, "ben", inbox=True)
    async with connected(ben):
        async with connected(ann):
            await ben.insist("tell", to="ann", data=0, mid="0")
            await ann.until(lambda: ann.feeds[INBOX].seq == 1, "she is told")
        for number in range(1, 4):
            mid = str(number)
            await ben.insist("tell", to="ann", data=number, mid=mid)
            (reached,) = await cluster.task(("send_to_user", ["ann", "note"], {}))
            assert reached == 0
            cluster.kill()
            await cluster.recovery()
            await ben.insist("tell", to="ann", data=number, mid=mid)  # is known
        async with connected(ann):
            inbox = ann.feeds[INBOX]
            assert [message["data"] for message in inbox.messages] == (
                [0, 1, "note", 2, "note", 3, "note"]
            )
            assert inbox.unrecovered == 0
        assert [message["data"] for message in ben.feeds[INBOX].messages] == (
            [0, 1, 2, 3]
        )
        newcomer = Member(cluster.address, "ann", inbox=True)
        async with connected(newcomer):
            assert newcomer.feeds[INBOX].messages == ann.feeds[INBOX].messages


def test_the_inbox_keeps_what_is_sent_to_who_is_away(url: str, tmp_path: Path) -> None:
    with Cluster(url, tmp_path, 2) as cluster:
        asyncio.run(leave_and_come_back(cluster))


def test_workers_that_share_nothing_are_warned_of(tmp_path: Path) -> None:
    async def come(cluster: Cluster) -> None:
        async with connected(Member(cluster.address, "ann", ["Lobby"])):
            await cluster.logged("each of 2 workers has rooms and users of its own", 1)

    with Cluster("memory://", tmp_path, 2) as cluster:
        asyncio.run(come(cluster))
