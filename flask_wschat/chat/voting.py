"""``Poll``: one vote for each voter, counted where all processes see it.

The backend knows votes and counts. What can be voted for is code, made in each process
like routes; or it is made at run time and stored, for a while and for all processes.
See docs/decisions/15 and docs/decisions/57.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, Protocol

from .. import envelope
from ..backends import Backend
from ..errors import BackendError, PollClosed, UnknownChoice, UnknownPoll
from ..messages import (
    EVERYONE,
    MadePoll,
    Message,
    Tally,
    as_json,
    as_name,
    as_user,
    is_printable,
    room_topic,
    shown,
)
from ..transports.patched import allocate_lock, is_patched, sleep
from ..transports.waiting import start_thread

logger = logging.getLogger("flask_wschat")

INTERVAL = 0.1
"""Seconds between two tallies that a process publishes."""
MOST_OPTIONS = 100
MOST_DATA = 8192
"""Bytes of a stored poll's data as JSON."""
SHORTEST, LONGEST = 1, 31 * 86400
"""Seconds for which a poll may be stored."""
_LONGEST = 100
"""Characters of a poll's name and of an option."""

_RETRY = 1.0  # seconds until a tally that could not be published is tried again
_RETRIES = 10


class Publisher(Protocol):
    """What a poll needs of the hub: where it is counted, and who is told."""

    backend: Backend

    def publish(self, topic: str, message: Message) -> Any: ...


class Storing(Publisher, Protocol):
    """And what one needs that is stored."""

    @property
    def dumps(self) -> Callable[[Any], str]: ...

    @property
    def loads(self) -> Callable[[str | bytes], Any]: ...


class Standing(NamedTuple):
    """How a poll stands."""

    counts: dict[str, int]
    """Of every option, in their order."""
    total: int
    closed: bool
    version: int
    """Grows with each change: the higher of two is the newer."""
    mine: str | None = None
    """The choice of the voter who was asked about."""

    def as_fields(self) -> dict[str, Any]:
        """Return what everybody may know, as the fields of a message."""
        fields = self._asdict()
        del fields["mine"]
        return fields


class Poll:
    """A question with fixed ``options``, from 2 to 100, each of 1 to 100 characters.

    Each change is published to the ready-made chat's connections, those in ``room`` or
    all: at most ten times a second from one process, the last one always.

    One that was made with ``lasts`` is stored, with ``data``, and may be gone at any
    time: then its methods raise ``UnknownPoll``.

    :raises TypeError: ``options`` is one text, or ``room`` no name.
    :raises ValueError: the name or the options cannot be used.
    """

    _id = ""  # of a stored one, and what its data are
    _data: Callable[[], Any] = staticmethod(lambda: None)
    at: float | None = None
    """When it was stored, in seconds since 1970; None: it is code."""

    def __init__(
        self,
        hub: Publisher,
        name: str,
        options: Iterable[str],
        *,
        room: str | None = None,
    ) -> None:
        self.name = as_poll_name(name)
        if isinstance(options, str) or not isinstance(options, Iterable):
            raise TypeError(f"options are a list of texts, unlike {shown(options)}")
        self.options = tuple(_checked("an option", option) for option in options)
        self.room = None if room is None else as_name(room, "a room")
        if not 2 <= len(self.options) <= MOST_OPTIONS:
            raise ValueError(f"a poll has 2 to {MOST_OPTIONS} options")
        if len(set(self.options)) < len(self.options):
            raise ValueError(f"the poll {name!r} has an option twice")
        self._hub = hub
        self._conflated = Conflated(self._publish_latest, name)

    def vote(self, voter: Any, choice: str) -> Standing:
        """Make ``choice`` the only one of ``voter``, whatever it was before.

        ``voter``: usually the user id, and as that. Return how the poll stands right
        after it.

        :raises UnknownChoice: it is none of the options; nothing has changed.
        :raises PollClosed: nothing has changed.
        :raises BackendError: it may count or not; voting again counts once.
        """
        name = as_user(voter, "a voter")
        if not isinstance(choice, str):
            raise TypeError(f"a choice is a text, unlike {shown(choice)}")
        if choice not in self.options:
            raise UnknownChoice(self.name, choice, self.options)
        tally = self._hub.backend.vote(self.name, name, choice, self._id)
        if tally is None:
            raise PollClosed(self.name)
        return self._changed(tally)

    def tally(self, voter: Any = None) -> Standing:
        """Return how the poll stands, and what ``voter`` chose.

        :raises BackendError: it cannot be known now.
        """
        asked = None if voter is None else as_user(voter, "a voter")
        return self._standing(self._hub.backend.tally(self.name, asked, self._id))

    def close(self) -> Standing:
        """End the poll: from now on votes are refused. Return the result.

        :raises BackendError: it may be closed or not.
        """
        return self._changed(self._hub.backend.close_poll(self.name, True, self._id))

    def reopen(self) -> Standing:
        """Go on with the votes there are.

        :raises BackendError: it may be open or not.
        """
        return self._changed(self._hub.backend.close_poll(self.name, False, self._id))

    @property
    def data(self) -> Any:
        """What it was stored with; None: nothing, or it is code."""
        return self._data()

    def delete(self) -> bool:
        """Forget a stored poll with its votes; False: it was not there any more.

        :raises ValueError: it is not stored, but code.
        :raises BackendError: it may be there or not.
        """
        if not self._id:
            raise ValueError(
                f"the poll {self.name!r} is code, made without lasts=: it is not stored"
            )
        return self._hub.backend.delete_poll(self.name, self._id)

    def _changed(self, tally: Tally) -> Standing:
        standing = self._standing(tally)
        self._conflated.call(lambda: self._publish(standing))
        return standing

    def _standing(self, tally: Tally) -> Standing:
        # Votes for what was an option before a new release are left where they are.
        counts = {option: tally.counts.get(option, 0) for option in self.options}
        total = sum(counts.values())
        mine = tally.mine if tally.mine in counts else None
        return Standing(counts, total, tally.closed, tally.version, mine)

    @property
    def topic(self) -> str:
        """Whose members are told how it stands."""
        return EVERYONE if self.room is None else room_topic(self.room)

    def news(self) -> Message:
        """Return how it stands now, as they are told.

        :raises BackendError: it cannot be known now.
        """
        return self._news(self.tally())

    def _news(self, standing: Standing) -> Message:
        news = envelope.tally(self.name, standing.as_fields())
        return Message(news, "tally " + self.name, json=True, event="tally")

    def settle(self) -> None:
        """Publish now what is due: nothing can be later."""
        self._conflated.end()

    def _publish_latest(self) -> None:
        with contextlib.suppress(UnknownPoll):  # nobody asks for it any more
            self._publish(self.tally())

    def _publish(self, standing: Standing) -> None:
        self._hub.publish(self.topic, self._news(standing))


def store(hub: Storing, asked: Poll, lasts: Any, data: Any) -> MadePoll:
    """Store what ``asked`` is, for ``lasts`` seconds, unless one of its name is; return
    the one there is.

    :raises TypeError: ``lasts`` is no number, or JSON has no such ``data``.
    :raises ValueError: they cannot be used.
    :raises TooManyPolls: as many are stored as may.
    """
    if not isinstance(lasts, int | float) or isinstance(lasts, bool):
        raise TypeError(f"lasts is a number of seconds, unlike {shown(lasts)}")
    if not SHORTEST <= lasts <= LONGEST:
        words = f"lasts is from {SHORTEST} to {LONGEST} seconds, unlike {shown(lasts)}"
        raise ValueError(words)
    said = as_json(data, hub.dumps)
    size = len(said.encode())
    if size > MOST_DATA:
        raise ValueError(f"data has up to {MOST_DATA} bytes as JSON, unlike {size}")
    text = json.dumps([asked.options, asked.room]) + "\n" + said
    id = secrets.token_hex(8)
    return hub.backend.make_poll(asked.name, id, text, float(lasts))


def stored(hub: Storing, made: MadePoll) -> Poll:
    """Return what is stored as ``made``.

    :raises BackendError: somebody else has written it.
    """
    try:
        head, _, said = made.text.partition("\n")
        options, room = json.loads(head)
        poll = Poll(hub, made.name, options, room=room)
        hub.loads(said)
    except (ValueError, TypeError) as error:
        words = f"the stored poll {made.name!r} is not ours: {error}"
        raise BackendError(words) from error
    poll._id, poll.at = made.id, made.at
    poll._data = lambda: hub.loads(said)
    return poll


class Conflated:
    """Calls at most every ``INTERVAL``, and once after the last request in any case.

    A request that comes too early is left to a thread, so that it works without a loop
    as well. The interpreter waits for that thread when it ends: a task that votes and
    exits is heard of, but for one in a native thread of a patched process.
    """

    def __init__(self, latest: Callable[[], None], name: str) -> None:
        self._latest = latest
        self._name = name
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = allocate_lock()
        self._next = 0.0  # when it may be called again
        self._waiting = False  # a thread will call, with what is the latest then
        self._ended = False
        self._failures = 0

    def call(self, now: Callable[[], None]) -> None:
        """Call ``now``, or soon what does the same with the latest news."""
        if self._pid != os.getpid():
            self._begin()  # forked off: the thread that would call is the parent's
        with self._lock:
            if self._waiting:
                return
            wait = self._next - time.monotonic()
            if wait > 0:
                self._waiting = True
            else:
                self._next = time.monotonic() + INTERVAL
        if wait > 0:
            self._start(wait)
        else:
            self._try(now)

    def end(self) -> None:
        """Call now, if that is due, and never later: what it takes is about to go."""
        with self._lock:
            due, self._waiting, self._ended = self._waiting, False, True
        if due and self._pid == os.getpid():
            self._try(self._latest)

    def _start(self, wait: float) -> None:
        timer = threading.Timer(wait, self._run)
        timer.daemon = False  # whatever the thread is that voted
        begin = timer.start
        native, main = threading.get_native_id(), threading.main_thread()
        if is_patched() and native != main.native_id:
            # The timer's were a greenlet of this thread, whose loop nobody turns.
            begin = partial(start_thread, partial(self._run_in, wait))
        try:
            begin()
        except (RuntimeError, OSError):  # too late for threads: the interpreter ends
            self._run()

    def _run_in(self, seconds: float) -> None:
        sleep(seconds)
        self._run()

    def _run(self) -> None:
        with self._lock:
            if self._ended:
                return
            # First of all: a change after this line asks for a call of its own.
            self._waiting = False
            self._next = time.monotonic() + INTERVAL
        self._try(self._latest)

    def _try(self, call: Callable[[], None]) -> None:
        # A vote that is stored counts, also where nobody can be told just now.
        try:
            call()
            self._failures = 0
        except Exception as error:
            self._failures += 1
            if self._failures == 1:
                trace = None if isinstance(error, BackendError) else error
                words = "poll %r: no tally can be sent: %s"
                logger.warning(words, self._name, error, exc_info=trace)
            if self._failures > _RETRIES:
                self._failures = 0
                return  # the next change tries again
            with self._lock:
                if self._ended:
                    return
                again, self._waiting = not self._waiting, True
            if again:
                self._start(_RETRY)


def as_poll_name(name: Any) -> str:
    """Return ``name`` if a poll may be called so.

    :raises ValueError: none may.
    """
    return _checked("the poll's name", name)


def _checked(what: str, name: str) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST:
        raise ValueError(f"{what} must have 1 to {_LONGEST} characters: {shown(name)}")
    if not is_printable(name) or name != name.strip():
        raise ValueError(
            f"{what} must be one line without space around it: {shown(name)}"
        )
    return name
