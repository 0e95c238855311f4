"""What every backend promises of messages that grow: see ``Backend.publish``."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence

import pytest

from flask_wschat.backends import Backend
from flask_wschat.backends.contract import MOST_STREAMS
from flask_wschat.backends.growths import CLOSE
from flask_wschat.errors import StreamGone, StreamStopped, TooManyStreams
from flask_wschat.messages import (
    APPEND,
    DISCARD,
    STOP,
    STREAM,
    Delivery,
    Grown,
    Growth,
    Message,
    Receipt,
)
from tests.backends.cluster import Cluster, RecordingHost
from tests.support.waiting import eventually, move_on

ROOM = "room:a"
LONG = 60.0
SHORT = 0.15

Process = tuple[Backend, RecordingHost]


@pytest.fixture
def pair(growing: Cluster) -> tuple[Process, Process]:
    """Two processes, or twice the same one where nothing is shared."""
    first = growing.start()
    return first, growing.start() if growing.store.shared else first


@pytest.fixture
def one(pair: tuple[Process, Process]) -> Backend:
    return pair[0][0]


def begin(
    backend: Backend,
    id: str = "s1",
    topic: str = ROOM,
    *,
    sender: str | None = "bot",
    asker: str | None = "ann",
    ttl: float = LONG,
) -> Receipt:
    growth = Growth(id, 0, asker, ttl)
    return backend.publish(
        topic, Message("", sender=sender, event=STREAM, growth=growth)
    )


def append(
    backend: Backend, n: int, text: str, id: str = "s1", topic: str = ROOM
) -> Receipt:
    message = Message(text, sender="bot", event=APPEND, growth=Growth(id, n))
    return backend.publish(topic, message)


def finish(
    backend: Backend,
    text: str,
    id: str = "s1",
    topic: str = ROOM,
    sender: str | None = "bot",
) -> Receipt:
    message = Message(text, sender=sender, mid=id, growth=Growth(id))
    return backend.publish(topic, message, keep=True)


def discard(
    backend: Backend, id: str = "s1", topic: str = ROOM, ttl: float = 0.0
) -> Receipt:
    message = Message("no more", event=DISCARD, growth=Growth(id, ttl=ttl))
    return backend.publish(topic, message)


def stop(backend: Backend, id: str = "s1", topic: str = ROOM) -> Receipt:
    return backend.publish(topic, Message("", event=STOP, growth=Growth(id)))


def test_one_of_many_pieces(pair: tuple[Process, Process]) -> None:
    (writer, _), (reader, _) = pair
    begin(writer)
    for n in range(1, 503):
        append(writer, n, f"{n} ")
    (grown,) = reader.history(ROOM).streams
    assert grown.text.split() == [str(n) for n in range(1, 503)]


def test_of_two_of_many_pieces_each_has_its_own(pair: tuple[Process, Process]) -> None:
    (writer, _), (reader, _) = pair
    numbers = {"s1": 130, "s2": 64, "s3": 63}
    for id, count in numbers.items():
        begin(writer, id)
        for n in range(1, count + 1):
            append(writer, n, f"{id}-{n} ", id)
    append(writer, 64, "again", "s2")  # is known
    assert list(reader.history(ROOM, growing=False).streams) == []
    for id in ("s1", "s2", "s3"):
        texts = {each.id: each.text for each in reader.history(ROOM).streams}
        for left, text in texts.items():
            pieces = [f"{left}-{n} " for n in range(1, numbers[left] + 1)]
            assert text == "".join(pieces)
        assert id in texts
        if id == "s2":
            discard(writer, id)
        else:
            finish(writer, "all", id)
        assert id not in {each.id for each in reader.history(ROOM).streams}
    begin(writer, "s1")
    (grown,) = reader.history(ROOM).streams
    assert (grown.n, grown.text) == (0, "")


def test_one_that_was_begun_anew_is_another_s(pair: tuple[Process, Process]) -> None:
    """Its first writer adds nothing to it, and does not end it."""
    (old, _), (new, _) = pair
    at = begin(old).at
    discard(new)
    move_on(time.time, by=2 * CLOSE)
    again = begin(new).at
    for event in (APPEND, DISCARD):
        with pytest.raises(StreamGone, match="another writer"):
            old.publish(
                ROOM, Message("x", event=event, growth=Growth("s1", 1, began=at))
            )
    growth = Growth("s1", 1, began=again)
    assert new.publish(ROOM, Message("new", event=APPEND, growth=growth)).fresh
    assert [each.text for each in new.history(ROOM).streams] == ["new"]
    new.publish(ROOM, Message("", event=DISCARD, growth=growth))
    assert not new.history(ROOM).streams


def told(deliveries: Sequence[Delivery]) -> list[tuple[str | None, int, str | bytes]]:
    found = []
    for each in deliveries:
        growth = each.message.growth
        assert growth is not None
        found.append((each.message.event, growth.n, each.message.data))
    return found


def test_a_message_grows_and_becomes_one(pair: tuple[Process, Process]) -> None:
    (writer, _), (reader, host) = pair
    reader.subscribe([ROOM])
    begun = begin(writer)
    assert begun.seq == 0
    (grown,) = reader.history(ROOM).streams
    assert grown == Grown("s1", "bot", grown.at, 0, "", "ann")
    assert abs(grown.at - begun.at) < 1
    append(writer, 1, "Żółw ")
    append(writer, 2, 'and a "🐢" \n\0')
    (grown,) = reader.history(ROOM).streams
    assert grown[3:] == (2, 'Żółw and a "🐢" \n\0', "ann")
    receipt = finish(writer, "all of it")
    assert receipt.seq == 1 and receipt.fresh
    page = reader.history(ROOM)
    assert list(page.streams) == []
    assert [(e.data, e.mid, e.sender) for e in page.entries] == [
        ("all of it", "s1", "bot")
    ]
    deliveries = host.wait_for_count(4)
    assert told(deliveries) == [
        (STREAM, 0, ""),
        (APPEND, 1, "Żółw "),
        (APPEND, 2, 'and a "🐢" \n\0'),
        (None, 0, "all of it"),
    ]
    assert [d.seq for d in deliveries] == [0, 0, 0, 1]
    first = deliveries[0].message
    assert first.sender == "bot" and first.growth == Growth("s1", 0, "ann", LONG)
    assert abs(deliveries[0].at - grown.at) < 0.001


def test_steps_count_in_no_history(one: Backend) -> None:
    one.publish(ROOM, Message("before"), keep=True)
    begin(one)
    for n in range(1, 20):
        append(one, n, "x")
    page = one.history(ROOM)
    assert [entry.data for entry in page.entries] == ["before"]
    assert page.seq == 1
    assert one.publish(ROOM, Message("after"), keep=True).seq == 2
    assert one.history(ROOM).streams[0].text == "x" * 19


def test_to_open_again_what_is_open_changes_nothing(
    pair: tuple[Process, Process],
) -> None:
    (writer, _), (reader, host) = pair
    reader.subscribe([ROOM])
    begin(writer)
    append(writer, 1, "a")
    begin(reader, sender="other", asker="other")
    append(writer, 2, "b")
    assert told(host.wait_for_count(3)) == [
        (STREAM, 0, ""),
        (APPEND, 1, "a"),
        (APPEND, 2, "b"),
    ]
    (grown,) = writer.history(ROOM).streams
    assert (grown.sender, grown.text, grown.asker) == ("bot", "ab", "ann")


def test_a_piece_is_added_once(pair: tuple[Process, Process]) -> None:
    (writer, _), (reader, host) = pair
    reader.subscribe([ROOM])
    begin(writer)
    append(writer, 1, "a")
    append(writer, 1, "again")
    append(writer, 2, "b")
    append(writer, 1, "and again")
    append(writer, 0, "never")
    append(writer, 3, "c")
    assert [text for _, _, text in told(host.wait_for_count(4))] == ["", "a", "b", "c"]
    (grown,) = reader.history(ROOM).streams
    assert (grown.n, grown.text) == (3, "abc")


def test_a_piece_that_does_not_follow_is_refused(one: Backend) -> None:
    begin(one)
    append(one, 1, "a")
    with pytest.raises(StreamGone):
        append(one, 3, "c")
    (grown,) = one.history(ROOM).streams
    assert (grown.n, grown.text) == (1, "a")


def test_what_is_not_open_cannot_go_on(one: Backend) -> None:
    begin(one)
    for wrong in ("s2", ROOM), ("s1", "room:b"):
        with pytest.raises(StreamGone):
            append(one, 1, "x", *wrong)
        with pytest.raises(StreamGone):
            stop(one, *wrong)
        with pytest.raises(StreamGone):
            discard(one, *wrong)
        with pytest.raises(StreamGone):
            discard(one, *wrong, SHORT)
    discard(one)
    with pytest.raises(StreamGone):
        discard(one)
    begin(one)
    finish(one, "x")
    with pytest.raises(StreamGone):
        append(one, 1, "x")
    assert list(one.history(ROOM).streams) == []
    assert list(one.history("room:b").streams) == []


def test_a_discarded_one_is_told_and_may_begin_again(
    pair: tuple[Process, Process],
) -> None:
    (writer, _), (reader, host) = pair
    reader.subscribe([ROOM])
    begin(writer)
    append(writer, 1, "a")
    discard(writer)
    assert list(reader.history(ROOM).streams) == []
    begin(writer)
    append(writer, 1, "b")
    deliveries = host.wait_for_count(5)
    assert told(deliveries)[2:] == [
        (DISCARD, 0, "no more"),
        (STREAM, 0, ""),
        (APPEND, 1, "b"),
    ]
    assert reader.history(ROOM).entries == []
    assert reader.history(ROOM).streams[0].text == "b"


def test_who_is_stopped_is_told_at_the_next_step(
    pair: tuple[Process, Process],
) -> None:
    (writer, _), (reader, host) = pair
    reader.subscribe([ROOM])
    begin(writer)
    append(writer, 1, "a")
    stop(reader)
    stop(reader)
    for n in 2, 1:  # a new piece, and what only says that the writer lives
        with pytest.raises(StreamStopped):
            append(writer, n, "b")
    (grown,) = reader.history(ROOM).streams
    assert grown.text == "a"
    finish(writer, "a")
    assert told(host.wait_for_count(3)) == [
        (STREAM, 0, ""),
        (APPEND, 1, "a"),
        (None, 0, "a"),
    ]
    begin(writer)
    append(writer, 1, "c")  # it is another one


def test_so_many_grow_in_a_topic(one: Backend) -> None:
    for number in range(MOST_STREAMS):
        begin(one, f"s{number}")
    with pytest.raises(TooManyStreams):
        begin(one, "more")
    begin(one, "s3")
    begin(one, "more", "room:b")
    assert [g.id for g in one.history(ROOM).streams] == [
        f"s{number}" for number in range(MOST_STREAMS)
    ]
    finish(one, "x", "s3")
    begin(one, "more")
    discard(one, "s5")
    begin(one, "and more")
    with pytest.raises(TooManyStreams):
        begin(one, "too many")


def test_a_dead_writer_s_is_open_to_nobody(pair: tuple[Process, Process]) -> None:
    (writer, _), (reader, _) = pair
    begin(writer, "alive")
    for number in range(MOST_STREAMS - 1):
        begin(writer, f"s{number}", ttl=SHORT)
    eventually(
        lambda: [g.id for g in reader.history(ROOM).streams] == ["alive"],
        "the dead are not shown",
    )
    begin(reader, "more")  # nor do they count


def test_who_was_not_heard_of_is_discarded(pair: tuple[Process, Process]) -> None:
    (writer, _), (reader, host) = pair
    reader.subscribe([ROOM])
    begin(writer, ttl=LONG)
    for whose in (LONG, SHORT / 100):  # it is the writer's own that counts
        with pytest.raises(StreamGone):
            discard(reader, ttl=whose)
    assert len(reader.history(ROOM).streams) == 1
    begin(writer, "s2", ttl=SHORT)

    def discarded() -> bool:
        try:
            discard(reader, "s2", ttl=SHORT)
        except StreamGone:
            return False
        return True

    eventually(discarded, "it is dead")
    with pytest.raises(StreamGone):
        discard(reader, "s2", ttl=SHORT)
    assert [kind for kind, _, _ in told(host.wait_for_count(3))] == [
        STREAM,
        STREAM,
        DISCARD,
    ]
    with pytest.raises(StreamGone):
        append(writer, 1, "x", "s2")


def test_who_repeats_the_last_piece_lives(pair: tuple[Process, Process]) -> None:
    (writer, _), (reader, host) = pair
    reader.subscribe([ROOM])
    ttl = 4 * SHORT
    begin(writer, ttl=ttl)
    begin(writer, "other", ttl=ttl)
    host.wait_for_count(2)

    def only_it() -> bool:
        append(writer, 0, "")
        ids = [grown.id for grown in reader.history(ROOM).streams]
        assert "s1" in ids
        return ids == ["s1"]

    eventually(only_it, "the other is dead")
    with pytest.raises(StreamGone):
        discard(reader, ttl=ttl)
    assert len(host.deliveries) == 2


def test_what_grows_is_no_share_of_an_inbox(growing: Cluster) -> None:
    backend, _ = growing.start(size=64, max_bytes=1 << 20)
    for number in range(40):
        id = f"s{number}"
        begin(backend, id, "user:ann")
        assert finish(backend, "x", id, "user:ann").seq == number + 1


def test_an_id_that_was_used_ends_nothing(one: Backend) -> None:
    finish(one, "first")
    begin(one)
    append(one, 1, "x")
    assert not finish(one, "second").fresh
    (grown,) = one.history(ROOM).streams
    assert grown.text == "x"
    discard(one)
    assert list(one.history(ROOM).streams) == []


def test_what_ends_without_having_begun_is_a_message(
    pair: tuple[Process, Process],
) -> None:
    (writer, _), (reader, host) = pair
    reader.subscribe([ROOM])
    assert finish(writer, "x", sender=None).seq == 1
    assert told(host.wait_for_count(1)) == [(None, 0, "x")]


def test_it_ends_where_nothing_is_kept(growing: Cluster) -> None:
    backend, host = growing.start(size=0)
    backend.subscribe([ROOM])
    begin(backend)
    append(backend, 1, "x")
    assert finish(backend, "x").seq == 0
    assert list(backend.history(ROOM).streams) == []
    assert [kind for kind, _, _ in told(host.wait_for_count(3))] == [
        STREAM,
        APPEND,
        None,
    ]


def test_submitted_steps_keep_their_order(pair: tuple[Process, Process]) -> None:
    (writer, _), (reader, host) = pair
    reader.subscribe([ROOM])
    outcomes: queue.SimpleQueue[Receipt | Exception] = queue.SimpleQueue()
    growth = Growth("s1", 0, None, LONG)
    writer.submit(ROOM, Message("", event=STREAM, growth=growth), outcomes.put)
    for n in range(1, 50):
        growth = Growth("s1", n)
        message = Message(f"{n} ", event=APPEND, growth=growth)
        writer.submit(ROOM, message, outcomes.put)
    wrong = Message("x", event=APPEND, growth=Growth("s2", 1))
    writer.submit(ROOM, wrong, outcomes.put)
    ended = [outcomes.get(timeout=5) for _ in range(51)]
    assert all(isinstance(outcome, Receipt) for outcome in ended[:50])
    assert isinstance(ended[50], StreamGone)
    text = "".join(f"{n} " for n in range(1, 50))
    assert reader.history(ROOM).streams[0][3:5] == (49, text)
    assert [n for _, n, _ in told(host.wait_for_count(50))] == list(range(50))


def test_a_page_of_any_kind_has_them(one: Backend) -> None:
    for number in range(3):
        one.publish(ROOM, Message(f"{number}"), keep=True)
    begin(one)
    page = one.history(ROOM)
    for found in (
        one.history(ROOM, after=1, epoch=page.epoch),
        one.history(ROOM, after=99, epoch="other"),
        one.history(ROOM, before=2),
        one.history(ROOM, limit=1, max_bytes=1),
    ):
        assert [grown.id for grown in found.streams] == ["s1"]
