"""What readers are told of growing messages, whatever is delivered and read when."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.hub.flights import Flight
from flask_wschat.hub.flights import Reader as Asking
from flask_wschat.hub.growing import Growing
from flask_wschat.hub.hub import Hub
from flask_wschat.hub.pages import Position
from flask_wschat.messages import (
    APPEND,
    DISCARD,
    STREAM,
    Delivery,
    Entry,
    Grown,
    Growth,
    Message,
    Page,
    room_topic,
)
from flask_wschat.settings import Settings
from tests.support.in_memory import Reader
from tests.support.waiting import move_on

ROOM = room_topic("a")
NO_PAGE = Page("e", 0, [])


@pytest.fixture
def hub() -> Hub:
    return Hub(Settings(), MemoryBackend(), dumps=json.dumps, loads=json.loads)


class Watching(Reader):
    """A reader whose replies have what grows."""

    flight: Flight | None

    def ask(self, topic: str = ROOM) -> None:
        self.feed = self.hub.feeds.get(topic)
        assert self.feed is not None
        growing = self.hub.feeds.growing

        def answer(view: object) -> str:
            return f'{{"type":"reply","streams":[{growing.standing(topic)}]}}'

        own = Position(tag=self.ws.id)  # it shares none with others
        self.flight = self.feed.ask(Asking(self.ws, answer), own, 9, False)

    def get(
        self, *streams: Grown, seq: int = 0, entries: tuple[Entry, ...] = ()
    ) -> bool:
        """Get the page; False: it is read again."""
        assert self.feed is not None and self.flight is not None
        page = Page("e", seq, list(entries), streams=streams)
        return self.feed.land(self.flight, page)

    @property
    def told(self) -> list[Any]:
        """What came: ``("reply", [id, n, text] …)``, events, numbers of messages."""
        found: list[Any] = []
        for text in self.peer.events:
            event = json.loads(str(text))
            kind = event["type"]
            if kind == "reply":
                streams = event["streams"]
                found.append(
                    ("reply", *((s["id"], s["n"], s["text"]) for s in streams))
                )
            elif kind in ("stream", "append"):
                found.append((kind, event["id"], event["n"], event["text"]))
            elif kind == "discard":
                found.append((kind, event["id"]))
            else:
                found.append(event["seq"] if kind == "message" else kind)
        self.peer.events.clear()
        return found


@pytest.fixture
def ann(hub: Hub) -> Watching:
    return Watching(hub)


def there(hub: Hub, *streams: Grown) -> Watching:
    """Return one more who has its page."""
    reader = Watching(hub)
    reader.ask()
    assert reader.get(*streams)
    reader.told  # noqa: B018
    return reader


def grown(n: int, text: str, id: str = "s", at: float = 1.5) -> Grown:
    return Grown(id, "bot", at, n, text)


def begin(hub: Hub, id: str = "s", at: float = 1.5) -> None:
    message = Message("", sender="bot", event=STREAM, growth=Growth(id, ttl=9))
    hub.deliver(Delivery(ROOM, message, 0, at))


def append(hub: Hub, *numbers: int, id: str = "s") -> None:
    for n in numbers:
        message = Message(f"{n}", event=APPEND, growth=Growth(id, n))
        hub.deliver(Delivery(ROOM, message, 0, 1.5))


def discard(hub: Hub, id: str = "s", at: float = 9.0) -> None:
    message = Message("no more", event=DISCARD, growth=Growth(id))
    hub.deliver(Delivery(ROOM, message, 0, at))


def finish(hub: Hub, seq: int, id: str = "s", at: float = 9.0) -> None:
    message = Message("all of it", sender="bot", mid=id, growth=Growth(id))
    hub.deliver(Delivery(ROOM, message, seq, at, "e" if seq else ""))


# ---- who reads -----------------------------------------------------------------------


def test_who_is_there_gets_each_step(hub: Hub, ann: Watching) -> None:
    ann.ask()
    assert ann.get()
    begin(hub)
    append(hub, 1, 2)
    finish(hub, 1)
    assert ann.told == [
        ("reply",),
        ("stream", "s", 0, ""),
        ("append", "s", 1, "1"),
        ("append", "s", 2, "2"),
        1,
    ]


def test_a_reply_has_what_grows_as_of_then(hub: Hub, ann: Watching) -> None:
    """Whatever was delivered before it is in there, and nothing comes twice."""
    ann.ask()
    begin(hub)
    append(hub, 1)
    assert ann.get()
    append(hub, 2)
    assert ann.told == [("reply", ("s", 1, "1")), ("append", "s", 2, "2")]


def test_pieces_that_came_while_the_page_was_read_follow_it(
    hub: Hub, ann: Watching
) -> None:
    ann.ask()
    append(hub, 4, 5, 6)
    assert ann.get(grown(4, "1234"))
    append(hub, 7)
    assert ann.told == [("reply", ("s", 6, "123456")), ("append", "s", 7, "7")]


def test_a_page_may_be_ahead_of_what_is_delivered(hub: Hub, ann: Watching) -> None:
    ben = there(hub)
    begin(hub)
    ann.ask()
    assert ann.get(grown(2, "12"))
    append(hub, 1, 2, 3)
    pieces = [("append", "s", n, f"{n}") for n in (1, 2, 3)]
    assert ann.told == [("reply", ("s", 0, "")), *pieces]
    assert ben.told == [("stream", "s", 0, ""), *pieces]


def test_the_first_page_may_be_ahead_of_all_that_is_delivered(
    hub: Hub, ann: Watching
) -> None:
    ann.ask()
    assert ann.get(grown(2, "12"))
    begin(hub)
    append(hub, 1, 2, 3)
    assert ann.told == [("reply", ("s", 2, "12")), ("append", "s", 3, "3")]


def test_what_a_page_tells_first_all_are_told(hub: Hub, ann: Watching) -> None:
    ben = there(hub)
    ann.ask()
    assert ann.get(grown(2, "12"))
    begin(hub)
    append(hub, 1, 2, 3)
    assert ben.told == [("stream", "s", 2, "12"), ("append", "s", 3, "3")]
    assert ann.told == [("reply", ("s", 2, "12")), ("append", "s", 3, "3")]


def test_a_page_that_is_older_than_the_end(hub: Hub, ann: Watching) -> None:
    # One is discarded, one becomes a message, while ann's page is read.
    begin(hub, "a")
    begin(hub, "b")
    ann.ask()
    discard(hub, "a")
    finish(hub, 1, "b")
    assert ann.get(grown(0, "", "a"), grown(0, "", "b"), grown(0, "", "s"))
    assert ann.told == [("reply", ("s", 0, "")), 1]


def test_a_page_that_has_the_message_already(hub: Hub, ann: Watching) -> None:
    """Then it does not grow, whatever is still on its way."""
    ben = there(hub)
    begin(hub)
    append(hub, 1)
    ann.ask()
    entry = Entry(1, "all of it", 9.0, "bot", "s")
    assert ann.get(seq=1, entries=(entry,))
    append(hub, 2)
    finish(hub, 1)
    assert ann.told == [("reply",)]
    assert ben.told[-1] == 1


def test_what_another_says_under_its_id_ends_nothing(hub: Hub, ann: Watching) -> None:
    """Who reads it knows the id, and may say what they like."""
    begin(hub)
    append(hub, 1)
    ann.ask()
    entry = Entry(1, "not from the bot", 9.0, "mallory", "s")
    assert ann.get(grown(1, "1"), seq=1, entries=(entry,))
    append(hub, 2)
    assert ann.told == [("reply", ("s", 1, "1")), ("append", "s", 2, "2")]


def test_what_the_storage_has_no_more_is_not_told(hub: Hub, ann: Watching) -> None:
    """It has ended, and what says so is on its way: to those who know of it."""
    ben = there(hub)
    begin(hub)
    move_on(time.monotonic)
    ann.ask()
    assert ann.get()
    discard(hub)
    assert ann.told == [("reply",), ("discard", "s")]
    assert ben.told == [("stream", "s", 0, ""), ("discard", "s")]


def test_what_began_after_the_page_was_asked_for_is_told(
    hub: Hub, ann: Watching
) -> None:
    ann.ask()
    begin(hub)
    assert ann.get()
    assert ann.told == [("reply", ("s", 0, ""))]


def test_an_id_may_come_again(hub: Hub) -> None:
    ann = there(hub)
    for at in (1.0, 3.0, 5.0):
        begin(hub, at=at)
        append(hub, 1, 2)
        discard(hub, at=at + 1)
        discard(hub, at=at + 1)
    assert ann.told == 3 * [
        ("stream", "s", 0, ""),
        ("append", "s", 1, "1"),
        ("append", "s", 2, "2"),
        ("discard", "s"),
    ]


def test_it_begins_again_where_it_is_open(hub: Hub) -> None:
    """A storage had forgotten it."""
    ann = there(hub)
    begin(hub)
    append(hub, 1)
    begin(hub, at=2.0)
    append(hub, 1)
    assert ann.told[2:] == [("stream", "s", 0, ""), ("append", "s", 1, "1")]


def test_what_is_not_kept_ends_it_too(hub: Hub, ann: Watching) -> None:
    ben = there(hub)
    begin(hub)
    finish(hub, 0)
    ann.ask()
    assert ann.get()
    assert ben.told == [("stream", "s", 0, ""), 0]
    assert ann.told == [("reply",)]


# ---- what is missed ------------------------------------------------------------------


def mend(hub: Hub, page: Page) -> None:
    """Have read what was missed."""
    feed = hub.feeds.get(ROOM)
    assert feed is not None and feed.missing() is not None
    for parcel in feed.found(page):
        feed.catch_up(parcel)
    assert feed.is_mended(page.seq)


def a_page(*streams: Grown, entries: tuple[Entry, ...] = ()) -> Page:
    return Page("e", len(entries), list(entries), True, streams=streams)


@pytest.fixture
def mending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads what was missed but the test."""
    monkeypatch.setattr("flask_wschat.hub.mending.Mender.add", lambda *args: None)


@pytest.mark.usefixtures("mending")
def test_after_a_loss_all_is_told_that_was_not(hub: Hub) -> None:
    ann = there(hub)
    begin(hub, "a")
    begin(hub, "b")
    begin(hub, "c")
    append(hub, 1, id="a")
    ann.told  # noqa: B018
    hub.lost([ROOM])
    append(hub, 3, id="a")  # of what comes now, nothing can be told yet
    assert ann.told == []
    move_on(time.monotonic)
    entry = Entry(1, "all of it", 9.0, "bot", "b")
    mend(hub, a_page(grown(2, "12", "a"), grown(7, "new", "d"), entries=(entry,)))
    append(hub, 4, id="a")
    append(hub, 8, id="d")
    assert ann.told == [
        ("discard", "c"),
        ("stream", "a", 3, "123"),
        ("stream", "d", 7, "new"),
        1,
        ("append", "a", 4, "4"),
        ("append", "d", 8, "8"),
    ]


@pytest.mark.usefixtures("mending")
def test_a_hole_is_a_loss(hub: Hub) -> None:
    ann = there(hub)
    begin(hub)
    append(hub, 1, 3, 4)
    mend(hub, a_page(grown(3, "123")))
    append(hub, 5)
    assert ann.told == [
        ("stream", "s", 0, ""),
        ("append", "s", 1, "1"),
        ("stream", "s", 4, "1234"),
        ("append", "s", 5, "5"),
    ]


@pytest.mark.usefixtures("mending")
def test_a_page_that_does_not_reach_what_came_is_read_again(hub: Hub) -> None:
    ann = there(hub)
    begin(hub)
    hub.lost([ROOM])
    append(hub, 4, 5)
    mend(hub, a_page(grown(2, "12")))
    assert ann.told == [("stream", "s", 0, "")]
    assert hub.feeds.growing.get(ROOM, "s") is None
    assert hub.feeds.growing.due(time.monotonic() + 2) == {ROOM: []}
    hub.feeds.grown(ROOM, a_page(grown(4, "1234")), time.monotonic())
    assert ann.told == [("stream", "s", 5, "12345")]


# ---- what is looked for --------------------------------------------------------------


def test_what_has_vanished_is_discarded_in_the_end(hub: Hub) -> None:
    ann = there(hub)
    begin(hub)
    ann.told  # noqa: B018
    growing = hub.feeds.growing
    assert growing.due(time.monotonic() + 40) == {ROOM: ["s"]}
    assert growing.due(time.monotonic() + 40) == {}  # it is being looked for
    later = time.monotonic() + 1
    hub.feeds.grown(ROOM, NO_PAGE, later)
    assert ann.told == []  # what ended it may be on its way
    growing._tables[ROOM].open["s"].hidden -= 5
    hub.feeds.grown(ROOM, NO_PAGE, later)
    assert ann.told == [("discard", "s")]
    hub.feeds.grown(ROOM, NO_PAGE, later)
    discard(hub)
    assert ann.told == []


def test_one_that_is_only_late_is_shown_again(hub: Hub) -> None:
    there(hub)
    begin(hub)
    later = time.monotonic() + 1
    hub.feeds.grown(ROOM, NO_PAGE, later)
    assert hub.feeds.growing.get(ROOM, "s") is None
    append(hub, 1)
    assert hub.feeds.growing.get(ROOM, "s") is not None
    hub.feeds.grown(ROOM, NO_PAGE, later)
    hub.feeds.grown(ROOM, a_page(grown(1, "1")), later)
    assert hub.feeds.growing.get(ROOM, "s") is not None


def test_a_page_that_comes_too_late_leaves_nothing(hub: Hub, ann: Watching) -> None:
    ann.ask()
    hub.leave(ann.ws, "a")
    assert ann.get(grown(1, "1"))
    assert hub.feeds.growing._tables == {}


# ---- bounds --------------------------------------------------------------------------


def test_what_does_not_fit_into_a_reply_is_to_be_asked_for() -> None:
    growing = Growing(30.0, 10)
    page = Page("e", 0, [], streams=[grown(1, "x" * 8, "a"), grown(2, "x" * 8, "b")])
    growing.absorb(ROOM, page, 0.0)
    first, second = json.loads(f"[{growing.standing(ROOM)}]")
    assert (first["id"], first["n"], len(first["text"])) == ("a", 1, 8)
    assert (second["id"], second["n"], second["text"]) == ("b", 0, "")


def test_nothing_is_held_where_nothing_grows(hub: Hub) -> None:
    ann = there(hub)
    growing = hub.feeds.growing
    assert growing._tables == {}
    for number in range(200):
        begin(hub, f"s{number}")
        discard(hub, f"s{number}")
    table = growing._tables[ROOM]
    assert table.open == {} and len(table.ended) <= 64
    hub.leave(ann.ws, "a")
    assert growing._tables == {}
