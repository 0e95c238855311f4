"""Messages that came in one call are one entry of Redis's log, and many for readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from flask_wschat.backends.redis.backend import RedisBackend
from flask_wschat.backends.redis.subscriber import Timings
from flask_wschat.messages import Entry, Message, Receipt
from tests.backends.cluster import RecordingHost
from tests.support.redis_server import RedisServer
from tests.support.waiting import DEADLINE, eventually

ROOM = "room:a"
LOG, GONE = (f"wschat:{{{ROOM}}}:{name}" for name in ("log", "gone"))
COUNT = 24
"""How many are said: one, whose call is on its way, and the others together."""

Begin = Callable[..., RedisBackend]


@pytest.fixture
def begin(server: RedisServer, client: Any) -> Iterator[Begin]:
    made: list[RedisBackend] = []

    def begin(**limits: int) -> RedisBackend:
        backend = RedisBackend(server.url, timings=Timings(answer=DEADLINE), **limits)
        backend.start(RecordingHost())
        made.append(backend)
        return backend

    yield begin
    for backend in made:
        backend.stop()


def text(number: int) -> str:
    return f"{number}:" + "x" * (number % 5) + "ż"


def say(
    server: RedisServer, backend: RedisBackend, *numbers: int, topic: str = ROOM
) -> list[Receipt | Exception]:
    """Say these in one call; what is said just before keeps it waiting."""
    answers: dict[int, Any] = {}
    server.pause()
    try:
        backend.submit("room:b", Message("first"), lambda _: None, keep=True)
        for place, n in enumerate(numbers):
            backend.submit(
                topic,
                Message(text(n), sender="ann", mid=f"m{n}"),
                partial(answers.__setitem__, place),
                keep=True,
            )
    finally:
        server.resume()
    eventually(lambda: len(answers) == len(numbers))
    return [answers[place] for place in range(len(numbers))]


@pytest.fixture
def backend(server: RedisServer, client: Any, begin: Begin) -> RedisBackend:
    """Messages 1 to 24, in very few entries."""
    backend = begin()
    say(server, backend, 1)
    say(server, backend, *range(2, COUNT + 1))
    say(server, backend, COUNT + 1)
    assert client.xlen(LOG) <= 4
    return backend


def told(entries: list[Entry]) -> list[tuple[int, Any]]:
    return [(e.seq, None if e.deleted else e.data) for e in entries]


def check_pages(backend: RedisBackend, deleted: set[int]) -> None:
    """Read pages of each size from each place, in both directions."""
    newest = COUNT + 1
    kept = [(n, None if n in deleted else text(n)) for n in range(1, newest + 1)]
    whole = backend.history(ROOM, limit=100)
    assert told(whole.entries) == kept
    tags = {entry.seq: entry.tag for entry in whole.entries}
    for limit in (1, 2, 7, 100):
        for n in range(newest + 2):
            page = backend.history(ROOM, after=n, limit=limit)
            assert told(page.entries) == kept[n:][:limit]
            page = backend.history(ROOM, before=n + 1, limit=limit)
            assert told(page.entries) == kept[:n][-limit:]
    for n in range(1, newest):
        page = backend.history(ROOM, after=n, epoch=whole.epoch, tag=tags[n])
        assert page.recovered
        assert told(page.entries) == kept[n:]
        page = backend.history(ROOM, after=n, epoch=whole.epoch, tag="other")
        assert not page.recovered
        page = backend.history(ROOM, after=n, max_bytes=20)
        sizes = [len((data or "").encode()) for _, data in kept[n:]]
        fit = next(
            i
            for i in range(len(sizes) + 1)
            if sum(sizes[: i + 1]) > 20 or i == len(sizes)
        )
        assert told(page.entries) == kept[n:][: max(fit, 1)]


def test_a_page_begins_and_ends_anywhere(backend: RedisBackend) -> None:
    check_pages(backend, set())


def test_of_those_that_came_together_some_are_taken_back(
    backend: RedisBackend, client: Any
) -> None:
    for gone in ({7}, {7, 8}, {7, 8, 2, COUNT}, {7, 8, 2, COUNT, 1, COUNT + 1}):
        for n in gone:
            backend.delete(ROOM, n)
        check_pages(backend, gone)
    assert not backend.delete(ROOM, 7)
    assert b'"m7"' not in b"".join(client.hvals(GONE))
    assert backend.delete(ROOM, 9)
    # They are known all the same, and pushed out with the others.
    again = backend.publish(ROOM, Message("x", sender="ann", mid="m9"), keep=True)
    assert (again.seq, again.fresh) == (9, False)
    for _ in range(300):
        backend.submit(ROOM, Message("x"), lambda _: None, keep=True)
    backend.publish(ROOM, Message("x"), keep=True)
    assert client.hlen(GONE) == 0


def test_of_those_that_come_together_some_are_known(
    server: RedisServer, backend: RedisBackend
) -> None:
    other = [Message("z", sender="ann", mid=f"m{n}") for n in (26, 27)]
    host: Any = backend._host
    backend.subscribe([ROOM])
    answers = say(server, backend, 3, 26, 24, 26, 27, 3)
    numbers = [answer.seq for answer in answers if isinstance(answer, Receipt)]
    assert numbers == [3, 26, 24, 26, 27, 3]
    fresh = [answer.fresh for answer in answers if isinstance(answer, Receipt)]
    assert fresh == [False, True, False, False, True, False]
    times = {e.seq: e.at for e in backend.history(ROOM, limit=100).entries}
    assert isinstance(answers[0], Receipt) and answers[0].at == times[3]
    host.wait_for_count(2)
    assert host.data(ROOM) == [text(26), text(27)]
    for message in other:
        assert not backend.publish(ROOM, message, keep=True).fresh


@pytest.mark.parametrize("limits", [{"size": 7}, {"max_bytes": 40}])
def test_bounds_hold_among_those_that_came_together(
    server: RedisServer, client: Any, begin: Begin, limits: dict[str, int]
) -> None:
    backend = begin(**limits)
    newest = 0
    for _ in range(6):
        say(server, backend, *range(newest + 1, newest + 21))
        newest += 20
        kept = list(range(max(newest - 6, 1), newest + 1))
        if "max_bytes" in limits:
            sizes = {n: len(text(n).encode()) for n in range(1, newest + 1)}
            kept = [
                n
                for n in sizes
                if sum(map(sizes.__getitem__, range(n, newest + 1))) <= 40
            ]
        whole = backend.history(ROOM, limit=100)
        assert [e.seq for e in whole.entries] == kept
        assert [
            e.seq for e in backend.history(ROOM, after=0, limit=100).entries
        ] == kept
        resumed = backend.history(ROOM, after=kept[0] - 2, epoch=whole.epoch)
        assert not resumed.recovered
        resumed = backend.history(ROOM, after=kept[0] - 1, epoch=whole.epoch)
        assert resumed.recovered
        assert not backend.delete(ROOM, kept[0] - 1)
    assert client.xlen(LOG) <= 5  # what nobody gets is let go of, by whole entries


def test_an_inbox_counts_each_of_those_that_came_together(
    server: RedisServer, begin: Begin
) -> None:
    backend = begin(size=64)
    answers = say(server, backend, *range(1, 21), topic="user:ben")
    allowed = [answer for answer in answers if isinstance(answer, Receipt)]
    assert [answer.seq for answer in allowed] == list(range(1, 17))
    assert len(answers) == 20
    backend.publish("user:ben", Message("yes", sender="ben", to="ann"), keep=True)
    answers = say(server, backend, 17, 1, topic="user:ben")
    assert [getattr(answer, "seq", None) for answer in answers] == [18, 1]
