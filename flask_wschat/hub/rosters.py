"""``Rosters``: who is in the rooms of this process, and what clients are told of it.

A roster is who the backend says is there, as of a version, and who is here, whatever
it says. News one version on is applied; after any other, and where some may have been
lost, it is read again, once for all who ask. Clients get each answer and all that
follows from it, so no order of theirs makes them wrong. See docs/decisions/49.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable

from .. import envelope
from ..backends import Backend
from ..errors import BackendError
from ..messages import PRESENCE, Attendance, Delivery, Message, News, room_of
from ..transports import Event, Loop
from .feeds import Feeds
from .home import Home
from .members import Members
from .roster import Roster, Waiter

logger = logging.getLogger("flask_wschat")

NEWS = 4
"""Messages of a room's news in a second, where there are few members here."""
_CALM = 500  # members that make it a second more: so no room's are over 2,000 sends
_AGAIN = 0.25  # seconds between two reads for strange news
GRACE = 10.0
"""Seconds for which those stay who were not in the backend when it was read again: it
may have forgotten them, and their processes say so again."""
_SETTLED = 10.0  # seconds after a read, until older news means that counting began anew
_BUFFER = 1000  # news that wait for one read
_READERS = 8  # reads at once, where all rosters are to be read again


class Rosters:
    """Those of the rooms that the ready-made chat has somebody in; in the loop only,
    but for ``know``.

    ``differ`` is told of users whose presence here the backend does not have right.
    """

    def __init__(
        self,
        members: Members,
        feeds: Feeds,
        backend: Backend,
        home: Home,
        new_event: Callable[[], Event],
        differ: Callable[[Loop, str, str], None],
    ) -> None:
        self._members = members
        self._feeds = feeds
        self._backend = backend
        self._instant = bool(getattr(backend, "instant", False))
        self._home = home
        self._new_event = new_event
        self._differ = differ
        self._rosters: dict[str, Roster] = {}
        self.clear()

    def clear(self) -> None:
        """Forget everything: this is another process now."""
        for roster in self._rosters.values():
            roster.wake_all()
        self._rosters = {}
        self._unread: dict[str, None] = {}
        self._readers = 0
        self._failed: set[str] = set()
        self._doubting: set[str] = set()
        self._planned: set[Roster] = set()

    @property
    def busy(self) -> bool:
        """Whether clients are still to be told of something."""
        return bool(self._planned or self._unread or self._readers)

    # -- for who asks

    def know(self, loop: Loop, topic: str, most: int, *, now: bool = False) -> None:
        """Return when it is known who is in ``topic``, which is subscribed.

        ``most``: users of whom clients are told by name. ``now``: as of now, where
        they are so few; else as far as it was told.

        :raises BackendError: it cannot be known.
        """
        waiter = loop.call(self._ask, loop, topic, most, now)
        if waiter is not None:
            waiter.event.wait()
            if waiter.error is not None:
                raise waiter.error

    def begin(self, loop: Loop, topic: str) -> None:
        """See that it is soon known who is in ``topic``, which is subscribed."""
        if topic not in self._rosters and topic in self._feeds:
            self._rosters[topic] = Roster()
            self._read(loop, topic)

    def answer(self, topic: str) -> tuple[str, int]:
        """Return who is in ``topic``, as fields of a reply, and how many."""
        roster = self._rosters.get(topic)
        if roster is None:  # who asks is not there any more
            return envelope.people(0, []), 0
        count = len(roster.names)
        self._show(topic, roster)
        roster.large = roster.large or count > roster.most
        if not roster.text:
            names = roster.names if count <= roster.most else None
            roster.text = envelope.people(count, names)
        return roster.text, count

    def page(
        self, topic: str, after: str | None, limit: int | None
    ) -> tuple[list[str], int, bool]:
        """Return the users in ``topic`` that follow ``after`` by name, at most
        ``limit``; how many are there in all; and whether there are more."""
        roster = self._rosters.get(topic) or Roster()
        names, most = roster.names, roster.most
        start = 0 if after is None else bisect_right(names, after)
        stop = start + min(limit or most, most)
        self._show(topic, roster)
        return names[start:stop], len(names), stop < len(names)

    # -- what happens

    def changed(self, topic: str, user: str) -> None:
        """Note that ``user`` has more or fewer connections here."""
        roster = self._rosters.get(topic)
        if roster is not None and roster.users is not None:
            known = user in roster.users or user in roster.doubted
            here = self._is_here(topic, user)
            if here and user not in roster.there and user not in roster.touched:
                roster.put(user, True)
                roster.unsure.add(user)
            elif user in roster.unsure and not (here or known):
                roster.put(user, False)
                roster.unsure.discard(user)
            else:
                roster.place(user, here or known)
            self._plan(roster, topic)

    def drop(self, topic: str) -> None:
        """Forget who is in ``topic``, if nobody here wants to know."""
        if topic not in self._feeds and topic in self._rosters:
            self._rosters.pop(topic).wake_all()
            self._doubting.discard(topic)

    def news(self, loop: Loop, delivery: Delivery) -> None:
        """Take what the backend has told."""
        topic = delivery.topic
        roster = self._rosters.get(topic)
        if roster is None:
            return
        try:
            news = News.of(delivery.message)
        except ValueError:
            self._read_again(loop, topic, roster)
            return
        if roster.stale:
            if len(roster.buffer) < _BUFFER:
                roster.buffer.append(news)
            return  # the first one that is left out is missed, and it is read again
        self._apply(loop, topic, roster, [news])

    def lost(self, loop: Loop, topics: Iterable[str] | None) -> None:
        """Read those again: news may have been lost."""
        for topic in list(self._rosters if topics is None else topics):
            if topic in self._rosters:
                self._read(loop, topic)

    def tick(self, loop: Loop, now: float) -> None:
        """Read what could not be, and let go of whom nobody has seen again."""
        failed, self._failed = self._failed, set()
        self.lost(loop, failed)
        for topic in list(self._doubting):
            roster = self._rosters[topic]
            for user in [u for u, until in roster.doubted.items() if until <= now]:
                del roster.doubted[user]
                self._settle(roster, topic, user)
            if not roster.doubted:
                self._doubting.discard(topic)
            self._plan(roster, topic)

    # -- reading

    def _ask(self, loop: Loop, topic: str, most: int, now: bool) -> Waiter | None:
        self.begin(loop, topic)
        roster = self._rosters.get(topic)
        if roster is None:
            return None
        if most != roster.most:
            roster.most, roster.text = most, ""
        known = roster.users is not None
        if known and not (now and len(roster.names) <= most):
            return None
        waiter = Waiter(self._new_event())
        if not known and roster.reading:
            roster.waiting.append(waiter)
            return waiter
        roster.waiters.append(waiter)
        if known or topic in self._failed:
            self._failed.discard(topic)
            self._read(loop, topic)
        return waiter

    def _read_again(self, loop: Loop, topic: str, roster: Roster) -> None:
        """Read it, but not for each of many strange news."""
        wait = roster.read_at + _AGAIN - time.monotonic()
        roster.stale = True
        if wait <= 0:
            self._read(loop, topic)
        else:
            self._home.later(wait, lambda: self._read(loop, topic))

    def _read(self, loop: Loop, topic: str) -> None:
        roster = self._rosters.get(topic)
        if roster is None:
            return
        roster.stale = True
        if roster.reading:
            roster.again = True
            return
        self._unread[topic] = None
        if self._readers < _READERS:
            self._readers += 1
            if self._instant:
                self._work(loop)
            else:
                loop.run_own(lambda: self._work(loop))

    def _work(self, loop: Loop) -> None:
        """In a worker: read, one after the other, what is to be read."""
        found: tuple[str, Roster] | None = None
        try:
            while (found := loop.call(self._next)) is not None:
                attendance = self._backend.present(found[0])
                loop.call(self._have, loop, *found, attendance)
        except BaseException as error:
            if not isinstance(error, BackendError):
                logger.exception("error in reading who is where")
                error = BackendError(str(error))
            loop.call_threadsafe(self._fail, found, error)

    def _next(self) -> tuple[str, Roster] | None:
        while self._unread:
            topic, _ = self._unread.popitem()  # somebody may wait for the last one
            roster = self._rosters.get(topic)
            if roster is not None and not roster.reading:
                roster.reading, roster.again = True, False
                roster.waiting, roster.waiters = roster.waiters, []
                return topic, roster
        self._readers = max(self._readers - 1, 0)
        return None

    def _fail(self, found: tuple[str, Roster] | None, error: BackendError) -> None:
        self._readers = max(self._readers - 1, 0)
        if found is not None:
            found[1].reading = False
            self._unread[found[0]] = None
        for topic in self._unread:
            if topic in self._rosters:
                self._failed.add(topic)
                self._rosters[topic].wake_all(error)
        self._unread.clear()

    def _have(
        self, loop: Loop, topic: str, roster: Roster, attendance: Attendance
    ) -> None:
        """Go on from what was read."""
        roster.reading = False
        if self._rosters.get(topic) is not roster:
            return
        first = roster.users is None
        now = time.monotonic()
        users = set(attendance.users)
        here = set(self._members.users(topic))
        roster.version, roster.users, roster.read_at = attendance.version, users, now
        if first:
            roster.there = users | here
            roster.names = sorted(roster.there)
            count, known = attendance.users.get, attendance.here.get
            came = {user for user in here if count(user, 0) <= known(user, 0)}
            # Who has come is news to all but where that was over before they asked.
            roster.unsure = came - users if self._instant else came
        else:
            for user in roster.there - users - here - roster.doubted.keys():
                roster.doubted[user] = now + GRACE
                self._doubting.add(topic)
            for user in users | here:
                roster.doubted.pop(user, None)
                roster.place(user, True)
            for user in here ^ attendance.here.keys():
                self._differ(loop, topic, user)
        roster.wake()
        if roster.again:
            self._read(loop, topic)
            return
        roster.stale = False
        buffer, roster.buffer = roster.buffer, []
        news = [each for each in buffer if each.version > roster.version]
        self._apply(loop, topic, roster, news)

    def _apply(
        self, loop: Loop, topic: str, roster: Roster, news: Iterable[News]
    ) -> None:
        assert roster.users is not None
        for each in news:
            if each.first and not roster.users:
                roster.version = each.version - 1
            settled = time.monotonic() - roster.read_at >= _SETTLED
            if each.version <= roster.version and not settled:
                continue  # it was in what was read
            # A lower one later: the backend has begun to count anew.
            if each.version != roster.version + 1:
                self._read_again(loop, topic, roster)
                break
            roster.version = each.version
            for user in each.joined:
                roster.users.add(user)
                roster.doubted.pop(user, None)
                roster.place(user, True)
                if user in roster.unsure:
                    roster.unsure.discard(user)
                    roster.touched.setdefault(user, False)
            for user in each.left:
                roster.users.discard(user)
                if self._is_here(topic, user):
                    self._differ(loop, topic, user)
                else:
                    self._settle(roster, topic, user)
        self._plan(roster, topic)

    # -- telling

    def _show(self, topic: str, roster: Roster) -> None:
        """Note that somebody is told of all; the others are when that was sent."""
        if roster.unsure:
            self._home.later(0, lambda: self._plan(roster, topic))
        roster.show()

    def _is_here(self, topic: str, user: str) -> bool:
        return self._members.count_of(user, topic) > 0

    def _settle(self, roster: Roster, topic: str, user: str) -> None:
        known = user in (roster.users or ()) or user in roster.doubted
        roster.place(user, known or self._is_here(topic, user))

    def _plan(self, roster: Roster, topic: str) -> None:
        if not roster.touched or roster in self._planned:
            return
        wait = 0.0
        if len(roster.told) == NEWS:
            window = 1 + len(self._feeds.members(topic)) / _CALM
            wait = roster.told[0] + window - time.monotonic()
        if wait > 0:
            self._planned.add(roster)
            self._home.later(wait, lambda: self._tell(roster, topic))
        else:
            self._tell(roster, topic)

    def _tell(self, roster: Roster, topic: str) -> None:
        """Tell the clients of what has changed."""
        self._planned.discard(roster)
        room = room_of(topic)
        if self._rosters.get(topic) is not roster or room is None:
            return
        touched, roster.touched = roster.touched, {}
        # Who was answered meanwhile may know more than the others, and is to forget it.
        shown, roster.shown = roster.shown, False
        changed = [
            user
            for user, was in touched.items()
            if shown or was != (user in roster.there)
        ]
        if not changed:
            return
        count = len(roster.names)
        if count > roster.most:
            roster.large = True
            text = envelope.presence_count(room, count)
        elif roster.large:
            roster.large = False
            text = envelope.presence_all(room, roster.names)
            roster.show()
        else:
            joined = sorted(user for user in changed if user in roster.there)
            left = sorted(user for user in changed if user not in roster.there)
            text = envelope.presence(room, joined, left)
        roster.told = [*roster.told[1 - NEWS :], time.monotonic()]
        self._feeds.deliver(Delivery(topic, Message(text, event=PRESENCE)))
