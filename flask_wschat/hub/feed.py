"""``Feed``: what connections of the ready-made chat read, and how far each one is.

A feed is a topic as these see it: its messages in their envelope, encoded once for all,
without a hole and each once. Whoever comes, or comes back, first gets a page of the
history; what is delivered meanwhile waits, and follows where the page ends. What this
process has missed is read once, for all. See docs/decisions/13, 19 and 44.

Over 450 lines, as who comes, what is delivered and what was missed meet at each step.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..messages import DELETED, EVERYONE, Delivery, Message, Page, room_of, size_of
from ..websocket import WebSocket
from .audience import Audience, deliver
from .flights import NOTHING, Flight, Missed, Reader
from .growing import Growing
from .pages import (
    Kept,
    Newest,
    Position,
    Shelf,
    View,
    differ,
    fitting,
    has_hole,
    kept,
    view,
)
from .parcels import Parcel, framed, tell_gap


class Common(Protocol):
    """What all feeds of a process share."""

    shelf: Shelf
    limit: int
    """Bytes that may wait for a page."""
    budget: int
    """Bytes of one page, and of what was missed."""
    size: int
    """Messages that are kept."""
    growing: Growing
    noting: AbstractContextManager[Any]
    """Held while ``acked`` is changed, which any thread may do."""

    def since(self) -> float:
        """Return the time before which nothing is kept."""

    def get(self, topic: str) -> Feed | None: ...
    def mend(self, feed: Feed) -> None:
        """Have somebody read what ``feed`` is ``missing``."""


class Feed:
    """One topic's readers."""

    __slots__ = (
        "_feeds", "acked", "epoch", "flights", "gone", "live", "members", "missed",
        "reading", "seq", "tag", "topic",
    )  # fmt: skip

    def __init__(self, topic: str, feeds: Common) -> None:
        self.topic = topic
        self._feeds = feeds
        self.members = Audience()
        self.live = Audience()
        """Those who get each message as it comes."""
        self.reading: dict[WebSocket, Reader] = {}
        """Those on their way there; all others get none until they ask for them."""
        self.flights: list[Flight] = []
        self.missed: Missed | None = None
        """What those who are live wait for."""
        self.epoch = ""
        """Of the last message delivered, or read where none was; "": unknown."""
        self.seq = 0
        self.tag = ""
        self.acked = NOTHING
        """The newest that somebody in this process was told to be stored."""
        self.gone: frozenset[tuple[str, int]] = frozenset()
        """Epochs and numbers of what those here were told that it was taken back."""

    def mute(self, ws: WebSocket) -> None:
        """Send ``ws`` no messages."""
        self.live.discard(ws)
        self.reading.pop(ws, None)

    # -- who comes, and comes back

    def ask(
        self, reader: Reader, position: Position, limit: int, heard: bool
    ) -> Flight | None:
        """Send a page to ``reader``; or return what it has to wait for.

        ``heard``: the topic is delivered. The first one of its readers reads the page,
        and calls ``land`` or ``fail``.
        """
        self.mute(reader.ws)
        self.reading[reader.ws] = reader
        if heard and (newest := self._newest()) is not None:
            found = newest.view(position, limit)
            if found is not None:
                self._begin([reader], found, [])
                return None
        for flight in self.flights:
            asked = (flight.position, flight.limit, flight.acked)
            if asked == (position, limit, self.acked):
                break
        else:
            flight = Flight(position, limit, self.acked)
            self.flights.append(flight)
        flight.add(reader)
        return flight

    def newest(self, limit: int) -> View | None:
        """Return the newest messages, if they are known here."""
        newest = self._newest()
        if newest is None:
            return None
        return newest.view(Position(), limit)

    def _newest(self) -> Newest | None:
        newest = self._feeds.shelf.get(self.topic, self._feeds.since())
        if newest is not None and self.acked != NOTHING:
            epoch, seq = self.acked
            if epoch != newest.epoch or seq > newest.seq:
                return None  # who was told that it is stored must find it there
        return newest

    def land(self, flight: Flight, page: Page) -> bool:
        """Send ``page`` to those who wait for it; False: it has to be read again."""
        if flight.is_void(page):
            flight.again()
            return False
        self.flights.remove(flight)
        with self._feeds.noting:
            if self.acked == flight.acked:
                self.acked = NOTHING
        self.grown(page, flight.since)
        items = fitting(self.topic, page, self._feeds.budget)
        found = view(page, items)
        if room_of(self.topic) is not None and not found.more:
            self._put_up(flight, page, items)
        self._begin(flight.readers, found, flight.buffer)
        return True

    def fail(self, flight: Flight, error: Exception) -> None:
        """Tell those who wait that the page cannot be read."""
        if flight in self.flights:
            self.flights.remove(flight)
        for reader in flight.readers:
            if self.reading.get(reader.ws) is reader and reader.view is None:
                self.mute(reader.ws)
            reader.end(error)

    def _put_up(self, flight: Flight, page: Page, items: list[Kept]) -> None:
        """Keep what was read for those who come later."""
        feeds, shelf, topic = self._feeds, self._feeds.shelf, self.topic
        if feeds.get(topic) is not self or (page.recovered and topic in shelf):
            return
        after = flight.position if page.recovered else None
        most = max(feeds.size, 1), feeds.budget
        shelf.put(
            topic, Newest(page, items, after=after, depth=flight.limit, most=most)
        )
        for parcel in flight.buffer:
            if parcel.delivery.seq:
                shelf.add(topic, parcel)

    def _begin(self, readers: list[Reader], found: View, buffer: list[Parcel]) -> None:
        """Send a page, then what was delivered since it was read."""
        going = []
        for reader in readers:
            if self.reading.get(reader.ws) is reader and self._answer(reader, found):
                going.append(reader)
        if going:
            self._go_on(going, found, buffer)
        for reader in readers:
            reader.end()

    def _answer(self, reader: Reader, found: View) -> bool:
        """Send a page to one; False: nothing follows it."""
        assert reader.answer is not None
        try:
            text = reader.answer(found)
        except Exception as error:
            reader.error = error
            self.mute(reader.ws)
            return False
        reader.view = found
        deliver([reader.ws], framed(text))
        if found.more:
            self.mute(reader.ws)
        return not found.more

    def _go_on(self, going: list[Reader], found: View, buffer: list[Parcel]) -> None:
        epoch, after, tag = found.epoch, found.seq, found.tag
        if not self.epoch:
            self.epoch, self.seq, self.tag = epoch, after, tag
            newest = self._feeds.shelf.get(self.topic)
            if newest is not None and (newest.epoch, newest.seq) != (epoch, after):
                self._feeds.shelf.drop(self.topic)  # see `Feeds.acknowledged`
        elif (epoch, after) == (self.epoch, self.seq) and differ(tag, self.tag):
            self._gap(self.live)  # what they were sent is lost, others have its number
            self.tag = tag
        for index, parcel in enumerate(buffer):
            delivery = parcel.delivery
            if not delivery.seq:
                receivers = [each.ws for each in going if each.begun <= index]
                parcel.send(receivers, delivery.message.exclude)
                continue
            if delivery.epoch == epoch and delivery.seq <= after:
                continue
            if not _follows(delivery, epoch, after, tag):
                self._gap([each.ws for each in going])
                return
            after, tag = delivery.seq, delivery.tag
            parcel.send([each.ws for each in going])
        if self.epoch == epoch and after < self.seq:
            # The page is older than what was delivered: the backend has lost messages.
            self._gap(self.live)
            self.seq, self.tag = after, tag
        for reader in going:
            reader.epoch, reader.after, reader.tag = epoch, after, tag
            self._settle(reader)

    def _settle(self, reader: Reader) -> None:
        level = (self.epoch, self.seq) == (reader.epoch, reader.after)
        # It may just have been closed, and be here no more.
        if not level or self.reading.get(reader.ws) is not reader:
            return
        if differ(reader.tag, self.tag):
            self._gap([reader.ws])  # what its page had is lost, others have its numbers
            return
        del self.reading[reader.ws]
        self.live.add(reader.ws)

    # -- what is delivered

    def deliver(self, parcel: Parcel) -> None:
        delivery, message = parcel.delivery, parcel.delivery.message
        if message.close_code is not None:
            for ws in list(self.members):
                ws.close(message.close_code, str(message.data))
            return
        if message.growth is not None:
            if message.event is not None:
                self._grow(parcel)
                return
            self._feeds.growing.end(delivery)
        for flight in self.flights:
            flight.keep(parcel, self._feeds.limit)
        if message.event is not None or self.topic == EVERYONE:
            if message.event == DELETED:
                self.void()
                self._note_gone(int(message.data))
                if self.missed is not None:
                    self.missed.gone.add(int(message.data))
                for flight in self.flights:
                    parcel.send(flight.coming_back(self.reading))
            self._spread(parcel)
        elif not delivery.seq:
            parcel.send(self.live, message.exclude)
            if following := self._following():
                parcel.send([each.ws for each in following], message.exclude)
        else:
            if delivery.seq <= self.seq and self._is_used(delivery):
                self._gap(self.live)
                self.seq, self.tag = delivery.seq - 1, delivery.before
            self._feeds.shelf.add(self.topic, parcel)
            self._advance(parcel)

    def _grow(self, parcel: Parcel) -> None:
        """Pass on a step of a growing message; not to those who wait for a page, whose
        reply tells how it stands by then."""
        news = self._feeds.growing.step(parcel.delivery)
        if news is None:
            self.lose()
        elif news:
            parcel.send(self._readers())

    def grown(self, page: Page, since: float) -> None:
        """Tell what a page says of growing messages, where no step has told it."""
        if self._feeds.get(self.topic) is not self:
            return  # nobody reads it any more
        for text in self._feeds.growing.absorb(self.topic, page, since):
            deliver(self._readers(), framed(text))

    def _readers(self) -> Collection[WebSocket]:
        following = self._following()
        return (
            [*self.live, *(each.ws for each in following)] if following else self.live
        )

    def void(self) -> None:
        """What was read of the topic, or is being read, may be so no more."""
        self._feeds.shelf.drop(self.topic)
        for flight in self.flights:
            flight.lose()

    def begin_anew(self, epoch: str) -> None:
        """So it is, but for what was read in ``epoch``."""
        newest = self._feeds.shelf.get(self.topic)
        if newest is not None and (newest.epoch != epoch or newest.plain):
            self._feeds.shelf.drop(self.topic)
        for flight in self.flights:
            flight.begin_anew(epoch)

    def _is_used(self, delivery: Delivery) -> bool:
        """Whether another message had its number, which the storage has lost."""
        if delivery.epoch != self.epoch or self.missed is not None:
            return False
        if delivery.seq == self.seq:
            return differ(delivery.tag, self.tag)
        newest = self._feeds.shelf.get(self.topic)
        return (
            newest is not None
            and newest.epoch == self.epoch
            and differ(newest.tag_of(delivery.seq), delivery.tag)
        )

    def _spread(self, parcel: Parcel) -> None:
        """Send to every member, but not before the page that it waits for."""
        members: Collection[WebSocket] = self.members
        if self.reading:
            event = parcel.delivery.message.event
            waiting = {ws for ws, each in self.reading.items() if not each.gets(event)}
            members = [ws for ws in members if ws not in waiting]
        parcel.send(members, parcel.delivery.message.exclude)

    def _advance(self, parcel: Parcel) -> None:
        if self.missed is not None:
            self.missed.keep(parcel, self._feeds.limit)
        else:
            self._pass(parcel)

    def _pass(self, parcel: Parcel) -> None:
        """Send what is next, and nothing that came before or has to wait."""
        delivery = parcel.delivery
        if not _follows(delivery, self.epoch, self.seq, self.tag):
            if delivery.epoch == self.epoch:
                if delivery.seq <= self.seq:
                    return
                if delivery.seq > self.seq + 1 and self._is_awaited():
                    self._mend()
                    self._advance(parcel)
                    return
            if self.epoch:
                self._gap(self.live)
        self.epoch, self.seq = delivery.epoch, delivery.seq
        self.tag = delivery.tag
        # Who is left out of a numbered message would see a hole.
        parcel.send(self.live)
        # After it, as this may make them live.
        if self.reading:
            for reader in self._following():
                self._follow(reader, parcel)

    def _following(self) -> list[Reader]:
        """Return those whose page is ahead of what was delivered."""
        return [each for each in self.reading.values() if each.view is not None]

    def _follow(self, reader: Reader, parcel: Parcel) -> None:
        """Send what comes after the page."""
        delivery = parcel.delivery
        if delivery.epoch == reader.epoch and delivery.seq <= reader.after:
            pass
        elif not _follows(delivery, reader.epoch, reader.after, reader.tag):
            self._gap([reader.ws])
            return
        else:
            reader.after, reader.tag = delivery.seq, delivery.tag
            parcel.send([reader.ws])
        self._settle(reader)

    # -- what was missed

    def lose(self) -> None:
        """Publications may have been missed: the storage has them, or knows better."""
        self.void()
        self._feeds.growing.lose(self.topic)
        if self.missed is not None:
            self.missed.lose()
        elif self._is_awaited():
            self._mend()
        else:
            self._forget()

    def _is_awaited(self) -> bool:
        return bool(self.live or self._following())

    def _forget(self) -> None:
        self.missed = None
        self.epoch, self.seq, self.tag = "", 0, ""

    def _mend(self) -> None:
        self.void()
        self.missed = Missed(self._feeds.budget)
        self._feeds.mend(self)

    def missing(self) -> Position | None:
        """Return from where on it has to be read now; None: nobody waits for it."""
        if self.missed is None:
            return None
        if not self._is_awaited() or self._feeds.get(self.topic) is not self:
            self._forget()
            return None
        self.missed.void, self.missed.since = False, time.monotonic()
        return Position(self.seq, self.epoch, self.tag or None)

    def untold(self, numbers: list[int]) -> list[int]:
        """Return those of what was taken back that nobody here was told of.

        What was missed itself says so; ``numbers``: of all that is kept.
        """
        epoch, last = self.epoch, self.seq
        return [n for n in numbers if n <= last and (epoch, n) not in self.gone]

    def _note_gone(self, number: int) -> None:
        gone = {*self.gone, (self.epoch, number)}
        if len(gone) > 2 * self._feeds.size:
            gone = {each for each in gone if each[1] > self.seq - self._feeds.size}
        self.gone = frozenset(gone)

    def found(self, page: Page) -> list[Parcel]:
        """Return what was missed, to be given to ``catch_up`` one by one."""
        missed = self.missed
        if missed is None:
            return []
        self.grown(page, missed.since)
        missed.budget -= sum(size_of(entry.data) for entry in page.entries)
        if not page.recovered or has_hole(page, self.seq) or missed.budget < 0:
            self.give_up()
            return []
        topic = self.topic
        for entry in page.entries:
            if entry.deleted:
                self._note_gone(entry.seq)
        return [
            Parcel(
                Delivery(topic, _AGAIN, entry.seq, entry.at, page.epoch, entry.tag),
                kept(topic, entry),
            )
            for entry in page.entries
        ]

    def catch_up(self, parcel: Parcel) -> None:
        """Deliver what was missed."""
        if self.missed is not None:
            parcel = self.missed.as_it_is(parcel)
            # It may be ahead of what is delivered, and of the pages that were read.
            for flight in self.flights:
                flight.keep(parcel, self._feeds.limit)
            self._feeds.shelf.add(self.topic, parcel)
            self._pass(parcel)

    def is_mended(self, seq: int) -> bool:
        """Go on with what is delivered, if ``seq`` was all; False: read on."""
        missed = self.missed
        if missed is None:
            return True
        if missed.void or self.seq < seq:
            return False
        later = [p for p in missed.buffer if p.delivery.seq > self.seq]
        if later and not _follows(later[0].delivery, self.epoch, self.seq, self.tag):
            self.give_up()
            return True
        self.missed = None
        for parcel in later:
            self._advance(missed.as_it_is(parcel))
        return True

    def give_up(self) -> None:
        """Nobody can be given what was missed: all read again."""
        buffer = [] if self.missed is None else self.missed.buffer
        self._forget()
        self._gap([*self.live, *(each.ws for each in self._following())])
        for parcel in buffer:
            self._advance(parcel)

    def _gap(self, receivers: Iterable[WebSocket]) -> None:
        """Tell of a hole; nothing more comes until they read again."""
        readers = list(receivers)
        if not readers:
            return
        for ws in readers:
            self.mute(ws)
        tell_gap(readers, self.topic)


_AGAIN = Message("")


def _follows(delivery: Delivery, epoch: str, seq: int, tag: str) -> bool:
    """Whether it is the next after the message with this number and tag."""
    if delivery.epoch != epoch or delivery.seq != seq + 1:
        return False
    return delivery.before == tag or not differ(delivery.before, tag)
