"""Which topics the backend delivers to this process: those that somebody here wants.

The backend is called by one worker at a time, never in the loop, so its calls keep the
order in which topics were wanted and given up; whatever gathers meanwhile goes in one.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

from ..backends import Backend
from ..errors import BackendError
from ..transports import Event, Loop

logger = logging.getLogger("flask_wschat")

LINGER = 5.0
"""Seconds a topic stays subscribed after its last member: people reload pages."""


class _Waiter:
    __slots__ = ("error", "event", "topics")

    def __init__(self, topics: set[str], event: Event) -> None:
        self.topics = topics
        self.event = event
        self.error: BackendError | None = None


class Subscriptions:
    """Topics on their way in and out. Changes in the loop only, but for ``wait``.

    ``wanted`` says whether anyone here is in a topic; ``new_event`` as in ``Host``.
    """

    def __init__(
        self,
        backend: Backend,
        wanted: Callable[[str], bool],
        new_event: Callable[[], Event],
    ) -> None:
        self._backend = backend
        self._wanted = wanted
        self._new_event = new_event
        self.clear()

    def clear(self) -> None:
        """Forget everything: this is another process now."""
        self._delivered: set[str] = set()
        self._subscribed: set[str] = set()  # or tried: the backend may deliver them
        self._asked: dict[str, None] = {}
        self._taken: set[str] = set()  # those being asked for
        self._failed: set[str] = set()
        self._idle: OrderedDict[str, float] = OrderedDict()  # the first is due first
        self._waiters: list[_Waiter] = []
        self._working = False

    def want(self, loop: Loop, topics: Iterable[str]) -> None:
        """See that ``topics`` are delivered, soon."""
        for topic in topics:
            self._idle.pop(topic, None)
            if topic not in self._delivered:
                self._asked[topic] = None
        if self._asked:
            self._work_soon(loop)

    def wait(self, loop: Loop, topics: Collection[str]) -> None:
        """Return when ``topics`` are delivered; at once for a caller who may not wait.

        :raises BackendError: they are not; it is tried again later.
        """
        if self._delivered.issuperset(topics):
            return
        missing = set(topics) - self._delivered
        if not loop.may_wait():
            self.want(loop, missing)
            return
        waiter = _Waiter(missing, self._new_event())
        loop.call(self._enlist, loop, waiter)
        waiter.event.wait()
        if waiter.error is not None:
            raise waiter.error

    def delivers(self, topic: str) -> bool:
        """Whether what is published in ``topic`` comes; in the loop."""
        return topic in self._delivered

    def release(self, topic: str) -> None:
        """Note that nobody is in ``topic`` any more."""
        self._idle[topic] = time.monotonic() + LINGER
        self._idle.move_to_end(topic)

    def tick(self, loop: Loop, now: float) -> bool:
        """Let go of what nobody wants; True: there is more to come."""
        if self._failed:
            again = [topic for topic in self._failed if self._wanted(topic)]
            self._failed.clear()
            self.want(loop, again)
        if self._is_due(now):
            self._work_soon(loop)
        return bool(self._idle or self._failed or self._working)

    @property
    def busy(self) -> bool:
        """Whether the backend is being told of some."""
        return self._working

    # -- within

    def _enlist(self, loop: Loop, waiter: _Waiter) -> None:
        waiter.topics -= self._delivered
        if not waiter.topics:
            waiter.event.set()
            return
        self._waiters.append(waiter)
        self.want(loop, waiter.topics)

    def _work_soon(self, loop: Loop) -> None:
        if not self._working:
            self._working = True
            loop.run_own(lambda: self._work(loop))

    def _work(self, loop: Loop) -> None:
        try:
            while True:
                asked, dropped = loop.call(self._take)
                if not asked and not dropped:
                    return
                if dropped:
                    self._unsubscribe(dropped)
                self._subscribe(loop, asked)
        except BaseException as fault:  # who waits is to hear of any
            error = fault if isinstance(fault, BackendError) else None
            if error is None:
                logger.exception("error in subscribing")
                error = BackendError(str(fault))
            loop.call_threadsafe(self._done, error, None)
            loop.call_threadsafe(self._rest, loop)

    def _subscribe(self, loop: Loop, topics: list[str]) -> None:
        """Subscribe to ``topics``; where that fails, each is on its own."""
        try:
            if topics:
                self._backend.subscribe(topics)
        except BackendError as error:
            if len(topics) == 1:
                loop.call(self._done, error, topics)
                return
            for topic in topics:
                self._subscribe(loop, [topic])
        else:
            loop.call(self._done, None, topics)

    def _unsubscribe(self, topics: list[str]) -> None:
        try:
            self._backend.unsubscribe(topics)
        except BackendError:
            pass  # it was stopped: nothing comes any more
        except Exception:
            logger.exception("error in unsubscribing")

    def _take(self) -> tuple[list[str], list[str]]:
        now = time.monotonic()
        dropped = []
        while self._is_due(now):
            topic, _ = self._idle.popitem(last=False)
            if not self._wanted(topic) and topic in self._subscribed:
                self._subscribed.discard(topic)
                self._delivered.discard(topic)
                dropped.append(topic)
        asked = list(self._asked)
        self._taken = set(asked)
        self._subscribed.update(asked)
        self._asked.clear()
        self._working = bool(asked or dropped)
        return asked, dropped

    def _is_due(self, now: float) -> bool:
        # Of the first only: who comes must not look at all who have gone.
        return bool(self._idle) and next(iter(self._idle.values())) <= now

    def _rest(self, loop: Loop) -> None:
        """A worker ended early: what was asked for since wants another."""
        self._working = False
        if self._asked:
            self._work_soon(loop)

    def _done(self, error: BackendError | None, asked: list[str] | None) -> None:
        """Note what became of ``asked``; None: of all that is being asked for."""
        if asked is None:
            asked = list(self._taken)
        self._taken.difference_update(asked)
        (self._delivered if error is None else self._failed).update(asked)
        for topic in asked:
            if not self._wanted(topic):
                self._idle.setdefault(topic, time.monotonic() + LINGER)
        waiting = []
        for waiter in self._waiters:
            if error is not None and not waiter.topics.isdisjoint(asked):
                waiter.error = error
                waiter.event.set()
                continue
            waiter.topics.difference_update(asked)
            if waiter.topics:
                waiting.append(waiter)
            else:
                waiter.event.set()
        self._waiters = waiting
