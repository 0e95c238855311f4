"""How much of an inbox one user may fill; knows of no storage.

See docs/decisions/41.
"""

from __future__ import annotations

from typing import NamedTuple

from ..messages import Message, size_of, user_of

UNANSWERED = "too much that was told to this user is not answered"

_LEAST_MESSAGES = 16
_LEAST_BYTES = 1 << 16


class Told(NamedTuple):
    """What one user has told another, who has not answered since."""

    messages: int
    bytes: int
    since: float
    """When the first of them was told."""
    last: int
    """The number of the last one."""


class Shares:
    """Lets each user fill ``share``, a part of 1, of another's inbox until there is an
    answer, or what is kept has changed as a whole. 16 messages and 64 KiB they always
    may: a smaller inbox is none to protect.

    ``size``, ``max_bytes`` and ``ttl`` are those of a topic.
    """

    def __init__(self, share: float, size: int, max_bytes: int, ttl: float) -> None:
        self._limits = share < 1
        self._size = size
        self._ttl = ttl
        self.most = max(int(size * share), _LEAST_MESSAGES)
        self.most_bytes = max(int(max_bytes * share), _LEAST_BYTES)

    def parties(self, topic: str, message: Message) -> tuple[str, str]:
        """Return who tells the owner of ``topic`` something, and whom the owner tells.

        "" for nobody: at least one of them is. What has grown is the application's.
        """
        owner, sender = user_of(topic), message.sender
        if owner is None or sender is None:
            return "", ""
        if message.growth is not None or not self._limits:
            return "", ""
        return (sender, "") if sender != owner else ("", message.to or "")

    def is_over(self, told: Told, now: float, newest: int) -> bool:
        """Whether ``told`` counts no more, the topic's number being ``newest``."""
        return told.last <= newest - self._size or now - told.since > self._ttl

    def add(
        self, told: Told | None, message: Message, now: float, newest: int
    ) -> Told | None:
        """Return what was told with ``message``, which follows ``newest``; None: that
        is too much."""
        if told is None or self.is_over(told, now, newest):
            told = Told(0, 0, now, 0)
        count, taken = told.messages + 1, told.bytes + size_of(message.data)
        if told.messages and (count > self.most or taken > self.most_bytes):
            return None
        return Told(count, taken, told.since, newest + 1)
