"""What a process wants to hear, and what it has of that."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

from ...transports import Event
from ...transports.patched import allocate_lock


class _Waiter:
    """One call that waits for confirmations."""

    def __init__(self, done: Event) -> None:
        self.left = 0
        self.done = done


class _Topic:
    """What is known of a topic that is wanted."""

    __slots__ = ("name", "place", "sent", "told", "waiters")

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.place = place
        self.sent = False  # asked for on the connection there
        self.told = False  # somebody relies on it, or was told that it failed
        self.waiters: list[_Waiter] = []


class _Place:
    """What is to be done on one connection."""

    __slots__ = ("dropped", "fresh", "orphans", "unconfirmed")

    def __init__(self) -> None:
        self.fresh: deque[bytes] = deque()
        self.dropped: list[bytes] = []
        self.orphans: list[bytes] = []  # not had there any more: see ``rearrange``
        self.unconfirmed: Counter[bytes] = Counter()


def _anywhere(channel: bytes) -> str:
    return ""


class Wishes:
    """The topics that this process wants to hear; for any thread.

    ``event`` as in ``Host``; ``place`` says on which of several connections a channel
    comes.
    """

    def __init__(
        self,
        channel: Callable[[str], bytes],
        event: Callable[[], Event],
        place: Callable[[bytes], str] = _anywhere,
    ) -> None:
        self.channel = channel
        self._place = place
        self._event = event
        # The system's, held for moments: gevent's may not wake another thread.
        self._lock = allocate_lock()
        self._topics: dict[bytes, _Topic] = {}
        self._places: defaultdict[str, _Place] = defaultdict(_Place)

    def name(self, channel: bytes, place: str = "") -> str | None:
        """Return the topic of ``channel``; None: it is not wanted from there."""
        topic = self._topics.get(channel)
        return topic.name if topic is not None and topic.place == place else None

    def wants(self, name: str) -> bool:
        """Whether the topic is wanted at all."""
        return self.channel(name) in self._topics

    def add(self, names: Sequence[str]) -> _Waiter:
        """Want these too; what is returned is done once all are confirmed."""
        waiter = _Waiter(self._event())
        with self._lock:
            for name in names:
                channel = self.channel(name)
                topic = self._topics.get(channel)
                if topic is None:
                    topic = _Topic(name, self._place(channel))
                    self._topics[channel] = topic
                    # Somebody waits for it, and may do so amid a crowd of others.
                    self._places[topic.place].fresh.appendleft(channel)
                place = self._places[topic.place]
                if not topic.sent or channel in place.unconfirmed:
                    topic.waiters.append(waiter)
                    waiter.left += 1
        return waiter

    def give_up(self, names: Sequence[str], waiter: _Waiter) -> None:
        """Wait no more; who waited hears of a later confirmation as a loss."""
        with self._lock:
            for name in names:
                topic = self._topics.get(self.channel(name))
                if topic is not None and waiter in topic.waiters:
                    topic.waiters.remove(waiter)
                    topic.told = True

    def drop(self, names: Sequence[str]) -> None:
        """Want these no more."""
        with self._lock:
            for name in names:
                channel = self.channel(name)
                topic = self._topics.pop(channel, None)
                if topic is not None:
                    self._places[topic.place].dropped.append(channel)

    @property
    def orphaned(self) -> bool:
        """Whether some are not had, and wait for ``rearrange``."""
        return any(place.orphans for place in list(self._places.values()))

    def rearrange(self) -> None:
        """Ask for each topic where it is now; what comes from elsewhere is not it."""
        with self._lock:
            for channel, topic in self._topics.items():
                place = self._place(channel)
                if place != topic.place:
                    self._places[topic.place].dropped.append(channel)
                    topic.place, topic.sent = place, False
                    self._places[place].fresh.append(channel)
            for name, at in self._places.items():
                for channel in at.orphans:
                    found = self._topics.get(channel)
                    if found is not None and found.place == name and not found.sent:
                        at.fresh.append(channel)
                at.orphans.clear()

    # -- for the thread of a connection

    def begin(self, name: str = "") -> None:
        """A connection ended, or is new: nothing is confirmed."""
        with self._lock:
            place = self._places[name]
            place.unconfirmed.clear()
            place.dropped.clear()
            place.fresh.clear()
            place.orphans.clear()
            for channel, topic in self._topics.items():
                if topic.place == name:
                    topic.sent = False
                    place.fresh.append(channel)

    def changes(self, most: int, name: str = "") -> tuple[list[bytes], list[bytes]]:
        """Return the channels to unsubscribe now, and ``most`` to subscribe then."""
        with self._lock:
            place = self._places[name]
            drop = [c for c in place.dropped if self._elsewhere(c, name)]
            place.dropped.clear()
            fresh: list[bytes] = []
            while place.fresh and len(fresh) < most:
                channel = place.fresh.popleft()
                topic = self._topics.get(channel)
                if topic is not None and topic.place == name and not topic.sent:
                    topic.sent = True
                    place.unconfirmed[channel] += 1
                    fresh.append(channel)
        return drop, fresh

    def _elsewhere(self, channel: bytes, name: str) -> bool:
        topic = self._topics.get(channel)
        return topic is None or topic.place != name

    def refused(self, which: Callable[[bytes], bool], name: str) -> int:
        """Note that those are not had of which ``which`` is true; return how many."""
        with self._lock:
            place = self._places[name]
            found = [channel for channel in place.unconfirmed if which(channel)]
            for channel in found:
                del place.unconfirmed[channel]
                self._orphan(channel, name)
            return len(found)

    def ended(self, channel: bytes, name: str) -> bool:
        """Note that ``channel`` comes no more; return whether that was not our wish."""
        with self._lock:
            if channel in self._places[name].unconfirmed:
                return False
            return self._orphan(channel, name)

    def _orphan(self, channel: bytes, name: str) -> bool:
        topic = self._topics.get(channel)
        if topic is None or topic.place != name or not topic.sent:
            return False
        topic.sent = False
        self._places[name].orphans.append(channel)
        return True

    def confirm(self, channel: bytes, name: str = "") -> str | None:
        """Note a confirmation; return the topic if there was a time without it."""
        with self._lock:
            unconfirmed = self._places[name].unconfirmed
            unconfirmed[channel] -= 1
            if unconfirmed[channel] > 0:
                return None  # it was dropped, and wanted again
            del unconfirmed[channel]
            topic = self._topics.get(channel)
            if topic is None or topic.place != name or not topic.sent:
                return None
            waiters, topic.waiters = topic.waiters, []
            for waiter in waiters:
                waiter.left -= 1
            lost, topic.told = topic.told, True
        for waiter in waiters:
            if not waiter.left:
                waiter.done.set()
        return topic.name if lost else None
