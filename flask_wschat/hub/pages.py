"""Pages of what is kept, as they are sent: each made once, for all who get it.

And the newest one of each room that has readers here, which goes on with what is
delivered: why that is as good as asking the storage stands in docs/decisions/44.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from .. import envelope
from ..messages import Delivery, Entry, Page

AGE = 60.0
"""Seconds after which a page is read again: so it shows what a storage did not tell of,
and that hears that somebody still asks (see ``Backend.history``)."""
_ROOMS = 4096
_BYTES = 16 << 20
_COST = 256  # bytes of memory that a message takes besides its text
_VIEWS = 64  # replies of a room that are kept ready
_UNASKED = 256  # messages after which a page that nobody wanted is given up


class Position(NamedTuple):
    """How far somebody has read; nothing of it: they come anew."""

    after: int | None = None
    epoch: str | None = None
    tag: str | None = None


class Kept(NamedTuple):
    """A message as it stands in a page."""

    seq: int
    at: float
    tag: str
    text: str

    @property
    def size(self) -> int:
        """About as many bytes, as it is sent and as it is held."""
        return len(self.text) if self.text.isascii() else 4 * len(self.text)


class Coming(Protocol):
    """What was delivered."""

    delivery: Delivery

    @property
    def size(self) -> int: ...
    @property
    def kept(self) -> Kept: ...


class View(NamedTuple):
    """One page, as it is sent to all who ask from the same position."""

    epoch: str
    seq: int
    tag: str
    recovered: bool
    more: bool
    """Of what follows this is the first part."""
    plain: bool
    messages: str
    """The texts, one after another."""
    body: str
    """What the replies to all who get it have in common."""


def kept(topic: str, entry: Entry) -> Kept:
    text = envelope.message(topic, entry, entry.seq, entry.at, entry.tag)
    return Kept(entry.seq, entry.at, entry.tag, text)


def view(page: Page, items: Sequence[Kept]) -> View:
    """Return ``page`` with as many of its entries as ``items`` are."""
    read = items[-1].seq if items else page.seq
    more = page.recovered and read != page.seq
    messages = ",".join(item.text for item in items)
    epoch, seq, _, recovered, plain, tag, _ = page
    body = envelope.page(epoch, seq, tag, messages, recovered=recovered, more=more)
    return View(epoch, seq, tag, recovered, more, plain, messages, body)


def fitting(topic: str, page: Page, budget: int) -> list[Kept]:
    """Return those of the entries, at least one, whose texts have ``budget`` bytes.

    They are the first ones where the rest is asked for next, else the newest.
    """
    items: list[Kept] = []
    for entry in page.entries if page.recovered else reversed(page.entries):
        item = kept(topic, entry)
        budget -= item.size
        if items and budget < 0:
            break
        items.append(item)
    return items if page.recovered else items[::-1]


def has_hole(page: Page, after: int) -> bool:
    """Whether a page that says it has all after ``after`` lacks something there."""
    numbers = [entry.seq for entry in page.entries]
    if not numbers:
        return after < page.seq
    return numbers != list(range(after + 1, after + 1 + len(numbers)))


class Newest:
    """The end of what is kept of a room: a page, and what was delivered since.

    ``after``: None where it is a page for who comes anew, of up to ``depth`` messages;
    else a part of one, from there on. ``most``: messages, and bytes of their texts.
    """

    def __init__(
        self,
        page: Page,
        items: Sequence[Kept],
        *,
        after: Position | None,
        depth: int,
        most: tuple[int, int],
    ) -> None:
        self.epoch, self.seq, self.tag, self.plain = (
            page.epoch,
            page.seq,
            page.tag,
            page.plain,
        )
        self.born = time.monotonic()
        self.size = sum(item.size + _COST for item in items)
        self.later: list[Coming] = []
        """What was delivered since, and nobody has asked for yet: see ``Shelf.add``."""
        self.later_size = 0
        self.most = most
        self._items = deque(items)
        self._depth = depth if after is None else 0
        self._views: dict[tuple[int | None, int], View] = {}
        self.first = page.seq + 1
        """From here on, no number is missing."""
        for item in reversed(items):
            if item.seq != self.first - 1:
                break
            self.first -= 1
        self._edge = ""  # the tag of the one before it
        if after is not None and after.after == self.first - 1:
            self._edge = after.tag or ""

    def catch_up(self) -> bool:
        """Go on with what was delivered; False: it does not fit, and this is void."""
        if not self.later:
            return True
        for parcel in self.later:
            _, _, seq, _, epoch, tag, before = parcel.delivery
            if epoch != self.epoch or seq > self.seq + 1:
                return False
            if seq <= self.seq:  # as it should be where the page was ahead
                if differ(tag, self.tag_of(seq)):
                    return False
                continue
            if differ(before, self.tag):
                return False
            item = parcel.kept
            self._items.append(item)
            self.seq, self.tag = seq, tag
            self.size += item.size + _COST
        number, size = self.most
        while len(self._items) > number or (
            self.size - _COST * len(self._items) > size and len(self._items) > 1
        ):
            self._drop_first()
        self.later, self.later_size = [], 0
        self._views.clear()
        return True

    def drop_before(self, since: float) -> None:
        """Let go of what is older: it is kept no more."""
        while self._items and self._items[0].at < since:
            self._drop_first()
            self._views.clear()

    def view(self, position: Position, limit: int) -> View | None:
        """Return the page for who asks from there; None: only the storage knows it."""
        after, epoch, tag = position
        if after is not None and epoch not in (None, self.epoch):
            return None  # it may be a newer one, of which this process has not heard
        found = self._views.get((after, limit))
        if found is not None and not (tag and after is not None):
            return found
        items = self._items
        if after is None:
            count = min(limit, len(items))
            if count < limit and limit > self._depth:
                return None
            chosen = list(islice(items, len(items) - count, None))
        else:
            if not self.first - 1 <= after <= self.seq:
                return None
            if tag and tag != self.tag_of(after):
                return None
            if found is not None:
                return found
            start = len(items) - (self.seq - after)
            chosen = list(islice(items, start, start + limit))
        made = view(
            Page(self.epoch, self.seq, [], after is not None, self.plain, self.tag),
            chosen,
        )
        if len(self._views) >= _VIEWS:
            self._views.clear()
        self._views[after, limit] = made
        return made

    def tag_of(self, seq: int) -> str:
        """Return the tag of a number up to ``seq``; "": it is not known."""
        if seq == self.seq:
            return self.tag
        if seq < self.first:
            return self._edge if seq == self.first - 1 else ""
        return self._items[seq - self.seq - 1].tag

    def _drop_first(self) -> None:
        item = self._items.popleft()
        self.size -= item.size + _COST
        if item.seq >= self.first:
            self.first, self._edge = item.seq + 1, item.tag


def differ(one: str, other: str) -> bool:
    """Whether these are tags of two messages, as far as both are known."""
    return bool(one and other and one != other)


class Shelf:
    """The newest pages of rooms, those that were asked for last; in the loop only."""

    def __init__(self) -> None:
        self._pages: OrderedDict[str, Newest] = OrderedDict()
        self._size = 0

    def put(self, topic: str, newest: Newest) -> None:
        self.drop(topic)
        self._pages[topic] = newest
        self._size += newest.size
        self._make_room()

    def get(self, topic: str, since: float = 0.0) -> Newest | None:
        """Return the page of ``topic``, if there is one that is not too old.

        ``since``: the messages that are older are kept no more.
        """
        newest = self._pages.get(topic)
        if newest is None:
            return None
        if time.monotonic() - newest.born > AGE:
            self.drop(topic)
            return None
        self._size -= newest.size + newest.later_size
        fits = newest.catch_up()
        newest.drop_before(since)
        self._size += newest.size + newest.later_size
        if not fits:
            self.drop(topic)
            return None
        self._pages.move_to_end(topic)
        return newest

    def add(self, topic: str, parcel: Coming) -> None:
        """Let the page of ``topic`` go on with what is delivered.

        Where that is much and nobody asks, there is none: to look at each message for
        a page that nobody gets makes a ``say`` in memory a tenth dearer.
        """
        newest = self._pages.get(topic)
        if newest is None:
            return
        size = parcel.size
        newest.later.append(parcel)
        newest.later_size += size
        self._size += size
        if len(newest.later) > _UNASKED or newest.later_size > newest.most[1]:
            self.drop(topic)
        elif self._size > _BYTES:
            self._make_room()

    def __contains__(self, topic: str) -> bool:
        return topic in self._pages

    def drop(self, topic: str) -> None:
        newest = self._pages.pop(topic, None)
        if newest is not None:
            self._size -= newest.size + newest.later_size

    def _make_room(self) -> None:
        while self._size > _BYTES or len(self._pages) > _ROOMS:
            self.drop(next(iter(self._pages)))
