"""What server processes share: the order of messages, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..messages import Entry, Message

Deliver = Callable[[str, Message], None]


class Backend(Protocol):
    """One method call is one step that others see whole or not at all."""

    def start(self, deliver: Deliver) -> None:
        """Call ``deliver(topic, message)`` for each publication from now on, in the
        order of the sequence numbers; from whichever thread publishes."""

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> int:
        """Append to the topic's history if ``keep``, and deliver, in one step.

        Return the sequence number, counted from 1 for each topic, or 0 for a message
        that is not kept.

        :raises BackendError: nothing was stored or delivered.
        """

    def history(self, topic: str, *, after: int = 0, limit: int = 50) -> list[Entry]:
        """Return kept messages in order: the first ``limit`` of those whose number is
        over ``after``; with ``after=0`` the newest ``limit``."""
