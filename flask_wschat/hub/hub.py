"""``Hub``: the connections of this process, their rooms and users.

Whatever is published goes to the backend first and comes back from there, also in a
single process, so that everyone sees the same messages in the same order.
"""

from __future__ import annotations

import collections
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

from ..backends import Backend
from ..codec import CloseCode
from ..errors import BackendError, ConnectionClosed, HandshakeError
from ..incoming import CallEach, call_each
from ..logs import SparingLog
from ..messages import (
    EVERYONE,
    Delivery,
    Message,
    Page,
    Receipt,
    as_name,
    room_of,
    room_topic,
    user_topic,
)
from ..rate import Buckets
from ..settings import Settings
from ..transports import Event, Loop, ending
from ..transports.loop import new_event
from ..transports.waiting import run_blocking, start_thread
from ..websocket import WebSocket
from .audience import Audience, deliver
from .feeds import Feeds, framed, tell_gap
from .presence import Presence
from .subscriptions import Subscriptions

logger = logging.getLogger("flask_wschat")

_TWO_LOOPS = (
    "this process serves one app's WebSockets in two loops: %s has %d of them, and this"
    " one came to %s. Serve the app once in a process, or make an app for each server"
    " and test client (a factory, create_app())"
)

_DUE_LIMIT = 1000  # publications of other threads that may await the loop
_CLAIM = Message("", event="claim")
"""Tells a room's members that plain connections have claimed it."""
_CLAIMS = 500  # rooms in one call
_RECOUNT = 0.1  # seconds for which losses gather, until polls are told anew
_RECOUNT_AGAIN = 1.0  # and where the backend does not say how they stand
Report = Callable[..., None]  # with the error, and the connection that it ended
TURN = 0.01
"""Seconds that deliveries may take until others of the loop have their turn."""
DUE_MOST = 50_000
"""Deliveries that may await the loop, whoever published them."""


class Lonely(Protocol):
    """Who warns that nobody hears what is published."""

    def __call__(self) -> None: ...
    def serves(self) -> None: ...


class Hub:
    """Who is connected here, and the way to reach them; the backend's ``Host``.

    Its sets change in the loop of its connections only; what may wait is never called
    there. Plain connections get what is published as it is; those of the ready-made
    chat are in ``feeds``.
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
    ) -> None:
        self.settings = settings
        self.log = SparingLog(logger)
        self.backend = backend
        self.dumps = dumps
        self.loads = loads
        self.call_each = call_each
        self.report = report or _log_error
        self.alone: Lonely | None = None
        """Is told of what is published before anybody has connected here."""
        self.polls: dict[str, Any] = {}
        """The polls of this process, by name."""
        self.buckets = Buckets()
        self._members: dict[str, Audience] = {EVERYONE: Audience()}
        self._leaving: set[WebSocket] = set()  # ended, but their transports are not
        self._opening: set[WebSocket] = set()  # not plain, and not in a feed yet
        self._sharing: set[WebSocket] = (
            set()
        )  # not plain, and in plain rooms on purpose
        self._renew_at = 0.0  # when the claims of plain rooms are due
        self.feeds = Feeds(settings.MAX_QUEUE, self._call_later)
        self.presence = Presence(self, settings.PING_INTERVAL + settings.PING_TIMEOUT)
        self._topics = Subscriptions(backend, self._is_wanted, new_event)
        self._loop: Loop | None = None
        self._settling = threading.Lock()
        self._pid = 0
        self._due: collections.deque[Delivery | Callable[[], None]]
        self._due = collections.deque()
        self._delivering = False
        self._resting = False  # the rest is delivered when others had their turn
        self._lost: dict[str, None] = {}  # topics whose readers have to be told
        self._recount: set[str] = set()  # polls whose last tally may be lost
        self._recounting = False
        self._sweeping = False
        self._told = ""  # the fault of the backend that the log knows of
        # Four looks in the shorter of the two times keep both to within a quarter.
        shortest = min(settings.PING_INTERVAL, settings.PING_TIMEOUT)
        self._tick = min(1.0, shortest / 4)
        self.stopping: Callable[[], bool] | None = None
        """Tells the sweep that the server ends, and every connection with it."""
        self.on_end: Callable[[WebSocket], Any] | None = None
        """Told of each connection that ended, for a server's log."""
        backend.start(self)
        ending.watch(self)

    # -- who is here

    def register(self, ws: WebSocket, loop: Loop, *, plain: bool = True) -> None:
        """Add an open connection, in the loop.

        One that is not ``plain`` gets nothing but orders to close before ``attach``.
        """
        try:
            self._settle(loop)
        except HandshakeError:
            ws._transport.abort()  # another loop was faster by less than a handshake
            raise
        ws._sweep_at = time.monotonic() + self.settings.PING_INTERVAL
        (self._members[EVERYONE] if plain else self._opening).add(ws)
        topics = [EVERYONE]
        if ws.user is not None:
            topic = user_topic(ws.user)
            topics.append(topic)
            if plain:
                self._members.setdefault(topic, Audience()).add(ws)
            else:
                self.feeds.add(ws, topic)
            self.presence.changed(loop, EVERYONE, ws.user)
            self.presence.changed(loop, topic, ws.user)
        self._topics.want(loop, topics)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self._tick, self._sweep)

    def require_backend(self, loop: Loop) -> None:
        """Return when what is sent to all reaches this process.

        :raises BackendError: it does not; said once in the log, until it does again.
        :raises HandshakeError: connections of another loop than ``loop`` live.
        """
        fault = self.backend.fault()
        if fault is None:
            try:
                if self._pid != os.getpid() or self._loop is not loop:
                    self._wait_for_calm(loop)
                    loop.call(self._settle, loop)
                self._topics.wait(loop, [EVERYONE])
            except BackendError as error:
                fault = str(error)
        if fault is not None:
            self._log_fault("connections are refused with 503", fault)
            raise BackendError(fault)
        self._told = ""

    def _settle(self, loop: Loop) -> None:
        """Let ``loop``, in which this is called, be that of all connections.

        :raises HandshakeError: it cannot be, as those of another one live. They would
            be sent what is due to them in the wrong thread, late, or never.
        """
        if self._loop is loop and self._pid == os.getpid() and self.alone is None:
            return
        with self._settling:
            if self._pid != os.getpid():
                self._begin()
            home = self._loop
            if home is not None and home is not loop and not home.is_current():
                if not home.is_alive():
                    self._begin()  # its connections ended with it
                elif self.count():
                    words = _TWO_LOOPS % (home, self.count(), loop)
                    self.log.warning("loops", "refused a WebSocket: %s", words)
                    raise HandshakeError(500, words)
                # What it has planned is void.
                self._sweeping = self._resting = self._recounting = False
            self._loop = loop
            if self.alone is not None:
                self.alone.serves()
                self.alone = None

    def _wait_for_calm(self, loop: Loop) -> None:
        """Give the loop that was home until now a second to finish what it began."""
        until = time.monotonic() + 1
        while (
            self._loop is not None
            and self._pid == os.getpid()
            and self._loop.is_alive()
            and not self.count()
            and (self.presence.busy or self._topics.busy)
            and loop.may_wait()
            and time.monotonic() < until
        ):
            loop.event().wait(0.01)

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
            ws.close(CloseCode.TRY_AGAIN_LATER, "try again later")

    def _log_fault(self, what: str, fault: str) -> None:
        level = logging.DEBUG if fault == self._told else logging.WARNING
        self._told = fault
        logger.log(level, "%s: %s", what, fault)

    def _call_later(self, seconds: float, callback: Callable[[], Any]) -> None:
        if self._loop is not None:
            self._loop.call_later(seconds, lambda: self._is_home() and callback())

    def _is_home(self) -> bool:
        """Whether this is the connections' loop, which may have moved meanwhile."""
        return self._loop is not None and self._loop.is_current()

    def attach(self, ws: WebSocket, *, sharing: bool = False) -> None:
        """Let a connection of the ready-made chat have the news; in the loop.

        ``sharing``: it may be in rooms that plain connections are in.
        """
        if ws in self._opening:
            self._opening.discard(ws)
            self.feeds.add(ws, EVERYONE)
            if sharing:
                self._sharing.add(ws)

    def forget(self, ws: WebSocket) -> None:
        """Take a connection that ended out of everything it was in.

        It is out of all of it, also where one step fails.
        """
        rooms, ws._rooms = ws._rooms, None
        if not ws._gone:
            self._leaving.add(ws)
        self._opening.discard(ws)
        self._sharing.discard(ws)
        self._members[EVERYONE].discard(ws)
        if EVERYONE in self.feeds:
            self._finish(self.feeds.discard, ws, EVERYONE)
        if self.on_end is not None:
            self._finish(self.on_end, ws)
        topics = [room_topic(room) for room in rooms or ()]
        if ws.user is not None:
            topics.append(user_topic(ws.user))
        for topic in topics:
            self._drop(topic, ws)
        if ws.user is not None:
            for topic in (*topics, EVERYONE):
                self._finish(self._tell_presence, topic, ws.user)

    def left(self, ws: WebSocket) -> None:
        """Note that the last of a connection that ended is gone."""
        self._leaving.discard(ws)

    def _finish(self, step: Callable[..., Any], *args: Any) -> None:
        try:
            step(*args)
        except Exception as error:
            self.report(error)

    def _tell_presence(self, topic: str, user: str) -> None:
        if self._loop is not None:
            self.presence.changed(self._loop, topic, user)

    def join(self, ws: WebSocket, room: Any) -> bool:
        """Put ``ws`` into ``room``; False: it was there, or is closed.

        A plain connection claims the room: no other connection of the ready-made chat
        may be there but one that is ``sharing``. See docs/decisions/26.

        :raises BackendError: it is not there, as nothing would come.
        :raises PermissionError: it is not there, as the room was claimed.
        """
        name, loop = as_name(room, "a room"), ws._transport.loop
        topic = room_topic(name)
        if ws in self._members[EVERYONE]:
            # Before it is there, and anybody hears so.
            if topic not in self._members:
                self._where_it_may_wait(loop, lambda: self._claim([topic]))
            return self.enter(ws, name)
        if not self.enter(ws, name):
            return False
        try:
            self._where_it_may_wait(loop, lambda: self._look(ws, topic))
        except BaseException:
            loop.call(self._leave, ws, name)
            raise
        return True

    def enter(self, ws: WebSocket, name: str) -> bool:
        """Put ``ws`` into a room, whoever may be there; else as ``join``."""
        loop = ws._transport.loop
        if not loop.call(self._enter, ws, name):
            return False
        try:
            self._topics.wait(loop, [room_topic(name)])
        except BackendError:
            loop.call(self._leave, ws, name)
            raise
        return True

    def _claim(self, topics: Sequence[str]) -> None:
        self.backend.claim(topics, _CLAIM)

    def _look(self, ws: WebSocket, topic: str) -> None:
        if ws in self._sharing:
            return
        # What is here is asked as well: a storage may have lost its marks.
        if self.backend.history(topic, limit=1).plain or self.has_plain(topic):
            raise PermissionError(
                "plain connections are in this room: the chat may be there, too, only"
                " where its listener says plain_rooms = True"
            )

    def _evict(self, topic: str) -> None:
        """Put those of the chat out of a room that plain connections have claimed."""
        room = room_of(topic)
        assert room is not None
        out = [ws for ws in self.feeds.members(topic) if ws not in self._sharing]
        for ws in out:
            self._leave(ws, room)
        tell_gap(out, topic)

    def _renew_claims(self) -> None:
        """Claim the rooms again that plain connections are in; in a worker."""
        topics = [topic for topic in list(self._members) if room_of(topic) is not None]
        try:
            for start in range(0, len(topics), _CLAIMS):
                self._claim(topics[start : start + _CLAIMS])
        except BackendError:
            self._renew_at = 0.0  # the backend logs it, and is asked again

    def _claim_again(self, topic: str) -> None:
        """Renew the claim of a room that the storage has forgotten; in the loop."""

        def claim() -> None:
            try:
                self._claim([topic])
            except BackendError:
                self._renew_at = 0.0  # with the next sweep

        if self.has_plain(topic) and self._loop is not None:
            self._loop.run(claim)

    def has_plain(self, topic: str) -> bool:
        """Whether plain connections of this process are in the room of ``topic``."""
        return topic in self._members and room_of(topic) is not None

    def _where_it_may_wait(self, loop: Loop, call: Callable[[], Any]) -> None:
        if loop.may_wait():
            call()
        else:
            loop.run(call)

    def leave(self, ws: WebSocket, room: Any) -> bool:
        """Take ``ws`` out of ``room``; False: it was not there."""
        name = as_name(room, "a room")
        return ws._transport.loop.call(self._leave, ws, name)

    def _leave(self, ws: WebSocket, room: str) -> bool:
        if ws._rooms is None or room not in ws._rooms:
            return False
        ws._rooms.discard(room)
        topic = room_topic(room)
        self._drop(topic, ws)
        if ws.user is not None:
            self._finish(self._tell_presence, topic, ws.user)
        return True

    def shutdown(self, timeout: float = 1.0) -> None:
        """Close every connection with 1012, "service restart", and wait for it.

        Also for those that somebody else has begun to close. ``timeout``: seconds for
        the close frames to get out and be answered.
        """
        loop = self._loop
        if loop is None or self._pid != os.getpid() or not loop.is_alive():
            return
        for ws in list(self._everyone()):
            ws.close(CloseCode.SERVICE_RESTART, "service restart")
        until = time.monotonic() + timeout
        while time.monotonic() < until and (
            self._leaving or self.presence.busy or any(self._everyone())
        ):
            loop.event().wait(0.01)
        if loop.is_current():
            for ws in list(self._leaving):
                ws._transport.abort()

    def stop(self) -> None:
        """Let go of the backend."""
        try:
            self.backend.stop()
        except Exception as error:
            logger.warning("the backend cannot be stopped: %s", error)

    def run_waiting(self, task: Callable[[], Any]) -> bool:
        """Run ``task`` beside the loop if the caller may not wait; False: it may."""
        loop = self._loop
        if loop is None or not loop.is_current() or loop.may_wait():
            return False
        loop.run(task)
        return True

    def count(self, topic: str = EVERYONE) -> int:
        """Return how many connections ``topic`` has here."""
        opening = len(self._opening) if topic == EVERYONE else 0
        plain, chatting = self._members.get(topic, ()), self.feeds.members(topic)
        return len(plain) + len(chatting) + opening

    def users(self, topic: str = EVERYONE) -> list[str]:
        """Return the users with a connection in ``topic`` here: sorted, each once."""
        members = [*tuple(self._members.get(topic, ())), *self._chatting(topic)]
        if topic == EVERYONE:
            members += tuple(self._opening)
        return sorted({ws.user for ws in members if ws.user is not None})

    def here(self, topic: str, user: str) -> int:
        """Return how many connections of ``user`` are in ``topic`` here."""
        room, own = room_of(topic), user_topic(user)
        if room is None:
            return self.count(own)
        members = [*tuple(self._members.get(own, ())), *self._chatting(own)]
        return sum(1 for ws in members if room in (ws._rooms or ()))

    def attending(self) -> Iterator[tuple[str, str]]:
        """Yield each topic and user that the backend has to know of."""
        for ws in list(self._everyone()):
            if ws.user is not None:
                yield EVERYONE, ws.user
                yield user_topic(ws.user), ws.user
                for room in ws.rooms:
                    yield room_topic(room), ws.user

    def _everyone(self) -> Iterator[WebSocket]:
        chatting = self.feeds.members(EVERYONE)
        return itertools.chain(self._members[EVERYONE], self._opening, chatting)

    def _chatting(self, topic: str) -> tuple[WebSocket, ...]:
        return tuple(self.feeds.members(topic))

    def _begin(self) -> None:
        """This is a new process: the connections are the other one's."""
        self._pid = os.getpid()
        self._members = {EVERYONE: Audience()}
        self._opening, self._leaving = set(), set()
        self._sharing = set()
        self.feeds = Feeds(self.settings.MAX_QUEUE, self._call_later)
        self._due.clear()
        self._delivering = self._resting = False
        self._sweeping = self._recounting = False
        self._lost.clear()
        self._recount.clear()
        self._topics.clear()
        self.presence.clear()

    def _enter(self, ws: WebSocket, room: str) -> bool:
        if ws.closed or (ws._rooms is not None and room in ws._rooms):
            return False
        if ws._rooms is None:
            ws._rooms = set()
        ws._rooms.add(room)
        topic, loop = room_topic(room), ws._transport.loop
        if ws in self._members[EVERYONE]:
            self._members.setdefault(topic, Audience()).add(ws)
        else:
            self.feeds.add(ws, topic, mute=True)
        self._topics.want(loop, [topic])
        if ws.user is not None:
            self.presence.changed(loop, topic, ws.user)
        return True

    def _drop(self, topic: str, ws: WebSocket) -> None:
        members = self._members.get(topic)
        if members is not None:
            members.discard(ws)
            if not members:
                del self._members[topic]
        self._finish(self.feeds.discard, ws, topic)
        if not self._is_wanted(topic):
            self._topics.release(topic)

    def _is_wanted(self, topic: str) -> bool:
        return topic in self._members or topic in self.feeds

    # -- what they are sent

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> Receipt:
        """Hand ``message`` to the backend; return what became of it.

        :raises BackendError: nobody got it, or that cannot be known.
        """
        receipt = self.backend.publish(topic, message, keep=keep)
        if self.alone is not None:
            self.alone()
        if len(self._due) > _DUE_LIMIT:
            self._wait_for_deliveries()
        return receipt

    def _wait_for_deliveries(self) -> None:
        """Hold who publishes faster than the loop can deliver."""
        loop = self._loop
        if loop is None or not loop.may_wait():
            return
        if self._delivering and loop.is_current():
            return  # it is a part of a delivery: the others come after it
        # A thread may sleep: no event is safe in both worlds.
        wait = loop.event().wait if loop.is_current() else time.sleep
        while len(self._due) > _DUE_LIMIT and loop.is_alive():
            wait(0.002)

    def read(
        self,
        ws: WebSocket,
        topic: str,
        ask: Callable[[], Page],
        send: Callable[[Page], bool],
    ) -> None:
        """Send ``ws`` a page of ``topic``, in which it is, and then what follows.

        ``ask`` returns the page; ``send`` sends it, and says whether it is the last.
        Until it is, no message of the topic is sent.

        :raises BackendError: nothing is sent, nor will be.
        :raises ConnectionClosed: ``ws`` has ended.
        """
        loop = ws._transport.loop
        # In this order nothing falls between them: what is delivered waits from now on.
        loop.call(self.feeds.hold, ws, topic)
        try:
            self._topics.wait(loop, [topic])
            if ws.closed:  # nobody reads what the backend would be asked for
                raise ws._closed_error()
            page = ask()
            last = send(page)
        except BaseException:
            loop.call(self.feeds.release, ws, topic)
            raise
        if last:
            loop.call(self.feeds.resume, ws, topic, page.epoch, page.seq)
        else:
            loop.call(self.feeds.release, ws, topic)

    # -- what the backend calls, from any thread

    def deliver(self, delivery: Delivery) -> None:
        if self._loop is None or self._pid != os.getpid():
            return  # nobody ever connected here
        if len(self._due) > DUE_MOST:
            # Nothing is left out in silence: the chat's connections read it again.
            self._due.clear()
            self.log.warning(
                "due", "%d deliveries waited for the loop, and are lost", DUE_MOST
            )
            self.lost(None)
            return
        self._do(delivery)

    def lost(self, topics: Iterable[str] | None) -> None:
        which = None if topics is None else list(topics)
        self._do(lambda: self._lose(which))

    def made(self, topic: str) -> None:
        self._do(lambda: self._claim_again(topic))

    def run_blocking(self, function: Callable[[], Any]) -> Any:
        return run_blocking(function)

    def event(self) -> Event:
        return new_event()

    def start_thread(self, function: Callable[[], None]) -> None:
        start_thread(function)

    def _do(self, what: Delivery | Callable[[], None]) -> None:
        loop = self._loop
        if loop is None:
            return
        self._due.append(what)
        if loop.is_current():
            self._deliver_due()
        else:
            try:
                loop.call_threadsafe(self._deliver_due)
            except ValueError:  # the loop has ended
                self._due.clear()

    def _deliver_due(self) -> None:
        if self._delivering or not self._is_home():
            return  # a delivery led to a publication: it comes after, in order
        if self._resting and len(self._due) <= _DUE_LIMIT:
            return
        self._delivering = True
        # Better that the others wait longer than that much of a flood is lost.
        turn = TURN if len(self._due) < DUE_MOST // 5 else 10 * TURN
        until = time.monotonic() + turn
        try:
            while self._due or self._lost:
                try:
                    self._deliver_next()
                except Exception as error:
                    self.report(error)  # one that cannot be read; the rest can
                if time.monotonic() >= until:
                    break
        finally:
            self._delivering = False
        if (self._due or self._lost) and not self._resting:
            # Who has something to send or say does not wait for all of it.
            self._resting = True
            self._call_later(0, self._deliver_on)

    def _deliver_on(self) -> None:
        self._resting = False
        self._deliver_due()

    def _deliver_next(self) -> None:
        if self._lost:
            self.feeds.lose(self._lost.popitem()[0])
        try:
            what = self._due.popleft()
        except IndexError:  # another thread has thrown all away, or there was none
            return
        if not isinstance(what, Delivery):
            what()
            return
        if what.message.event == _CLAIM.event:
            self._evict(what.topic)
            return
        try:
            self._deliver(what)
        finally:
            self.feeds.deliver(what)

    def _deliver(self, delivery: Delivery) -> None:
        topic, message = delivery.topic, delivery.message
        members = self._members.get(topic)
        # What clients of the ready-made chat say is for it alone, unless it shares its
        # rooms; what they told others always, which is in their own topic as well.
        said = message.sender is not None and not message.plain
        if members and message.event is None and message.to is None and not said:
            receivers: Collection[WebSocket] = members
            if message.exclude is not None:
                receivers = [ws for ws in members if ws._id != message.exclude]
            if message.close_code is not None:
                for ws in list(receivers):
                    self._finish(ws.close, message.close_code, str(message.data))
            else:
                deliver(receivers, framed(message.data), message.key)

    def _lose(self, topics: list[str] | None) -> None:
        self.feeds.void_tallies()
        self._lost.update(
            dict.fromkeys(self.feeds.topics if topics is None else topics)
        )
        if self._renew_at and self._loop is not None:
            # Where messages were lost, claims may be: now, and with the next sweep.
            self._renew_at = 0.0
            self._loop.run(self._renew_claims)
        for poll in list(self.polls.values()):
            # A tally has no number: that one is missing shows by nothing.
            if poll.topic in self.feeds and (topics is None or poll.topic in topics):
                self._recount.add(poll.name)
        self._recount_later(_RECOUNT)

    def _recount_later(self, seconds: float) -> None:
        if self._recount and not self._recounting:
            self._recounting = True
            loop = self._loop
            assert loop is not None
            self._call_later(seconds, lambda: loop.run(lambda: self._tell_polls(loop)))

    def _tell_polls(self, loop: Loop) -> None:
        """Tell those here how the polls stand, of which news was lost; in a worker."""
        left = loop.call(self._take_recount)
        try:
            while left:
                poll = self.polls[left[-1]]
                self._do(Delivery(poll.topic, poll.news()))
                left.pop()
        except BackendError:
            pass  # it is asked again, for as long as somebody is here
        except Exception as error:
            self.report(error)
            left.clear()
        loop.call(self._recounted, left)

    def _take_recount(self) -> list[str]:
        names, self._recount = sorted(self._recount), set()
        return names

    def _recounted(self, left: list[str]) -> None:
        self._recount |= {name for name in left if self.polls[name].topic in self.feeds}
        self._recounting = False
        self._recount_later(_RECOUNT_AGAIN if left else _RECOUNT)

    # -- who is still there

    def _sweep(self) -> None:
        """Look after each connection whose time has come; the one timer there is."""
        loop, now = self._loop, time.monotonic()
        if loop is None or not self._is_home():
            return  # there is another sweep
        connections = list(self._everyone())
        if self.stopping is not None and self.stopping():
            for ws in connections:
                ws.close(CloseCode.SERVICE_RESTART, "service restart")
        interval, timeout = self.settings.PING_INTERVAL, self.settings.PING_TIMEOUT
        for ws in connections:
            if ws._sweep_at <= now:
                try:
                    ws._sweep(now, interval, timeout)
                except ConnectionClosed:
                    pass  # another thread may just have begun to close it
                except Exception as error:
                    self.report(error, ws)
                    ws._transport.abort()  # it costs nobody else their sweep
        if now >= self._renew_at:
            self._renew_at = now + min(self.settings.HISTORY_TTL / 4, 60.0)
            loop.run(self._renew_claims)
        more = bool(connections)
        try:
            more = self._topics.tick(loop, now) or more
            more = self.presence.tick(loop, now, bool(connections)) or more
        except Exception as error:
            self.report(error)
        if more:
            loop.call_later(self._tick, self._sweep)
        else:
            self._sweeping = False


def _log_error(error: BaseException, ws: WebSocket | None = None) -> None:
    where = "the hub" if ws is None else ws._described()
    logger.error("error in %s", where, exc_info=error)
