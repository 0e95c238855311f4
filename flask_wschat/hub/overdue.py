"""``Overdue``: looks for growing messages of which nothing has been heard for long.

Their writers may be dead. Whichever process sees it first tells all of them.
"""

from __future__ import annotations

import logging
import time

from ..backends import Backend
from ..errors import BackendError, StreamGone
from ..messages import DISCARD, Grown, Growth, Message
from ..transports import Loop
from .feeds import Feeds

logger = logging.getLogger("flask_wschat")

DEAD = "its writer is gone"


class Overdue:
    """Called in workers, but ``tick``."""

    def __init__(self, feeds: Feeds, backend: Backend) -> None:
        self._feeds = feeds
        self._backend = backend

    def tick(self, loop: Loop, now: float) -> None:
        """Look for those whose time has come; in the loop."""
        if due := self._feeds.growing.due(now):
            loop.run_own(lambda: self._look_for(loop, due))

    def find(self, loop: Loop, topic: str, id: str) -> Grown | None:
        """Return how one of ``topic``, which is read here, stands; None: it does not
        grow.

        :raises BackendError: it cannot be known.
        """
        known: Grown | None = loop.call(self._feeds.growing.get, topic, id)
        if known is None:
            self._look(loop, topic)
            known = loop.call(self._feeds.growing.get, topic, id)
        return known

    def _look_for(self, loop: Loop, due: dict[str, list[str]]) -> None:
        try:
            for topic, dead in due.items():
                if not all([self._discard(topic, id) for id in dead]) or not dead:
                    self._look(loop, topic)
        except BackendError:
            pass  # the next tick but some looks again
        except Exception:
            logger.exception("error in looking for what grows")

    def _discard(self, topic: str, id: str) -> bool:
        message = Message(
            DEAD, event=DISCARD, growth=Growth(id, ttl=self._feeds.growing.ttl)
        )
        try:
            self._backend.publish(topic, message)
        except StreamGone:
            return False  # it has ended, or its writer is alive
        return True

    def _look(self, loop: Loop, topic: str) -> None:
        since = time.monotonic()
        page = self._backend.history(topic, limit=1)
        loop.call(self._feeds.grown, topic, page, since)
