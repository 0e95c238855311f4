"""One process's memory: the default, with nothing to install.

Over 450 lines, as it has all of the contract.
"""

from __future__ import annotations

import functools
import itertools
import os
import secrets
import time
from collections.abc import Callable, Sequence

from ..errors import BackendError, OutOfOrder, ShareTaken
from ..messages import (
    Attendance,
    Delivery,
    Entry,
    Growth,
    MadePoll,
    Message,
    Page,
    Receipt,
    Tally,
    size_of,
)
from ..transports.patched import RLock
from .attending import People
from .contract import EMPTY, Host, only
from .growths import Growths
from .pages import fitting, select
from .polls import Polls
from .shares import UNANSWERED, Shares, Told

NOTHING = "null"
"""The data of what was deleted."""
_MIDS = 4  # remembered for so many times as many messages as are kept
_SOME_KEYS = 64  # of `once`, before the old ones are looked for
_FEW = 8  # messages among which a mid is looked for one by one: a dict for more would
# take 272 bytes (sys.getsizeof), and there may be a hundred thousand topics


class _Topic:
    """What is kept of a topic. Small: there may be a hundred thousand."""

    __slots__ = ("bytes", "entries", "era", "mids", "plain", "seq", "told")

    def __init__(self, era: str) -> None:
        self.era = era
        """What its epoch is made of, with its name."""
        self.seq = 0
        self.plain = False
        self.bytes = 0
        self.told: dict[str, Told] | None = None
        # A list, as an empty deque has room for 64. The first ones of it may be more
        # than are kept: see `MemoryBackend._append`.
        self.entries: list[Entry] = []
        self.mids: dict[tuple[str | None, str], tuple[int, float]] | None = None

    def find(self, sender: str | None, mid: str) -> tuple[int, float] | None:
        """Return the number and time of the message with this ``mid``."""
        if self.mids is not None:
            return self.mids.get((sender, mid))
        for entry in self.entries:
            if entry.mid == mid and entry.sender == sender:
                return entry.seq, entry.at
        return None

    def note_mids(self) -> dict[tuple[str | None, str], tuple[int, float]]:
        """Return the ``mid`` of each entry, which may go from now on."""
        if self.mids is None:
            self.mids = {
                (e.sender, e.mid): (e.seq, e.at)
                for e in self.entries
                if e.mid is not None
            }
        return self.mids

    def remember(self, message: Message, seq: int, at: float, limit: int) -> None:
        """Keep the ``mid`` of a message that is about to be kept."""
        if self.mids is None and len(self.entries) < min(_FEW, limit // _MIDS):
            return  # it can be found there
        mids = self.note_mids() if self.mids is None else self.mids
        if message.mid is not None:
            mids[message.sender, message.mid] = seq, at
            if len(mids) > 2 * limit:
                recent = itertools.islice(mids.items(), limit, None)
                self.mids = dict(recent)


class MemoryBackend:
    """Topics of this process: ``size`` messages each, of ``max_bytes``, none over
    ``ttl`` seconds old.

    Nothing of it outlives the process, so its epochs do not either. Other processes
    share nothing with it, and have nobody present.
    """

    instant = True

    def __init__(
        self,
        *,
        size: int = 256,
        max_bytes: int = 1 << 20,
        ttl: float = 86400.0,
        presence_ttl: float = 45.0,
        share: float = 0.25,
    ) -> None:
        self._shares = Shares(share, size, max_bytes, ttl)
        self._size = size
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._host: Host | None = None
        # One lock over number, history and hand-over: so the order is the same for all.
        # The system's, as nobody waits meanwhile: gevent's may not wake another thread.
        self._lock = RLock()
        self._subscribed: set[str] = set()
        # Topics that were in use since the last turn, and those that were not: at the
        # next turn, `ttl` later, these end all at once, and nobody looks at each. Then
        # every call frees some, as freeing 100,000 takes a tenth of a second.
        self._topics: dict[str, _Topic] = {}
        self._idle: dict[str, _Topic] = {}
        self._ended: dict[str, _Topic] = {}
        self._turned = time.time()
        # Claimed topics in which nothing is kept, in the same manner.
        self._claimed: set[str] = set()
        self._claimed_before: set[str] = set()
        self._claims_turned = self._turned
        self._due = 0.0  # when the first of these is
        self._era = ""
        self._pid = 0
        self._people = People(self._tell_of_people)
        self._growths = Growths()
        self._polls = Polls()
        self._once: dict[str, float] = {}  # until when, by a clock that goes on
        self._most_once = _SOME_KEYS
        self._leases: dict[str, tuple[str, float]] = {}  # whose, and until when

    def start(self, host: Host) -> None:
        self._host = only(host, self._host)

    def stop(self) -> None:
        self._host = None
        self._subscribed.clear()
        self._people.clear()

    def fault(self) -> str | None:
        return None

    # -- messages

    def subscribe(self, topics: Sequence[str]) -> None:
        self._subscribed.update(topics)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        self._subscribed.difference_update(topics)

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> Receipt:
        host = self._host
        if host is None:
            raise BackendError("the backend is not started, or stopped: call start()")
        growth = message.growth
        if growth is not None and message.event is not None:
            return self._grow(host, topic, message, growth)
        if not keep or not self._size:
            now = time.time()
            if growth is not None:
                with self._lock:
                    self._growths.end(topic, growth.id)
            if topic in self._subscribed:
                host.deliver(Delivery(topic, message, 0, now))
            return Receipt(0, now, "")
        with self._lock:
            kept = self._topic(topic) or self._new(topic)
            epoch = _epoch(kept.era, topic)
            if message.mid is not None:
                first = kept.find(message.sender, message.mid)
                if first is not None:
                    return Receipt(*first, epoch, False)
            if message.prev is not None and not kept.find(message.sender, message.prev):
                raise OutOfOrder()
            teller, answered = self._shares.parties(topic, message)
            if teller:
                self._tell(kept, teller, message)
            elif answered and kept.told:
                kept.told.pop(answered, None)
            seq, at = self._append(kept, message)
            if growth is not None:
                self._growths.end(topic, growth.id)
            if topic in self._subscribed:
                host.deliver(Delivery(topic, message, seq, at, epoch))
        return Receipt(seq, at, epoch)

    def _grow(
        self, host: Host, topic: str, message: Message, growth: Growth
    ) -> Receipt:
        now = time.time()
        with self._lock:
            news = self._growths.step(topic, message, growth, now)
            if news and topic in self._subscribed:
                host.deliver(Delivery(topic, message, 0, now))
        return Receipt(0, now, "", news)

    def submit(
        self,
        topic: str,
        message: Message,
        done: Callable[[Receipt | Exception], None],
        *,
        keep: bool = False,
    ) -> None:
        receipt: Receipt | Exception
        try:
            receipt = self.publish(topic, message, keep=keep)
        except Exception as error:
            receipt = error
        done(receipt)

    def delete(self, topic: str, seq: int) -> bool:
        host = self._host
        if host is None:
            raise BackendError("the backend is not started, or stopped: call start()")
        with self._lock:
            kept = self._topic(topic)
            index = -1 if kept is None else seq - (kept.seq - len(kept.entries) + 1)
            if kept is None or not 0 <= index < len(kept.entries):
                return False
            entry = kept.entries[index]
            if entry.deleted or index < len(kept.entries) - self._size:
                return False
            kept.note_mids()
            kept.bytes -= size_of(entry.data) - len(NOTHING)
            kept.entries[index] = Entry(seq, NOTHING, entry.at, json=True, deleted=True)
            if topic in self._subscribed:
                news = Message(str(seq), event="deleted")
                host.deliver(Delivery(topic, news, 0, time.time()))
        return True

    def taken_back(self, topic: str) -> list[int]:
        with self._lock:
            kept = self._topic(topic)
            return [e.seq for e in kept.entries if e.deleted] if kept else []

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
        with self._lock:
            kept = self._topic(topic)
            if kept is None:  # and is not made: anybody may ask for any room
                kept = _Topic(self._era)
                kept.plain = self._is_claimed(topic)
            entries, newest, current = kept.entries, kept.seq, _epoch(kept.era, topic)
            self._trim(kept, time.time() - self._ttl)
            first = newest - len(entries) + 1
            numbers, recovered = select(
                first,
                newest,
                after=after,
                before=before,
                limit=limit,
                known=None if epoch is None else epoch == current,
            )
            page = entries[numbers.start - first : numbers.stop - first]
            if max_bytes is not None:
                page = fitting(page, max_bytes, first_ones=recovered)
            streams = self._growths.of(topic) if growing else ()
            return Page(current, newest, page, recovered, kept.plain, "", streams)

    def claim(self, topics: Sequence[str], message: Message) -> None:
        with self._lock:
            for topic in topics:
                kept = self._topic(topic)
                if kept is not None:
                    known, kept.plain = kept.plain, True
                else:
                    known = self._is_claimed(topic)
                    self._claimed.add(topic)
                if not known:
                    self.publish(topic, message)

    def _is_claimed(self, topic: str) -> bool:
        return topic in self._claimed or topic in self._claimed_before

    def _topic(self, name: str) -> _Topic | None:
        """Return what is kept of a topic; None: nothing was said there."""
        if self._pid != os.getpid():
            self._begin()
        if self._ended or time.time() >= self._due:
            self._turn()
        kept = self._topics.get(name)
        if kept is None:
            kept = self._idle.pop(name, None)
            if kept is not None:
                self._topics[name] = kept
        return kept

    def _new(self, name: str) -> _Topic:
        kept = self._topics[name] = _Topic(self._era)
        if self._is_claimed(name):
            kept.plain = True
        return kept

    def _begin(self) -> None:
        """Forked since, the others must not take our numbers for theirs."""
        self._pid, self._era = os.getpid(), secrets.token_hex(8)
        for kept in itertools.chain(self._topics.values(), self._idle.values()):
            kept.era = self._era

    def _turn(self, freed: int = 4) -> None:
        ended = self._ended
        for _ in range(min(freed, len(ended))):
            ended.popitem()
        now = time.time()
        if now - self._turned >= self._ttl:
            self._turned = now
            self._ended, self._idle, self._topics = self._idle, self._topics, {}
            # What is dropped now and comes again counts from 1 again.
            self._era = secrets.token_hex(8)
        if now - self._claims_turned >= min(self._ttl, EMPTY):
            self._claims_turned = now
            self._claimed_before, self._claimed = self._claimed, set()
        self._due = min(
            self._turned + self._ttl, self._claims_turned + min(self._ttl, EMPTY)
        )

    def _tell(self, kept: _Topic, teller: str, message: Message) -> None:
        if kept.told is None:
            kept.told = {}
        told, now, shares = kept.told, time.time(), self._shares
        total = shares.add(told.get(teller), message, now, kept.seq)
        if total is None:
            raise ShareTaken(UNANSWERED)
        told[teller] = total
        if len(told) > 2 * self._size:  # of so many, at least half are pushed out
            kept.told = {
                user: each
                for user, each in told.items()
                if not shares.is_over(each, now, kept.seq)
            }

    def _append(self, kept: _Topic, message: Message) -> tuple[int, float]:
        entries, size, most = kept.entries, self._size, self._max_bytes
        # The clock may be set back: what is older must not seem younger.
        at = max(time.time(), entries[-1].at) if entries else time.time()
        kept.seq = seq = kept.seq + 1
        kept.remember(message, seq, at, _MIDS * size)
        data, sender, mid = message.data, message.sender, message.mid
        entries.append(Entry(seq, data, at, sender, mid, message.json, message.to))
        kept.bytes += size_of(data)
        # Moving the rest down for each message would cost the more the more are kept.
        if len(entries) > size + size // 8 or kept.bytes > most + most // 8:
            self._trim(kept)
        return seq, at

    def _trim(self, kept: _Topic, since: float = 0.0) -> None:
        """Let go of what is too much, and of what is older than ``since``."""
        entries, taken = kept.entries, kept.bytes
        gone, last = 0, len(entries) - 1
        if taken > self._max_bytes:
            kept.note_mids()
        while gone <= last and (
            last - gone >= self._size
            or (taken > self._max_bytes and gone < last)
            or entries[gone].at < since
        ):
            taken -= size_of(entries[gone].data)
            gone += 1
        if gone:
            del entries[:gone]
            kept.bytes = taken

    # -- people

    def attend(self, changes: Sequence[tuple[str, str, int]]) -> None:
        with self._lock:
            self._people.attend(changes)

    def present(self, topic: str, *, heard: bool = False) -> Attendance:
        with self._lock:
            return self._people.present(topic)

    def refresh(self) -> bool:
        with self._lock:
            self._turn(freed=2000)
            self._forget_keys()
            self._growths.tidy()
            self._polls.forget()
        return False

    def _tell_of_people(self, topic: str, news: Message) -> None:
        if self._host is not None and topic in self._subscribed:
            self._host.deliver(Delivery(topic, news, 0, time.time()))

    # -- what may happen once

    def once(self, key: str, seconds: float) -> bool:
        with self._lock:
            if self.taken(key):
                return False
            self._once[key] = time.monotonic() + seconds
            if len(self._once) > self._most_once:
                self._forget_keys()
        return True

    def taken(self, key: str) -> bool:
        until = self._once.get(key)
        return until is not None and time.monotonic() <= until

    def _forget_keys(self) -> None:
        now = time.monotonic()
        self._once = {key: until for key, until in self._once.items() if until >= now}
        # All are looked at each time that they have doubled, not for each new one.
        self._most_once = max(2 * len(self._once), _SOME_KEYS)

    def lease(self, key: str, holder: str, seconds: float) -> bool:
        with self._lock:
            now = time.monotonic()
            whose, until = self._leases.get(key, (holder, now))
            if whose != holder and now <= until:
                return False
            self._leases[key] = holder, now + seconds
        return True

    def release(self, key: str, holder: str) -> None:
        with self._lock:
            if key in self._leases and self._leases[key][0] == holder:
                del self._leases[key]

    # -- polls

    def make_poll(self, poll: str, id: str, text: str, seconds: float) -> MadePoll:
        with self._lock:
            return self._polls.make(poll, id, text, seconds)

    def made_poll(self, poll: str) -> MadePoll | None:
        with self._lock:
            return self._polls.made(poll)

    def made_polls(self) -> list[MadePoll]:
        with self._lock:
            return self._polls.all_made()

    def delete_poll(self, poll: str, id: str) -> bool:
        with self._lock:
            return self._polls.delete(poll, id)

    def vote(self, poll: str, voter: str, choice: str, id: str = "") -> Tally | None:
        with self._lock:
            return self._polls.vote(poll, voter, choice, id)

    def tally(self, poll: str, voter: str | None = None, id: str = "") -> Tally:
        with self._lock:
            return self._polls.tally(poll, voter, id)

    def close_poll(self, poll: str, closed: bool = True, id: str = "") -> Tally:
        with self._lock:
            return self._polls.close(poll, closed, id)


@functools.lru_cache(1024)
def _epoch(era: str, name: str) -> str:
    """Return the epoch of the topic ``name``, which no other topic has.

    Made when it is asked for: to store it would take 60 bytes for each topic, but for
    those in use it is. No other
    topic's tells it, as the era is random and never leaves the process.
    """
    return f"{hash(era + name):x}"
