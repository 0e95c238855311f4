"""``Presence``: who is in which room, over all processes; users, not sockets.

See docs/decisions/14.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable

from ..backends import Backend
from ..errors import BackendError
from ..messages import user_topic
from ..transports import Event, Loop
from .feeds import Feeds
from .home import Home
from .members import Members
from .rosters import Rosters

logger = logging.getLogger("flask_wschat")

_BATCH = 500
"""Changes told to the backend in one call."""
_AT_ONCE = 4  # calls in 50 ms; then, as there are many changes, they gather
_GATHER = 0.01  # for so many seconds


class Presence:
    """Tells the backend of users who come and go.

    ``changed`` and ``tick`` are called in the loop and only note what a worker does
    then; the other methods anywhere. ``ttl``: seconds until the people of a
    dead process are gone; for the backend it is dead sooner, after ``presence_ttl``.
    """

    def __init__(
        self,
        members: Members,
        feeds: Feeds,
        backend: Backend,
        home: Home,
        new_event: Callable[[], Event],
        ttl: float,
    ) -> None:
        self._members = members
        self._backend = backend
        self._new_event = new_event
        self._gathers = not getattr(backend, "instant", False)
        self._every = ttl / 4
        self.rosters = Rosters(members, feeds, backend, home, new_event, self._differ)
        """Who is in the rooms that are watched from here, over all processes."""
        self.quiet: set[str] = set()
        """Topics of which nobody is told, the backend neither."""
        self.clear()

    def clear(self) -> None:
        """Forget everything: this is another process now."""
        self.rosters.clear()
        self.quiet.clear()
        self._changes: dict[tuple[str, str], None] = {}
        self._taken: dict[tuple[str, str], None] = {}  # those being told
        self._calls = [0.0] * _AT_ONCE  # when the last ones were
        self._telling = False
        self._known = False  # the backend knows of somebody here
        self._refresh_at = 0.0  # soon: whoever died before we came is still there
        self._faulty = False

    def changed(self, loop: Loop, topic: str, user: str) -> None:
        """Note that ``user`` has more or fewer connections in ``topic``."""
        if topic in self.quiet:
            return
        self.rosters.changed(topic, user)
        self._changes[topic, user] = None
        if not self._telling and not self._faulty:
            self._tell_soon(loop)

    def tick(self, loop: Loop, now: float, watched: bool = False) -> bool:
        """Tell what waits, and refresh if it is time; True: there is more to tell.

        ``watched``: somebody is here, with a user id or not, to hear who is gone.
        """
        self.rosters.tick(loop, now)
        if self._changes and not self._telling:
            self._tell_soon(loop)
        if (self._known or watched) and now >= self._refresh_at:
            self._refresh_at = now + self._every
            loop.run_own(lambda: self._refresh(loop))
        return self.busy

    def lost(self, loop: Loop, topics: Iterable[str] | None) -> None:
        """Note that news of ``topics`` (None: of any) may have been lost."""
        self.rosters.lost(loop, topics)
        # Perhaps the backend was away: the others are to hear that we are not.
        self._refresh_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether somebody's change is not told yet, to the backend or to clients."""
        return self.telling or self.rosters.busy

    @property
    def telling(self) -> bool:
        """Whether the backend is not told yet of somebody's change."""
        return bool(self._changes) or self._telling

    def online(self, topic: str) -> list[str]:
        """Return the users in ``topic``, in all processes: sorted, each once.

        :raises BackendError: those of other processes cannot be known.
        """
        here = () if topic in self.quiet else self._members.users(topic)
        return sorted(self._others(topic).keys() | set(here))

    def connections(self, user: str) -> int:
        """Return how many connections ``user`` has, in all processes.

        :raises BackendError: those of other processes cannot be known.
        """
        topic = user_topic(user)
        return self._members.count(topic) + sum(self._others(topic).values())

    def has(self, user: str) -> bool:
        """Return whether ``user`` has a connection, in any process.

        Asked of nobody where it is here, and else of one user, however many there are.

        :raises BackendError: those of other processes cannot be known.
        """
        here = self._members.count(user_topic(user))
        return here > 0 or self.connections(user) > 0

    def _others(self, topic: str) -> dict[str, int]:
        """Return the users in ``topic`` in other processes, and their connections."""
        there = self._backend.present(topic, heard=True)
        others = {
            user: count - there.here.get(user, 0) for user, count in there.users.items()
        }
        return {user: count for user, count in others.items() if count > 0}

    def _differ(self, loop: Loop, topic: str, user: str) -> None:
        """Tell again what the backend does not have right."""
        if (topic, user) not in self._changes and (topic, user) not in self._taken:
            self._refresh_at = 0.0  # we may have been taken for dead
            self.changed(loop, topic, user)

    # -- in a worker

    def _tell_soon(self, loop: Loop) -> None:
        self._telling = True
        loop.run_own(lambda: self._tell(loop))

    def _tell(self, loop: Loop) -> None:
        try:
            if time.monotonic() >= self._refresh_at:
                # Nobody was here to say that we live: others would not believe that
                # who comes now is there.
                self._refresh_at = time.monotonic() + self._every
                self._refresh(loop)
            while changes := loop.call(self._take):
                self._attend(changes)
                self._faulty = False
                calls = [*self._calls[1 - _AT_ONCE :], time.monotonic()]
                self._calls = calls
                if self._gathers and calls[-1] - calls[-_AT_ONCE] < 0.05:
                    self._new_event().wait(_GATHER)
        except BaseException as error:  # else nobody's would be told any more
            loop.call_threadsafe(self._put_back, error)

    def _take(self) -> list[tuple[str, str, int]]:
        if not self._changes:
            self._taken, self._telling = {}, False
            return []
        if len(self._changes) <= _BATCH:
            changes, self._changes = self._changes, {}
        else:
            changes = dict.fromkeys(itertools.islice(self._changes, _BATCH))
            for change in changes:
                del self._changes[change]
        self._taken = changes
        self._known = self._telling = True
        return [(topic, user, self._count(topic, user)) for topic, user in changes]

    def _count(self, topic: str, user: str) -> int:
        return 0 if topic in self.quiet else self._members.count_of(user, topic)

    def _attend(self, changes: list[tuple[str, str, int]]) -> None:
        """Tell the backend; one of ``changes`` that it cannot take is left out.

        :raises BackendError: it can take none now.
        """
        try:
            self._backend.attend(changes)
        except Exception as error:
            if not _is_of_a_value(error):
                raise
            if len(changes) == 1:
                logger.error("presence of %r in %r: %s", *changes[0][1::-1], error)
            else:
                for change in changes:
                    self._attend([change])

    def _put_back(self, error: BaseException) -> None:
        """Leave it to the next tick."""
        for change in self._taken:
            self._changes.setdefault(change)
        self._telling = False
        if not self._faulty:
            self._faulty = True
            trace = None if isinstance(error, BackendError) else error
            logger.warning("presence cannot be told now: %s", error, exc_info=trace)

    def _refresh(self, loop: Loop) -> None:
        try:
            taken_for_dead = self._backend.refresh()
        except BackendError:
            # The backend logs it. The others wait for who comes back: see alive.lua.
            self._refresh_at = 0.0
            return
        if taken_for_dead:
            loop.call(self._tell_all, loop)

    def _tell_all(self, loop: Loop) -> None:
        for topic, user in self._members.attendance():
            self.changed(loop, topic, user)
        self.rosters.lost(loop, None)


def _is_of_a_value(error: Exception) -> bool:
    """Whether it is a name that the backend cannot take, and not the backend."""
    cause = error.__cause__ if isinstance(error, BackendError) else error
    return isinstance(cause, ValueError | TypeError)
