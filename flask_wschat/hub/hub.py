"""``Hub``: the connections of this process, their rooms and users.

Whatever is published goes to the backend first and comes back from there, also in a
single process, so that everyone sees the same messages in the same order: see
docs/decisions/07. What the hub is made of stands below it: see docs/decisions/20.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from .. import endings
from ..backends import Backend
from ..errors import BackendError
from ..logs import SparingLog
from ..messages import (
    EVERYONE,
    OPERATE,
    PRESENCE,
    Delivery,
    Message,
    Receipt,
    room_topic,
    user_topic,
)
from ..settings import Settings
from ..signals import CallEach, Signals, call_each
from ..transports import Event, Loop, ending
from ..transports.loop import new_event
from ..transports.waiting import run_blocking, start_thread
from ..websocket import WebSocket
from .backlog import Backlog
from .beside import send_beside
from .claims import CLAIM, Claims
from .deliveries import Deliveries
from .drain import Closing
from .feeds import Feeds
from .figures import PUBLISHED, Figures
from .home import Home
from .members import Members
from .mending import Mender
from .overdue import Overdue
from .places import places_for
from .presence import Presence
from .readings import Readings
from .rooms import Rooms
from .subscriptions import Subscriptions
from .sweep import Sweep

logger = logging.getLogger("flask_wschat")

Report = Callable[..., Any]  # with the error, and the connection that it ended


class Lonely(Protocol):
    """Who warns that nobody hears what is published."""

    def __call__(self) -> None: ...
    def serves(self) -> None: ...


class Hub:
    """Who is connected here, and the way to reach them; the backend's ``Host``.

    Its sets change in the loop of its connections only; what may wait is never called
    there. Plain connections get what is published as it is, those of ``Events`` as it
    comes; those of the ready-made chat are in ``feeds``.
    """

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        *,
        dumps: Callable[[Any], str],
        loads: Callable[[str | bytes], Any],
        call_each: CallEach = call_each,
        report: Report | None = None,
        signals: Signals | None = None,
    ) -> None:
        self.settings = settings
        self.log = SparingLog(logger)
        self.backend = backend
        self.dumps = dumps
        self.loads = loads
        self.call_each = call_each
        self.alone: Lonely | None = None
        """Is told of what is published before anybody has connected here."""
        self.leaving: set[WebSocket] = set()
        """Connections that have ended, and their transports have not."""
        self.figures = Figures(self)
        self.report = self.figures.telling(report)
        self.signals = signals or Signals()
        self.signals.report = self.report
        self.counts = self.figures.counts
        self.backlog = Backlog(settings.MAX_QUEUED, self, self.figures)
        self.home = Home(self)
        self._asked = asked = self.figures.timed(backend)
        self._mender = Mender(self.home, asked, settings.MAX_QUEUE // 4, self.deliver)
        self.feeds = Feeds(settings, self.home.later, self._mender.add)
        self.members = Members(self.feeds)
        self.places = places_for(settings)
        self.presence = Presence(
            self.members, self.feeds, asked, self.home, new_event, settings.patience
        )
        self._topics = Subscriptions(asked, self.members.wants, new_event)
        self.readings = Readings(self.feeds, self._topics, asked)
        self.overdue = Overdue(self.feeds, asked)
        self._claims = Claims(self.home, self.members, asked, settings.HISTORY_TTL)
        self.rooms = Rooms(
            self.members, self._topics, self._claims, self.presence, self._finish
        )
        self._deliveries = Deliveries(self.home, self, settings.MAX_QUEUED)
        self.closing = Closing(self)
        self._sweep = Sweep(self.home, self)
        self._logged = ""  # the fault of the backend that the log knows of
        self.on_end: Callable[[WebSocket], Any] = bool
        """Told of each connection that ended, for a server's log."""
        self.on_lost: Callable[[list[str] | None], Any] = bool
        """Told, in the loop, of topics (None: any) of which publications were lost."""
        self.on_begin: Callable[[], Any] = bool
        """Called where connections are about to live in this process, or do anew."""
        self.on_operate: Callable[[Delivery], Any] = bool
        """Told, in any thread, of what operators ask and hear."""
        self.on_stop: Callable[[], Any] = bool
        """Called before the backend is let go of."""
        backend.start(self)
        ending.watch(self.closing)

    # -- who is here

    def lives_in(self, loop: Loop) -> bool:
        """Whether connections live in ``loop``, or have not quite ended there."""
        return self.home.loop is loop and bool(self.leaving or self.count())

    def register(
        self,
        ws: WebSocket,
        loop: Loop,
        *,
        plain: bool = True,
        came_to: Loop | None = None,
    ) -> None:
        """Add an open connection, in the loop that ``home.loop_for`` named.

        One that is not ``plain`` gets nothing but orders to close before ``attach``.
        """
        settled = self.home.settle(loop)
        assert settled
        if self.alone is not None:
            self._serve()
        if came_to is not None and came_to is not loop:
            self.home.welcome(ws, came_to)
        ws._sweep_at = time.monotonic() + self.settings.PING_INTERVAL
        members = self.members
        (members.plain[EVERYONE] if plain else members.opening).add(ws)
        topics = [EVERYONE, OPERATE]
        if ws.user is not None:
            topic = user_topic(ws.user)
            topics.append(topic)
            members.add(ws, topic, mute=True)
            self.presence.changed(loop, EVERYONE, ws.user)
            self.presence.changed(loop, topic, ws.user)
        self._topics.want(loop, topics)
        self._sweep.begin()
        self.figures.opened(self.count())

    def serve(self, own: Loop) -> None:
        """Hear what operators ask, also before anybody connects; may wait."""
        loop = self.home.settled(own)
        loop.call(self._topics.want, loop, [OPERATE])

    def require_backend(self, own: Loop) -> None:
        """Return when what is sent to all reaches this process.

        :raises BackendError: it does not; said once in the log, until it does again.
        :raises HandshakeError: the loop of the connections does not turn.
        """
        fault = self.backend.fault()
        self.figures.set("backend_up", fault is None)
        if fault is None:
            try:
                loop = own
                if self.home.pid != os.getpid() or self.home.loop is not own:
                    loop = self.home.settled(own)
                    self._serve()
                self._topics.wait(loop, [EVERYONE])
            except BackendError as error:
                fault = str(error)
        if fault is not None:
            self._log_fault("connections are refused with 503", fault)
            raise BackendError(fault)
        self._logged = ""

    def await_topics(self, ws: WebSocket) -> None:
        """Return when what is sent to the user of ``ws`` reaches it.

        Where it does not, ``ws`` is closed with 1013.
        """
        if ws.user is None:
            return
        try:
            self._topics.wait(ws._transport.loop, [user_topic(ws.user)])
        except BackendError as error:
            self._log_fault("new connections are closed with 1013", str(error))
            ws.close(*endings.NO_STORAGE)

    def _log_fault(self, what: str, fault: str) -> None:
        level = logging.DEBUG if fault == self._logged else logging.WARNING
        self._logged = fault
        logger.log(level, "%s: %s", what, fault)

    def _serve(self) -> None:
        """Note that somebody comes, who hears what is published."""
        alone, self.alone = self.alone, None
        if alone is not None:
            alone.serves()

    def attach(
        self, ws: WebSocket, *, sharing: bool = False, hearing: bool = False
    ) -> None:
        """Let a connection that speaks the protocol have the news; in the loop.

        ``sharing``: it may be in rooms that plain connections are in. ``hearing``: it
        is not of the ready-made chat, and reads nothing.
        """
        if ws not in self.members.opening:
            return
        own = [] if ws.user is None else [user_topic(ws.user)]
        if hearing:
            rooms = map(room_topic, ws._rooms or ())
            self.members.hear(ws, [*own, *rooms])
        else:
            self.members.opening.discard(ws)
            self.feeds.add(ws, EVERYONE)
            for topic in own:
                self.feeds.unmute(ws, topic)
            if sharing:
                self._claims.sharing.add(ws)

    def forget(self, ws: WebSocket) -> None:
        """Take a connection that ended out of everything it was in.

        It is out of all of it, also where one step fails.
        """
        rooms, ws._rooms = ws._rooms, None
        if not ws._gone:
            self.leaving.add(ws)
        if self.places is not None:
            self.places.give_back(ws)
        self._claims.sharing.discard(ws)
        self._finish(self.members.forget, ws)
        if ws.closed:  # else it was never quite here
            self.figures.closed(ws.close_code, self.count())
        self._finish(self.on_end, ws)
        topics = [room_topic(room) for room in rooms or ()]
        if ws.user is not None:
            topics.append(user_topic(ws.user))
        for topic in topics:
            self.rooms.drop(ws, topic)
        if ws.user is not None:
            loop = ws._transport.loop
            self._finish(self.presence.changed, loop, EVERYONE, ws.user)

    def gone(self, ws: WebSocket) -> None:
        """Note that the last of a connection that ended is gone."""
        self.leaving.discard(ws)

    def _finish(self, step: Callable[..., Any], *args: Any) -> None:
        try:
            step(*args)
        except Exception as error:
            self.report(error)

    def join(self, ws: WebSocket, room: Any) -> bool:
        """Put ``ws`` into ``room``: see ``Rooms.join``."""
        return self.rooms.join(ws, room)

    def leave(self, ws: WebSocket, room: Any) -> bool:
        """Take ``ws`` out of ``room``; False: it was not there."""
        return self.rooms.leave(ws, room)

    def shutdown(
        self, seconds: float | None = None, *, came_to: Loop | None = None
    ) -> None:
        """Close all connections, and wait for that: see ``Closing.drain``."""
        self.closing.shutdown(seconds, came_to=came_to)

    def stop(self) -> None:
        """Let go of the backend."""
        self._finish(self.on_stop)
        try:
            self.backend.stop()
        except Exception as error:
            logger.warning("the backend cannot be stopped: %s", error)

    def count(self, topic: str = EVERYONE) -> int:
        """Return how many connections ``topic`` has here."""
        return self.members.count(topic)

    def users(self, topic: str = EVERYONE) -> list[str]:
        """Return the users with a connection in ``topic`` here: sorted, each once."""
        return self.members.users(topic)

    def everyone(self) -> Iterator[WebSocket]:
        return self.members.everyone()

    # -- where they live

    def is_telling(self) -> bool:
        """Whether the backend is not told yet of some who came or went."""
        return self.presence.telling

    def is_busy(self) -> bool:
        """Whether the backend is just told of some who are not here any more."""
        return self.presence.telling or self._topics.busy

    def move_out(self) -> None:
        """Give up what is planned in the loop: another one will be home."""
        self.feeds.tallies.void()
        self._mender.clear()
        self.presence.rosters.clear()

    def forget_all(self) -> None:
        """Forget everybody: they are another process's, or ended with their loop."""
        self._finish(self.on_begin)
        if self.places is not None:
            for ws in self.everyone():
                self.places.give_back(ws)
        self.members.clear()
        self.figures.lose_all()
        self._mender.clear()
        self.leaving = set()
        self.signals.owed.clear()
        self.backlog.clear()
        self._claims.sharing.clear()
        self._deliveries.clear()
        self._topics.clear()
        self.presence.clear()

    # -- what they are sent

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> Receipt:
        """Hand ``message`` to the backend; return what became of it.

        :raises BackendError: nobody got it, or that cannot be known.
        """
        receipt = self._asked.publish(topic, message, keep=keep)
        self.counts.add(PUBLISHED)
        self.feeds.acknowledged(topic, receipt)
        if self.alone is not None:
            self.alone()
        if self._deliveries.waiting:
            self._deliveries.hold_back()
        return receipt

    def submit(
        self,
        topic: str,
        message: Message,
        done: Callable[[Receipt | Exception], None],
        *,
        keep: bool = False,
    ) -> None:
        """Do as ``publish``, but wait only where deliveries are far behind.

        ``done`` is called as by ``Backend.submit``.
        """

        def note(outcome: Receipt | Exception) -> None:
            if isinstance(outcome, Receipt):
                self.counts.add(PUBLISHED)
                self.feeds.acknowledged(topic, outcome)
            done(outcome)

        self._asked.submit(topic, message, note, keep=keep)
        if self._deliveries.waiting:
            self._deliveries.hold_back()

    # -- what the backend calls, from any thread

    def deliver(self, delivery: Delivery) -> None:
        if delivery.message.event == OPERATE:
            self.on_operate(delivery)
            return
        if self.home.loop is None or self.home.pid != os.getpid():
            return  # nobody ever connected here
        self._deliveries.put(delivery)

    def lost(self, topics: Iterable[str] | None) -> None:
        which = None if topics is None else list(topics)
        self._deliveries.call(lambda: self._lose(which))

    def made(self, topic: str, epoch: str) -> None:
        self._deliveries.call(lambda: self._begin_anew(topic, epoch))

    def run_blocking(self, function: Callable[[], Any]) -> Any:
        return run_blocking(function)

    def event(self) -> Event:
        return new_event()

    def start_thread(self, function: Callable[[], None]) -> None:
        start_thread(function)

    # -- in the loop

    def pass_on(self, delivery: Delivery) -> None:
        """Give a delivery to those here whom it is for."""
        if delivery.message.event == CLAIM.event:
            self.feeds.void(delivery.topic)
            self._claims.obey(delivery.topic, self.rooms.put_out)
            return
        if delivery.message.event == PRESENCE:
            if self.home.loop is not None:
                self.presence.rosters.news(self.home.loop, delivery)
            return
        self.backlog.look()
        try:
            send_beside(self.members, delivery, self._finish)
        finally:
            self.feeds.deliver(delivery)

    def _begin_anew(self, topic: str, epoch: str) -> None:
        self.feeds.begin_anew(topic, epoch)
        self._claims.made(topic)

    def _lose(self, topics: list[str] | None) -> None:
        self.feeds.tallies.void()
        self._deliveries.lose(self.feeds.topics if topics is None else topics)
        self._claims.lost()
        if self.home.loop is not None:
            self.presence.lost(self.home.loop, topics)
        self.on_lost(topics)

    def tell_of_loss(self, topic: str) -> None:
        """Tell the readers of ``topic`` that they may have missed something."""
        self.feeds.lose(topic)

    def tick(self, loop: Loop, now: float, watched: bool) -> bool:
        """Look after all but the connections; True: there is more to do."""
        self._claims.tick(now)
        self.overdue.tick(loop, now)
        self.backlog.look()
        more = self._topics.tick(loop, now)
        return self.presence.tick(loop, now, watched) or more
