"""What is published, on its way to Redis: what comes together is one call for a topic.

A batch takes in what comes for its topic until the connection sends it. See
docs/decisions/45.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ...errors import BackendError, OutOfOrder, ShareTaken
from ...messages import STREAM, Growth, Message, Receipt, size_of
from ...transports.patched import allocate_lock
from ..contract import MOST_STREAMS
from ..growths import OVERDUE
from ..shares import UNANSWERED, Shares
from .jobs import Anew, Job, Outcome, nothing
from .packing import MAX_SIZE, pack_message, pack_mid, pack_passing, unpack_step
from .wire import (
    Arg,
    Call,
    LinkError,
    ReplyError,
    Script,
    code_of,
    pack_args,
)

logger = logging.getLogger("flask_wschat")

Done = Callable[[Receipt | Exception], None]

_MOST = 64  # messages of a batch
_MOST_BYTES = 1 << 18  # and of their bodies, but for one that is longer
_MIDS_FOR = 300_000  # ms that a mid is known at least
_ROOM = ("meta", "log", "mids0", "mids1", "gone")
_INBOX = (*_ROOM, "told")


class Sender(Protocol):
    """Who has the connections; see ``Process``."""

    def lane(self) -> int:
        """Return which connection the caller's thread has."""

    def position(self, topic: str) -> tuple[str, int, str]:
        """Return the epoch, number and tag that came last in ``topic``, if any."""

    def put(self, key: bytes, job: Job, *, kept: bool = False) -> None:
        """Send ``job``, which is about ``key``.

        :raises BackendError: there is no way.
        """

    def error(self, error: LinkError | ReplyError) -> BackendError:
        """Return what to raise for it."""


class Names(Protocol):
    """How keys and commands are called; see ``Address``."""

    @property
    def publish(self) -> str: ...
    def key(self, topic: str, suffix: str) -> bytes: ...
    def channel(self, topic: str) -> bytes: ...
    def script(self, name: str, limits: Sequence[int] = ()) -> Script: ...


class Limits(NamedTuple):
    """How much a topic keeps: messages, bytes, ms; and ms of what is known of it."""

    size: int
    max_bytes: int
    ttl: int
    meta_ttl: int


class Said(NamedTuple):
    """One message of a batch."""

    body: bytes
    mid: bytes
    prev: bytes
    size: int
    parties: tuple[str, str]
    done: Done


class Publisher:
    """Makes the batches of one process."""

    def __init__(
        self,
        sender: Sender,
        names: Names,
        limits: Limits,
        shares: Shares,
        *,
        waits: bool,
    ) -> None:
        self.sender = sender
        inbox = (shares.most, shares.most_bytes)
        given = (*limits, _MIDS_FOR, *inbox, int(waits))
        # In two forms: what most messages do without costs these nothing.
        self.script = names.script("publish", (*given, 0))
        self.ordered = names.script("publish", (*given, 1))
        self._grow = names.script("grow")
        # Else the first messages on a connection would come after what follows them.
        self.hello = [
            Call("EVAL", [script.source, 0], key=b"")
            for script in (self.script, self.ordered, self._grow)
        ]
        self._names = names
        self._shares = shares
        # The system's, held for moments: gevent's may not wake another thread.
        self.lock = allocate_lock()
        self.open: dict[tuple[str, int], Batch] = {}
        # What is to be put there by the thread that is just at it, in this order.
        self._lines: dict[tuple[str, int], deque[Callable[[], None]]] = {}
        self._random = random.Random()  # the application's own may be seeded

    def keep(self, topic: str, message: Message, done: Done) -> None:
        """Have ``message`` stored and published.

        :raises BackendError: it is too long.
        """
        body = _packed(message)
        mid = pack_mid(message.sender, message.mid)
        prev = pack_mid(message.sender, message.prev)
        parties = self._shares.parties(topic, message)
        said = Said(body, mid, prev, size_of(message.data), parties, done)
        with self.lock:
            where = (topic, self.sender.lane())
            batch = self.open.get(where)
            ends = None if message.growth is None else message.growth.id
            if batch is not None and ends is None and batch.add(said):
                return
            batch = self.open[where] = made = Batch(self, where, said, ends)
            first = self._line_up(where, lambda: self._put(made))
        if first:
            self._hand_on(where)

    def pass_on(self, topic: str, message: Message, done: Done) -> None:
        """Have ``message`` published.

        :raises BackendError: it is too long.
        """
        body, at = _packed(message), round(time.time(), 6)
        channel = self._names.channel(topic)
        call = Call(self._names.publish, [channel, pack_passing(at, body)])

        def told(outcome: Outcome) -> None:
            if isinstance(outcome, list):
                done(Receipt(0, at, ""))
            else:
                done(self.sender.error(outcome))

        job = Job([call], told, again=False)
        self._put_apart(topic, job, channel, done)

    def grow(self, topic: str, message: Message, growth: Growth, done: Done) -> None:
        """Have a step of a growing message done.

        :raises BackendError: it is too long.
        """
        keys, event = growth_keys(self._names, topic), message.event or "end"
        ttl, began = round(growth.ttl * 1000), f"{growth.began:.6f}"
        args: list[Arg] = [self._names.channel(topic), event, growth.id, growth.n]
        args += [ttl, _packed(message), OVERDUE, began]
        if message.event == STREAM:
            args += [MOST_STREAMS, json.dumps([message.sender, growth.asker])]

        def told(outcome: Outcome) -> None:
            if isinstance(outcome, list):
                done(unpack_step(outcome[0]))
            else:
                done(self.sender.error(outcome))

        # In the way of what is kept: as that is how it ends.
        job = Job([self._grow.call(keys, args)], told, again=True)
        self._put_apart(topic, job, keys[0], done, kept=True)

    def _put_apart(
        self, topic: str, job: Job, key: bytes, done: Done, *, kept: bool = False
    ) -> None:
        """Send what is in no batch."""

        def put() -> None:
            try:
                self.sender.put(key, job, kept=kept)
            except BackendError as error:
                done(error)

        with self.lock:
            where = (topic, self.sender.lane())
            self.open.pop(where, None)  # what follows is not to come before this
            first = self._line_up(where, put)
        if first:
            self._hand_on(where)

    def _put(self, batch: Batch) -> None:
        try:
            self.sender.put(batch.keys[0], batch, kept=True)
        except BackendError as error:
            self.close(batch)
            batch.refuse(error)  # others may be in it by now

    def _line_up(self, where: tuple[str, int], put: Callable[[], None]) -> bool:
        """Have ``put`` called in its turn; with the lock.

        Return whether the caller is to ``_hand_on``: no other thread is at it.
        """
        line = self._lines.setdefault(where, deque())
        line.append(put)
        return len(line) == 1

    def _hand_on(self, where: tuple[str, int]) -> None:
        """Call what is in the line, also what comes meanwhile, and wait for nobody."""
        line = self._lines[where]
        while True:
            try:
                line[0]()
            except BaseException:
                if self._more(where):
                    self._hand_on(where)
                raise
            if not self._more(where):
                return

    def _more(self, where: tuple[str, int]) -> bool:
        """Have the first one leave the line; return whether others are in it."""
        with self.lock:
            line = self._lines[where]
            line.popleft()
            if not line:
                del self._lines[where]
            return bool(line)

    def close(self, batch: Batch) -> None:
        """Let nothing more into ``batch``."""
        with self.lock:
            if self.open.get(batch.where) is batch:
                del self.open[batch.where]

    def keys(self, topic: str, ends: bool) -> list[bytes]:
        """Return publish.lua's KEYS; ``ends``: something grows no more."""
        names = _INBOX if topic.startswith("user:") else _ROOM
        keys = [self._names.key(topic, name) for name in names]
        return [*keys, *growth_keys(self._names, topic)] if ends else keys

    def packed(self, topic: str, keys: Sequence[bytes]) -> bytes:
        """Return the keys and those ARGV that say what was seen."""
        epoch, seq, tag = self.sender.position(topic)
        return pack_args(len(keys), *keys, self._names.channel(topic), epoch, seq, tag)

    def tag(self) -> str:
        """Return a new tag."""
        return base64.urlsafe_b64encode(self._random.randbytes(6)).decode()[:6]


class Batch(Job):
    """Messages of one topic."""

    __slots__ = (
        *("_bytes", "_ends", "_mids", "_publisher", "_said", "_whole", "keys"),
        *("topic", "where"),
    )

    gathers = True

    def __init__(
        self,
        publisher: Publisher,
        where: tuple[str, int],
        said: Said,
        ends: str | None,
    ) -> None:
        super().__init__((), nothing, again=True)
        self.where = where
        self.topic = topic = where[0]
        self._ends = ends  # the id of what has grown to its one message
        self.keys = publisher.keys(topic, ends is not None)
        self._publisher = publisher
        self._said = [said]
        self._bytes = len(said.body)
        self._mids = {said.mid}
        self._whole = False

    @property
    def key(self) -> bytes:
        return self.keys[0]

    def add(self, said: Said) -> bool:
        """Take ``said`` in, if there is room; with the publisher's lock.

        No mid is in it twice: of the second one the script would not know.
        """
        self._bytes += len(said.body)
        if len(self._said) >= _MOST or self._bytes > _MOST_BYTES:
            return False
        if self._ends is not None or (said.mid and said.mid in self._mids):
            return False
        self._mids.add(said.mid)
        self._said.append(said)
        return True

    def pack(self) -> bytes:
        publisher = self._publisher
        publisher.close(self)
        script = publisher.script
        self.count, self.replies = 1, []
        bodies = [said.body for said in self._said]
        lengths = ",".join([str(len(body)) for body in bodies])
        size = sum([said.size for said in self._said])
        args: list[Arg] = [publisher.tag(), lengths, b"".join(bodies), size]
        args += [said.mid for said in self._said]
        places: list[int] = []
        if any([said.prev for said in self._said]):
            script = publisher.ordered
            places, others = self._places()
            args += others
        if self.topic.startswith("user:"):
            for said in self._said:
                args += said.parties
        if self._ends is not None:
            args.append(self._ends)
        if places:
            args.append(",".join(map(str, places)))
        name = pack_args("EVAL", script.source) if self._whole else script.evalsha
        return b"*%d\r\n%b%b%b" % (
            3 + len(self.keys) + 4 + len(args),
            name,
            publisher.packed(self.topic, self.keys),
            pack_args(*args),
        )

    def _places(self) -> tuple[list[int], list[bytes]]:
        """Return which one has to be stored before each, as publish.lua counts, and the
        mids of those that are not among these."""
        places: list[int] = []
        others: list[bytes] = []
        known = {b"": 0}
        for place, said in enumerate(self._said, 1):
            if said.prev not in known:
                others.append(said.prev)
                known[said.prev] = len(self._said) + len(others)
            places.append(known[said.prev])
            if said.mid:
                known[said.mid] = place
        return places, others

    def settle(self, pipe: Anew, outcome: Outcome) -> Job | None:
        if isinstance(outcome, list):
            (reply,) = outcome
            if not isinstance(reply, ReplyError):
                try:
                    receipts = self._understood(reply)
                except (ValueError, IndexError, TypeError, AttributeError):
                    reply = ReplyError(f"what is kept of {self.topic!r} is not ours")
                else:
                    self._answer(receipts)
                    return None
            if code_of(reply) == "NOSCRIPT" and not self._whole:
                self._whole = True
                return self
            outcome = reply
        self._whole = False
        if self.goes_again(pipe, outcome):
            if isinstance(outcome, LinkError) and outcome.sent:
                # What is not known by a mid could be there twice.
                lost = [said for said in self._said if not said.mid]
                self._said = [said for said in self._said if said.mid]
                self._fail(lost, outcome)
            if self._said:
                return self
        else:
            self._publisher.close(self)  # perhaps it has never left
            self._fail(self._said, outcome)
        return None

    def refuse(self, error: BackendError) -> None:
        """Tell all of it that it cannot be sent."""
        self._answer([error] * len(self._said))

    def _fail(self, some: Sequence[Said], outcome: LinkError | ReplyError) -> None:
        if some:
            error = self._publisher.sender.error(outcome)
            for said in some:
                _tell(said, error)

    def _answer(self, results: Sequence[Receipt | Exception]) -> None:
        for said, result in zip(self._said, results, strict=True):
            _tell(said, result)

    def _understood(self, reply: bytes) -> list[Receipt | Exception]:
        """Return what becomes of each.

        :raises ValueError: or another one: that is no answer of publish.lua's.
        """
        stored, era, *codes = reply.decode().split(" ")
        at, epoch = float(stored), era if era != "-" else ""
        if codes[0][0] == "+":
            seq = int(codes[0])
            return [Receipt(seq + i, at, epoch) for i in range(len(self._said))]
        receipts: list[Receipt | Exception] = []
        for _, code in zip(self._said, codes, strict=True):
            if code == "!":
                receipts.append(ShareTaken(UNANSWERED))
            elif code == "?":
                receipts.append(OutOfOrder())
            elif code[0] == "=":
                number, _, first = code[1:].partition(":")
                receipts.append(Receipt(int(number), float(first), epoch, False))
            else:
                receipts.append(Receipt(int(code), at, epoch))
        return receipts


def growth_keys(names: Names, topic: str) -> list[bytes]:
    """Return what grow.lua has as its KEYS."""
    return [names.key(topic, "growths"), names.key(topic, "pieces")]


def _tell(said: Said, outcome: Receipt | Exception) -> None:
    try:
        said.done(outcome)
    except Exception:  # the others are to be told all the same
        logger.exception("error in what waited for Redis")


def _packed(message: Message) -> bytes:
    body = pack_message(message)
    if len(body) > MAX_SIZE:
        raise BackendError(f"a message of {len(body)} bytes is over {MAX_SIZE}")
    return body
