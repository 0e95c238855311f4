"""Counts: both twins, side by side."""

from __future__ import annotations

import mmap
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flask_wschat.transports import accelerated, counts
from flask_wschat.transports import queue as in_python
from flask_wschat.transports.counts import HANDLED, RECEIVED, SECONDS, SENT

pytestmark = pytest.mark.skipif(
    not accelerated.ACCELERATED,
    reason="the C twin is not built: that takes a compiler and Python's headers",
)
TEXT, PING, CLOSE = b"\x81\x01x", b"\x89\x00", b"\x88\x00"
HISTOGRAM = 4
SIZE = 8 * (HISTOGRAM + len(SECONDS) + 2)
TWINS = {"python": (counts, in_python), "c": (accelerated, accelerated)}


@pytest.fixture(params=list(TWINS))
def twin(request: pytest.FixtureRequest) -> Any:
    """What counts, and what queues."""
    return TWINS[request.param]


def numbers(memory: Any) -> list[int]:
    return list(memoryview(memory).cast("B").cast("Q"))


def test_numbers_are_added(twin: Any) -> None:
    memory = bytearray(SIZE)
    counted = twin[0].Counts(memory)
    counted.add(1)
    counted.add(1, 2**40)
    counted.add(2, 0)
    counted.add(3, 2**64 - 1)
    assert numbers(memory)[:4] == [0, 1 + 2**40, 0, 2**64 - 1]


@pytest.mark.parametrize(
    "seconds", [0.0, *SECONDS, *(1.1 * bound for bound in SECONDS), 1e6]
)
def test_times_are_put_under_their_bounds(twin: Any, seconds: float) -> None:
    """A bound is inclusive; what passes meanwhile is in it, so a little is left out."""
    memory = bytearray(SIZE)
    counted = twin[0].Counts(memory)
    before = twin[0].clock()
    began = before - 0.9 * seconds
    now = counted.took(HISTOGRAM, began)
    assert before <= now <= twin[0].clock()
    taken = now - began
    places = numbers(memory)[HISTOGRAM : HISTOGRAM + len(SECONDS) + 1]
    expected = next((i for i, b in enumerate(SECONDS) if taken <= b), len(SECONDS))
    assert places == [int(index == expected) for index in range(len(places))]
    assert struct.unpack("=d", memory[-8:])[0] == pytest.approx(taken, abs=1e-9)


def test_a_time_that_is_yet_to_come_is_none(twin: Any) -> None:
    memory = bytearray(SIZE)
    twin[0].Counts(memory).took(HISTOGRAM, twin[0].clock() + 100)
    assert numbers(memory)[HISTOGRAM] == 1
    assert struct.unpack("=d", memory[-8:])[0] == 0.0


def test_messages_have_places_of_their_own(twin: Any) -> None:
    memory = bytearray(SIZE)
    counted = twin[0].Counts(memory)
    counted.received(3)
    counted.received(0)
    began = twin[0].clock()
    assert began <= counted.handled(began - 0.3) <= twin[0].clock()
    first = HANDLED + SECONDS.index(0.5)
    assert [(i, n) for i, n in enumerate(numbers(memory)[: HANDLED + 17]) if n] == [
        (RECEIVED, 3),
        (first, 1),
    ]
    for wrong in (-1, "x", None, 2**70):
        with pytest.raises((OverflowError, ValueError, TypeError)):
            counted.received(wrong)
    with pytest.raises(TypeError):
        counted.handled("now")
    small = twin[0].Counts(bytearray(8))
    with pytest.raises(IndexError):
        small.received(1)
    with pytest.raises(IndexError):
        small.handled(began)


def test_they_move_with_what_is_counted_or_without(twin: Any) -> None:
    first, more = bytearray(SIZE), mmap.mmap(-1, mmap.PAGESIZE)
    counted = twin[0].Counts(first)
    counted.add(0, 5)
    counted.move_to(more)
    counted.add(0)
    assert (numbers(first)[0], numbers(more)[0]) == (5, 6)
    with pytest.raises(ValueError):
        counted.move_to(first)  # smaller than this one
    with pytest.raises(BufferError):
        more.close()  # it is counted in
    counted.move_to(first, True)
    counted.add(1)
    assert numbers(first)[:2] == [5, 1]
    more.close()
    counted.move_to(first)  # where it is
    assert numbers(first)[:2] == [5, 1]


@pytest.mark.parametrize(
    "memory", [b"x" * SIZE, bytearray(), bytearray(SIZE - 1), "x", None, 8]
)
def test_what_is_no_such_memory_is_refused(twin: Any, memory: Any) -> None:
    with pytest.raises((ValueError, TypeError, BufferError)):
        twin[0].Counts(memory)
    counted = twin[0].Counts(bytearray(8))
    with pytest.raises((ValueError, TypeError, BufferError)):
        counted.move_to(memory)
    counted.add(0)


@pytest.mark.parametrize("place", [-1, SIZE // 8, 2**70, 1.0, None])
def test_there_is_nothing_beyond_the_last_place(twin: Any, place: Any) -> None:
    memory = bytearray(SIZE)
    counted = twin[0].Counts(memory)
    if place != -1 or twin[0] is accelerated:
        with pytest.raises((IndexError, OverflowError, TypeError)):
            counted.add(place)
    with pytest.raises((IndexError, OverflowError, TypeError)):
        counted.took(HISTOGRAM + 1, 0.0)
    with pytest.raises((ValueError, OverflowError, TypeError)):
        counted.add(0, -1)
    with pytest.raises(TypeError):
        counted.add()
    with pytest.raises(TypeError):
        counted.took(HISTOGRAM, "now")


def test_queues_count_messages_and_no_control_frames(twin: Any) -> None:
    memory = bytearray(16)
    allowance = twin[1].Allowance(1 << 20, twin[0].Counts(memory))
    queues = [twin[1].Queue(10, allowance) for _ in range(4)]
    assert queues[0].add(TEXT, [])
    assert queues[0].add(PING, [])
    assert numbers(memory)[SENT] == 1
    queues[1].size = 10
    assert twin[1].add_to_all(queues, TEXT, []) == [queues[1]]
    assert numbers(memory)[SENT] == 4
    assert not twin[1].add_to_all(queues[2:], CLOSE, [])
    assert not twin[1].add_to_all([], TEXT, [])
    assert queues[1].add(TEXT, []) == 0
    allowance.note(TEXT)
    allowance.note(PING)
    assert numbers(memory)[SENT] == 5
    twin[1].Allowance().note(TEXT)  # for queues that nobody counts for
    assert twin[1].Allowance().counts is None


def test_wrong_arguments_are_errors() -> None:
    for wrong in (object(), 1, counts.Counts(bytearray(8))):
        with pytest.raises(TypeError):
            accelerated.Allowance(1, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        accelerated.Allowance().note("text")  # type: ignore[arg-type]
    unmade = accelerated.Counts.__new__(accelerated.Counts)
    with pytest.raises(IndexError):
        unmade.add(0)
    accelerated.Allowance(1, unmade).note(TEXT)
    unmade.move_to(bytearray(8))
    unmade.add(0)


def test_no_thread_loses_any(twin: Any) -> None:
    memory = bytearray(SIZE)
    counted = twin[0].Counts(memory)
    memories = [bytearray(SIZE) for _ in range(20)]

    def work(number: int) -> None:
        for _ in range(2000):
            counted.add(1)
            counted.took(HISTOGRAM, 0.0)
        if number == 0:
            for other in memories:
                counted.move_to(other)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found = numbers(memories[-1])
    assert found[1] == sum(found[HISTOGRAM : HISTOGRAM + len(SECONDS) + 1]) == 8000


def test_twins_agree_on_anything() -> None:
    chance = random.Random(7)
    made = []
    for count, queue in TWINS.values():
        memory = bytearray(SIZE)
        counted = count.Counts(memory)
        allowance = queue.Allowance(1 << 20, counted)
        made.append((memory, counted, [queue.Queue(50, allowance) for _ in range(9)]))
    for _ in range(500):
        frame = chance.choice([TEXT, PING, CLOSE, bytes([chance.randrange(256)])])
        which, place = chance.randrange(9), chance.randrange(1, HISTOGRAM)
        more = chance.randrange(1000)
        for (_, counted, queues), (_, queue) in zip(made, TWINS.values(), strict=True):
            queues[which].add(frame, [])
            queue.add_to_all(queues[which:], frame, [])
            counted.add(place, more)
    assert made[0][0] == made[1][0]
