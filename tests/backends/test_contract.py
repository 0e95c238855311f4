"""What every backend promises."""

from __future__ import annotations

import threading

import pytest

from flask_wschat.backends import Backend
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.messages import Message

Delivered = list[tuple[str, Message]]


@pytest.fixture(params=[MemoryBackend])
def backend(request: pytest.FixtureRequest) -> Backend:
    made: Backend = request.param(size=5, ttl=3600)
    return made


@pytest.fixture
def delivered(backend: Backend) -> Delivered:
    seen: Delivered = []
    backend.start(lambda topic, message: seen.append((topic, message)))
    return seen


def test_numbers_count_for_each_topic_and_only_what_is_kept(
    backend: Backend, delivered: Delivered
) -> None:
    message = Message("x")
    assert [backend.publish("a", message, keep=True) for _ in "123"] == [1, 2, 3]
    assert backend.publish("b", message, keep=True) == 1
    assert backend.publish("a", message) == 0
    assert backend.publish("a", message, keep=True) == 4
    assert delivered == [(topic, message) for topic in "aaabaa"]


def test_history_is_in_order_and_bounded(
    backend: Backend, delivered: Delivered
) -> None:
    for number in range(1, 9):
        backend.publish("t", Message(str(number)), keep=True)
    entries = backend.history("t")
    assert [(e.seq, e.data) for e in entries] == [(n, str(n)) for n in range(4, 9)]
    assert [e.seq for e in backend.history("t", limit=2)] == [7, 8]
    assert [e.seq for e in backend.history("t", after=5, limit=2)] == [6, 7]
    assert [e.seq for e in backend.history("t", after=1)] == [4, 5, 6, 7, 8]
    assert backend.history("t", after=8) == []
    assert backend.history("t", after=100) == []
    assert backend.history("t", limit=0) == []
    assert backend.history("unknown") == []


def test_history_keeps_types_and_times(backend: Backend, delivered: Delivered) -> None:
    backend.publish("t", Message("text"), keep=True)
    backend.publish("t", Message(b"\x00\xff"), keep=True)
    entries = backend.history("t")
    assert [e.data for e in entries] == ["text", b"\x00\xff"]
    assert entries[0].at <= entries[1].at


def test_age_ends_a_message() -> None:
    backend = MemoryBackend(size=5, ttl=-1)
    backend.publish("t", Message("x"), keep=True)
    assert backend.history("t") == []
    assert backend.publish("t", Message("x"), keep=True) == 2


def test_threads_see_one_order(backend: Backend, delivered: Delivered) -> None:
    numbers: dict[str, int] = {}

    def publish(name: str) -> None:
        for count in range(200):
            data = f"{name}{count}"
            numbers[data] = backend.publish("t", Message(data), keep=True)

    threads = [threading.Thread(target=publish, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    order = [numbers[str(message.data)] for _, message in delivered]
    assert order == list(range(1, 801))
