"""What the memory backend costs, as it is on the path of every broadcast."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc

import pytest

from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.messages import Message
from tests.backends.cluster import RecordingHost, run_program
from tests.support.waiting import eventually


def test_ten_thousand_rooms_are_small_and_end() -> None:
    backend = MemoryBackend(ttl=3.0)
    backend.start(RecordingHost())
    rooms = 10_000
    tracemalloc.start()
    try:
        for number in range(rooms):
            message = Message(f"message {number}", sender="ann", mid=f"{number:032x}")
            backend.publish(f"room:{number}", message, keep=True)
        taken, _ = tracemalloc.get_traced_memory()
        assert taken / rooms < 600

        def small() -> bool:
            backend.refresh()
            # Python keeps some thousand tuples for others to come.
            return tracemalloc.get_traced_memory()[0] < taken / 10

        backend._ttl = 0.05
        eventually(small)
    finally:
        tracemalloc.stop()


def test_threads_of_a_patched_process() -> None:
    run_program("patched_threads", "memory://")


def test_history_stays_as_long_as_its_size() -> None:
    backend = MemoryBackend(size=10)
    backend.start(RecordingHost())
    for number in range(1000):
        message = Message("x", sender="ann", mid=str(number))
        backend.publish("room:a", message, keep=True)
        kept = backend._topics["room:a"]
        assert len(kept.entries) <= 11
        assert len(kept.mids or ()) <= 80
    assert len(kept.mids or ()) >= 40
    assert len(backend.history("room:a").entries) == 10


def test_a_topic_in_use_outlives_the_idle_ones() -> None:
    backend = MemoryBackend(ttl=0.2)
    backend.start(RecordingHost())
    epoch = backend.history("room:a").epoch
    until = time.monotonic() + 1
    eventually(
        lambda: (
            backend.publish("room:a", Message("x"), keep=True).epoch != epoch
            or time.monotonic() > until
        )
    )
    assert backend.history("room:a").epoch == epoch


FORK = """
import os
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.messages import Message
from tests.backends.cluster import RecordingHost, run_program

backend = MemoryBackend()
backend.start(RecordingHost())
before = backend.publish("room:a", Message("1"), keep=True).epoch
assert backend.history("room:a").epoch == before
child = os.fork()
backend.publish("room:a", Message("2"), keep=True)
page = backend.history("room:a", after=1, epoch=before)
assert page.recovered == bool(child), page
assert (page.epoch == before) == bool(child), page
if not child:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_numbers_given_before_a_fork_are_those_of_one_process() -> None:
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True
    )
    assert (answer.stdout, answer.stderr) == ("0\n", "")


def test_keys_are_forgotten_though_nobody_asks_for_them() -> None:
    backend = MemoryBackend()
    for number in range(1000):
        assert backend.once(f"{number}", -1)
    assert len(backend._once) < 100
    backend.refresh()
    assert not backend._once
