"""``Growing``: the messages that grow in the topics that somebody here reads.

Each topic has a table of how they stand, kept up by what is delivered. All its readers
have been told what the table says: who comes is, and after that each step as it comes.
What no step has told is read, in pages, and told as a whole. See docs/decisions/53.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from .. import envelope
from ..messages import APPEND, STREAM, Delivery, Grown, Page, size_of

_MOST_ENDED = 64  # of a topic that are remembered: a page may be older than an end
_CLOSE = 0.001  # seconds; storages round the time when one began
_UNSURE = 1.0  # seconds until one is looked for that nobody told of
_LOOKS = 8  # in the time after which one is taken for dead, from then on
_VANISHED = "nothing more came of it"


class _Entry:
    """One growing message, as it stands here.

    ``whole``: all up to ``n`` is known. Else there is what came since, piece by piece,
    and maybe what was there before.
    """

    __slots__ = (
        *("asker", "at", "due", "hidden", "n", "sender", "since", "texts", "told"),
        *("waiting", "whole"),
    )

    def __init__(self, due: float) -> None:
        self.since = time.monotonic()
        self.due = due
        """When its writer is taken for dead, or it is to be looked for."""
        self.whole = False
        self.told = False
        """The readers know of it."""
        self.hidden = 0.0
        """Since when the storage has it no more: what ended it is on its way."""
        self.n = 0
        self.texts: list[str] = []
        self.waiting: list[tuple[int, str]] = []
        self.sender: str | None = None
        self.asker: str | None = None
        self.at = 0.0

    def take(self, grown: Grown) -> bool:
        """Be as ``grown`` says, and what came since; False: that leaves a hole."""
        n, texts = grown.n, [grown.text]
        for number, piece in self.waiting:
            if number > n + 1:
                return False
            if number == n + 1:
                n = number
                texts.append(piece)
        self.n, self.texts, self.waiting = n, texts, []
        self.sender, self.at, self.asker = grown.sender, grown.at, grown.asker
        self.whole, self.hidden = True, 0.0
        return True

    def grown(self, id: str) -> Grown:
        self.texts = ["".join(self.texts)]
        return Grown(id, self.sender, self.at, self.n, self.texts[0], self.asker)


class Table:
    """Those of one topic."""

    __slots__ = ("ended", "open", "topic", "ttl")

    def __init__(self, topic: str, ttl: float) -> None:
        self.topic = topic
        self.ttl = ttl
        self.open: dict[str, _Entry] = {}
        self.ended: dict[str, float] = {}
        """When those ended of which the end was told."""

    def step(self, delivery: Delivery) -> bool | None:
        """Note a step; True: it is news to the readers. None: others before it are
        missing."""
        growth, event = delivery.message.growth, delivery.message.event
        assert growth is not None
        entry = self.open.get(growth.id)
        if event == STREAM:
            return self._begin(entry, delivery)
        if event != APPEND:
            was_told = growth.id in self.ended
            self.end(growth.id, delivery.at)
            return not was_told
        if entry is None:
            if growth.id in self.ended:
                return False
            # It began before anybody here read: the page that they wait for has it.
            entry = self.open[growth.id] = _Entry(time.monotonic() + _UNSURE)
        piece = str(delivery.message.data)
        if not entry.whole:
            entry.waiting.append((growth.n, piece))
            return False
        if growth.n <= entry.n:
            return False
        entry.due = time.monotonic() + self.ttl
        if growth.n != entry.n + 1:
            return None
        entry.n = growth.n
        entry.texts.append(piece)
        entry.hidden = 0.0
        return True

    def _begin(self, entry: _Entry | None, delivery: Delivery) -> bool:
        message, growth = delivery.message, delivery.message.growth
        assert growth is not None
        known = self.ended.get(growth.id, 0.0) if entry is None else entry.at + _CLOSE
        if delivery.at < known:
            return False  # a page has told more of it
        grown = Grown(growth.id, message.sender, delivery.at, 0, "", growth.asker)
        self.ended.pop(growth.id, None)
        entry = self.open[growth.id] = _Entry(time.monotonic() + self.ttl)
        entry.take(grown)
        entry.told = True
        return True

    def end(self, id: str, at: float) -> None:
        """It is a message now, or will not be one."""
        self.open.pop(id, None)
        self.ended.pop(id, None)
        self.ended[id] = at
        if len(self.ended) > _MOST_ENDED:
            del self.ended[next(iter(self.ended))]

    def lose(self) -> None:
        """Steps may have been missed."""
        for entry in self.open.values():
            entry.whole = False
            entry.due = time.monotonic() + _UNSURE

    def absorb(self, page: Page, since: float) -> list[str]:
        """Take in what a page says that was not asked for before ``since``.

        Return what has to be told to those who had their pages before.
        """
        news, now = [], time.monotonic()
        for message in page.entries:
            entry = None if message.mid is None else self.open.get(message.mid)
            # Anybody may say something under an id that is seen to grow.
            if entry is not None and entry.sender == message.sender:
                self.end(str(message.mid), message.at)
        there = {grown.id for grown in page.streams}
        for id, entry in list(self.open.items()):
            if id in there or entry.since >= since:
                continue
            if entry.whole and not entry.hidden:
                entry.hidden, entry.due = now, now + _UNSURE
            elif not entry.whole or now - entry.hidden >= _UNSURE:
                self.end(id, time.time())
                if entry.told:
                    news.append(envelope.discard(self.topic, id, _VANISHED))
        for grown in page.streams:
            if self._meet(grown):
                known = self.open[grown.id].grown(grown.id)
                news.append(envelope.stream(self.topic, known))
        return news

    def _meet(self, grown: Grown) -> bool:
        """Take in what was read of one; True: the readers have to be told."""
        entry, now = self.open.get(grown.id), time.monotonic()
        if entry is None:
            if grown.at < self.ended.get(grown.id, 0.0):
                return False  # the page is older than its end
            entry = self.open[grown.id] = _Entry(0.0)
        elif entry.whole:
            # What the page has more is on its way to all readers.
            entry.hidden = 0.0
            entry.due = max(entry.due, now + self.ttl / _LOOKS)
            return False
        if not entry.take(grown):
            entry.due = now + _UNSURE
            return False
        entry.due = now + self.ttl
        entry.told = True
        return True

    def get(self, id: str) -> Grown | None:
        """Return how one stands; None: it is not known here."""
        entry = self.open.get(id)
        if entry is None or not entry.whole or entry.hidden:
            return None
        return entry.grown(id)

    def standing(self, budget: int) -> Iterator[str]:
        """Yield all of them as they are told, with texts of ``budget`` bytes in all.

        Of what does not fit the next piece is a hole, so that it is asked for.
        """
        for id in self.open:
            grown = self.get(id)
            if grown is not None:
                budget -= size_of(grown.text)
                if budget < 0:
                    grown = grown._replace(n=0, text="")
                yield envelope.stream(self.topic, grown)


class Growing:
    """The tables; used in the loop only.

    ``ttl``: seconds after which a writer is taken for dead of which nothing was heard.
    ``budget``: bytes of texts that who comes is told.
    """

    def __init__(self, ttl: float, budget: int) -> None:
        self.ttl = ttl
        self._budget = budget
        self._tables: dict[str, Table] = {}

    def clear(self) -> None:
        self._tables.clear()

    def step(self, delivery: Delivery) -> bool | None:
        """As ``Table.step``."""
        return self._table(delivery.topic).step(delivery)

    def end(self, delivery: Delivery) -> None:
        """Note that one has become the message that is delivered."""
        growth = delivery.message.growth
        if growth is not None and delivery.topic in self._tables:
            self._tables[delivery.topic].end(growth.id, delivery.at)

    def absorb(self, topic: str, page: Page, since: float) -> list[str]:
        """As ``Table.absorb``; at no cost where nothing grows."""
        if not page.streams and topic not in self._tables:
            return []
        return self._table(topic).absorb(page, since)

    def lose(self, topic: str) -> None:
        if topic in self._tables:
            self._tables[topic].lose()

    def forget(self, topic: str) -> None:
        """Nobody reads it any more."""
        self._tables.pop(topic, None)

    def get(self, topic: str, id: str) -> Grown | None:
        table = self._tables.get(topic)
        return None if table is None else table.get(id)

    def standing(self, topic: str) -> str:
        """Return all that grows in ``topic``, as who comes is told."""
        table = self._tables.get(topic)
        return "" if table is None else ",".join(table.standing(self._budget))

    def due(self, now: float) -> dict[str, list[str]]:
        """Return the topics in which the storage is to be asked how they stand; and of
        them those whose writers seem to be dead."""
        found: dict[str, list[str]] = {}
        for topic, table in self._tables.items():
            for id, entry in table.open.items():
                if entry.due <= now:
                    entry.due = now + table.ttl / _LOOKS
                    dead = found.setdefault(topic, [])
                    if entry.whole:
                        dead.append(id)
        return found

    def _table(self, topic: str) -> Table:
        table = self._tables.get(topic)
        if table is None:
            table = self._tables[topic] = Table(topic, self.ttl)
        return table
