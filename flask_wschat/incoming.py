"""``Incoming``: what a peer says, and whom it is handed to.

Blocking views and listeners share all of it: a message goes into the inbox, and either
``receive()`` takes it out or a worker hands it to the listener.
"""

from __future__ import annotations

import collections
import inspect
import sys
from collections.abc import Callable, Generator
from typing import Any, ClassVar, Protocol

from . import endings
from .codec import Closed, Connection
from .codec import Event as Arrival
from .errors import BackendError, ConnectionClosed
from .logs import SparingLog
from .settings import Settings
from .signals import CallEach, Signals, call_each
from .transports import Event, Transport
from .transports.accelerated import Counts, clock
from .transports.ending import is_order

INBOX_LIMIT = 256 * 1024
"""Bytes of unread messages at which the peer is not read until there are none."""
_WORK = 128 * 1024
"""What of received bytes is worked off at once, then it is others' turn; in bytes that
inflate, see ``Connection.receive_data``. It takes less than half a millisecond
(``python -m benchmarks.codec``). See docs/decisions/24."""
_MESSAGE_COST = 64  # counted for each message besides its bytes: empty ones take room
_DEAF: collections.deque[Any] = collections.deque(maxlen=0)  # an inbox that keeps none
_MANY = 64  # messages of one read; over it others have their turn before these do
_TURN = 0.002  # seconds a listener may go on before others have their turn


class Membership(Protocol):
    """What a connection asks of the hub that it is in."""

    settings: Settings
    log: SparingLog  # of what clients can bring about
    signals: Signals
    backlog: Any  # the hub's ``Backlog``
    figures: Any  # its ``Figures``, and where those are:
    counts: Counts
    closing: Any  # its ``Closing``

    def dumps(self, data: Any) -> str: ...
    def loads(self, text: str | bytes) -> Any: ...

    call_each: CallEach

    report: Callable[..., Any]

    def join(self, ws: Any, room: Any) -> bool: ...
    def leave(self, ws: Any, room: Any) -> bool: ...
    def forget(self, ws: Any) -> None: ...
    def gone(self, ws: Any) -> None: ...


class Callbacks(Protocol):
    """What a connection asks of its listener."""

    awaits_room: bool
    app_context: bool
    _event: str

    def on_message(self, ws: Any, message: str | bytes) -> None: ...
    def on_close(self, ws: Any, code: int, reason: str) -> None: ...
    def _is_full(self) -> bool: ...


class Incoming:
    """The receiving half of a connection, and its end."""

    __slots__ = (
        "__weakref__",
        "_busy",
        "_connection",
        "_gone",
        "_heard",
        "_hub",
        "_id",
        "_inbox",
        "_listener",
        "_paused",
        "_pinged",
        "_posted",
        "_rooms",
        "_route",
        "_senders",
        "_standing",
        "_sweep_at",
        "_told",
        "_transport",
        "_waiting",
        "_window_bits",
        "_woken",
        "close_code",
        "close_reason",
        "closed",
        "subprotocol",
        "user",
    )

    _no_on_close: ClassVar[Any] = None
    """A listener's ``on_close`` that does nothing."""

    def __init__(
        self,
        transport: Transport,
        hub: Membership,
        connection: Connection,
        *,
        user: str | None = None,
        subprotocol: str | None = None,
    ) -> None:
        self.user = user
        self.subprotocol = subprotocol
        self.closed = False
        self.close_code: int | None = None
        self.close_reason = ""
        self._gone = False  # the transport is, too
        self._heard = True  # anything came since the sweep last looked
        self._pinged = False  # the sweep awaits a sign of life
        self._sweep_at = 0.0  # when the sweep looks again
        self._told = False  # receivers of `connected` were, and not of the end
        self._route = ""
        self._id: str | None = None
        self._rooms: set[str] | None = None
        self._hub = hub
        self._connection = connection
        self._window_bits = connection.window_bits
        self._transport = transport
        self._inbox: collections.deque[str | bytes] | None = None
        self._waiting = 0  # bytes put in since it was last seen empty
        self._paused = False
        self._busy = False  # a worker is at the inbox
        self._woken: Event | None = None
        self._posted = 0  # bytes of other threads on their way into the loop
        self._senders: list[Any] | None = None  # who wait for room in the queue
        self._standing: tuple[int, int] | None = None  # of the queue at the last ping
        self._listener: Callbacks | None = None

    # -- what the layers above call, in the loop

    def _listen(self, listener: Callbacks) -> None:
        """Hand messages, from the first on, to ``listener`` instead of ``receive``."""

        def begin() -> None:
            self._listener = listener
            if self._inbox or self.closed:
                self._wake()

        self._in_loop(begin)

    # -- what the transport calls, in its loop

    def _data_received(self, data: bytes) -> None:
        self._heard = True
        messages = self._connection.messages(data)
        if messages is not None:
            self._take_in(messages, len(data))
        else:
            self._handle(self._connection.receive_data(data, _WORK))

    def _placed(self, size: int) -> None:
        self._heard = True
        self._handle(self._connection.placed(size))

    def _connection_lost(self) -> None:
        self._gone = True
        for event in self._connection.receive_eof():
            assert isinstance(event, Closed)
            self._end(event.code, event.reason)
        self._hub.gone(self)

    def _drained(self) -> None:
        self._call_senders()
        self._resume_if_room()
        if self._inbox:
            self._wake()

    # -- into the inbox

    def _handle(self, events: list[Arrival]) -> None:
        transport = self._transport
        if reply := self._connection.data_to_send():
            transport.write(reply)
            self._hub.backlog.look()
            if transport.queued >= self._hub.settings.MAX_QUEUE:
                # It makes us answer and does not read the answers.
                self._pause()
                transport.notify_drained()
        end = events[-1] if events and isinstance(events[-1], Closed) else None
        messages = [event for event in events if isinstance(event, str | bytes)]
        if messages:
            # A text takes up to four times its length.
            self._take_in(messages, sum(map(sys.getsizeof, messages)), wake=end is None)
        if end is not None:
            self._end(end.code, end.reason)
            transport.finish(self._hub.settings.CLOSE_TIMEOUT)
        elif self._connection.has_more:
            # Nothing is read meanwhile: it is kept as bytes, and is that much at most.
            transport.pause()
            if not self._paused:
                transport.loop.call_in_turn(self._go_on)
        elif (place := self._connection.place()) is not None:
            transport.expect(place)

    def _go_on(self) -> None:
        """Work off more of what was received, then read again."""
        if self._paused:
            return
        self._heard = True
        try:
            self._handle(self._connection.more(_WORK))
        except BaseException:
            self._transport.abort()
            raise
        if not (self._connection.has_more or self._paused):
            self._transport.resume()

    def _read_on(self) -> None:
        """Take what follows, be it here already or not."""
        if self._connection.has_more:
            self._transport.loop.call_in_turn(self._go_on)
        else:
            self._transport.resume()

    def _take_in(
        self, messages: list[str | bytes], size: int, *, wake: bool = True
    ) -> None:
        """Put messages of ``size`` bytes into the inbox; see that somebody looks."""
        if self.closed:
            return
        count = len(messages)
        self._hub.counts.received(count)
        if self._inbox is None:
            self._inbox = collections.deque(messages)
        else:
            self._inbox.extend(messages)
        self._waiting += size + _MESSAGE_COST * count
        if self._waiting >= INBOX_LIMIT:
            self._pause()
            self._resume_if_room()  # another thread may just have taken all out
        if wake and count > _MANY:
            self._transport.loop.call_in_turn(self._wake)
        elif wake:
            self._wake()

    def _pause(self) -> None:
        if not self._paused and not self.closed:
            self._paused = True
            self._transport.pause()

    def _resume_if_room(self) -> None:
        if not self._paused or self._inbox:
            return
        if self._transport.queued >= self._hub.settings.MAX_QUEUE:
            self._transport.notify_drained()  # then it is asked again
            return
        self._paused = False
        self._heard = True
        self._read_on()

    # -- out of it: by a view, or for a listener

    def _emptied(self) -> None:
        """All messages were taken out of the inbox."""
        # Two threads may write this at once: it is too high at most, until next time.
        self._waiting = 0
        if self._paused:
            self._in_loop(self._resume_if_room)
        if self.closed and self._told:
            self._in_loop(self._wake)

    def _wake(self) -> None:
        """Someone should look at the inbox: the view that waits, or a worker."""
        if self._woken is not None:
            self._woken.set()
        listener = self._listener
        if self._busy or (listener is None and not (self.closed and self._owes_end())):
            return
        if listener is not None and listener.awaits_room and self._is_behind():
            self._transport.notify_drained()
            return
        self._busy = True
        if self.closed:
            self._hub.closing.under_way.add(self)  # the process ends after this
        self._transport.loop.run(self._work if listener else self._tell_end)

    def _owes_end(self) -> bool:
        """Whether it has ended, receivers are to be told, and nothing comes before."""
        return self.closed and self._told and not self._inbox

    def _is_behind(self) -> bool:
        """Whether the peer has to read more, or be answered, before it is heard."""
        waiting, listener = self._posted + self._transport.queued, self._listener
        full = listener is not None and listener._is_full()
        return (full or waiting > self._hub.settings.MAX_QUEUE // 2) and not self.closed

    def _work(self) -> None:
        """Hand the inbox to the listener, in a worker of the loop."""
        listener, loop, unread = self._listener, self._transport.loop, None
        assert listener is not None
        waits, signals = listener.awaits_room, self._hub.signals
        hand_over = self._hub.call_each if listener.app_context else call_each
        try:
            on_message: Callable[[Any, Any], Any] = listener.on_message
            if signals.receivers or signals.factories:
                on_message = signals.observed(on_message, listener._event)
            while self._inbox and not (waits and self._is_behind()):
                unread = unread or self._unread(waits)
                try:
                    hand_over(on_message, self, unread)
                except ConnectionClosed:
                    pass  # it spoke to somebody who had left; `unread` has the clock
                except BaseException as error:
                    handled = inspect.getgeneratorlocals(unread).get("message")
                    unread.close()  # counts it; the error, which holds it, may stay
                    self._fail(error, "on_message", handled)
                    break
                else:
                    unread = None
                if loop.shares_workers:
                    break  # `_worked` wants another one, behind all who wait
            if self.closed and not self._inbox:
                self._listener = None
                try:
                    hand_over(signals.close, self, [listener])
                except BaseException as error:
                    self._fail(error, "on_close")
        finally:
            self._in_loop(self._worked)

    def _tell_end(self) -> None:
        """Do what is left when nobody listens, in a worker."""
        self._told = False
        try:
            self._hub.signals.end(self)
        finally:
            self._in_loop(self._worked)

    def _unread(self, waits: bool) -> Generator[str | bytes]:
        """Yield messages until the inbox is empty; give the loop a turn meanwhile."""
        until, counts, began = 0.0, self._hub.counts, clock()
        while inbox := self._inbox:
            message = inbox.popleft()
            if not inbox:
                self._emptied()
            try:
                yield message
            finally:  # also where it was too much for the listener
                now = counts.handled(began)
            if not inbox or (waits and self._is_behind()):
                return
            if now > until > 0:
                if self._transport.loop.shares_workers:
                    return
                self._transport.loop.give_turn()
                until, now = 0.0, clock()
            until, began = until or now + _TURN, now

    def _worked(self) -> None:
        """A worker is done; what came since it last looked wants another."""
        self._busy = False
        if not self._inbox:
            self._inbox = None  # an empty deque has room for 64
        if self.closed:
            self._hub.closing.under_way.discard(self)
        if self._inbox or self.closed:
            self._wake()

    # -- the end

    def _fail(self, error: BaseException, event: str = "", *message: Any) -> None:
        """End with 1011, or 1013, what ``error`` came out of, and report it.

        An order to the program to end goes on; one to this greenlet is obeyed so.
        """
        ordered = is_order(error)
        if ordered or self._transport.loop.has_killed(error):
            self._close(*endings.RESTART)
            if ordered:
                raise error
            return
        away = isinstance(error, BackendError)
        code, reason = endings.NO_STORAGE if away else endings.INTERNAL_ERROR
        try:
            # First, so that a test which sees the close code has the error as well.
            reason = self._hub.report(error, self, event, *message) or reason
        finally:
            self._close(code, reason)

    def _close(self, code: int, reason: str) -> None:
        if self.closed:
            # The peer was faster. What it sent before is not heard any more, either:
            # an `on_open` may just have refused it.
            self._inbox = None
            if self._told:
                self._in_loop(self._wake)
            return
        if not self._transport.loop.is_current():
            # Now: a listener that closes hears no more. And not None, as the loop may
            # just be about to add something.
            self._inbox = _DEAF
        self._in_loop(lambda: self._begin_close(code, reason))

    def _begin_close(self, code: int, reason: str) -> None:
        frame = self._connection.close(code, reason)
        if not frame:
            return
        self._inbox, transport = None, self._transport
        transport.write(frame)
        self._end(code, reason)
        if self._paused:
            self._paused = False
            self._read_on()  # to hear the answer
        transport.loop.call_later(self._hub.settings.CLOSE_TIMEOUT, transport.abort)

    def _end(self, code: int, reason: str) -> None:
        """Note the end, once, and tell everyone; what is in the inbox stays."""
        if self.closed:
            return
        # In this order: other threads look at the first, and then at the others.
        self.close_code, self.close_reason = int(code), reason
        self.closed = True
        self._hub.forget(self)
        self._told = self._told and self._hub.signals.owes(self)
        self._call_senders()
        if not (self._inbox or self._busy) and (
            getattr(type(self._listener), "on_close", None) is self._no_on_close
        ):
            self._listener = None  # no worker for a method that does nothing
        self._wake()

    def _call_senders(self) -> None:
        senders, self._senders = self._senders, None
        for sender in senders or ():
            sender.event.set()

    def _in_loop(self, callback: Callable[[], Any]) -> None:
        loop = self._transport.loop
        if loop.is_current():
            callback()
        else:
            loop.call_threadsafe(callback)
