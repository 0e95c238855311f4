"""Who waits for no reply has all in order, each once, whatever refuses one of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_wschat import ChatListener, WSChat
from flask_wschat.backends.sqlite.backend import SQLiteBackend
from tests.protocol.peers import Peer
from tests.support.following import Follower, in_threads, make_chat, url
from tests.support.live import LiveServer, Serve
from tests.support.pipelining import Pipeline
from tests.support.redis_server import RedisServer
from tests.support.waiting import LONG, eventually

__all__ = ["make_chat", "url"]

Make = Callable[..., WSChat]
COUNT, BAD = 20, 7
PLACES = [{"room": "Lobby"}, {"to": "ben"}]


def kept(chat: WSChat, topic: str, sender: str = "ann") -> list[str]:
    """Return what is kept of ``sender`` in ``topic``."""
    entries = chat._hub().backend.history(topic, limit=10_000).entries
    return [entry.data for entry in entries if entry.sender == sender]


def check(chat: WSChat, place: dict[str, str], data: list[str]) -> None:
    """``data`` is there once, in this order: of what was told, in both inboxes."""
    said = [f'"{each}"' for each in data]
    topics = ["room:Lobby"] if "room" in place else ["user:ben", "user:ann"]
    for topic in topics:
        assert kept(chat, topic) == said, topic


@contextlib.contextmanager
def pipeline(
    server: LiveServer, place: dict[str, str], user: str = "ann", **options: Any
) -> Iterator[Pipeline]:
    line = Pipeline(lambda: Peer(server, user), user, place, **options)
    yield line
    line.close()


@pytest.mark.parametrize("place", PLACES)
def test_one_of_many_is_refused_for_its_bytes(
    make_chat: Make, serve: Serve, place: dict[str, str]
) -> None:
    chat = make_chat(RATE_LIMIT=(1000, 1000), BYTE_LIMIT=(40_000, 10_000))
    data = [f"{n}" + "x" * (6000 if n in (0, BAD) else 0) for n in range(COUNT)]
    with pipeline(serve(chat._app()), place) as line:
        line.run(data)
    check(chat, place, data)
    assert line.refused == {"rate_limited": 1, "out_of_order": COUNT - BAD - 1}
    assert line.sent == COUNT + COUNT - BAD


@pytest.mark.parametrize("place", PLACES)
def test_more_are_said_than_may_be(
    make_chat: Make, serve: Serve, place: dict[str, str]
) -> None:
    chat = make_chat(RATE_LIMIT=(200, 10))
    data = [str(n) for n in range(60)]
    with pipeline(serve(chat._app()), place, window=12) as line:
        line.run(data)
    check(chat, place, data)
    assert line.refused["rate_limited"] and line.connections == 1


class Once(ChatListener):
    """Its hooks refuse one thing for good, and fail once at another."""

    failed = False

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        return bool(data != str(BAD))

    def can_tell(self, user: str, to: str) -> bool:
        if not self.failed:
            self.failed = True
            raise LookupError("the application's own")
        return True


def test_a_hook_refuses_one(make_chat: Make, serve: Serve) -> None:
    chat = make_chat(Once)
    with pipeline(serve(chat._app()), PLACES[0]) as line:
        line.run([str(n) for n in range(COUNT)])
    check(chat, PLACES[0], [str(n) for n in range(COUNT) if n != BAD])
    assert line.given_up == [str(BAD)]
    assert line.refused == {"forbidden": 1, "out_of_order": COUNT - BAD - 1}


def test_a_hook_fails_at_one(
    make_chat: Make, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    chat = make_chat(Once)
    with pipeline(serve(chat._app()), PLACES[1]) as line:
        line.run([str(n) for n in range(COUNT)])
    check(chat, PLACES[1], [str(n) for n in range(COUNT)])
    assert line.refused == {"internal": 1, "out_of_order": COUNT - 1}


def test_a_connection_is_lost_again_and_again(make_chat: Make, serve: Serve) -> None:
    """Some of what it had sent is stored, some is read, and some is not."""
    chat = make_chat(HISTORY_SIZE=1000)
    data = [str(n) for n in range(300)]
    with pipeline(serve(chat._app()), PLACES[0]) as line:

        def cut() -> None:
            for number in range(1, 8):
                at = 40 * number
                eventually(lambda at=at: len(line.stored) >= at, seconds=LONG)  # type: ignore[misc]
                line.cut()

        in_threads(lambda: line.run(data), cut)
    check(chat, PLACES[0], data)
    assert line.connections > 1


def test_two_connections_repeat_the_same(make_chat: Make, serve: Serve) -> None:
    """As where a tab comes back while a process still works off what it had sent."""
    chat = make_chat(HISTORY_SIZE=1000)
    server = serve(chat._app())
    data = [str(n) for n in range(200)]
    with (
        pipeline(server, PLACES[0], window=7) as one,
        pipeline(server, PLACES[0], window=20) as other,
    ):
        in_threads(lambda: one.run(data), lambda: other.run(data))
    check(chat, PLACES[0], data)
    assert one.stored == other.stored


def test_what_is_forgotten_stops_nobody(make_chat: Make, serve: Serve) -> None:
    """Others say so much that a mid is gone before what follows it comes."""
    chat = make_chat(HISTORY_SIZE=1)
    over = threading.Event()

    def flood() -> None:
        number = 0
        while not over.wait(0.0005):
            number += 1
            chat.broadcast("x", room="Lobby", mid=f"{number}")

    def run() -> None:
        with pipeline(serve(chat._app()), PLACES[0], window=12) as line:
            try:
                line.run([str(n) for n in range(100)])
            finally:
                over.set()
        numbers = list(line.stored.values())
        assert list(line.stored) == [f"ann-{n}" for n in range(100)]
        assert numbers == sorted(set(numbers))

    in_threads(run, flood)


@pytest.mark.parametrize("place", PLACES)
def test_where_nothing_is_kept_a_connection_keeps_its_order(
    make_chat: Make, serve: Serve, place: dict[str, str]
) -> None:
    limits = {"RATE_LIMIT": (1000, 1000), "BYTE_LIMIT": (40_000, 10_000)}
    server = serve(make_chat(HISTORY_SIZE=0, **limits)._app())
    data = [f"{n}" + "x" * (6000 if n in (0, BAD) else 0) for n in range(COUNT)]
    peers = [Peer(server, user) for user in ("ann", "ben")]
    for peer in peers:
        peer.ask("join", room="Lobby")
        peer.ask("inbox")
    with pipeline(server, place) as line:
        line.run(data)
    assert line.refused == {"rate_limited": 1, "out_of_order": COUNT - BAD - 1}
    for peer in peers:
        kind = "message" if "room" in place else "direct"
        assert [peer.expect(kind)["data"] for _ in data] == data
        peer.close()


class Large(ChatListener):
    max_data = 1_000_000


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_disk_is_too_full_for_one(
    make_chat: Make, serve: Serve, tmp_path: Path
) -> None:
    backend = SQLiteBackend(
        tmp_path / "full.db", size=1000, pragmas=["max_page_count = 60"]
    )
    chat = make_chat(Large, URL=backend)
    data = [f"{n}" + "x" * (500_000 if n == BAD else 0) for n in range(COUNT)]
    with pipeline(serve(chat._app()), PLACES[0]) as line:

        def make_room() -> None:
            eventually(lambda: line.refused["out_of_order"], seconds=LONG)
            backend._process().writer.call(
                lambda db: db.execute("PRAGMA max_page_count = 9999").fetchone(),
                writes=False,
            )

        in_threads(lambda: line.run(data), make_room)
    check(chat, PLACES[0], data)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("url", ["memory"], indirect=True)  # it has one of its own
def test_redis_goes_and_comes(make_chat: Make, serve: Serve) -> None:
    with RedisServer("appendonly yes", "appendfsync always") as redis:
        chat = make_chat(URL=redis.url, HISTORY_SIZE=5000)
        follower = Follower(serve(chat._app()), "ben").connect()
        data = [str(n) for n in range(900)]

        with pipeline(follower.server, PLACES[0]) as line:

            def trouble() -> None:
                with redis.client() as client:
                    while len(line.stored) < 200:  # some of what is under way fails
                        client.config_set("maxmemory", 1)
                        client.config_set("maxmemory", 0)
                    assert line.refused["out_of_order"]
                    wait_for(300)
                    client.client_kill_filter(_type="normal")
                wait_for(500)
                redis.restart()
                wait_for(700)
                redis.kill()
                failed = sum(line.refused.values()) + line.connections
                eventually(
                    lambda: sum(line.refused.values()) + line.connections > failed,
                    seconds=LONG,
                )
                redis.start()

            def wait_for(count: int) -> None:
                eventually(lambda: len(line.stored) >= count, seconds=LONG)

            in_threads(lambda: line.run(data, 50), trouble)
        check(chat, PLACES[0], data)
        follower.follow(data[-1])
        assert follower.data == data
        chat._hub().backend.stop()
