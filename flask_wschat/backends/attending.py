"""Who is where, as one process knows of itself: the memory backend's people."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..messages import Attendance, Message, News, room_of


class People:
    """Counts by topic and user. ``tell`` delivers a message in a topic."""

    def __init__(self, tell: Callable[[str, Message], object]) -> None:
        self._tell = tell
        self._topics: dict[str, dict[str, int]] = {}
        self._versions: dict[str, int] = {}  # of rooms with somebody in them
        self._highest = 0  # where one has nobody, it goes on after this

    def clear(self) -> None:
        self._topics.clear()
        self._versions.clear()

    def attend(self, changes: Iterable[tuple[str, str, int]]) -> None:
        news: dict[str, News] = {}
        for topic, user, count in changes:
            there = self._topics.setdefault(topic, {})
            if (user in there) != (count > 0) and room_of(topic) is not None:
                told = news.setdefault(topic, News([], [], 0))
                (told.joined if count > 0 else told.left).append(user)
            if count > 0:
                there[user] = count
            else:
                there.pop(user, None)
            if not there:
                del self._topics[topic]
        for topic, told in news.items():
            first, version = topic not in self._versions, self._version(topic) + 1
            self._highest = max(self._highest, version)
            if topic in self._topics:
                self._versions[topic] = version
            else:
                self._versions.pop(topic, None)
            told.version, told.first = version, first
            self._tell(topic, told.as_message())

    def present(self, topic: str) -> Attendance:
        users = dict(self._topics.get(topic, ()))
        return Attendance(self._version(topic), users, users)

    def _version(self, topic: str) -> int:
        return self._versions.get(topic, self._highest)
