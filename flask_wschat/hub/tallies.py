"""``Tallies``: of a poll's news the newest, and not too often.

See docs/decisions/15.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .. import envelope
from ..messages import Delivery

INTERVAL = 0.1
"""Seconds between two tallies of a poll, whichever processes have them to tell."""
_AGE = 5.0  # seconds after which an older tally must be news: of a new count
_MANY = 64  # polls, before those are looked for of which nothing is heard any more


class _Poll:
    """How far the tallies of one poll have come here."""

    __slots__ = ("at", "newest", "sent", "version")

    def __init__(self) -> None:
        self.version, self.at, self.sent = 0, 0.0, 0.0
        self.newest: Delivery | None = None
        """What waits until it may be sent."""


class Tallies:
    """Those on their way to ``deliver``; used in the loop only.

    ``later`` calls back after so many seconds.
    """

    def __init__(
        self,
        later: Callable[[float, Callable[[], Any]], Any],
        deliver: Callable[[Delivery], None],
    ) -> None:
        self._later = later
        self._deliver = deliver
        self.clear()

    def clear(self) -> None:
        """Forget everything: this is another process now."""
        self._polls: dict[str, _Poll] = {}
        self._most = _MANY

    def void(self) -> None:
        """Take the next one of each poll for news: counts may have begun anew."""
        for poll in self._polls.values():
            poll.version, poll.newest = 0, None

    def put(self, delivery: Delivery) -> None:
        """Pass a poll's newest tally on, at once or when the last one is old enough."""
        message, now = delivery.message, time.monotonic()
        version = envelope.tally_version(message.data)
        poll = self._polls.get(message.key or "")
        if poll is None:
            poll = self._polls[message.key or ""] = _Poll()
            if len(self._polls) > self._most:
                self._forget(now)
        if version < poll.version and now - poll.at < _AGE:
            return
        poll.version, poll.at = version, now
        waits = poll.newest is not None
        poll.newest = delivery
        if not waits:
            wait = poll.sent + INTERVAL - now
            if wait > 0:
                self._later(wait, lambda: self._pass_on(poll))
            else:
                self._pass_on(poll)

    def _forget(self, now: float) -> None:
        """Forget polls of which nothing was heard for long: any tally is news then."""
        # The new one has no time yet.
        self._polls = {
            key: poll
            for key, poll in self._polls.items()
            if not poll.at or poll.newest is not None or now - poll.at < _AGE
        }
        self._most = max(2 * len(self._polls), _MANY)

    def _pass_on(self, poll: _Poll) -> None:
        delivery, poll.newest = poll.newest, None
        poll.sent = time.monotonic()
        if delivery is not None:
            self._deliver(delivery)
