"""Readers of a room beside a list of what was said: whatever comes in which order.

The steps of those who join, of a storage whose deliveries take their time or are lost,
and of who reads on for all, are taken one by one, in orders that a seed decides.
"""

from __future__ import annotations

import collections
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.hub import mending
from flask_wschat.hub.feed import Feed
from flask_wschat.hub.flights import Flight
from flask_wschat.hub.flights import Reader as Asking
from flask_wschat.hub.hub import Hub
from flask_wschat.hub.pages import Kept, Newest, Position, Shelf, View
from flask_wschat.hub.parcels import Parcel
from flask_wschat.messages import Delivery, Message, Page, room_topic
from flask_wschat.settings import Settings
from tests.support.in_memory import Reader

ROOM = room_topic("a")
KEPT = 8


@pytest.fixture(autouse=True)
def whole_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a busy machine stands still, nobody else has a turn: no loop runs here."""
    monkeypatch.setattr("flask_wschat.hub.deliveries.TURN", 60.0)


class Slow(MemoryBackend):
    """What others say comes when ``come`` lets it, or never; with tags."""

    def __init__(self) -> None:
        super().__init__(size=KEPT)
        self.under_way: collections.deque[Delivery] = collections.deque()
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens while a page is on its way to who asked for it."""

    def say(self) -> int:
        """Let another process say something."""
        receipt = super().publish(ROOM, Message("x"), keep=True)
        return receipt.seq

    def start(self, host: Any) -> None:
        self.real = host
        super().start(self)  # type: ignore[arg-type]

    def deliver(self, delivery: Delivery) -> None:
        if delivery.seq:
            before = tag_of(delivery.seq - 1)
            delivery = delivery._replace(tag=tag_of(delivery.seq), before=before)
        self.under_way.append(delivery)

    def come(self) -> None:
        self.real.deliver(self.under_way.popleft())

    def take_back(self, seq: int) -> None:
        assert self.delete(ROOM, seq)
        while self.under_way:
            self.come()

    def history(self, topic: str, **asked: Any) -> Page:
        after, tag = asked.get("after"), asked.get("tag")
        page = super().history(topic, **asked)
        if page.recovered and after and tag and tag != tag_of(after):
            page = super().history(topic, limit=asked["limit"])
        tagged = [entry._replace(tag=tag_of(entry.seq)) for entry in page.entries]
        self.meanwhile()
        return page._replace(entries=tagged, tag=tag_of(page.seq))

    def forget(self) -> None:
        """Lose all that is stored."""
        self.under_way.clear()
        self._topics.clear()
        self._era += "x"


def tag_of(seq: int) -> str:
    return f"t{seq}" if seq else ""


class Client:
    """One that obeys the protocol's page, and the flight that it is in."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.reader = Reader(hub)
        self.at = Position()
        self.shown: list[int] = []
        self.there: dict[int, bool] = {}
        """The same; False: it was taken back."""
        self.live = False
        self.asking: Asking | None = None
        self.flight: Flight | None = None
        self.heard = 0
        self.known = ("", 0)
        """What somebody here had when it asked: it has that, once it is answered."""

    @property
    def feed(self) -> Feed:
        feed = self.hub.feeds.get(ROOM)
        assert feed is not None
        return feed

    def ask(self) -> None:
        self.hear()
        self.known = self.feed.epoch, self.feed.seq
        self.asking = Asking(self.reader.ws, lambda view: reply(view))
        self.live = False
        self.flight = self.feed.ask(self.asking, self.at, 5, True)

    def hear(self) -> None:
        """Show what came: each once and in order, or it is told."""
        events = self.reader.peer.events
        while self.heard < len(events):
            event = json.loads(str(events[self.heard]))
            self.heard += 1
            if event["type"] == "gap":
                self.live = False
            elif event["type"] == "message":
                assert self.live, "before the page, or after a gap"
                assert self.at.after is not None and event["seq"] > self.at.after
                self.take(event)
            elif event["type"] == "deleted" and event["seq"] in self.there:
                self.there[event["seq"]] = False
            elif event["type"] == "reply":
                self.read(event)
        epoch, seq = self.known
        if self.live and self.at.epoch == epoch:
            assert self.at.after is not None and self.at.after >= seq

    def read(self, page: Any) -> None:
        assert not self.live
        self.asking = self.flight = None
        if not page["recovered"]:
            last = page["seq"] - len(page["messages"])
            self.at = Position(last, page["epoch"], tag_of(last))
            self.shown.clear()
            self.there.clear()
        for message in page["messages"]:
            self.take(message)
        self.live = not page["more"]
        if self.live:
            assert self.at.after == page["seq"]

    def take(self, message: Any) -> None:
        seq = message["seq"]
        after = self.at.after
        assert after is not None
        if seq <= after:
            return
        assert seq == after + 1, "a hole that nobody was told of"
        self.shown.append(seq)
        self.there[seq] = "deleted" not in message
        self.at = Position(seq, self.at.epoch, message["tag"])


def reply(view: View) -> str:
    return '{"type":"reply",' + view.body + "}"


class Play:
    """Four clients, and what may happen next."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.backend = Slow()
        settings = Settings(HISTORY_SIZE=KEPT)
        self.hub = Hub(settings, self.backend, dumps=json.dumps, loads=json.loads)
        self.clients = [Client(self.hub) for _ in range(4)]
        self.tasks: list[Callable[[], None]] = []
        """Of those who read what was missed: they run when it is their turn."""
        loop: Any = self.hub.home.loop
        run = loop.run_own
        loop.run_own = lambda task: (
            self.tasks.append if task.__module__ == mending.__name__ else run
        )(task)
        self.pages: list[tuple[Flight, Page]] = []
        self.said = 0
        self.dropped = False
        self.gone: set[int] = set()
        """What was taken back, and nobody has missed that."""

    def say(self) -> None:
        self.said = self.backend.say()

    def come(self) -> None:
        if self.backend.under_way:
            self.backend.come()

    def drop(self) -> None:
        """Lose one, which shows by the next."""
        if len(self.backend.under_way) > 1:
            self.miss()
            self.dropped = True

    def miss(self) -> None:
        message = self.backend.under_way.popleft().message
        if message.event is not None:
            self.gone.discard(int(message.data))

    def take_back(self) -> None:
        seq = self.said - self.dice.randrange(KEPT)
        if self.backend.delete(ROOM, seq):
            self.gone.add(seq)

    def lose(self) -> None:
        self.dropped = False
        for _ in range(self.dice.randint(0, len(self.backend.under_way))):
            self.miss()
        self.hub.lost([ROOM])

    def forget(self) -> None:
        self.backend.forget()
        self.said, self.dropped = 0, False
        self.gone.clear()
        self.hub.lost([ROOM])

    def ask(self) -> None:
        client = self.dice.choice(self.clients)
        if client.flight is None:
            client.ask()

    def mute(self) -> None:
        """One hears nothing for a while."""
        client = self.dice.choice(self.clients)
        client.hear()
        if client.live:
            client.feed.mute(client.reader.ws)
            client.live = False

    def fetch(self) -> None:
        """Somebody's page is read, and lands later."""
        for flight in self.clients[0].feed.flights:
            if all(each is not flight for each, _ in self.pages):
                at = flight.position
                page = self.backend.history(ROOM, **at._asdict(), limit=flight.limit)
                self.pages.append((flight, page))
                return

    def land(self) -> None:
        if self.pages:
            flight, page = self.pages.pop(self.dice.randrange(len(self.pages)))
            assert self.clients[0].feed.land(flight, page) or flight.readers

    def mend(self) -> None:
        """What was missed is read; other things happen meanwhile."""
        self.backend.meanwhile = self.step
        self.work()
        self.backend.meanwhile = lambda: None

    def work(self) -> None:
        while self.tasks:
            self.tasks.pop(0)()

    def step(self, *steps: Callable[[], None]) -> None:
        meanwhile, self.backend.meanwhile = self.backend.meanwhile, lambda: None
        often, seldom = (
            [self.say, self.come, self.ask],
            [self.drop, self.lose, self.mute],
        )
        self.dice.choice([*often * 5, *seldom, *steps * 4])()
        self.backend.meanwhile = meanwhile
        for client in self.clients:
            client.hear()

    def end(self) -> None:
        """Let all come that is under way; nobody is to miss anything then."""
        if self.dropped:
            self.say()
        while self.backend.under_way:
            self.come()
        for _ in range(100):
            for client in self.clients:
                client.hear()
                if not client.live and client.flight is None:
                    client.ask()
            if all(c.live and c.at.after == self.said for c in self.clients):
                break
            self.fetch()
            self.land()
            self.work()
            while self.backend.under_way:
                self.come()
        assert [client.at.after for client in self.clients] == [self.said] * 4
        for client in self.clients:
            assert not [seq for seq in self.gone if client.there.get(seq)]


@pytest.mark.parametrize("seed", range(100))
def test_nothing_is_missed_whatever_comes_when(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine a turn would end, and the rest wait for a timer.
    monkeypatch.setattr("flask_wschat.hub.deliveries.TURN", 1000)
    play = Play(seed)
    for _ in range(200):
        play.step(play.fetch, play.land, play.mend, play.take_back)
        if play.dice.random() < 0.005:
            play.forget()
    play.end()


@pytest.mark.parametrize("seq", [1, 2, 3, 4])
def test_what_is_taken_back_while_what_was_missed_is_read(seq: int) -> None:
    """Who has it not yet does nothing when it is told; so it must not come after."""
    play = Play(0)
    (client, *_), backend = play.clients, play.backend
    client.ask()
    play.fetch()
    play.land()
    play.say()
    play.come()
    play.say()
    backend.under_way.clear()
    play.say()
    play.come()  # the one before it is missing
    play.say()

    def meanwhile() -> None:
        backend.meanwhile = lambda: None
        backend.take_back(seq)

    backend.meanwhile = meanwhile
    play.work()
    client.hear()
    assert client.there == {n: n != seq for n in range(1, 5)}


def test_who_has_what_was_taken_back_in_a_cut_is_told_once() -> None:
    play = Play(0)
    (client, *_), backend = play.clients, play.backend
    for _ in range(3):
        play.say()
        play.come()
    client.ask()
    play.fetch()
    play.land()
    client.hear()
    events = client.reader.peer.events

    def told() -> list[int]:
        play.work()
        client.hear()
        found = [json.loads(str(each)) for each in events]
        return [each["seq"] for each in found if each["type"] == "deleted"]

    backend.take_back(1)
    assert backend.delete(ROOM, 2)
    play.say()
    assert backend.delete(ROOM, 4)
    backend.under_way.clear()
    play.hub.lost([ROOM])
    assert told() == [1, 2]  # what was missed, 4, says it itself
    assert client.there == {1: False, 2: False, 3: True, 4: False}
    play.hub.lost([ROOM])
    assert told() == [1, 2]


def test_who_was_sent_what_is_lost_is_told_by_the_tag() -> None:
    """It was in the page alone, and another message has its number by now."""
    play = Play(0)
    hub, (client, *_) = play.hub, play.clients
    play.say()
    play.come()
    play.say()
    client.ask()
    play.fetch()
    play.land()
    client.hear()
    assert client.at.after == 2
    play.backend.under_way.clear()
    epoch = client.at.epoch
    assert epoch is not None
    for seq, tag, before in ((2, "other", "t1"), (3, "t3", "other")):
        hub.deliver(Delivery(ROOM, Message("y"), seq, 1.5, epoch, tag, before))
    events = [json.loads(str(text)) for text in client.reader.peer.events]
    assert [event["type"] for event in events] == ["reply", "gap"]


@pytest.mark.parametrize(
    ("epochs", "stays"),
    [(["its"], True), (["older", "its"], True), (["other"], False), ([""], False)],
)
@pytest.mark.parametrize("landed", [False, True])
def test_what_begins_anew_voids_no_page_of_that(
    epochs: list[str], stays: bool, landed: bool
) -> None:
    """Who makes a room by asking for its page hears so, and has that page."""
    play = Play(0)
    hub, (client, other, *_) = play.hub, play.clients
    play.say()
    play.come()
    client.ask()
    flight = client.flight
    assert flight is not None
    page = play.backend.history(ROOM, limit=5)

    def begin_anew() -> None:
        for epoch in epochs:
            hub.made(ROOM, page.epoch if epoch == "its" else epoch)

    if landed:
        assert client.feed.land(flight, page)
        begin_anew()
        assert (ROOM in hub.feeds.shelf) is stays or epochs[0] == "older"
    else:
        begin_anew()
        assert client.feed.land(flight, page) is stays
        assert stays or client.feed.land(flight, page)  # read once more, it is as it is
    client.hear()
    assert client.live and client.shown == [1]
    other.ask()
    assert (other.flight is None) is (ROOM in hub.feeds.shelf)


def test_a_page_with_what_was_before_a_new_beginning_is_read_again() -> None:
    play = Play(0)
    client = play.clients[0]
    play.say()
    client.ask()
    flight = client.flight
    assert flight is not None
    play.come()
    page = play.backend.history(ROOM, limit=5)
    play.hub.made(ROOM, page.epoch)
    assert not client.feed.land(flight, page)
    play.hub.made(ROOM, page.epoch)
    assert not client.feed.land(flight, page._replace(plain=True))  # its claim is lost
    assert client.feed.land(flight, page)


def test_a_shelf_knows_how_much_is_on_it() -> None:
    """What has become too old on it does not count for ever."""
    shelf, page = Shelf(), Page("e", 1, [], tag="t1")
    for _ in range(20):
        item = Kept(1, 1.0, "t1", "x" * (1 << 20))
        newest = Newest(page, [item], after=None, depth=1, most=(9, 9 << 20))
        shelf.put(ROOM, newest)
        assert shelf.get(ROOM, since=2.0) is newest
        shelf.drop(ROOM)
    shelf.put(ROOM, Newest(page, [], after=None, depth=1, most=(9, 9)))
    assert ROOM in shelf


def test_a_page_that_nobody_asks_for_is_given_up() -> None:
    """What is delivered costs next to nothing until somebody wants the page."""
    shelf, page = Shelf(), Page("e", 0, [], tag="t0")
    shelf.put(ROOM, Newest(page, [], after=None, depth=9, most=(5, 1 << 20)))

    def deliver(first: int, last: int) -> None:
        for seq in range(first, last + 1):
            said = Message(f"m{seq}")
            tags = f"t{seq}", f"t{seq - 1}"
            shelf.add(ROOM, Parcel(Delivery(ROOM, said, seq, 1.5, "e", *tags)))

    deliver(1, 200)
    newest = shelf.get(ROOM)  # who asks has all of it, but no more than is kept
    assert newest is not None
    found = newest.view(Position(), 5)
    assert found is not None and (found.seq, found.tag) == (200, "t200")
    said = json.loads(f"[{found.messages}]")
    assert [each["data"] for each in said] == [f"m{n}" for n in range(196, 201)]
    deliver(201, 400)
    assert shelf.get(ROOM) is newest and newest.seq == 400
    deliver(401, 657)
    assert ROOM not in shelf and shelf.get(ROOM) is None


def test_what_does_not_follow_a_page_voids_it_for_who_asks() -> None:
    for seq, epoch, tag, before in (
        (3, "e", "t3", "t2"),
        (2, "other", "t2", "t1"),
        (2, "e", "t2", "other"),
        (1, "e", "other", "t0"),
    ):
        shelf, page = Shelf(), Page("e", 1, [], tag="t1")
        shelf.put(ROOM, Newest(page, [], after=None, depth=9, most=(5, 1 << 20)))
        came = Delivery(ROOM, Message("x"), seq, 1.5, epoch, tag, before)
        shelf.add(ROOM, Parcel(came))
        assert shelf.get(ROOM) is None and ROOM not in shelf
