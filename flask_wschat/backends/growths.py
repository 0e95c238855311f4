"""Messages that grow, as one process knows of them: the memory backend's."""

from __future__ import annotations

import time

from ..errors import StreamGone, StreamStopped, TooManyStreams
from ..messages import APPEND, DISCARD, STOP, STREAM, Grown, Growth, Message
from .contract import MOST_STREAMS

GONE = "it does not grow, or not any more"
LACKS = "pieces of it are missing"
ALIVE = "its writer is alive"
STOPPED = "somebody has stopped it"
OTHER = "another writer has begun it anew"
TOO_MANY = f"{MOST_STREAMS} messages grow there already"
CLOSE = 0.001
"""Seconds; storages round the time when one began."""
OVERDUE = 2
"""One is forgotten whose writer was not heard of for so many times its ``ttl``."""


class _Growing:
    __slots__ = ("grown", "heard", "stopped", "ttl")

    def __init__(self, grown: Grown, ttl: float) -> None:
        self.grown = grown
        self.ttl = ttl
        self.heard = time.monotonic()
        self.stopped = False

    def is_overdue(self, now: float, times: int = 1) -> bool:
        return now - self.heard > times * self.ttl


class Growths:
    """By topic and id; see ``Backend.publish``. Who calls holds a lock."""

    def __init__(self) -> None:
        self._topics: dict[str, dict[str, _Growing]] = {}

    def of(self, topic: str) -> tuple[Grown, ...]:
        """Return those of ``topic`` whose writers are alive."""
        now = time.monotonic()
        there = self._topics.get(topic, {}).values()
        return tuple(each.grown for each in there if not each.is_overdue(now))

    def step(self, topic: str, message: Message, growth: Growth, at: float) -> bool:
        """Do what the event of ``message`` says; return whether to deliver it.

        :raises StreamError: as ``publish``.
        """
        now, event = time.monotonic(), message.event
        there = self._topics.get(topic, {})
        growing = there.get(growth.id)
        if event == STREAM:
            return growing is None and self._open(topic, message, growth, at)
        if growing is None:
            raise StreamGone(GONE)
        if growth.began and abs(growth.began - growing.grown.at) >= CLOSE:
            raise StreamGone(OTHER)
        if event == APPEND:
            return _append(growing, message, growth, now)
        if event == STOP:
            growing.stopped = True
            return False
        assert event == DISCARD, event
        if growth.ttl and not growing.is_overdue(now):
            raise StreamGone(ALIVE)
        self.end(topic, growth.id)
        return True

    def end(self, topic: str, id: str) -> None:
        """It grows no more, if it did."""
        there = self._topics.get(topic)
        if there is not None:
            there.pop(id, None)
            if not there:
                del self._topics[topic]

    def tidy(self) -> None:
        """Forget those about which nobody has asked."""
        now = time.monotonic()
        for topic, there in list(self._topics.items()):
            for id, growing in list(there.items()):
                if growing.is_overdue(now, OVERDUE):
                    self.end(topic, id)

    def _open(self, topic: str, message: Message, growth: Growth, at: float) -> bool:
        self.tidy()
        if len(self.of(topic)) >= MOST_STREAMS:
            raise TooManyStreams(TOO_MANY)
        grown = Grown(growth.id, message.sender, at, 0, "", growth.asker)
        there = self._topics.setdefault(topic, {})
        there[growth.id] = _Growing(grown, growth.ttl)
        return True


def _append(growing: _Growing, message: Message, growth: Growth, now: float) -> bool:
    grown = growing.grown
    if growing.stopped:
        raise StreamStopped(STOPPED)
    if growth.n > grown.n + 1:
        raise StreamGone(LACKS)
    growing.heard = now
    if growth.n != grown.n + 1:
        return False
    growing.grown = grown._replace(n=growth.n, text=grown.text + str(message.data))
    return True
