"""What server processes share: the order of messages, who is there, how polls stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from ..errors import ConfigError
from ..messages import Attendance, Delivery, MadePoll, Message, Page, Receipt, Tally
from ..transports import Event

T = TypeVar("T")

MOST_STREAMS = 8
"""Messages that may grow in one topic at a time."""

MOST_POLLS = 1000
"""Polls made at run time that are stored at a time."""

EMPTY = 180.0
"""Seconds for which a topic lives that was asked about or claimed, and in which nothing
is kept: a stranger who looks at many rooms leaves nothing behind. Claims are renewed
three times in it. See docs/decisions/40."""


class Host(Protocol):
    """What a backend calls in the process it serves; from whichever thread."""

    def deliver(self, delivery: Delivery) -> None:
        """Hand a publication to this process's connections. Does not wait."""

    def lost(self, topics: Iterable[str] | None) -> None:
        """Publications in ``topics`` (None: in any) may have been missed."""

    def made(self, topic: str, epoch: str) -> None:
        """What is kept of ``topic`` begins anew, with no claim that it may have had; in
        ``epoch``, where that is not ""."""

    def run_blocking(self, function: Callable[[], T]) -> T:
        """Return what ``function`` returns, which blocks its thread.

        Called in a greenlet of an unpatched process, a thread of a pool runs it, so
        that the loop goes on; anywhere else the caller's own.

        :raises OSError: there is no thread for it, or ``function`` does.
        """

    def event(self) -> Event:
        """Return a new event: the caller waits in its own manner, a greenlet without
        stopping its loop; ``set`` may be called from any thread."""

    def start_thread(self, function: Callable[[], None]) -> None:
        """Run ``function`` in a thread of the system's, patched or not, as a daemon.

        :raises OSError: none can be had.
        """


def only(host: Host, known: Host | None) -> Host:
    """Return ``host``, which a backend is to serve; ``known``: whom it serves already.

    :raises ConfigError: that is another one, which would hear nothing any more.
    """
    if known is not None and known is not host:
        raise ConfigError(
            "WSCHAT_URL is a backend that serves another app already: make one for"
            " each app, or stop() it first"
        )
    return host


class Backend(Protocol):
    """One method call is one step that others see whole or not at all.

    Each may be called from any greenlet or thread but the loop's own, and may wait for
    a disk or a network, in the caller only. Each raises ``BackendError`` where its
    step cannot be known to be done; a message given a ``mid`` may then be tried again.

    One that never waits may say so by ``instant = True``.

    Topics are ``all``, ``room:<name>`` and ``user:<id>``. What numbers and epochs are
    for is in docs/decisions/08, what a ``mid`` is in 16.
    """

    def start(self, host: Host) -> None:
        """Begin to serve this process. Does not wait: see ``fault``.

        :raises ConfigError: it serves another host: see ``only``.
        """

    def stop(self) -> None:
        """Let go of files and connections, and take this process's people out."""

    def fault(self) -> str | None:
        """Return why nothing can be had now, and the remedy; None: all is well.

        Does not wait; asked before each connection is let in. It is a fault, too, where
        nothing that is published comes back to this process: one that can tell says so
        by ``deaf = True`` for as long.
        """

    def subscribe(self, topics: Sequence[str]) -> None:
        """Deliver what is published in ``topics`` after this has returned.

        Counted by nobody: subscribing twice is subscribing once. Survives a lost
        connection to the backend.
        """

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """Deliver no more of ``topics``, soon. Does not wait."""

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> Receipt:
        """Append to the topic's history if ``keep``, and deliver, in one step.

        Every process gets the kept messages of a topic in the order of their numbers.
        Of a topic the newest ``size`` are kept, as many of them as have ``max_bytes``
        of data together; the newest one always.
        A kept message whose ``mid`` the same ``sender`` used before in this topic is
        neither stored nor delivered; the receipt is the first one's, not ``fresh``.

        One with a ``prev`` is kept only where the storage remembers a message of the
        same ``sender`` in this topic by that ``mid``, as of the same moment.

        :raises OutOfOrder: it does not; nothing was stored or delivered. Never where
            the ``mid`` of the message itself is known, or nothing is kept.

        In the topic of a user, another ``sender`` may fill a ``share`` of what is kept
        until the user answers, by a message there ``to`` that one: see ``Shares``.

        :raises ShareTaken: that one has; nothing was stored or delivered.

        ``mid`` are remembered for as long as the message is kept at least, and then
        for three times as many messages or five minutes.

        A message with a ``growth`` is a step of one that grows, known by ``growth.id``
        in its topic; all steps but the last are published without ``keep``:

        - ``STREAM`` opens it. To open again what is open is no error, and changes and
          delivers nothing. :raises TooManyStreams: ``MOST_STREAMS`` are open.
        - ``APPEND`` adds ``data``, if ``n`` is one more than the pieces there are. If
          it is not, it was added before: then nothing is changed or delivered, but the
          writer is known to live. :raises StreamStopped: somebody wants that; nothing
          is added. :raises StreamGone: it is not open, or lacks pieces.
        - ``DISCARD`` ends it, and is delivered; where it has a ``ttl``, whichever, only
          if the writer was not heard of for that of the ``STREAM``. :raises StreamGone:
          it is not open, or that was.
        - Both leave alone what another writer has opened since ``began``, if they say
          that. :raises StreamGone: so it is.
        - ``STOP`` notes it, and is not delivered. :raises StreamGone: it is not open.
        - One that is kept ends it in the same step, if it is open yet, and takes no
          share of an inbox; its ``mid`` is the ``growth.id``. Where that is not fresh,
          nothing ends.

        One whose writer was not heard of for its ``ttl`` is open no more to those who
        ask, and forgotten in the end if nobody does.
        """

    def submit(
        self,
        topic: str,
        message: Message,
        done: Callable[[Receipt | Exception], None],
        *,
        keep: bool = False,
    ) -> None:
        """Do what ``publish`` does, but wait for nothing; also in the loop itself.

        ``done`` is called once, from whichever thread, with the receipt or with what
        ``publish`` would have raised; perhaps before this returns. Messages of a topic
        that one thread submits keep their order, those that are kept and the others
        each among themselves, and so do their ``done``. What waits together is stored
        together.
        """

    def delete(self, topic: str, seq: int) -> bool:
        """Take a kept message back; False: it is not kept, or was taken back before.

        What is kept of it is its number, time and tag, ``deleted``. In the same step a
        message with the event "deleted" is delivered, whose data is the number.
        """

    def taken_back(self, topic: str) -> list[int]:
        """Return the numbers of what was taken back, as far as it would be kept: for
        who may have missed that. Older ones may be among them."""

    def history(
        self,
        topic: str,
        *,
        after: int | None = None,
        epoch: str | None = None,
        tag: str | None = None,
        before: int | None = None,
        limit: int = 50,
        max_bytes: int | None = None,
        growing: bool = True,
    ) -> Page:
        """Return kept messages in order, where the numbers stand, and, if ``growing``,
        what grows in the topic, as of one moment.

        With ``after`` the first ``limit`` whose number is over it, with ``before`` the
        last ``limit`` whose number is under it, else the newest ``limit``.

        Of these as many as have ``max_bytes`` of data together, at least one: with
        ``after`` the first ones, else the newest.

        ``tag`` is that of the message ``after``, as far as the asker knows it: where
        the message is another one, or it cannot be known, nothing is ``recovered``.
        ``epoch`` asks to resume: where it is not the topic's, or ``after`` is over the
        newest number, or a message after ``after`` is kept no more, the page is not
        ``recovered`` and holds the newest ``limit`` instead. Nothing changes by it:
        clients choose these numbers, and may choose any.

        Where the storage has lost messages that it delivered to this process, or that
        were in a page, while the topic is subscribed here, the topic has a new epoch
        from the next ``history`` or kept ``publish`` on, so that nobody takes new
        numbers for old ones.

        A topic asked about has an epoch from then on, for ``EMPTY`` seconds at least
        (or for as long as a message is kept, if that is less), so that who saw it empty
        can resume; and for as long as it is subscribed by who publishes.
        """

    def claim(self, topics: Sequence[str], message: Message) -> None:
        """Note that ``topics`` are for plain connections: their pages are ``plain``.

        It is forgotten like an epoch: when it was neither renewed, nor a message kept,
        nor the history asked for, for as long as a message would be kept; where none
        is, for ``EMPTY`` seconds. In topics that were not noted before, ``message`` is
        delivered in the same step.
        """

    def attend(self, changes: Sequence[tuple[str, str, int]]) -> None:
        """Note how many connections this process has of users in topics.

        ``changes``: topic, user, count; 0 takes the user out. In a room, who was in
        none of the processes before and who is in none any more is delivered as
        ``News`` in the same step; to say the same again changes nothing.
        """

    def present(self, topic: str, *, heard: bool = False) -> Attendance:
        """Return who is in ``topic``, in all processes.

        ``version`` counts the ``News`` of a room. Where the storage has forgotten them,
        it begins anew, with the time in milliseconds.

        Those of a process that died are there until a ``refresh`` takes them out.
        ``heard``: only those of processes that were heard of in the last
        ``presence_ttl`` seconds, for who asks where nobody may refresh.
        """

    def refresh(self) -> bool:
        """Say that this process lives; called a few times in ``presence_ttl`` seconds.

        Who was not heard of for as long is taken out, with ``News`` of their people; a
        time in which nobody was heard of does not count, as it was the storage's.
        Return whether this process was itself taken for dead, or the storage has
        forgotten it: then it has to ``attend`` again for all it has.
        """

    def once(self, key: str, seconds: float) -> bool:
        """Return True to the first who asks for ``key``, in all processes, else False.

        For at least so many ``seconds``; then the key is forgotten.
        """

    def taken(self, key: str) -> bool:
        """Return whether ``once`` would return False; nothing changes by it."""

    def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Let ``holder`` have ``key`` for so many seconds from now; False: another has.

        One that has it already gets more time. To others it is free when the time is
        over, or after ``release``; no storage promises that where it forgets, or where
        its clock is set.
        """

    def release(self, key: str, holder: str) -> None:
        """Let others have ``key``, if it is ``holder`` that has it."""

    def make_poll(self, poll: str, id: str, text: str, seconds: float) -> MadePoll:
        """Store ``poll`` for so many seconds, unless one of this name is stored; return
        the one that is.

        It and its votes are forgotten together, and in the same step for all. Its
        versions are higher than those of one that had the name before.

        :raises TooManyPolls: ``MOST_POLLS`` are stored; nothing was made.
        """

    def made_poll(self, poll: str) -> MadePoll | None:
        """Return the stored one of this name; None: there is none, or not any more."""

    def made_polls(self) -> list[MadePoll]:
        """Return all that are stored, the newest first."""

    def delete_poll(self, poll: str, id: str) -> bool:
        """Forget the stored one with its votes; False: it was not there."""

    # In what follows ``id`` is that of a stored poll, "" for those made in code, which
    # have names of their own and stay.

    def vote(self, poll: str, voter: str, choice: str, id: str = "") -> Tally | None:
        """Make ``choice`` the voter's only one; None: the poll is closed.

        The tally is that right after the vote.

        :raises UnknownPoll: the one with this ``id`` is not stored any more.
        """

    def tally(self, poll: str, voter: str | None = None, id: str = "") -> Tally:
        """Return how ``poll`` stands, and what ``voter`` chose.

        :raises UnknownPoll: as ``vote``.
        """

    def close_poll(self, poll: str, closed: bool = True, id: str = "") -> Tally:
        """End the poll, or open it again.

        :raises UnknownPoll: as ``vote``.
        """
