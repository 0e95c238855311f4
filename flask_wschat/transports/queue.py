"""What of a transport has a twin in C: many queues filled, sent or weighed; reads.

See docs/decisions/12.
"""

from __future__ import annotations

import os
import sys
from threading import get_native_id  # gevent's patches leave it alone
from typing import Any, TypeVar

from .counts import CONTROL, SENT, Counts

READ_SIZE = 64 * 1024
"""Bytes asked for by one read."""
PLACE = 8
"""Bytes of memory that a place in a queue takes, whatever else holds the frame."""
FRAME_COST = 64
"""Bytes of memory that a frame takes besides its own, a place for it included."""

SAMPLE = 256
"""Frames of a queue that are looked at to know what is shared."""
# Which not every Python has: there, each queue is taken to hold all by itself.
_references = getattr(sys, "getrefcount", lambda thing: 2)


class Allowance:
    """What the queues of an application may take before somebody looks at them all.

    Whoever fills a queue takes from it; what was sent is not given back, so it is lower
    than what is really free. See docs/decisions/38.

    ``counts``: where they count the messages that they were given.
    """

    __slots__ = ("counts", "left")

    def __init__(self, left: int = sys.maxsize, counts: Counts | None = None) -> None:
        self.left = left
        """Bytes of memory; under 0 it is time to look."""
        self.counts = counts

    def note(self, frame: bytes, queues: int = 1) -> None:
        """Count a frame that so many queues were given; no control frame."""
        if self.counts is not None and not frame[0] & CONTROL:
            self.counts.add(SENT, queues)


class Queue:
    """The state of a queue; its C twin has the same, for ``flush_ready`` to read.

    ``limit``: bytes that may wait. ``allowance``: of all queues of an application.
    """

    __slots__ = (
        "_thread",
        "allowance",
        "batch",
        "fd",
        "flushing",
        "frames",
        "limit",
        "size",
        "watched",
    )

    def __init__(self, limit: int, allowance: Allowance) -> None:
        self.allowance = allowance
        self.frames: list[bytes] = []
        """Those not on their way yet; who appends one adds its bytes to ``size``."""
        self.batch: bytes | memoryview = b""
        """What is partly sent: not to be touched."""
        self.size = 0
        """Bytes that wait, those on their way included."""
        self._thread = get_native_id()
        self.limit = limit
        """-1 once nothing is queued any more."""
        self.fd = -1
        """The descriptor to send to, -1 where that is not all there is to it."""
        self.flushing = False
        """A flush is due, or waits for the socket to have room."""
        self.watched = False
        """Somebody wants to be told of the next flush."""

    def add(self, frame: bytes, unflushed: list[Any]) -> int:
        """Queue ``frame`` if there is room, and list the queue for the next flush.

        Return 0 if there is none, here or in the ``allowance``, or another thread than
        its maker's asks; 2 if it is the first one listed, else 1.
        """
        if self.allowance.left < 0:
            return 0
        added = self._add(frame, unflushed)
        if added:
            self.allowance.left -= len(frame) + FRAME_COST
            self.allowance.note(frame)
        return added

    def _add(self, frame: bytes, unflushed: list[Any]) -> int:
        if self.size >= self.limit or get_native_id() != self._thread:
            return 0
        self.frames.append(frame)
        self.size += len(frame)
        if self.flushing:
            return 1
        self.flushing = True
        unflushed.append(self)
        return 2 if len(unflushed) == 1 else 1


Q = TypeVar("Q", bound=Queue)


def add_to_all(queues: list[Q], frame: bytes, unflushed: list[Any]) -> list[Q]:
    """Queue ``frame`` in each of ``queues``; return those without room.

    They have one allowance, of which this takes whatever is left.
    """
    if not queues:
        return []
    # The frame is there once, the places are not.
    queues[0].allowance.left -= len(frame) + PLACE * len(queues)
    refused = [queue for queue in queues if not queue._add(frame, unflushed)]
    queues[0].allowance.note(frame, len(queues) - len(refused))
    return refused


def held(queues: list[Q]) -> list[int]:
    """Return the bytes of memory that each of ``queues`` holds.

    Of a frame that several hold each has a part, so that the sum is what all of them
    hold. How much is shared is asked of ``SAMPLE`` frames of each, or a few less.
    """
    return [_held_by(queue) for queue in queues]


def _held_by(queue: Queue) -> int:
    frames, waiting = queue.frames, queue.size
    count = len(frames)
    more = FRAME_COST - PLACE
    size = of_all = of_us = 0.0
    for index in range(0, count, count // SAMPLE + 1):
        # One reference is the call's own.
        holders = _references(frames[index]) - 1
        of_all += len(frames[index]) + more
        of_us += (len(frames[index]) + more) / holders
    wholes = [_whole(queue.batch)]  # in a list, whose reference is the only one more
    if wholes[0]:
        waiting -= len(queue.batch)
        size = (len(wholes[0]) + more) / max(_references(wholes[0]) - 2, 1)
    if of_all:
        size += (waiting + count * more) * (of_us / of_all)
    return int(size) + count * PLACE


def _whole(batch: bytes | memoryview) -> bytes:
    """Return the object whose memory a batch keeps."""
    whole = batch.obj if isinstance(batch, memoryview) else batch
    return whole if isinstance(whole, bytes) else b""


def flush_ready(queues: list[Q]) -> list[Q]:
    """Send what waits in each queue, where one send will do; return the other queues.

    The C twin does so, and joins the frames of a broadcast once for all who get them.
    Here nothing is done: what serves the others serves these as well.
    """
    return queues


def receive(fd: int, size: int) -> bytes:
    """Return what a socket has, at most ``size`` or ``READ_SIZE``; b"" at the end.

    :raises OSError: as ``socket.recv`` does.
    """
    return os.read(fd, min(size, READ_SIZE))
