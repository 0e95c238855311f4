"""``WebSocket``: what the user holds, between the codec and a transport.

Blocking views and listeners share all of it: a message goes into the inbox, and either
``receive()`` takes it out or a worker hands it to the listener.
"""

from __future__ import annotations

import collections
import contextvars
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, Protocol

from .codec import CloseCode, Closed, Connection, is_sendable
from .codec import Event as Arrival
from .codec.accelerated import encode_message
from .errors import ConnectionClosed
from .logs import SparingLog, printable
from .settings import Settings
from .transports import Event, Transport
from .transports.ending import is_order

INBOX_LIMIT = 256 * 1024
"""Bytes of unread messages at which the peer is not read until there are none."""
_WORK = 128 * 1024
"""What of received bytes is worked off at once, then it is others' turn; in bytes that
inflate, see ``Connection.receive_data``. It takes less than half a millisecond."""
_MESSAGE_COST = 64  # counted for each message besides its bytes, so that empty ones end
_TURN = 0.002  # seconds a listener may go on before others have their turn


CallEach = Callable[[Callable[[Any, Any], Any], Any, Iterable[Any]], None]
"""What ``call_each`` is, each call in a fresh context of the application."""


class Home(Protocol):
    """What a ``WebSocket`` asks of the hub it belongs to."""

    settings: Settings
    log: SparingLog  # of what clients can bring about

    def dumps(self, data: Any) -> str: ...
    def loads(self, text: str | bytes) -> Any: ...

    call_each: CallEach

    def report(self, error: BaseException, ws: WebSocket | None = None) -> None: ...
    def join(self, ws: WebSocket, room: Any) -> bool: ...
    def leave(self, ws: WebSocket, room: Any) -> bool: ...
    def forget(self, ws: WebSocket) -> None: ...
    def left(self, ws: WebSocket) -> None: ...


class Listener:
    """One connection's events; subclass it, one instance is made per connection.

    Calls come in order and one at a time. All three may wait: an idle connection holds
    nothing, a waiting one a greenlet (or thread).
    """

    awaits_room = False
    """Whether messages wait while over half of the queue to the peer is taken.

    For those that are answered each: who does not read the answers gets no more, and
    half of the queue is left for what others send. No worker waits with them.
    """
    app_context = True
    """Whether ``on_message`` and ``on_close`` run in a fresh app context."""

    # `*args: Any` is for the type checker: an override may name the URL's arguments.
    def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
        """The 101 is sent; runs in the request context of the handshake."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        """A message came: text as ``str``, binary as ``bytes``."""

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        """The connection ended, whatever ended it; called exactly once."""


class WebSocket:
    """One open connection.

    Every method may be called from any greenlet or thread; ``receive`` from the one
    that the view runs in.
    """

    __slots__ = (
        "__weakref__",
        "_busy",
        "_connection",
        "_hub",
        "_id",
        "_inbox",
        "_listener",
        "_paused",
        "_posted",
        "_rooms",
        "_senders",
        "_standing",
        "_transport",
        "_waiting",
        "_window_bits",
        "_woken",
        "close_code",
        "close_reason",
        "closed",
        "due",
        "gone",
        "heard",
        "pinged",
        "route",
        "subprotocol",
        "user",
    )

    def __init__(
        self,
        transport: Transport,
        hub: Home,
        connection: Connection,
        *,
        user: str | None = None,
        subprotocol: str | None = None,
    ) -> None:
        self.user = user
        """The user id that ``authenticate`` returned, or None."""
        self.subprotocol = subprotocol
        """The negotiated subprotocol, or None."""
        self.closed = False
        """True from the first sign of the end: nothing can be sent any more."""
        self.close_code: int | None = None
        """Why it ended: the close code that came first, ours or the peer's."""
        self.close_reason = ""
        self.gone = False  # the transport is, too
        self.heard = True  # anything came since the sweep last looked
        self.pinged = False  # the sweep awaits a sign of life
        self.due = 0.0  # when the sweep looks again
        self.route = ""
        """The rule of its URL, as the application has it."""
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
        self._senders: list[_Sender] | None = None  # who wait for room in the queue
        self._standing: tuple[int, int] | None = None  # of the queue at the last ping
        self._listener: Listener | None = None

    # -- what the user calls

    @property
    def id(self) -> str:
        """A name for this connection, unique among all processes."""
        if self._id is None:
            with self._transport.loop.lock:
                self._id = self._id or secrets.token_hex(8)
        return self._id

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms this connection is in."""
        return frozenset(self._rooms or ())

    def join(self, room: Any) -> bool:
        """Enter ``room``; False: it was there, or is closed.

        A room's name is a text, or becomes one by ``str``: 5 is the room "5".

        :raises TypeError: ``room`` has no such text, as None has not.
        :raises ValueError: its text cannot be a name.
        :raises PermissionError: it is not there: a connection of the ready-made chat is
            not let into a room of plain ones; see ``ChatListener.plain_rooms``.
        :raises BackendError: it is not there, as nothing would come.
        """
        return self._hub.join(self, room)

    def leave(self, room: Any) -> bool:
        """Leave ``room``, named as for ``join``; False: it was not there."""
        return self._hub.leave(self, room)

    def send(self, data: Any) -> None:
        """Send one message: ``str`` as text, ``bytes`` as binary, else as JSON.

        Returning means queued, not received. Where the queue is full, because the
        peer reads more slowly than this sends, the call waits; a peer that takes
        nothing for ``WSCHAT_PING_TIMEOUT`` seconds is closed with 1013.

        :raises ConnectionClosed: the connection has ended; nothing was sent.
        """
        # The usual case, and all of it: open, not compressed, and room in the queue.
        if (
            (type(data) is str or type(data) is bytes)
            and self._window_bits is None
            and not self.closed
            and self._transport.offer(encode_message(data))
        ):
            return
        self.send_within(data, self._hub.settings.PING_TIMEOUT)

    def send_json(self, data: Any) -> None:
        """Send ``data``, whatever it is, as JSON; see ``send``."""
        self.send(as_json(data, self._hub.dumps))

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message, in the order sent.

        With a ``timeout`` of 0 the others have a turn before it is found that none is
        here.

        :raises TimeoutError: none came within ``timeout`` seconds; nothing is lost.
        :raises ConnectionClosed: the connection has ended and all was received.
        """
        # Our own close, from another thread, may throw away what was just waited for.
        while not (inbox := self._inbox):
            self._wait_for_message(timeout)
        message = inbox.popleft()
        if not inbox:
            self._emptied()
        return message

    def receive_json(self, timeout: float | None = None) -> Any:
        """Return the next message, parsed.

        :raises ValueError: it is not JSON; the message is gone, the connection open.
        """
        return self._hub.loads(self.receive(timeout))

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield messages until the connection ends."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake; a second call does nothing.

        What was sent before arrives before. The peer has ``WSCHAT_CLOSE_TIMEOUT``
        seconds to answer.

        :raises ValueError: ``code`` may not be sent (RFC 6455 §7.4).
        """
        code, reason = as_close(code, reason)
        if not (self.closed or self._transport.loop.is_current()):
            self._inbox = None  # now: a listener that closes hears no more
        self._in_loop(lambda: self._begin_close(code, reason))

    # -- what the layers above call, in the loop

    @property
    def awaited(self) -> bool:
        """Whether ``receive`` has ever had to wait, or a listener has the messages."""
        return self._woken is not None or self._listener is not None

    def start(self, received: bytes = b"") -> None:
        """Begin to receive; ``received`` came together with the handshake."""
        self._transport.start(self, received)

    def listen(self, listener: Listener) -> None:
        """Hand messages, from the first on, to ``listener`` instead of ``receive``."""

        def begin() -> None:
            self._listener = listener
            if self._inbox or self.closed:
                self._wake()

        self._in_loop(begin)

    def fail(self, error: BaseException) -> None:
        """End with 1011 what ``error`` came out of, and report it.

        An order to the program to end goes on. One to this greenlet, which is how a
        server stops what it runs, is obeyed by ending.
        """
        ordered = is_order(error)
        if ordered or self._transport.loop.has_killed(error):
            self.close(CloseCode.SERVICE_RESTART, "service restart")
            if ordered:
                raise error
            return
        try:
            # First, so that a test which sees the close code has the error as well.
            self._hub.report(error, self)
        finally:
            self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def described(self) -> str:
        """Return what the log needs to know of this connection, on one line."""
        route = self.route or "a WebSocket"
        return f"{route} (user {printable(self.user)}, connection {self.id})"

    def send_within(self, data: Any, patience: float) -> None:
        """``send``, giving a peer ``patience`` seconds to take anything at all."""
        if type(data) is not str and type(data) is not bytes:
            data = as_message(data, self._hub.dumps)
        transport = self._transport
        if not transport.loop.is_current():
            self._post(data, patience)
            return
        if self._is_full() and transport.loop.may_wait():
            self._wait_for_room(patience)
        if self.closed:
            raise self._closed_error()
        if not transport.write(self._connection.send(data)):
            self._overflow()
            raise self._closed_error()

    def sweep(self, now: float, interval: float, timeout: float) -> None:
        """Ping if it is time; end a peer that did not answer the last ping.

        Or that has taken nothing since then of what waits for it, whatever it says: who
        only talks fills our memory. Silence is excused where it reads on, and where the
        application has not read what it sent before.
        """
        standing, before = self._transport.standing(), self._standing
        if not self.pinged:
            self.heard, self.pinged, self._standing = False, True, standing
            self.due = now + timeout
            self._transport.write(self._connection.ping())
        elif standing is not None and standing == before:
            self._let_go(f"takes nothing for {timeout:g} s")
        elif self.heard or before is not None or (self._paused and self._inbox):
            self.pinged = False
            self.due = now + max(interval - timeout, 0)
        else:
            self._end(CloseCode.ABNORMAL, "ping timeout")
            self._transport.abort()

    # -- what the transport calls, in its loop

    def data_received(self, data: bytes) -> None:
        self.heard = True
        messages = self._connection.messages(data)
        if messages is not None:
            self._take_in(messages, len(data))
        else:
            self._handle(self._connection.receive_data(data, _WORK))

    def placed(self, size: int) -> None:
        self.heard = True
        self._handle(self._connection.placed(size))

    def _handle(self, events: list[Arrival]) -> None:
        transport = self._transport
        if reply := self._connection.data_to_send():
            transport.write(reply)
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
        self.heard = True
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
        if self._inbox is None:
            self._inbox = collections.deque(messages)
        else:
            self._inbox.extend(messages)
        self._waiting += size + _MESSAGE_COST * len(messages)
        if self._waiting >= INBOX_LIMIT:
            self._pause()
            self._resume_if_room()  # another thread may just have taken all out
        if wake:
            self._wake()

    def connection_lost(self) -> None:
        self.gone = True
        for event in self._connection.receive_eof():
            assert isinstance(event, Closed)
            self._end(event.code, event.reason)
        self._hub.left(self)

    def drained(self) -> None:
        self._call_senders()
        self._resume_if_room()
        if self._inbox:
            self._wake()

    # -- within

    def _closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(
            self.close_code or CloseCode.ABNORMAL, self.close_reason
        )

    def _wait_for_message(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._woken is None:
            self._woken = self._transport.loop.event()
        turns = 1
        while True:
            # Cleared before looking: what comes in between sets it again.
            self._woken.clear()
            if self._inbox:
                return
            if self.closed:
                raise self._closed_error()
            left = None if deadline is None else deadline - time.monotonic()
            if left is None or left > 0:
                turns = 0
                self._woken.wait(left)
            elif turns:
                turns = 0
                self._transport.loop.give_turn()
            else:
                raise TimeoutError(f"no message within {timeout} s")

    def _is_full(self) -> bool:
        waiting = self._posted + self._transport.queued
        return waiting >= self._hub.settings.MAX_QUEUE

    def _wait_for_room(self, patience: float) -> None:
        """Return when there is some, or the connection has ended; from any thread."""
        sender = _Sender(self._transport.loop.event_here())
        while not self.closed and self._is_full():
            sender.event.clear()
            self._in_loop(lambda: self._enlist(sender))
            if not sender.event.wait(patience):
                self._in_loop(lambda: self._give_up(sender))

    def _enlist(self, sender: _Sender) -> None:
        if self.closed or not self._is_full():
            sender.event.set()
            return
        sender.standing = self._transport.standing()
        if self._senders is None:
            self._senders = []
        if sender not in self._senders:
            self._senders.append(sender)
        self._transport.notify_drained()

    def _give_up(self, sender: _Sender) -> None:
        """End a peer that has taken nothing since ``sender`` began to wait."""
        standing = self._transport.standing()
        if self._is_full() and standing is not None and standing == sender.standing:
            self._overflow()

    def _call_senders(self) -> None:
        senders, self._senders = self._senders, None
        for sender in senders or ():
            sender.event.set()

    def _post(self, data: str | bytes, patience: float) -> None:
        """Send from a thread that is not the loop's."""
        loop = self._transport.loop
        while not self.closed:
            with loop.lock:
                if fits := not self._is_full():
                    frame = self._connection.send(data)
                    self._posted += len(frame)
            if fits:
                loop.call_threadsafe(self._write_posted, frame)
                return
            self._wait_for_room(patience)
        raise self._closed_error()

    def _write_posted(self, frame: bytes) -> None:
        with self._transport.loop.lock:
            self._posted -= len(frame)
        if not self.closed:
            self._transport.admit(frame)

    def _overflow(self) -> None:
        """Let go of a peer whose queue is full."""
        self._let_go(f"is too slow: over {self._hub.settings.MAX_QUEUE} bytes wait")

    def _let_go(self, why: str) -> None:
        """Close with 1013: the peer can come back and catch up."""
        if not self.closed:
            self._hub.log.warning(
                "slow",
                "%s %s; closed with 1013 (see WSCHAT_MAX_QUEUE, WSCHAT_SLOW_POLICY)",
                self.described(),
                why,
            )
            self._transport.discard()
            self.close(CloseCode.TRY_AGAIN_LATER, "too slow")

    def _begin_close(self, code: int, reason: str) -> None:
        frame = self._connection.close(code, reason)
        if not frame:
            return
        self._inbox = None
        transport = self._transport
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
        self._call_senders()
        if not (self._inbox or self._busy) and (
            getattr(type(self._listener), "on_close", None) is Listener.on_close
        ):
            self._listener = None  # no worker for a method that does nothing
        self._wake()

    def _wake(self) -> None:
        """Someone should look at the inbox: the view that waits, or a worker."""
        if self._woken is not None:
            self._woken.set()
        if self._listener is None or self._busy:
            return
        if self._listener.awaits_room and self._is_behind():
            self._transport.notify_drained()
            return
        self._busy = True
        self._transport.loop.run(self._work)

    def _is_behind(self) -> bool:
        """Whether the peer has to read more before it is answered again."""
        waiting = self._posted + self._transport.queued
        return waiting > self._hub.settings.MAX_QUEUE // 2 and not self.closed

    def _work(self) -> None:
        """Hand the inbox to the listener, in a worker of the loop."""
        listener, loop = self._listener, self._transport.loop
        assert listener is not None
        waits = listener.awaits_room
        hand_over = self._hub.call_each if listener.app_context else call_each
        try:
            while self._inbox and not (waits and self._is_behind()):
                try:
                    hand_over(listener.on_message, self, self._unread(waits))
                except ConnectionClosed:
                    pass  # it spoke to somebody who had just left
                except BaseException as error:
                    self.fail(error)
                    break
                if loop.shares_workers:
                    break  # `_worked` wants another one, behind all who wait
            if self.closed and not self._inbox:
                self._listener = None
                try:
                    hand_over(_tell_end, self, [listener])
                except ConnectionClosed:
                    pass
                except BaseException as error:
                    self.fail(error)
        finally:
            if loop.is_current():
                self._worked()
            else:
                loop.call_threadsafe(self._worked)

    def _unread(self, waits: bool) -> Iterator[str | bytes]:
        """Yield messages until the inbox is empty; give the loop a turn meanwhile."""
        until = 0.0
        while (inbox := self._inbox) and not (waits and self._is_behind()):
            message = inbox.popleft()
            if not inbox:
                self._emptied()
            yield message
            if inbox:
                now = time.monotonic()
                if now > until > 0:
                    if self._transport.loop.shares_workers:
                        return
                    self._transport.loop.give_turn()
                    until = 0.0
                until = until or now + _TURN

    def _worked(self) -> None:
        """A worker is done; what came since it last looked wants another."""
        self._busy = False
        if self._inbox or (self.closed and self._listener is not None):
            self._wake()
        else:
            self._inbox = None  # an empty deque has room for 64

    def _in_loop(self, callback: Callable[[], Any]) -> None:
        loop = self._transport.loop
        if loop.is_current():
            callback()
        else:
            loop.call_threadsafe(callback)

    def _emptied(self) -> None:
        """All messages were taken out of the inbox."""
        # Two threads may write this at once: it is too high at most, until next time.
        self._waiting = 0
        if self._paused:
            self._in_loop(self._resume_if_room)

    def _pause(self) -> None:
        if not self._paused and not self.closed:
            self._paused = True
            self._transport.pause()

    def _resume_if_room(self) -> None:
        if (
            self._paused
            and not self._inbox
            and self._transport.queued < self._hub.settings.MAX_QUEUE
        ):
            self._paused = False
            self.heard = True
            self._read_on()


class _Sender:
    """Somebody who waits for room in a queue."""

    __slots__ = ("event", "standing")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.standing: tuple[int, int] | None = None


def call_each(
    function: Callable[[Any, Any], Any], subject: Any, each_of: Iterable[Any]
) -> None:
    """Call ``function(subject, each)`` for each; the first error ends that.

    Each in context variables of its own.
    """
    for each in each_of:
        contextvars.Context().run(function, subject, each)


def _tell_end(ws: WebSocket, listener: Listener) -> None:
    listener.on_close(ws, ws.close_code or CloseCode.ABNORMAL, ws.close_reason)


def as_message(data: Any, dumps: Callable[[Any], str]) -> str | bytes:
    """Return what goes over the wire for ``data``: JSON unless it is text or bytes.

    :raises TypeError: JSON has no such thing.
    :raises ValueError: nor a number, a depth or a circle like that.
    """
    if isinstance(data, str):
        return data if type(data) is str else "".join(data)
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    return as_json(data, dumps)


def as_json(data: Any, dumps: Callable[[Any], str]) -> str:
    """Return ``data`` as JSON, as ``as_message`` does.

    A number that JSON has not would make the whole message unreadable; and kept in a
    room it would be a part of every page.
    """
    try:
        text = dumps(data)
        if "NaN" in text or "Infinity" in text:  # as a number, or within a text
            json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("this is nested too deeply for JSON") from None
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259 §6), and browsers cannot read it")


def as_close(code: Any, reason: Any) -> tuple[int, str]:
    """Return what a close frame may have; a longer reason is cut to 123 bytes.

    :raises TypeError: the code is no integer, or the reason no text.
    :raises ValueError: ``code`` may not be sent (RFC 6455 §7.4).
    """
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"a close code is an integer, unlike {code!r}")
    if not isinstance(reason, str):
        raise TypeError(f"the reason of a close is a text, unlike {reason!r:.50}")
    if not is_sendable(code):
        raise ValueError(
            f"close code {code} may not be sent: use 1000, 1001, 3000-4999 \u2026"
        )
    return int(code), reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")
