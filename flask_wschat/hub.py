"""``Hub``: the connections of this process, their rooms and users.

Whatever is published goes to the backend first and comes back from there, also in a
single process, so that everyone sees the same messages in the same order.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import logging
import os
import time
import weakref
from collections.abc import Callable, Collection
from typing import Any

from .backends import Backend
from .codec import CloseCode, EncodedMessage
from .errors import ConnectionClosed
from .messages import Entry, Message
from .settings import Settings
from .transports import Loop
from .websocket import Audience, CallEach, WebSocket, call_each

logger = logging.getLogger("flask_wschat")

EVERYONE = "all"

_DUE_LIMIT = 1000  # publications of other threads that may await the loop


def room_topic(room: str) -> str:
    """Return the backend's topic of a room."""
    return "room:" + room


def user_topic(user: str) -> str:
    """Return the backend's topic of a user."""
    return "user:" + user


class Hub:
    """Who is connected here, and the way to reach them.

    Its sets change in the loop of its connections only; ``publish`` may be called from
    any thread.
    """

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        *,
        dumps: Callable[[Any], str],
        loads: Callable[[str | bytes], Any],
        call_each: CallEach = call_each,
        report: Callable[[Exception], None] | None = None,
    ) -> None:
        self.settings = settings
        self.backend = backend
        self.dumps = dumps
        self.loads = loads
        self.call_each = call_each
        self.report = report or _log_error
        self._members: dict[str, Audience] = {EVERYONE: Audience()}
        self._loop: Loop | None = None
        self._pid = 0
        self._due: collections.deque[tuple[str, Message]] = collections.deque()
        self._delivering = False
        self._sweeping = False
        # Four looks in the shorter of the two times keep both to within a quarter.
        shortest = min(settings.PING_INTERVAL, settings.PING_TIMEOUT)
        self._tick = min(1.0, shortest / 4)
        self.stopping: Callable[[], bool] | None = None
        """Tells the sweep that the server ends, and every connection with it."""
        backend.start(self.receive)
        _hubs.add(self)

    # -- who is here

    def register(self, ws: WebSocket, loop: Loop) -> None:
        """Add an open connection."""
        self._loop = loop
        self._pid = os.getpid()
        ws.due = time.monotonic() + self.settings.PING_INTERVAL
        self._members[EVERYONE].add(ws)
        if ws.user is not None:
            self._members.setdefault(user_topic(ws.user), Audience()).add(ws)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self._tick, self._sweep)

    def forget(self, ws: WebSocket) -> None:
        """Take a connection that ended out of everything it was in."""
        self._members[EVERYONE].discard(ws)
        if ws.user is not None:
            self._drop(user_topic(ws.user), ws)
        for room in ws._rooms or ():
            self._drop(room_topic(room), ws)
        ws._rooms = None

    def join(self, ws: WebSocket, room: str) -> bool:
        """Put ``ws`` into ``room``; False: it was there, or is closed."""
        if ws.closed or (ws._rooms is not None and room in ws._rooms):
            return False
        if ws._rooms is None:
            ws._rooms = set()
        ws._rooms.add(room)
        self._members.setdefault(room_topic(room), Audience()).add(ws)
        return True

    def leave(self, ws: WebSocket, room: str) -> bool:
        """Take ``ws`` out of ``room``; False: it was not there."""
        if ws._rooms is None or room not in ws._rooms:
            return False
        ws._rooms.discard(room)
        self._drop(room_topic(room), ws)
        return True

    def shutdown(self, timeout: float = 1.0) -> None:
        """Close every connection with 1012, "service restart", and wait for it.

        ``timeout``: seconds for the close frames to get out and be answered.
        """
        loop, closing = self._loop, list(self._members[EVERYONE])
        if loop is None or not closing or self._pid != os.getpid():
            return
        if not loop.is_alive():
            return
        for ws in closing:
            ws.close(CloseCode.SERVICE_RESTART, "service restart")
        until = time.monotonic() + timeout
        while time.monotonic() < until and not all(ws.gone for ws in closing):
            loop.event().wait(0.01)

    def count(self, topic: str = EVERYONE) -> int:
        """Return how many connections ``topic`` has here."""
        return len(self._members.get(topic, ()))

    def users(self, topic: str = EVERYONE) -> list[str]:
        """Return the users with a connection in ``topic``, sorted, each once."""
        members = tuple(self._members.get(topic, ()))
        return sorted({ws.user for ws in members if ws.user is not None})

    def _drop(self, topic: str, ws: WebSocket) -> None:
        members = self._members.get(topic)
        if members is not None:
            members.discard(ws)
            if not members:
                del self._members[topic]

    # -- what they are sent

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> int:
        """Hand ``message`` to the backend; return its number, 0 if it is not kept.

        :raises BackendError: nobody got it.
        """
        seq = self.backend.publish(topic, message, keep=keep)
        if len(self._due) > _DUE_LIMIT and self._loop and not self._loop.is_current():
            # Another thread publishes faster than the loop can deliver.
            while len(self._due) > _DUE_LIMIT:
                time.sleep(0.002)
        return seq

    def history(self, topic: str, *, after: int = 0, limit: int = 50) -> list[Entry]:
        """Return kept messages of ``topic``; see ``Backend.history``."""
        return self.backend.history(topic, after=after, limit=limit)

    def receive(self, topic: str, message: Message) -> None:
        """Take what the backend delivers, in its order, from any thread."""
        loop = self._loop
        if loop is None:
            return  # nobody ever connected here
        self._due.append((topic, message))
        if loop.is_current():
            self._deliver_due()
        else:
            loop.call_threadsafe(self._deliver_due)

    def _deliver_due(self) -> None:
        if self._delivering:
            return  # a delivery led to a publication: it comes after, in order
        self._delivering = True
        try:
            while self._due:
                topic, message = self._due.popleft()
                if members := self._members.get(topic):
                    self._deliver(message, members)
        finally:
            self._delivering = False

    def _deliver(self, message: Message, members: Audience) -> None:
        receivers: Collection[WebSocket] = members
        if message.exclude is not None:
            receivers = [ws for ws in members if ws._id != message.exclude]
        if message.close_code is not None:
            for ws in list(receivers):
                ws.close(message.close_code, str(message.data))
        else:
            WebSocket.deliver(receivers, EncodedMessage(message.data), message.key)

    # -- who is still there

    def _sweep(self) -> None:
        """Look after each connection whose time has come; the one timer there is."""
        connections = self._members[EVERYONE]
        if not connections or self._loop is None:
            self._sweeping = False
            return
        if self.stopping is not None and self.stopping():
            for ws in list(connections):
                ws.close(CloseCode.SERVICE_RESTART, "service restart")
        now = time.monotonic()
        interval, timeout = self.settings.PING_INTERVAL, self.settings.PING_TIMEOUT
        for ws in [ws for ws in connections if ws.due <= now]:
            # Another thread may just have begun to close it.
            with contextlib.suppress(ConnectionClosed):
                ws.sweep(now, interval, timeout)
        self._loop.call_later(self._tick, self._sweep)


_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()


@atexit.register
def _shutdown() -> None:
    for hub in list(_hubs):
        hub.shutdown()


def _log_error(error: Exception) -> None:
    logger.error("error in a listener", exc_info=error)
