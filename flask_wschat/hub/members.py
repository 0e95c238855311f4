"""``Members``: who is here, by topic."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

from ..messages import EVERYONE, room_of, room_topic, user_topic
from ..websocket import WebSocket
from .audience import Audience
from .feeds import Feeds


class Members:
    """The connections of this process, which come and go in their loop only.

    One is plain, and gets what is published as it is; or it is of the ready-made chat:
    opening at first, and then in ``feeds``.
    """

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self.clear()

    def clear(self) -> None:
        """Forget everybody: this is another process now."""
        self.plain: dict[str, Audience] = {EVERYONE: Audience()}
        """By topic; a topic is not kept for nobody, but for ``EVERYONE``."""
        self.opening: set[WebSocket] = set()
        self._feeds.clear()

    def add(self, ws: WebSocket, topic: str, *, mute: bool = False) -> None:
        """Put one who is here into ``topic``; ``mute`` as in ``Feeds.add``."""
        if ws in self.plain[EVERYONE]:
            self.plain.setdefault(topic, Audience()).add(ws)
        else:
            self._feeds.add(ws, topic, mute=mute)

    def discard(self, ws: WebSocket, topic: str) -> None:
        members = self.plain.get(topic)
        if members is not None:
            members.discard(ws)
            if not members:
                del self.plain[topic]
        self._feeds.discard(ws, topic)

    def everyone(self) -> Iterator[WebSocket]:
        chatting = self._feeds.members(EVERYONE)
        return itertools.chain(self.plain[EVERYONE], self.opening, chatting)

    def chatting(self, topic: str) -> Collection[WebSocket]:
        """Return those of the ready-made chat in ``topic``, as they are now."""
        return tuple(self._feeds.members(topic))

    def count(self, topic: str = EVERYONE) -> int:
        """Return how many connections ``topic`` has."""
        opening = len(self.opening) if topic == EVERYONE else 0
        plain, chatting = self.plain.get(topic, ()), self._feeds.members(topic)
        return len(plain) + len(chatting) + opening

    def count_of(self, user: str, topic: str) -> int:
        """Return how many connections ``user`` has in ``topic``."""
        room, own = room_of(topic), user_topic(user)
        if room is None:
            return self.count(own)
        members = [*tuple(self.plain.get(own, ())), *self.chatting(own)]
        return sum(1 for ws in members if room in (ws._rooms or ()))

    def users(self, topic: str = EVERYONE) -> list[str]:
        """Return the users with a connection in ``topic``: sorted, each once."""
        members = [*tuple(self.plain.get(topic, ())), *self.chatting(topic)]
        if topic == EVERYONE:
            members += tuple(self.opening)
        return sorted({ws.user for ws in members if ws.user is not None})

    def attendance(self) -> Iterator[tuple[str, str]]:
        """Yield each topic, and a user in it, that the backend has to know of."""
        for ws in list(self.everyone()):
            if ws.user is not None:
                yield EVERYONE, ws.user
                yield user_topic(ws.user), ws.user
                for room in ws.rooms:
                    yield room_topic(room), ws.user

    def wants(self, topic: str) -> bool:
        """Whether anybody is in ``topic``."""
        return topic in self.plain or topic in self._feeds

    def has_plain(self, topic: str) -> bool:
        """Whether plain connections are in the room of ``topic``."""
        return topic in self.plain and room_of(topic) is not None

    def plain_rooms(self) -> list[str]:
        """Return the topics of rooms that plain connections are in."""
        return [topic for topic in list(self.plain) if room_of(topic) is not None]
