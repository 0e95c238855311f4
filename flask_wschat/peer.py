"""``Peer``: what the engine knows of a connection, and its users need not.

Its names begin with an underscore, so that whoever looks at a ``WebSocket``, which is
one, sees what they may call. It is one object for all that: see docs/decisions/29.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from collections import deque
from typing import Any

from . import endings
from .codec import CloseCode
from .codec import Event as Arrival
from .endings import Ending
from .errors import ConnectionClosed
from .incoming import Incoming
from .logs import Facts, facts, printable
from .messages import as_message
from .transports import Event

CONTROL_FRAMES = 1000
"""Pings and pongs that a peer may send in a second, after as many at once."""
TINY_FRAMES = 1000
"""Frames of less than 16 bytes that one message may have."""


class Sender:
    """Somebody who waits for room in the queue to a peer."""

    __slots__ = ("event", "standing")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.standing: tuple[int, int] | None = None


class Peer(Incoming):
    """Where users wait, for a message or for room; and whether a peer is there.

    To its transport it is the ``Receiver``.
    """

    __slots__ = ("_address", "_counted_at", "_since")

    def _start(self, received: bytes = b"", address: str | None = None) -> None:
        """Begin to receive; ``received`` came together with the handshake.

        ``address`` is the client's, as far as it is known.
        """
        # One text for all who have the same: of a proxy, of a network, of a visitor.
        self._address = sys.intern(address) if type(address) is str else address
        self._since = time.time()  # when it was opened, in seconds since 1970
        self._counted_at = 0.0  # when the last thousand of control frames was full
        self._transport.start(self, received)

    def _handle(self, events: list[Arrival]) -> None:
        super()._handle(events)
        connection = self._connection
        if connection.control_frames >= CONTROL_FRAMES:
            connection.control_frames -= CONTROL_FRAMES
            now = time.monotonic()
            if now - self._counted_at < 1.0:
                self._tell_rule(f"sends over {CONTROL_FRAMES} pings or pongs a second")
                self._refuse(endings.CONTROL_FLOOD)
            self._counted_at = now
        elif connection.tiny_frames > TINY_FRAMES:
            connection.tiny_frames = 0
            self._tell_rule(f"sends a message in over {TINY_FRAMES} tiny frames")
            self._refuse(endings.TINY_FRAMES)

    @property
    def _awaited(self) -> bool:
        """Whether ``receive`` has ever had to wait, or a listener has the messages."""
        return self._woken is not None or self._listener is not None

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
            # Looked at first: what came before the end is in the inbox by then.
            ended = self.closed
            if self._inbox:
                return
            if ended:
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

    def _tell_of(self, inbox: deque[str | bytes]) -> bool:
        """Tell receivers of the next message; False: it was thrown away just now."""
        self._busy = True  # they hear of the end after this
        try:
            if here := self._inbox is inbox:
                self._hub.signals.message(self, inbox[0])
            return here
        finally:
            self._busy = False
            if self.closed:
                self._in_loop(self._wake)

    def _send_within(self, data: Any, patience: float) -> None:
        """``send``, giving a peer ``patience`` seconds to take anything at all."""
        if type(data) is not str and type(data) is not bytes:
            data = as_message(data, self._hub.dumps)
        transport = self._transport
        if not transport.loop.is_current():
            self._post(data, patience)
            return
        if self._is_full() and transport.loop.may_wait():
            self._wait_for_room(patience)
        self._hub.backlog.look()
        if self.closed:
            raise self._closed_error()
        if not transport.write(self._connection.send(data)):
            self._overflow()
            raise self._closed_error()

    def _is_full(self) -> bool:
        waiting = self._posted + self._transport.queued
        return waiting >= self._hub.settings.MAX_QUEUE

    def _wait_for_room(self, patience: float) -> None:
        """Return when there is some, or the connection has ended; from any thread."""
        sender = Sender(self._transport.loop.event())
        while not self.closed and self._is_full():
            sender.event.clear()
            self._in_loop(lambda: self._enlist(sender))
            if not sender.event.wait(patience):
                self._in_loop(lambda: self._give_up(sender))

    def _enlist(self, sender: Sender) -> None:
        if self.closed or not self._is_full():
            sender.event.set()
            return
        sender.standing = self._transport.standing()
        if self._senders is None:
            self._senders = []
        if sender not in self._senders:
            self._senders.append(sender)
        self._transport.notify_drained()

    def _give_up(self, sender: Sender) -> None:
        """End a peer that has taken nothing since ``sender`` began to wait."""
        standing = self._transport.standing()
        if self._is_full() and standing is not None and standing == sender.standing:
            self._overflow()

    def _post(self, data: str | bytes, patience: float) -> None:
        """Send from a thread that is not the loop's."""
        loop, backlog = self._transport.loop, self._hub.backlog
        while not self.closed:
            if backlog.posted > backlog.posted_limit:
                with contextlib.suppress(TimeoutError):
                    loop.call(int)  # what was posted before is queued, or gone, by then
            with loop.lock:
                if fits := not self._is_full():
                    try:
                        frame = self._connection.send(data)
                    except ConnectionClosed:
                        break
                    self._posted += len(frame)
                    backlog.posted += len(frame)
            if fits:
                loop.call_threadsafe(self._write_posted, frame)
                return
            self._wait_for_room(patience)
        # In the loop, which may just be about to note why.
        raise loop.call(self._closed_error)

    def _write_posted(self, frame: bytes) -> None:
        self._hub.backlog.look()
        with self._transport.loop.lock:  # else there is room meanwhile for one too many
            self._posted -= len(frame)
            self._hub.backlog.posted -= len(frame)
            if not self.closed:
                self._transport.admit(frame)

    def _sweep(self, now: float, interval: float, timeout: float) -> None:
        """Ping if it is time; end a peer that did not answer the last ping.

        Or that has taken nothing since then of what waits for it, whatever it says: who
        only talks fills our memory. Silence is excused where it reads on, and where the
        application has not read what it sent before. Called by the one timer of all
        connections: see docs/decisions/09.
        """
        standing, before = self._transport.standing(), self._standing
        if not self._pinged:
            self._heard, self._pinged, self._standing = False, True, standing
            self._sweep_at = now + timeout
            self._transport.write(self._connection.ping())
        elif standing is not None and standing == before:
            self._let_go(f"takes nothing for {timeout:g} s", endings.TAKES_NOTHING)
        elif self._heard or before is not None or (self._paused and self._inbox):
            self._pinged = False
            self._sweep_at = now + max(interval - timeout, 0)
        else:
            self._end(*endings.PING_TIMEOUT)
            self._transport.abort()

    def _tell_rule(self, why: str) -> None:
        words, about = "%s %s; closed with 1008", self._facts("rule")
        self._hub.log.warning("rule", words, self._described(), why, about=about)

    def _refuse(self, ending: Ending) -> None:
        """Fail a peer that goes against a rule; what came before counts."""
        if frame := self._connection.fail(*ending):
            self._transport.write(frame)
            self._end(*ending)
            self._transport.finish(self._hub.settings.CLOSE_TIMEOUT)

    def _dropped(self, count: int) -> None:
        self._hub.figures.add("dropped", count)
        self._hub.signals.slow(self, f"the oldest {count} messages to it are lost")
        self._hub.log.warning(
            "dropped",
            "%s is too slow: the oldest %d messages to it are lost (see"
            " WSCHAT_MAX_QUEUE, WSCHAT_SLOW_POLICY)",
            self._described(),
            count,
            about=self._facts("dropped"),
        )

    def _overflow(self) -> None:
        """Let go of a peer whose queue is full."""
        limit = self._hub.settings.MAX_QUEUE
        self._let_go(f"is too slow: over {limit} bytes wait", endings.TOO_SLOW)

    def _let_go(self, why: str, ending: Ending) -> None:
        """Close with 1013: the peer can come back and catch up."""
        if not self.closed:
            self._hub.figures.add("slow_closes")
            self._hub.signals.slow(self, why)
            self._hub.log.warning(
                "slow",
                "%s %s; closed with 1013 (see WSCHAT_MAX_QUEUE, WSCHAT_SLOW_POLICY)",
                self._described(),
                why,
                about=self._facts("slow"),
            )
            self._transport.discard()
            self._close(*ending)

    def _name(self) -> str:
        if self._id is None:
            with self._transport.loop.lock:
                self._id = self._id or secrets.token_hex(8)
        return self._id

    def _facts(self, event: str) -> Facts:
        """Return what a log record says of this connection beside its words."""
        return facts(
            event,
            route=self._route,
            user=self.user,
            connection=self._name(),
            address=self._address,
        )

    def _described(self) -> str:
        """Return what the log needs to know of this connection, on one line."""
        route = self._route or "a WebSocket"
        return f"{route} (user {printable(self.user)}, connection {self._name()})"
