"""Who waits for no reply has all in order, though workers are killed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websockets.sync.client

from flask_wschat import WSChat
from tests.support.chat_client import ChatClient
from tests.support.following import in_threads
from tests.support.pipelining import Pipeline
from tests.support.waiting import LONG, eventually

from .cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WORKERS, PEOPLE, COUNT, KILLS = 3, 6, 400, 3


def come(address: str, user: str) -> ChatClient:
    client = websockets.sync.client.connect(
        f"{address}?user={user}", compression=None, ping_interval=None, close_timeout=1
    )
    return ChatClient(client.__enter__(), LONG)


@contextlib.contextmanager
def lines(address: str) -> Iterator[list[Pipeline]]:
    """Some talk in one room, and some tell each other."""
    made = []
    for number in range(PEOPLE):
        user = f"user{number}"
        connect: Callable[[], ChatClient] = functools.partial(come, address, user)
        place = {"room": "Lobby"} if number % 2 else {"to": "ben"}
        made.append(Pipeline(connect, user, place, window=16))
    yield made
    for line in made:
        line.close()


def test_workers_are_killed(url: str, tmp_path: Path) -> None:
    data = [str(n) for n in range(COUNT)]
    settings = {"HISTORY_SIZE": 5000, "INBOX_SHARE": 1}
    with (
        Cluster(url, tmp_path, WORKERS, **settings) as cluster,
        lines(cluster.address) as talk,
    ):

        def kill() -> None:
            for number in range(1, KILLS + 1):
                until = number * PEOPLE * COUNT // (KILLS + 1)
                eventually(
                    lambda until=until: sum(len(x.stored) for x in talk) >= until,  # type: ignore[misc]
                    seconds=LONG,
                )
                cluster.kill()
                asyncio.run(cluster.recovery())

        runs = [functools.partial(line.run, data, 90) for line in talk]
        in_threads(kill, *runs)
        assert "Traceback" not in cluster.log, cluster.log
        assert len(set(cluster.killed)) == KILLS
    assert sum(line.connections for line in talk) > PEOPLE
    with WSChat.publisher(url, history_size=5000) as chat:
        backend = chat._chat().hub.backend
        for number, line in enumerate(talk):
            user = f"user{number}"
            topics = ["room:Lobby"] if number % 2 else ["user:ben", f"user:{user}"]
            for topic in topics:
                entries = backend.history(topic, limit=10_000).entries
                said = [json.loads(e.data) for e in entries if e.sender == user]
                assert said == data, (topic, user)
            assert list(line.stored) == [f"{user}-{n}" for n in range(COUNT)]
