"""``Stream``: a message that grows while it is written. See docs/decisions/53."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from ..errors import BackendError, StreamError, StreamGone, StreamStopped
from ..hub.hub import Hub
from ..messages import (
    APPEND,
    DISCARD,
    STREAM,
    Growth,
    Message,
    Receipt,
    as_count,
    as_mid,
    as_name,
    as_user,
    room_topic,
    shown,
    size_of,
    user_topic,
)
from ..transports import Event
from ..transports.patched import allocate_lock
from .ticker import TICKER

ASKER: ContextVar[str | None] = ContextVar("wschat_asker", default=None)
"""The user whose event is being handled."""

PAUSE = 0.05
"""Seconds between two steps of a stream: what is appended meanwhile goes in one."""
_RENEW = 5.0  # seconds until a silent writer says that it lives, and asks about a stop
_AGAIN = 0.5  # seconds until a step that failed is tried again
_TRIES = 10.0  # seconds for which the end is tried
_LOOK = 1.0  # seconds until who waits for a step looks again
_LONGEST_REASON = 200  # characters

_NEVER = float("inf")
_MOST_SECONDS = 1e9
_CLOSE = 0.001  # seconds; storages round the time when one began

FAILED = "the writer failed"
STOPPED = "stopped"
_EXIT = "its writer's process has ended"
_ENDED = "it has ended: nothing more can be appended"
_FORKED = "it is the process's that has begun it: begin it after the fork"


class Stream:
    """A message that grows: made by ``chat.stream``, and best used in a ``with``.

    Leaving the block keeps the whole text as one message; an exception discards it, and
    goes on. Where somebody has stopped it, the block ends quietly, and what was written
    by then is kept. Any thread or greenlet of the process may write, one at a time.
    """

    def __init__(
        self,
        hub: Hub,
        topic: str,
        id: str,
        *,
        sender: str | None,
        asker: str | None,
        max_data: int,
        seconds: float,
    ) -> None:
        self.id = id
        """The ``mid`` of the message that it becomes."""
        self.stopped = False
        """Somebody has stopped it, as far as is known: see ``append``."""
        self._pid = os.getpid()
        self._hub = hub
        self._topic = topic
        self._sender = sender
        self._max_data = max_data
        self._seconds = seconds
        ttl = hub.feeds.growing.ttl
        self._silence = min(ttl / 3, _RENEW)
        # Held for a few lines, and never while anybody waits.
        self._lock = allocate_lock()
        self._texts: list[str] = []
        self._size = 0
        self._unsent: list[str] = []
        self._n = 0
        self._step: tuple[int, str] | None = None  # that is not acknowledged yet
        self._is_under_way = False
        self._waits: Event | None = None
        self._error: Exception | None = None
        self._ended = False
        growth = Growth(id, 0, asker, ttl)
        begin = Message("", sender=sender, event=STREAM, plain=True, growth=growth)
        self._at = hub.publish(topic, begin).at
        self._heard = now = time.monotonic()
        self._next = now  # when the next piece may go
        self._until = now + seconds
        TICKER.add(self, self._due())

    @property
    def text(self) -> str:
        """All that was appended."""
        return "".join(list(self._texts))

    def append(self, text: str) -> None:
        """Add ``text``: readers have it at once, or with what follows in 0.05 s.

        It waits for nothing, unless the storage is behind. Whether somebody has stopped
        it is known from the answer to an earlier piece, or after five seconds without.

        :raises StreamStopped: somebody has.
        :raises StreamGone: it has ended, or its writer was taken for dead.
        :raises ValueError: with ``text`` it would have more bytes than ``max_data``: it
            was discarded. Or that has half a surrogate pair.
        :raises TimeoutError: it took longer than ``seconds``: it was discarded.
        """
        if not isinstance(text, str):
            raise TypeError(f"append a str, unlike {shown(text)}")
        try:
            size = size_of(text)
        except UnicodeEncodeError:
            raise ValueError("half a surrogate pair cannot be sent as text") from None
        self._check_ours()
        if isinstance(self._error, StreamGone) and not self._ended:
            self._catch_up()
        now = time.monotonic()
        with self._lock:
            if self._error is not None:
                # Else it would hold the frames of all who have been told before.
                raise self._error.with_traceback(None)
            if self._ended:
                raise StreamGone(_ENDED)
            fault = self._fault(size, now)
            if fault is None and text:
                self._texts.append("".join(text) if type(text) is not str else text)
                self._size += size
                self._unsent.append(self._texts[-1])
            step = None if fault else self._take(now)
            waits = self._unsent and not self._is_under_way
        if fault is not None:
            self._fail(fault)
            raise fault
        if step is not None:
            self._submit(*step)
        elif waits:
            TICKER.soon(self._next)

    def finish(self) -> int:
        """Keep the whole text as one message; return its number.

        Where the storage cannot be reached, it is tried for ten seconds.

        :raises StreamGone: it has ended before.
        :raises BackendError: it is not known whether it is kept: call it again.
        """
        self._check_ours()
        self._settle()
        if self._ended:
            raise StreamGone(_ENDED)
        growth = Growth(self.id, self._n)
        message = Message(
            self.text, sender=self._sender, mid=self.id, plain=True, growth=growth
        )
        receipt = self._publish(message)
        self._end()
        if not receipt.fresh:  # there is such a message: those who read are told
            self._discard("it was said before")
        return receipt.seq

    def discard(self, reason: str = "discarded") -> None:
        """End it without a message. ``reason``: what its readers are told.

        Where the storage cannot be reached, they are told as of a dead writer.
        """
        if not isinstance(reason, str):
            raise TypeError(f"reason is a str, unlike {shown(reason)}")
        if self._end():
            reason = reason.encode("utf-8", "replace").decode()[:_LONGEST_REASON]
            self._discard(reason)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        quiet = isinstance(error, StreamStopped) and error is self._error
        if error is not None and not quiet:
            self.discard(FAILED)
            return False
        try:
            if self.stopped and not self._texts:
                self.discard(STOPPED)
            elif not self._ended:
                self.finish()
        finally:
            self._end()
        return quiet

    # -- steps: one at a time, so that they keep their order whoever sends them

    def _fault(self, size: int, now: float) -> Exception | None:
        if now >= self._until:
            return TimeoutError(f"it took over {self._seconds:g} seconds")
        if self._size + size > self._max_data:
            return ValueError(f"it has over {self._max_data} bytes")
        return None

    def _take(self, now: float) -> tuple[int, str] | None:
        """Return the next step, if there is one and its time has come."""
        if self._is_under_way or now < self._next:
            return None
        if self._step is None:
            if self._unsent:
                self._n += 1
                self._step = self._n, "".join(self._unsent)
                self._unsent.clear()
            elif now - self._heard >= self._silence:
                self._step = self._n, ""  # which is there: it says that we live
        if self._step is not None:
            self._is_under_way = True
            self._next = now + PAUSE
        return self._step

    def _submit(self, n: int, text: str) -> None:
        growth = Growth(self.id, n, began=self._at)
        message = Message(text, event=APPEND, growth=growth)
        try:
            self._hub.submit(self._topic, message, self._answered)
        except Exception as error:
            self._answered(error)

    def _answered(self, outcome: Receipt | Exception) -> None:
        """From whichever thread."""
        now = time.monotonic()
        with self._lock:
            self._is_under_way = False
            if isinstance(outcome, BackendError):
                self._next = now + _AGAIN  # the same step is no other one
            else:
                self._step = None
                self._heard = now
                if isinstance(outcome, Exception):
                    self._error = self._error or outcome
                    self.stopped = isinstance(outcome, StreamStopped)
            waiting, more = self._waits, self._unsent or self._step
        if waiting is not None:
            waiting.set()
        if more:
            TICKER.soon(self._next)
        if not isinstance(outcome, Receipt | StreamError | BackendError):
            self._hub.report(outcome)

    def _work(self, now: float) -> float | None:
        """Do what is due; return when to come again, None: never. In the ticker."""
        with self._lock:
            if self._ended or self._error is not None or self._next == _NEVER:
                return None
            fault = self._fault(0, now)
            step = None if fault else self._take(now)
            due = self._due()
        if fault is not None:
            self._fail(fault)
            return None
        if step is not None:
            self._submit(*step)
        return max(due, now)

    def _due(self) -> float:
        """Return when there is something to do."""
        if self._is_under_way:
            return self._until
        if self._unsent or self._step:
            return min(self._next, self._until)
        return min(self._heard + self._silence, self._until)

    def _leave(self) -> None:
        """Discard it, as nobody will finish it: the process ends.

        :raises BackendError: the storage cannot be reached.
        """
        if self._end():
            with contextlib.suppress(StreamError):
                self._hub.publish(self._topic, self._last(_EXIT))

    def _catch_up(self) -> None:
        """Say again what a storage lacks that has changed places with a copy of it."""
        try:
            streams = self._hub.backend.history(self._topic, limit=1).streams
        except BackendError:
            return
        for known in streams:
            ours = known.id == self.id and abs(known.at - self._at) < _CLOSE
            if ours and known.n < self._n and self.text.startswith(known.text):
                with self._lock:
                    self._n, self._error = known.n, None
                    self._unsent = [self.text[len(known.text) :]]
                TICKER.add(self, self._due())

    # -- its end

    def _settle(self) -> None:
        """Wait until no step is under way; none begins after it."""
        event = self._waits = self._hub.event()
        while True:
            with self._lock:
                if not self._is_under_way:
                    self._next = _NEVER
                    return
            event.wait(_LOOK)  # where two finish it, one of them is told
            event.clear()

    def _publish(self, message: Message) -> Receipt:
        until, pause = time.monotonic() + _TRIES, 0.1
        while True:
            try:
                return self._hub.publish(self._topic, message, keep=True)
            except BackendError:
                if time.monotonic() + pause > until:
                    raise
            self._hub.event().wait(pause)
            pause = min(2 * pause, 2.0)

    def _fail(self, fault: Exception) -> None:
        """Discard it for ``fault``, which ``append`` raises; waits for nothing."""
        self._error = self._error or fault
        if self._end():
            self._hub.submit(self._topic, self._last(str(fault)), lambda _: None)

    def _check_ours(self) -> None:
        if self._pid != os.getpid():
            raise StreamGone(_FORKED)

    def _end(self) -> bool:
        """Note that it has ended; False: it had before, or is another process's."""
        if self._pid != os.getpid():
            return False
        with self._lock:
            ended, self._ended = self._ended, True
        return not ended

    def _discard(self, reason: str) -> None:
        with contextlib.suppress(StreamError, BackendError):
            self._hub.publish(self._topic, self._last(reason))

    def _last(self, reason: str) -> Message:
        growth = Growth(self.id, self._n, began=self._at)
        return Message(reason, event=DISCARD, growth=growth)


def open_stream(
    hub: Hub,
    *,
    room: Any,
    user: Any,
    sender: Any,
    id: Any,
    asked_by: Any,
    max_data: Any,
    seconds: Any,
) -> Stream:
    """Begin a growing message: see ``WSChat.stream``."""
    if (room is None) == (user is None):
        raise TypeError("name a room or a user, in which it is to grow, and not both")
    if room is not None:
        topic = room_topic(as_name(room, "a room"))
    else:
        topic = user_topic(as_user(user))
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"seconds is a number, unlike {shown(seconds)}")
    if not 0 < seconds < _MOST_SECONDS:
        raise ValueError(f"seconds is over 0, unlike {shown(seconds)}")
    stream_id = secrets.token_hex(8) if id is None else as_mid(id)
    asker = ASKER.get() if asked_by is None else as_user(asked_by, "asked_by")
    sender = None if sender is None else as_user(sender, "sender")
    most = as_count(max_data, "max_data")
    if id is not None:
        # Who writes it again, as a task that is tried again, begins at the beginning.
        growth = Growth(stream_id)
        with contextlib.suppress(StreamGone):
            hub.publish(topic, Message("it begins again", event=DISCARD, growth=growth))
    return Stream(
        *(hub, topic, stream_id),
        sender=sender,
        asker=asker,
        max_data=most,
        seconds=float(seconds),
    )
