"""One process's memory: the default, with nothing to install."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque

from ..messages import Entry, Message
from . import Deliver


class _Topic:
    __slots__ = ("entries", "seq")

    def __init__(self, size: int) -> None:
        self.seq = 0
        self.entries: deque[Entry] = deque(maxlen=size)


class MemoryBackend:
    """Topics of this process: ``size`` messages each, none over ``ttl`` seconds old."""

    def __init__(self, *, size: int = 256, ttl: float = 86400.0) -> None:
        self._size = size
        self._ttl = ttl
        self._topics: dict[str, _Topic] = {}
        self._deliver: Deliver | None = None
        # One lock over number, history and hand-over: so the order is the same for all.
        self._lock = threading.RLock()

    def start(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> int:
        with self._lock:
            seq = 0
            if keep and self._size:
                kept = self._topics.get(topic)
                if kept is None:
                    kept = self._topics[topic] = _Topic(self._size)
                kept.seq = seq = kept.seq + 1
                kept.entries.append(Entry(seq, message.data, time.time()))
            if self._deliver is not None:
                self._deliver(topic, message)
        return seq

    def history(self, topic: str, *, after: int = 0, limit: int = 50) -> list[Entry]:
        with self._lock:
            kept = self._topics.get(topic)
            if kept is None or limit <= 0:
                return []
            oldest = time.time() - self._ttl
            while kept.entries and kept.entries[0].at < oldest:
                kept.entries.popleft()
            size = len(kept.entries)
            first = kept.seq - size  # the number before the oldest one kept
            start = max(after - first if after > 0 else size - limit, 0)
            return list(itertools.islice(kept.entries, start, start + limit))
