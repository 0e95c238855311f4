"""``Deliveries``: what the backend delivers, on its way to who is here.

In order, and never for so long at once that others of the loop wait for their turn.
"""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from ..logs import SparingLog
from ..messages import Delivery
from .home import Home

TURN = 0.01
"""Seconds that deliveries may take until others of the loop have their turn."""
MOST = 50_000
"""Deliveries that may wait for the loop, whoever published them."""
HOLD = 1000
"""How many may wait before who publishes here is made to wait, too."""
_COST = 256  # bytes of memory that a delivery takes besides its data
_HOLD_PART = 16  # of the bytes that may wait, one part in so many does it as well


class Recipients(Protocol):
    """Those who are here, as a delivery sees them."""

    log: SparingLog

    def pass_on(self, delivery: Delivery) -> None: ...
    def lost(self, topics: Iterable[str] | None) -> None: ...
    def tell_of_loss(self, topic: str) -> None: ...
    def report(self, error: BaseException) -> None: ...


class Deliveries:
    """A queue from any thread into the loop of ``home``, for ``recipients`` there.

    ``limit``: bytes of memory that may wait.
    """

    def __init__(self, home: Home, recipients: Recipients, limit: int) -> None:
        self._home = home
        self._limit = limit
        self._size = 0  # bytes that wait, under the loop's lock
        self._recipients = recipients
        self.waiting: collections.deque[Delivery | Callable[[], None]]
        """What is not passed on yet, and what is to be called in between."""
        self.waiting = collections.deque()
        self._lost: dict[str, None] = {}  # topics whose readers have to be told
        self._at_it = False
        self._resting: object = None  # the stay in which the others have their turn

    def clear(self) -> None:
        """Forget everything: this is another process now."""
        self.waiting.clear()
        self._size = 0
        self._lost.clear()
        self._at_it = False

    def put(self, delivery: Delivery) -> None:
        """Pass ``delivery`` on when its time has come; from any thread."""
        loop = self._home.loop
        if loop is None:
            return
        if len(self.waiting) > MOST or self._size > self._limit:
            # Nothing is left out in silence: the chat's connections read it again.
            with loop.lock:
                count = len(self.waiting)
                self.waiting.clear()
                self._size = 0
            self._recipients.log.warning(
                "deliveries", "%d deliveries waited for the loop, and are lost", count
            )
            self._recipients.lost(None)
            return
        if not (self.waiting or self._lost or self._at_it) and loop.is_current():
            self._pass_on_now(delivery)
            return
        size = _size(delivery)
        with loop.lock:
            self._size += size
        self.call(delivery)

    @property
    def behind(self) -> bool:
        """Whether so much waits that who publishes has to."""
        size, limit = self._size, self._limit // _HOLD_PART
        return len(self.waiting) > HOLD or size > limit

    def call(self, what: Delivery | Callable[[], None]) -> None:
        """Call ``what`` in its order among the deliveries, however many there are."""
        loop = self._home.loop
        if loop is None:
            return
        self.waiting.append(what)
        if loop.is_current():
            self._work()
        else:
            try:
                loop.call_threadsafe(self._work)
            except ValueError:  # the loop has ended
                self.waiting.clear()
                self._size = 0

    def lose(self, topics: Iterable[str]) -> None:
        """Have the readers of ``topics`` told of a loss, in turns as well."""
        self._lost.update(dict.fromkeys(topics))

    def hold_back(self) -> None:
        """Hold who publishes faster than the loop can deliver."""
        loop = self._home.loop
        if not self.behind or loop is None or not loop.may_wait():
            return
        if self._at_it and loop.is_current():
            return  # it is a part of a delivery: the others come after it
        # A thread may sleep: no event is safe in both worlds.
        wait = loop.event().wait if loop.is_current() else time.sleep
        while self.behind and loop.is_alive():
            wait(0.002)

    # -- in the loop

    def _pass_on_now(self, delivery: Delivery) -> None:
        """Do as ``_work`` where nothing waits, as it mostly is."""
        self._at_it = True
        try:
            self._recipients.pass_on(delivery)
        except Exception as error:
            self._recipients.report(error)
        finally:
            self._at_it = False
        if self.waiting:
            self._work()

    def _work(self) -> None:
        if self._at_it or not self._home.is_here():
            return  # a delivery led to a publication: it comes after, in order
        if self._resting is self._home.stay and not self.behind:
            return
        self._at_it = True
        # Better that the others wait longer than that much of a flood is lost.
        turn = TURN if len(self.waiting) < MOST // 5 else 10 * TURN
        until = time.monotonic() + turn
        try:
            while self.waiting or self._lost:
                try:
                    self._next()
                except Exception as error:
                    # One that cannot be read; the rest can.
                    self._recipients.report(error)
                if time.monotonic() >= until:
                    break
        finally:
            self._at_it = False
        if (self.waiting or self._lost) and self._resting is not self._home.stay:
            # Who has something to send or say does not wait for all of it.
            self._resting = self._home.stay
            self._home.later(0, self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        self._work()

    def _next(self) -> None:
        if self._lost:
            self._recipients.tell_of_loss(self._lost.popitem()[0])
        loop = self._home.loop
        assert loop is not None
        try:
            with loop.lock:
                what = self.waiting.popleft()
                if isinstance(what, Delivery):
                    self._size -= _size(what)
        except IndexError:  # another thread has thrown all away, or there was none
            return
        if isinstance(what, Delivery):
            self._recipients.pass_on(what)
        else:
            what()


def _size(delivery: Delivery) -> int:
    return sys.getsizeof(delivery.message.data) + _COST
