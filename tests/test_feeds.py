"""What a reader of the ready-made chat is sent, whatever the backend delivers when."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from flask_wschat import envelope
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.chat.chat import Chat
from flask_wschat.errors import BackendError
from flask_wschat.hub.hub import Hub
from flask_wschat.hub.pages import Position, View
from flask_wschat.hub.tallies import INTERVAL
from flask_wschat.messages import (
    EVERYONE,
    Delivery,
    Entry,
    Message,
    News,
    room_topic,
    user_topic,
)
from flask_wschat.settings import Settings
from tests.support.in_memory import Reader

ROOM = room_topic("a")


@pytest.fixture
def hub() -> Hub:
    return Hub(Settings(), MemoryBackend(), dumps=json.dumps, loads=json.loads)


@pytest.fixture
def reader(hub: Hub) -> Reader:
    return Reader(hub)


def deliver(hub: Hub, *numbers: int, epoch: str = "e", **fields: Any) -> None:
    for seq in numbers:
        message = Message(str(seq), **fields)
        hub.deliver(Delivery(ROOM, message, seq, 1.5, epoch if seq else ""))


def test_what_was_delivered_meanwhile_follows_the_page(
    hub: Hub, reader: Reader
) -> None:
    reader.ask()
    deliver(hub, 4, 5, 6, 7)
    assert reader.got == []
    reader.land(5)
    assert reader.got == [6, 7]
    deliver(hub, 8)
    assert reader.got == [6, 7, 8]


def test_a_page_may_be_ahead_of_the_deliveries(hub: Hub, reader: Reader) -> None:
    other = Reader(hub)
    other.read(3)
    deliver(hub, 4)
    reader.read(6)
    deliver(hub, 5, 6, 7, 8)
    assert other.got == [4, 5, 6, 7, 8]
    assert reader.got == [7, 8]


def test_the_first_page_may_be_ahead_of_all_deliveries(
    hub: Hub, reader: Reader
) -> None:
    reader.read(6)
    deliver(hub, 5, 6, 7)
    assert reader.got == [7]


def test_no_message_comes_before_the_first_page(hub: Hub, reader: Reader) -> None:
    deliver(hub, 1, 2)
    assert reader.got == []
    reader.read(2)
    deliver(hub, 3)
    assert reader.got == [3]


def test_a_jump_is_a_gap_until_the_next_page(hub: Hub, reader: Reader) -> None:
    reader.read(3)
    deliver(hub, 4, 6, 7)
    assert reader.got == [4, ("gap", "a")]
    reader.read(7)
    deliver(hub, 8)
    assert reader.got == [4, ("gap", "a"), 8]


def test_a_jump_that_a_page_covers_is_none(hub: Hub, reader: Reader) -> None:
    other = Reader(hub)
    other.read(3)
    reader.ask()
    deliver(hub, 6)
    assert not reader.land(6)  # it may have been read before what came is known
    assert reader.land(6)
    deliver(hub, 7)
    assert other.got == [("gap", "a")]
    assert reader.got == [7]


def test_a_jump_behind_the_page_is_a_gap(hub: Hub, reader: Reader) -> None:
    reader.ask()
    deliver(hub, 4, 6)
    assert reader.land(4)
    assert reader.got == [("gap", "a")]


def test_a_new_epoch_is_a_gap(hub: Hub, reader: Reader) -> None:
    reader.read(3)
    deliver(hub, 4, epoch="f")
    assert reader.got == [("gap", "a")]
    reader.read(4, epoch="f")
    other = Reader(hub)
    other.read(1, epoch="g")  # it knows before anything of it is delivered
    deliver(hub, 2, epoch="g")
    assert reader.got == [("gap", "a"), ("gap", "a")]
    assert other.got == [2]


def test_what_was_delivered_before_is_not_sent_again(hub: Hub, reader: Reader) -> None:
    reader.read(3)
    deliver(hub, 4, 5, 4, 5, 6)
    assert reader.got == [4, 5, 6]


def test_a_page_older_than_the_deliveries_is_a_gap_for_the_others(
    hub: Hub, reader: Reader
) -> None:
    """A store that lost its newest messages goes on with numbers that were used."""
    reader.read(8)
    other = Reader(hub)
    other.read(5)
    deliver(hub, 6)
    assert reader.got == [("gap", "a")]
    assert other.got == [6]


@pytest.mark.parametrize("topics", [None, [ROOM]])
def test_a_loss_is_a_gap_for_all(
    hub: Hub, reader: Reader, topics: list[str] | None
) -> None:
    live, ahead, waiting = Reader(hub), Reader(hub), Reader(hub)
    live.read(3)
    ahead.read(5)
    waiting.ask()
    hub.lost(topics)
    deliver(hub, 6)
    assert live.got == ahead.got == [("gap", "a")]
    assert not waiting.land(5)  # it may be from before the loss
    assert waiting.land(6)
    assert waiting.got == reader.got == []  # which has not asked yet
    live.read(6)
    deliver(hub, 7)
    assert live.got == [("gap", "a"), 7]
    hub.lost(["room:unknown", EVERYONE])
    deliver(hub, 8)
    assert live.got == [("gap", "a"), 7, 8]


def test_a_loss_of_all_gives_the_others_their_turn(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_wschat.hub.deliveries.TURN", 0)
    reader = Reader(hub)
    loop = reader.ws._transport.loop
    timers = loop.timers  # type: ignore[attr-defined]
    rooms = [str(number) for number in range(20)]
    for room in rooms:
        hub.join(reader.ws, room)
        reader.ask(room_topic(room))
        reader.land(1)
    timers.clear()
    hub.lost(None)
    hub.lost(None)  # a topic is lost once, however often that is said
    turns = 0
    while len(reader.got) < len(rooms):
        assert len(reader.got) <= turns
        due, timers[:] = list(timers), []
        for _, call in due:
            call()
        turns += 1
    assert sorted(reader.got) == sorted(("gap", room) for room in rooms)
    assert turns >= len(rooms)


def test_what_waits_for_a_page_is_bounded(reader: Reader) -> None:
    hub = Hub(
        Settings(MAX_QUEUE=5000), MemoryBackend(), dumps=json.dumps, loads=json.loads
    )
    slow = Reader(hub)
    slow.ask()
    deliver(hub, *range(1, 100))
    assert not slow.land(0)
    deliver(hub, 100, 101)
    assert slow.land(99)
    assert slow.got == [100, 101]


def test_what_is_not_kept_has_no_number(hub: Hub, reader: Reader) -> None:
    other = Reader(hub)
    reader.read(3)
    deliver(hub, 0)
    other.ask()
    deliver(hub, 4, 0, 5)
    other.land(4)
    assert reader.got == [0, 4, 0, 5]
    assert other.got == [0, 5]


def test_news_reaches_all_but_not_before_their_page(hub: Hub, reader: Reader) -> None:
    live, waiting, reading_on = Reader(hub), Reader(hub), Reader(hub)
    live.read(0)
    waiting.ask()
    reading_on.ask()
    assert reading_on.land(5, more=True)
    hub.deliver(Delivery(ROOM, News(["ann"], [], 1).as_message()))
    assert live.got == reading_on.got == ["presence"]
    assert reader.got == waiting.got == []
    waiting.land(0)
    assert waiting.got == ["presence"]


def test_an_older_tally_is_dropped(hub: Hub, reader: Reader) -> None:
    def tally(version: int, poll: str = "p") -> None:
        data = json.dumps({"type": "tally", "poll": poll, "version": version})
        message = Message(data, "tally " + poll, event="tally")
        hub.deliver(Delivery(EVERYONE, message))

    tally(2)
    tally(1)
    tally(1, "q")
    tally(3)
    tally(5)
    tally(4)

    def versions() -> list[int]:
        return [json.loads(str(event))["version"] for event in reader.peer.events]

    assert versions() == [2, 1]  # p's next one has to wait, and only the newest does
    timers = reader.ws._transport.loop.timers  # type: ignore[attr-defined]
    (later,) = [back for seconds, back in timers if seconds <= INTERVAL]
    later()
    assert versions() == [2, 1, 5]
    tally(6)
    hub.lost(None)  # what counted may have begun anew, and what waits is void
    tally(1)
    _, later = [back for seconds, back in timers if seconds <= INTERVAL][1:]
    later()
    assert versions() == [2, 1, 5, 1]


def test_polls_that_come_and_go_are_forgotten(
    hub: Hub, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tally(poll: str, version: int = 1) -> None:
        text = envelope.tally(poll, {"version": version})
        hub.deliver(Delivery(EVERYONE, Message(text, "tally " + poll, event="tally")))

    def known() -> int:
        return len(hub.feeds.tallies._polls)

    now = time.monotonic()
    monkeypatch.setattr("flask_wschat.hub.tallies.time.monotonic", lambda: now)
    for number in range(1000):
        tally(f"busy {number}")
    assert known() == 1000, "of these an older one may still come"
    now += 6
    for number in range(3000):
        tally(f"short {number}")
        now += 0.1
    assert known() < 1200
    tally("short 2999", 0)
    assert len(reader.peer.events) == 4000


def test_a_tally_does_not_wait_for_a_loop_that_was_left(
    hub: Hub, reader: Reader
) -> None:
    def tally(version: int) -> None:
        text = envelope.tally("p", {"version": version})
        hub.deliver(Delivery(EVERYONE, Message(text, "p", event="tally")))

    tally(1)
    tally(2)  # waits
    old: Any = reader.ws._transport.loop
    reader.peer.close()
    old.is_current = lambda: False
    other = Reader(hub)
    for _, callback in list(old.timers):
        callback()
    assert other.got == []
    tally(3)
    new: Any = other.ws._transport.loop
    for _, callback in list(new.timers):
        callback()
    assert other.got == ["tally"]


def test_after_a_loss_it_is_told_how_the_polls_stand(
    hub: Hub, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last tally may be what was lost, and no other would follow it."""
    chat = Chat(hub)
    for name, room in [("everyone's", None), ("a's", "a"), ("b's", "b")]:
        chat.poll(name, ["x", "y"], room)
    reader.read(0)
    timers = reader.ws._transport.loop.timers  # type: ignore[attr-defined]

    def later() -> None:
        due, timers[:] = list(timers), []
        for _, call in due:
            call()

    def told() -> list[tuple[str, int]]:
        events = [json.loads(str(event)) for event in reader.peer.events]
        tallies = [event for event in events if event["type"] == "tally"]
        return [(tally["poll"], tally["total"]) for tally in tallies]

    timers.clear()
    for poll in chat.polls:
        hub.backend.vote(poll, "ann", "x")  # its tally was lost
    for _ in range(5):
        hub.lost(None)
    assert told() == []
    later()
    assert sorted(told()) == [("a's", 1), ("everyone's", 1)]
    later()
    hub.backend.vote("a's", "ben", "y")
    hub.lost([ROOM])

    def down(*args: Any) -> Any:
        raise BackendError("down")

    with monkeypatch.context() as patch:
        patch.setattr(hub.backend, "tally", down)
        later()
        assert len(told()) == 2
    later()
    later()
    assert told()[2:] == [("a's", 2)]
    later()
    assert (len(told()), timers) == (3, [])


def test_after_a_loss_it_is_told_how_stored_polls_stand(
    hub: Hub, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody here has asked for them yet."""
    chat, other = Chat(hub), Chat(hub)
    for name, room in [("everyone's", None), ("a's", "a"), ("b's", "b"), ("gone", "a")]:
        other.make_poll(name, ["x", "y"], room, 60, None)
    hub.on_lost = chat._lost
    reader.read(0)
    timers = reader.ws._transport.loop.timers  # type: ignore[attr-defined]
    timers.clear()
    for poll in other.stored_polls():
        hub.backend.vote(poll.name, "ann", "x", poll._id)
    look, gone = hub.backend.made_polls, other.find_poll("gone")

    def made_polls() -> Any:
        found = look()
        gone.delete()  # just now
        return found

    monkeypatch.setattr(hub.backend, "made_polls", made_polls)
    hub.lost(None)
    while timers:
        timers.pop()[1]()
    events = [json.loads(str(event)) for event in reader.peer.events]
    told = [(e["poll"], e["total"]) for e in events if e["type"] == "tally"]
    assert sorted(told) == [("a's", 1), ("everyone's", 1)]
    assert not chat._untold and not chat._unasked


def test_who_is_left_out_sees_no_hole(hub: Hub, reader: Reader) -> None:
    other = Reader(hub)
    reader.read(0)
    other.read(0)
    deliver(hub, 0, 1, exclude=reader.ws.id)
    assert reader.got == [1]
    assert other.got == [0, 1]


def test_everybody_is_told_in_an_envelope(hub: Hub, reader: Reader) -> None:
    hub.publish(EVERYONE, Message("hi"))
    assert json.loads(str(reader.peer.events[0])) == {
        "type": "message",
        "room": None,
        "from": None,
        "seq": 0,
        "data": "hi",
        "at": pytest.approx(hub.publish(EVERYONE, Message("")).at, abs=9),
        "mid": None,
    }


def test_a_user_is_told_after_the_inbox_was_asked_for(hub: Hub) -> None:
    ann = Reader(hub, "ann")
    topic = user_topic("ann")
    hub.publish(topic, Message("before"), keep=True)
    assert hub.readings.read(ann.ws, topic, Position(), 9, lambda view: view.messages)
    hub.publish(topic, Message("after"), keep=True)
    hub.publish(topic, Message("bye", close_code=4001))
    *directs, end = [e for e in ann.peer.events if "presence" not in str(e)]
    assert [json.loads(str(e))["data"] for e in directs] == ["before", "after"]
    assert tuple(end) == (4001, "bye")
    assert topic not in hub.feeds and ROOM not in hub.feeds


def test_a_page_that_is_not_the_last_is_followed_by_nothing(
    hub: Hub, reader: Reader
) -> None:
    reader.ask()
    assert reader.land(9, more=True)
    deliver(hub, 10)
    assert reader.got == []

    def refuse(view: View) -> str:
        raise LookupError

    with pytest.raises(LookupError):
        hub.readings.read(reader.ws, ROOM, Position(), 9, refuse)
    deliver(hub, 11)
    assert reader.got == []
    reader.read(11)
    deliver(hub, 12)
    assert reader.got == [12]


def test_one_that_cannot_be_read_does_not_stop_the_others(
    hub: Hub, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    hub.deliver(Delivery(EVERYONE, Message("no JSON", event="tally")))
    hub.publish(EVERYONE, Message("half a pair: \ud800"))
    assert json.loads(str(reader.peer.events[0]))["data"] == "half a pair: ?"
    assert "JSONDecodeError" in caplog.text


@pytest.mark.parametrize(
    ("topic", "entry", "expected"),
    [
        (ROOM, Entry(1, "a\n", 2.5), {"data": "a\n", "room": "a", "from": None}),
        (ROOM, Entry(1, "[1]", 2.5, json=True), {"data": [1]}),
        (ROOM, Entry(1, "x", 2.5, "\0id", "m"), {"from": None, "mid": "m"}),
        (ROOM, Entry(1, b"\0\xff", 2.5), {"data": "AP8=", "binary": True}),
        (ROOM, Entry(1, "x", 2.5, "ann"), {"from": "ann", "at": 2.5, "seq": 1}),
        ("user:bob", Entry(1, "x", 2.5, "ann"), {"to": "bob", "type": "direct"}),
        ("user:ann", Entry(1, "x", 2.5, "ann", to="bob"), {"to": "bob"}),
    ],
)
def test_the_envelope(topic: str, entry: Entry, expected: dict[str, Any]) -> None:
    got = json.loads(envelope.message(topic, entry, entry.seq, entry.at))
    assert expected.items() <= got.items()
