"""What the memory backend costs, as it is on the path of every broadcast."""

from __future__ import annotations

import time
import tracemalloc

from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.messages import Message
from tests.conftest import eventually

from .conftest import RecordingHost


def test_a_hundred_thousand_rooms_are_small_and_end() -> None:
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
            return tracemalloc.get_traced_memory()[0] < taken / 50

        backend._ttl = 0.05
        eventually(small)
    finally:
        tracemalloc.stop()


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
