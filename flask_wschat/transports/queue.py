"""What of a transport has a twin in C: many queues filled or sent at once; reads.

See docs/decisions/12.
"""

from __future__ import annotations

import os
from threading import get_native_id  # gevent's patches leave it alone
from typing import Any, TypeVar

READ_SIZE = 64 * 1024
"""Bytes asked for by one read."""


class Queue:
    """The state of a queue; its C twin has the same, for ``flush_ready`` to read.

    ``limit``: bytes that may wait.
    """

    __slots__ = (
        "_thread",
        "batch",
        "fd",
        "flushing",
        "frames",
        "limit",
        "size",
        "watched",
    )

    def __init__(self, limit: int) -> None:
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

        Return 0 if there is none or another thread than its maker's asks, 2 if it is
        the first one listed, else 1.
        """
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
    """Queue ``frame`` in each of ``queues``; return those without room."""
    return [queue for queue in queues if not queue.add(frame, unflushed)]


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
