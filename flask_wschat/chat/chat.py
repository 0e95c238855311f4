"""``Chat``: what all connections of one app's ready-made chat share."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from ..envelope import encoder
from ..errors import BackendError, UnknownPoll
from ..hub.hub import Hub
from ..hub.places import network_of
from ..messages import Delivery, MadePoll, room_of
from ..rate import Bucket, Buckets, Rate
from ..transports import Loop
from ..transports.patched import allocate_lock
from ..websocket import WebSocket
from .voting import Poll, store, stored

logger = logging.getLogger("flask_wschat")

_MOST_USED = 1000  # stored polls that are known here
_RETELL = 0.1  # seconds for which losses gather, until polls are told anew
_RETELL_AGAIN = 1.0  # and where the backend does not say how they stand


class Chat:
    """The polls of this process, and how often each user may ask."""

    def __init__(
        self, hub: Hub, has_logins: Callable[[], bool] = lambda: False
    ) -> None:
        self.hub = hub
        self.encode = encoder(hub.dumps)
        """Makes JSON of what an event returns, or an application emits."""
        self.has_logins = has_logins
        """Whether the application says who somebody is."""
        self._told_of_anonymous = False
        self.polls: dict[str, Poll] = {}
        """By name."""
        self._lock = allocate_lock()
        # Stored ones by id, those used last at the end.
        self._used: dict[str, Poll] = {}
        self._buckets = Buckets()
        self._untold: set[Poll] = set()  # whose last tally may be lost
        # Topics, of which that may be so of stored ones.
        self._unasked: set[str] = set()
        self._retelling: object = None  # the stay of the hub's home in which it is
        hub.on_lost = self._lost

    def poll(self, name: str, options: Iterable[str], room: str | None) -> Poll:
        """Return the poll ``name``, made at the first call.

        :raises ValueError: the name or the options cannot be used, or the poll was
            made with others.
        """
        poll = Poll(self.hub, name, options, room=room)
        return _same(self.polls.setdefault(name, poll), poll)

    def make_poll(
        self, name: str, options: Iterable[str], room: str | None, lasts: Any, data: Any
    ) -> Poll:
        """Return the stored poll ``name``, made unless it is stored already.

        :raises TypeError: as ``store``.
        :raises ValueError: as that, or the poll was made with others.
        :raises TooManyPolls: as many are stored as may.
        """
        poll = Poll(self.hub, name, options, room=room)
        if name in self.polls:
            raise ValueError(f"the poll {name!r} is code here, made without lasts=")
        return _same(self._stored(store(self.hub, poll, lasts, data)), poll)

    def find_poll(self, name: str) -> Poll:
        """Return the poll ``name``: that of the code, else the stored one.

        :raises UnknownPoll: there is none.
        """
        poll = self.polls.get(name)
        if poll is None:
            made = self.hub.backend.made_poll(name)
            if made is None:
                raise UnknownPoll(name)
            poll = self._stored(made)
        return poll

    def stored_polls(self) -> list[Poll]:
        """Return those that are stored, the newest first."""
        return [self._stored(made) for made in self.hub.backend.made_polls()]

    def settle_polls(self) -> None:
        """Tell now what is to be told of them: the hub is about to stop."""
        with self._lock:
            polls = [*self.polls.values(), *self._used.values()]
        for poll in polls:
            poll.settle()

    def _stored(self, made: MadePoll) -> Poll:
        """Return it, the same each time: so its tallies are gathered."""
        known = self._used
        poll = known.get(made.id) or stored(self.hub, made)
        with self._lock:
            poll = known.pop(made.id, poll)
            known[made.id] = poll
            if len(known) > _MOST_USED:
                del known[next(iter(known))]
        return poll

    def bucket(self, ws: WebSocket, limit: Rate | None) -> Bucket | None:
        """Return what the user of ``ws`` may ask, if that has a limit.

        ``limit`` is that of its route alone; None: all others have one together.
        """
        if limit is not None:
            return self._buckets.of(ws.user, limit, ws._route)
        rate = self.hub.settings.RATE_LIMIT
        return None if rate is None else self._buckets.of(ws.user, rate)

    def event_bucket(self, ws: WebSocket, name: str, limit: Rate) -> Bucket:
        """Return how often the user of ``ws`` may call the event ``name``."""
        return self._buckets.of(ws.user, limit, f"{ws._route} {name}")

    def bytes_bucket(self, ws: WebSocket, address: str | None) -> Bucket | None:
        """Return the bytes that the user of ``ws`` may say, if there is a limit."""
        settings = self.hub.settings
        if settings.BYTE_LIMIT is None or settings.RATE_LIMIT is None:
            return None
        return self._to_store(ws, address, settings.BYTE_LIMIT, "bytes")

    def rooms_bucket(
        self, ws: WebSocket, address: str | None, rate: Rate | None
    ) -> Bucket | None:
        """Return the rooms that the user of ``ws`` may make, if there is a limit."""
        settings = self.hub.settings
        if rate is None or settings.RATE_LIMIT is None or not settings.HISTORY_SIZE:
            return None
        return self._to_store(ws, address, rate, "rooms")

    def _to_store(
        self, ws: WebSocket, address: str | None, rate: Rate, what: str
    ) -> Bucket:
        """Return what the user of ``ws`` may have stored.

        To connect again brings nobody more: ten seconds of that would fill a storage.
        """
        if ws.user is not None:
            return self._buckets.of(ws.user, rate, what)
        return self._buckets.of_nobody(address and network_of(address), rate, what)

    def is_new(self, topic: str) -> bool:
        """Whether nothing is kept of ``topic``, and no user is in there."""
        if self.hub.backend.history(topic, limit=1, growing=False).seq:
            return False
        return room_of(topic) is None or not self.hub.presence.online(topic)

    def tell_of_anonymous(self, name: str) -> None:
        """Say, once, why people without a user id get nowhere."""
        if not self._told_of_anonymous:
            self._told_of_anonymous = True
            logger.warning(
                "%s refused somebody without a user id: with @chat.authenticate they"
                " may join no room, unless it has a can_join that lets them, or"
                ' anonymous = "say" or "read"',
                name,
            )

    # -- a tally has no number: that one is missing shows by nothing

    def _lost(self, topics: list[str] | None) -> None:
        """See that those here are told how the polls of ``topics`` stand."""
        feeds = self.hub.feeds
        missed = feeds.topics if topics is None else topics
        here = {topic for topic in missed if topic in feeds}
        self._unasked |= here
        self._untold |= {poll for poll in self.polls.values() if poll.topic in here}
        self._retell_in(_RETELL)

    def _retell_in(self, seconds: float) -> None:
        home = self.hub.home
        loop, due = home.loop, self._untold or self._unasked
        if due and self._retelling is not home.stay and loop is not None:
            self._retelling = home.stay
            home.later(seconds, lambda: loop.run_own(lambda: self._retell(loop)))

    def _retell(self, loop: Loop) -> None:
        """In a worker."""
        polls: list[Poll] = []
        topics: set[str] = set()
        try:
            polls, topics = loop.call(self._take)
            self._tell(polls)
            stored = [p for p in self.stored_polls() if p.name not in self.polls]
            polls += [poll for poll in stored if poll.topic in topics]
            topics = set()
            self._tell(polls)
        except BackendError:
            pass  # it is asked again, for as long as somebody is here
        except Exception as error:
            self.hub.report(error)
            del polls[-1:]  # the others are told with the next one
        finally:
            loop.call_threadsafe(self._retold, polls, topics)

    def _tell(self, polls: list[Poll]) -> None:
        while polls:
            poll = polls[-1]
            with contextlib.suppress(UnknownPoll):
                self.hub.deliver(Delivery(poll.topic, poll.news()))
            polls.pop()

    def _take(self) -> tuple[list[Poll], set[str]]:
        taken = sorted(self._untold, key=lambda poll: poll.name), self._unasked
        self._untold, self._unasked = set(), set()
        return taken

    def _retold(self, polls: list[Poll], topics: set[str]) -> None:
        feeds = self.hub.feeds
        self._untold |= {poll for poll in polls if poll.topic in feeds}
        self._unasked |= {topic for topic in topics if topic in feeds}
        self._retelling = None
        self._retell_in(_RETELL_AGAIN if polls or topics else _RETELL)


def _same(known: Poll, asked: Poll) -> Poll:
    """Return ``known``, if it is what was asked for.

    :raises ValueError: it is not.
    """
    if (known.options, known.room) != (asked.options, asked.room):
        name = known.name
        raise ValueError(f"the poll {name!r} was made with other options or room")
    return known
