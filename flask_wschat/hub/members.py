"""``Members``: who is here, by topic."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator

from ..messages import EVERYONE, OPERATE, room_of, room_topic, user_of, user_topic
from ..websocket import WebSocket
from .audience import Audience
from .feeds import Feeds


class Members:
    """The connections of this process, which come and go in their loop only.

    One is plain, and gets what is published as it is. Any other is opening at first;
    then it hears what is published as it comes, in the protocol's words, or it is of
    the ready-made chat, and in ``feeds``.
    """

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self.clear()

    def clear(self) -> None:
        """Forget everybody: this is another process now."""
        self.plain: dict[str, Audience] = {EVERYONE: Audience()}
        """By topic; a topic is not kept for nobody, but for ``EVERYONE``."""
        self.hearing: dict[str, Audience] = {EVERYONE: Audience()}
        """In the same manner, those of ``Events`` that are not of the chat."""
        self.opening: set[WebSocket] = set()
        self._feeds.clear()
        self._changes = 0  # of topics: noted once each is done
        self._counted = (0, 0, 0)  # after so many changes: users and rooms

    def add(self, ws: WebSocket, topic: str, *, mute: bool = False) -> None:
        """Put one who is here into ``topic``; ``mute`` as in ``Feeds.add``."""
        for members in (self.plain, self.hearing):
            if ws in members[EVERYONE]:
                members.setdefault(topic, Audience()).add(ws)
                break
        else:
            self._feeds.add(ws, topic, mute=mute)
        self._changes += 1

    def discard(self, ws: WebSocket, topic: str) -> None:
        for each in (self.plain, self.hearing):
            members = each.get(topic)
            if members is not None:
                members.discard(ws)
                if not members:
                    del each[topic]
        self._feeds.discard(ws, topic)
        self._changes += 1

    def forget(self, ws: WebSocket) -> None:
        """Let one that ended be nowhere, but for rooms and its user's own topic."""
        self.opening.discard(ws)
        self.plain[EVERYONE].discard(ws)
        self.hearing[EVERYONE].discard(ws)
        self._feeds.discard(ws, EVERYONE)

    def hear(self, ws: WebSocket, topics: Iterable[str]) -> None:
        """Let one that opens, and is in ``topics``, have what comes from now on."""
        self.opening.discard(ws)
        self.hearing[EVERYONE].add(ws)
        for topic in topics:
            self._feeds.discard(ws, topic)
            self.add(ws, topic)

    def let_hear(self, ws: WebSocket, topic: str) -> None:
        """As ``Feeds.let_hear``."""
        self._feeds.let_hear(ws, topic)

    def of_routes(self, topic: str) -> list[WebSocket]:
        """Return those in ``topic`` that are not of the chat."""
        return [*tuple(self.plain.get(topic, ())), *tuple(self.hearing.get(topic, ()))]

    def chatting(self, topic: str) -> Collection[WebSocket]:
        """Return those of the ready-made chat in ``topic``, as they are now."""
        return tuple(self._feeds.members(topic))

    def everyone(self) -> Iterator[WebSocket]:
        plain, hearing = self.plain[EVERYONE], self.hearing[EVERYONE]
        chatting = self._feeds.members(EVERYONE)
        return itertools.chain(plain, hearing, self.opening, chatting)

    def count(self, topic: str = EVERYONE) -> int:
        """Return how many connections ``topic`` has."""
        opening = len(self.opening) if topic == EVERYONE else 0
        plain, hearing = self.plain.get(topic, ()), self.hearing.get(topic, ())
        return len(plain) + len(hearing) + len(self._feeds.members(topic)) + opening

    def count_of(self, user: str, topic: str) -> int:
        """Return how many connections ``user`` has in ``topic``."""
        room, own = room_of(topic), user_topic(user)
        if room is None:
            return self.count(own)
        members = self.chatting(own)
        if own in self.plain or own in self.hearing:
            members = [*members, *self.of_routes(own)]
        count = 0
        for ws in members:
            if ws._rooms is not None and room in ws._rooms:
                count += 1
        return count

    def users(self, topic: str = EVERYONE) -> list[str]:
        """Return the users with a connection in ``topic``: sorted, each once."""
        members = [*self.of_routes(topic), *self.chatting(topic)]
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
        """Whether anybody is in ``topic``; an operator may always ask."""
        if topic == OPERATE:
            return True
        return topic in self.plain or topic in self.hearing or topic in self._feeds

    def is_of_routes(self, ws: WebSocket) -> bool:
        """Whether it is not of the chat, so that its rooms are kept from that."""
        return ws in self.plain[EVERYONE] or ws in self.hearing[EVERYONE]

    def has_plain(self, topic: str) -> bool:
        """Whether any such are in the room of ``topic``."""
        here = topic in self.plain or topic in self.hearing
        return here and room_of(topic) is not None

    def topics(self) -> list[str]:
        """Return those that anybody is in, each once; from any thread."""
        return [*{**self.plain, **self.hearing, **dict.fromkeys(self._feeds.topics)}]

    def users_and_rooms(self) -> tuple[int, int]:
        """Return how many are here, each counted once; from any thread."""
        changes = self._changes
        then, users, rooms = self._counted
        if then != changes:
            topics = self.topics()
            users = sum(user_of(topic) is not None for topic in topics)
            rooms = sum(room_of(topic) is not None for topic in topics)
            self._counted = changes, users, rooms
        return users, rooms

    def plain_rooms(self) -> list[str]:
        """Return the topics of rooms that such are in."""
        topics = {**self.plain, **self.hearing}
        return [topic for topic in topics if room_of(topic) is not None]
