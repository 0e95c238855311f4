"""What is counted so often that it has a twin in C: numbers in a piece of memory.

Which number is whose is said above, in ``hub.figures``; here only of those that queues
count themselves. See docs/decisions/58.
"""

from __future__ import annotations

import bisect
import time
from typing import Any

from .patched import RLock

SENT, RECEIVED, HANDLED = 0, 1, 2
"""Places of what is counted below ``hub.figures``: messages queued, which control
frames are not; messages of peers; how long listeners took, a histogram."""
CONTROL = 0x8
"""The opcode bit that makes a frame a control frame (RFC 6455 §5.2)."""
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds, inclusive, of how long things take; there is one more without."""

clock = time.monotonic
"""Return the seconds that ``Counts.took`` counts from."""


class Counts:
    """Unsigned numbers of 64 bits, which only grow, and doubles, in ``memory``.

    ``memory``: writable, a multiple of eight bytes; others may read it meanwhile. From
    any thread.
    """

    __slots__ = ("_doubles", "_lock", "_numbers")

    def __init__(self, memory: Any) -> None:
        self._count_in(memory)
        self._lock = RLock()  # a finaliser may count in the midst of it

    def _count_in(self, memory: Any) -> None:
        plain = memoryview(memory).cast("B")
        if plain.readonly or len(plain) < 8 or len(plain) % 8:
            raise ValueError("counts need writable memory, a multiple of eight bytes")
        self._numbers: Any = plain.cast("Q")
        self._doubles: Any = plain.cast("d")

    def add(self, place: int, count: int = 1) -> None:
        """Add ``count``, 0 at least, to a number."""
        if count < 0:
            raise OverflowError("there are no negative numbers")
        with self._lock:
            self._numbers[place] += count

    def took(self, place: int, began: float) -> float:
        """Note how long it is since ``began``, in the histogram that is at ``place``.

        Return what the clock says.

        That has a number for each of ``SECONDS`` and one for longer times, and then
        their sum, a double.
        """
        now = clock()
        seconds = max(now - began, 0.0)
        with self._lock:
            self._numbers[place + bisect.bisect_left(SECONDS, seconds)] += 1
            self._doubles[place + len(SECONDS) + 1] += seconds
        return now

    def received(self, count: int) -> None:
        """Add to the messages of peers."""
        self.add(RECEIVED, count)

    def handled(self, began: float) -> float:
        """Do as ``took`` for a message that a listener had."""
        return self.took(HANDLED, began)

    def move_to(self, memory: Any, anew: bool = False) -> None:
        """Go on in other ``memory``, from there on or, where ``anew``, from zero.

        :raises ValueError: it is too small, or cannot be written to.
        """
        if anew:
            self._lock = RLock()  # that no thread of the process before has
            self._count_in(memory)
            return
        with self._lock:
            numbers = self._numbers
            if len(memoryview(memory).cast("B")) < 8 * len(numbers):
                raise ValueError("there is not enough memory for these counts")
            self._count_in(memory)
            self._numbers[: len(numbers)] = numbers
