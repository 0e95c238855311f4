"""``Claims``: rooms of plain connections, which the ready-made chat is kept out of.

See docs/decisions/26.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..backends import Backend
from ..errors import BackendError
from ..messages import Message, room_of
from ..websocket import WebSocket
from .home import Home
from .members import Members
from .parcels import tell_gap

CLAIM = Message("", event="claim")
"""Tells a room's members that plain connections have claimed it."""
_AT_ONCE = 500  # rooms in one call
_MOST_WAIT = 60.0  # seconds until claims are renewed, however long they would last


class Claims:
    """Those of this process. ``ttl``: seconds that one lasts unless it is renewed."""

    def __init__(
        self, home: Home, members: Members, backend: Backend, ttl: float
    ) -> None:
        self._home = home
        self._members = members
        self._backend = backend
        self._every = min(ttl / 4, _MOST_WAIT)
        self._renew_at = 0.0
        self.sharing: set[WebSocket] = set()
        """Those of the chat that may be in plain rooms."""

    def claim(self, topics: Sequence[str]) -> None:
        """Note in the backend that plain connections are in ``topics``; may wait.

        :raises BackendError: it may be noted or not.
        """
        self._backend.claim(topics, CLAIM)

    def check(self, ws: WebSocket, topic: str) -> None:
        """See that ``ws``, of the chat, may be in a room; may wait.

        :raises PermissionError: plain connections have claimed it.
        :raises BackendError: that cannot be known.
        """
        if ws in self.sharing:
            return
        # What is here is asked as well: a storage may have lost its marks.
        claimed = self._backend.history(topic, limit=1, growing=False).plain
        if claimed or self._members.has_plain(topic):
            raise PermissionError(
                "plain connections are in this room: the chat may be there, too, only"
                " where its listener says plain_rooms = True"
            )

    def obey(self, topic: str, put_out: Callable[[WebSocket, str], Any]) -> None:
        """Put those of the chat out of a room that was claimed; in the loop."""
        room = room_of(topic)
        assert room is not None
        out = [ws for ws in self._members.chatting(topic) if ws not in self.sharing]
        for ws in out:
            put_out(ws, room)
        tell_gap(out, topic)

    def made(self, topic: str) -> None:
        """Claim a room again that the storage has forgotten; in the loop."""

        def claim() -> None:
            try:
                self.claim([topic])
            except BackendError:
                self._renew_at = 0.0  # with the next sweep

        if self._members.has_plain(topic) and self._home.loop is not None:
            self._home.loop.run_own(claim)

    def lost(self) -> None:
        """Renew them, now and at the next tick: a storage may have lost them."""
        if self._renew_at and self._home.loop is not None:
            self._renew_at = 0.0
            self._home.loop.run_own(self._renew)

    def tick(self, now: float) -> None:
        """Renew them, if it is time."""
        if now >= self._renew_at and self._home.loop is not None:
            self._renew_at = now + self._every
            self._home.loop.run_own(self._renew)

    def _renew(self) -> None:
        """In a worker."""
        topics = self._members.plain_rooms()
        try:
            for start in range(0, len(topics), _AT_ONCE):
                self.claim(topics[start : start + _AT_ONCE])
        except BackendError:
            self._renew_at = 0.0  # the backend logs it, and is asked again
