"""What every backend promises."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flask_wschat.backends import Backend
from flask_wschat.errors import (
    BackendError,
    OutOfOrder,
    ShareTaken,
    TooManyPolls,
    UnknownPoll,
)
from flask_wschat.messages import (
    PRESENCE,
    Delivery,
    Entry,
    MadePoll,
    Message,
    News,
    Receipt,
    Tally,
)
from tests.backends.cluster import Cluster, RecordingHost
from tests.support.waiting import DEADLINE, eventually

Process = tuple[Backend, RecordingHost]
Two = tuple[Process, Process]

ROOM = "room:a"
FULL = Message(
    data='{"text":"żółw \\u0000 🐢"}',
    key="k",
    exclude="an-id",
    close_code=4001,
    json=True,
    sender="ann",
    mid="m1",
    event="tally",
    to="bob",
    plain=True,
)


def publish(backend: Backend, count: int, topic: str = ROOM, start: int = 1) -> None:
    for number in range(start, start + count):
        backend.publish(topic, Message(str(number)), keep=True)


def numbers(entries: Sequence[Entry]) -> list[int]:
    assert all(entry.data == str(entry.seq) for entry in entries)
    return [entry.seq for entry in entries]


def together(calls: Sequence[Callable[[], object]]) -> None:
    """Make all calls at once, each in a thread; raise what the first of them raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        try:
            ready.wait(DEADLINE)
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * DEADLINE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


# -- publish and deliver


def test_numbers_count_for_each_topic_and_only_what_is_kept(
    backend: Backend, host: RecordingHost
) -> None:
    backend.subscribe(["room:a", "room:b"])
    message = Message("x")
    receipts = [backend.publish("room:a", message, keep=True) for _ in "123"]
    receipts.append(backend.publish("room:b", message, keep=True))
    receipts.append(backend.publish("room:a", message))
    receipts.append(backend.publish("room:a", message, keep=True))
    assert [r.seq for r in receipts] == [1, 2, 3, 1, 0, 4]
    assert all(r.fresh for r in receipts)
    assert receipts[4].epoch == ""
    assert receipts[0].epoch == receipts[5].epoch != ""
    assert sorted(r.at for r in receipts) == [r.at for r in receipts]
    deliveries = host.wait_for_count(6)
    assert {d.message for d in deliveries} == {message}
    kept = [d for d in deliveries if d.topic == "room:a" and d.seq]
    assert [d.seq for d in kept] == [1, 2, 3, 4]
    assert [d._replace(tag="", before="") for d in kept] == [
        Delivery("room:a", message, r.seq, r.at, r.epoch)
        for r in (*receipts[:3], receipts[5])
    ]
    (passing,) = [d for d in deliveries if not d.seq]
    assert passing.epoch == ""


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    "message",
    [FULL, Message(""), Message(b""), Message(b"\x00\xff" * 9), Message("\0")],
)
def test_a_message_arrives_with_all_it_has(
    backend: Backend, host: RecordingHost, message: Message, keep: bool
) -> None:
    backend.subscribe([ROOM])
    backend.publish(ROOM, message, keep=keep)
    assert host.wait_for_count(1)[0].message == message


def test_a_message_reaches_other_processes_with_all_it_has(two: Two) -> None:
    (backend, _), (other, host) = two
    other.subscribe([ROOM, "all"])
    receipt = backend.publish(ROOM, FULL, keep=True)
    backend.publish("all", Message(b"\x00\xff"))
    kept, passing = host.wait_for_count(2)
    assert kept._replace(tag="") == Delivery(
        ROOM, FULL, receipt.seq, receipt.at, receipt.epoch
    )
    assert passing.message == Message(b"\x00\xff")
    assert (passing.topic, passing.seq, passing.epoch) == ("all", 0, "")


def test_only_what_is_subscribed_is_delivered_and_once(
    backend: Backend, host: RecordingHost
) -> None:
    backend.subscribe(["room:end"])
    backend.publish(ROOM, Message("before"))
    backend.subscribe([ROOM])
    backend.subscribe([ROOM, "room:other"])
    backend.publish(ROOM, Message("within"))
    backend.publish("room:none", Message("within"))
    backend.publish("room:end", Message("1"))
    host.wait_for(lambda: host.data("room:end") == ["1"])
    host.wait_for(lambda: host.data(ROOM) == ["within"])

    backend.unsubscribe([ROOM, "room:never"])

    def no_more() -> bool:
        seen = len(host.data(ROOM))
        ends = len(host.data("room:end"))
        backend.publish(ROOM, Message("after"))
        backend.publish("room:end", Message("2"))
        host.wait_for(lambda: len(host.data("room:end")) > ends)
        return len(host.data(ROOM)) == seen

    eventually(no_more)
    assert host.data("room:none") == []
    backend.subscribe([ROOM])
    backend.publish(ROOM, Message("again"))
    host.wait_for(lambda: host.data(ROOM)[-1:] == ["again"])


def test_who_subscribes_to_nothing_any_more_can_begin_again(two: Two) -> None:
    (backend, _), (other, host) = two
    other.subscribe([ROOM])
    other.unsubscribe([ROOM])
    backend.publish(ROOM, Message("meanwhile"))
    other.subscribe(["room:b"])
    backend.publish("room:b", Message("x"))
    host.wait_for(lambda: host.data("room:b") == ["x"])
    assert host.losses == []


def test_every_process_delivers_the_same_order_without_a_hole(two: Two) -> None:
    receipts: dict[str, int] = {}
    for backend, _ in two:
        backend.subscribe([ROOM])

    def talk(backend: Backend, name: str) -> None:
        for count in range(40):
            data = f"{name}{count}"
            receipts[data] = backend.publish(ROOM, Message(data), keep=True).seq

    together(
        [
            lambda backend=backend, name=name: talk(backend, name)  # type: ignore[misc]
            for (backend, _), names in zip(two, ("abcd", "efgh"), strict=True)
            for name in names
        ]
    )
    for _, host in two:
        deliveries = host.wait_for_count(320)
        assert [d.seq for d in deliveries] == list(range(1, 321))
        assert all(receipts[str(d.message.data)] == d.seq for d in deliveries)
        assert host.losses == []
    assert sorted(receipts.values()) == list(range(1, 321))


def test_threads_of_one_process_see_one_order(
    backend: Backend, host: RecordingHost
) -> None:
    backend.subscribe([ROOM])
    together([lambda: publish(backend, 100)] * 4)
    deliveries = host.wait_for_count(400)
    assert [d.seq for d in deliveries] == list(range(1, 401))


def test_a_page_and_what_follows_it_leave_no_gap_while_others_publish(
    sharing: Cluster,
) -> None:
    """A process that joins: subscribe, then history, then what is delivered."""
    writer, _ = sharing.start(size=10_000)
    reader, host = sharing.start(size=10_000)
    begun, joined = threading.Event(), threading.Event()
    last = 0

    def write() -> None:
        nonlocal last
        more = 100
        while more:
            last = writer.publish(ROOM, Message(str(last + 1)), keep=True).seq
            if last == 50:
                begun.set()
            more -= joined.is_set()

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(DEADLINE)
    reader.subscribe([ROOM])
    page = reader.history(ROOM, limit=10_000)
    joined.set()
    thread.join(2 * DEADLINE)
    assert numbers(page.entries) == list(range(1, page.seq + 1))
    host.wait_for(lambda: host.deliveries and host.deliveries[-1].seq == last)
    later = [d.seq for d in host.deliveries if d.seq > page.seq]
    assert later == list(range(page.seq + 1, last + 1))


# -- history


def test_history_is_in_order_and_bounded(backend: Backend) -> None:
    publish(backend, 8)

    def ask(**where: Any) -> list[int]:
        page = backend.history(ROOM, **where)
        assert page.seq == 8
        assert not page.recovered
        return numbers(page.entries)

    assert ask() == [4, 5, 6, 7, 8]
    assert ask(limit=2) == [7, 8]
    assert ask(after=5, limit=2) == [6, 7]
    assert ask(after=1) == [4, 5, 6, 7, 8]
    assert ask(after=0, limit=1) == [4]
    assert ask(after=8) == ask(after=100) == []
    assert ask(before=7, limit=2) == [5, 6]
    assert ask(before=6) == [4, 5]
    assert ask(before=4) == ask(before=-3) == []
    assert ask(before=100, limit=1) == [8]
    assert ask(limit=0) == ask(after=5, limit=0) == []


def test_history_keeps_what_was_said_by_whom_and_when(backend: Backend) -> None:
    first = backend.publish(ROOM, FULL, keep=True)
    backend.publish(ROOM, Message("passing"))
    second = backend.publish(ROOM, Message(b"\x00\xff"), keep=True)
    entries = backend.history(ROOM).entries
    assert [entry._replace(tag="") for entry in entries] == [
        Entry(1, FULL.data, first.at, "ann", "m1", True, "bob"),
        Entry(2, b"\x00\xff", second.at),
    ]


def test_an_unknown_topic_has_an_empty_page_and_an_epoch(backend: Backend) -> None:
    page = backend.history(ROOM)
    assert (page.seq, page.entries, page.recovered) == (0, [], False)
    assert page.epoch
    assert backend.history(ROOM).epoch == page.epoch
    publish(backend, 2)
    resumed = backend.history(ROOM, after=0, epoch=page.epoch)
    assert resumed.recovered
    assert numbers(resumed.entries) == [1, 2]


def test_nothing_is_kept_where_the_size_is_nought(cluster: Cluster) -> None:
    backend, host = cluster.start(size=0)
    backend.subscribe([ROOM])
    assert backend.publish(ROOM, Message("x", mid="m"), keep=True).seq == 0
    assert backend.publish(ROOM, Message("x", mid="m"), keep=True).fresh
    host.wait_for_count(2)
    assert backend.history(ROOM).entries == []


def test_age_ends_a_message_also_in_an_idle_topic(cluster: Cluster) -> None:
    backend, _ = cluster.start(ttl=0.4)
    publish(backend, 3)
    page = backend.history(ROOM)
    eventually(lambda: not backend.history(ROOM).entries)
    # Whoever had not seen all of it is told so, and whoever had need not be.
    assert not backend.history(ROOM, after=1, epoch=page.epoch).recovered
    resumed = backend.history(ROOM, after=3, epoch=page.epoch)
    assert resumed.recovered == (resumed.epoch == page.epoch)
    receipt = backend.publish(ROOM, Message("x"), keep=True)
    assert receipt.seq == (4 if receipt.epoch == page.epoch else 1)


def test_age_is_that_of_each_message(cluster: Cluster) -> None:
    backend, _ = cluster.start(ttl=0.6)
    first = backend.publish(ROOM, Message("1"), keep=True)
    eventually(lambda: backend.publish("room:b", Message("")).at > first.at + 0.4)
    backend.publish(ROOM, Message("2"), keep=True)
    eventually(lambda: len(backend.history(ROOM).entries) < 2)
    assert numbers(backend.history(ROOM).entries) == [2]


# -- bytes


def test_bytes_bound_what_is_kept(cluster: Cluster) -> None:
    backend, host = cluster.start(max_bytes=100, size=50)
    backend.subscribe([ROOM])

    def say(*sizes: int) -> list[int]:
        for size in sizes:
            data = ("x" * size, b"\xff" * size)[size % 2]
            backend.publish(ROOM, Message(data), keep=True)
        return [entry.seq for entry in backend.history(ROOM).entries]

    assert say(40, 30, 30) == [1, 2, 3]
    assert say(1) == [2, 3, 4]
    assert say(69) == [3, 4, 5]
    assert say(99) == say() == [6]
    assert say(1, 0, 0) == [6, 7, 8, 9]
    assert say(1) == [7, 8, 9, 10]
    # The newest is kept, whatever its size; and takes nothing from the next ones.
    assert say(101) == [11]
    assert say(0) == [12]
    assert say(*[1] * 49) == list(range(12, 62))
    assert say(*[2] * 50) == list(range(62, 112))
    assert say(1, 1) == list(range(64, 114))
    deliveries = host.wait_for_count(113)
    assert [d.seq for d in deliveries] == list(range(1, 114))
    assert host.losses == []


def test_bytes_of_a_text_are_those_of_utf_8(cluster: Cluster) -> None:
    backend, _ = cluster.start(max_bytes=8)
    for data, kept in [("🐢", [1]), ("🐢", [1, 2]), ("ż", [2, 3]), ("żó", [3, 4])]:
        message = Message(data, sender="żółw", mid="🐢" * len(kept) + data)
        backend.publish(ROOM, message, keep=True)
        assert [entry.seq for entry in backend.history(ROOM).entries] == kept


def test_whoever_missed_what_the_bytes_pushed_out_is_told_so(two: Two) -> None:
    (backend, _), (other, host) = two
    other.subscribe([ROOM])
    big = "x" * 300_000
    for number in range(1, 5):
        backend.publish(ROOM, Message(big, sender="ann", mid=str(number)), keep=True)
    host.wait_for_count(4)
    for process in (backend, other):
        epoch = process.history(ROOM).epoch
        assert not process.history(ROOM, after=0, epoch=epoch).recovered
        page = process.history(ROOM, after=1, epoch=epoch)
        assert page.recovered
        assert [entry.seq for entry in page.entries] == [2, 3, 4]
        assert [e.seq for e in process.history(ROOM, before=3).entries] == [2]
        assert process.history(ROOM, before=2).entries == []
        # It was stored, and a repetition is known though it is not kept any more.
        again = Message(big, sender="ann", mid="1")
        receipt = process.publish(ROOM, again, keep=True)
        assert (receipt.seq, receipt.fresh) == (1, False)


@pytest.mark.parametrize("size", [1, 3])
def test_the_newest_is_kept_where_only_so_much_may_be(
    cluster: Cluster, size: int
) -> None:
    backend, _ = cluster.start(max_bytes=1, size=size)
    for number in range(1, 8):
        epoch = backend.publish(ROOM, Message(f"{number}" * 9), keep=True).epoch
        backend.publish(ROOM, Message("passing" * 99))
        page = backend.history(ROOM, after=number - 1, epoch=epoch)
        assert page.recovered
        assert [entry.data for entry in page.entries] == [f"{number}" * 9]
        missed = backend.history(ROOM, after=number - 2, epoch=epoch)
        assert missed.recovered == (number == 1)


def test_bytes_of_what_age_has_ended_are_free(cluster: Cluster) -> None:
    backend, _ = cluster.start(max_bytes=10, ttl=0.5)
    publish(backend, 5)
    backend.publish("room:b", Message("x" * 10), keep=True)
    eventually(lambda: not backend.history(ROOM).entries)
    first = backend.publish(ROOM, Message("x" * 5), keep=True).seq
    backend.publish(ROOM, Message("y" * 5), keep=True)
    assert [e.seq for e in backend.history(ROOM).entries] == [first, first + 1]
    eventually(lambda: not backend.history("room:b").entries)
    first = backend.publish("room:b", Message("x" * 10), keep=True).seq
    assert [e.seq for e in backend.history("room:b").entries] == [first]


# -- topics in which nothing is kept


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Topics in which nothing is kept live for 0.3 seconds."""
    for module in ("memory", "sqlite.topics", "redis.backend", "redis.people"):
        monkeypatch.setattr(f"flask_wschat.backends.{module}.EMPTY", 0.3)


def test_who_looks_at_rooms_leaves_nothing(forgetful: None, cluster: Cluster) -> None:
    backend, _ = cluster.start(linger=0.1)
    claimed = Message("", event="claim")
    for number in range(50):
        topic = f"room:{number}"
        backend.subscribe([topic])
        backend.history(topic)
        backend.publish(topic, Message("passing"))
        backend.attend([(topic, "ann", 1)])
        backend.claim([f"room:claimed {number}"], claimed)
        backend.unsubscribe([topic])
        backend.attend([(topic, "ann", 0)])
    publish(backend, 1)

    def is_over() -> bool:
        backend.refresh()
        backend.claim(["room:held"], claimed)
        return cluster.store.topics(backend) == {ROOM, "room:held"}

    eventually(is_over)
    assert backend.history("room:held").plain
    assert not backend.history("room:claimed 0").plain
    assert numbers(backend.history(ROOM).entries) == [1]


def test_who_waits_in_an_empty_room_need_not_read_it_again(
    forgetful: None, sharing: Cluster
) -> None:
    backend, host = sharing.start(linger=0.1)
    other, _ = sharing.start(linger=0.1)

    def is_forgotten() -> bool:
        return not sharing.store.topics(backend)

    backend.subscribe([ROOM])
    epoch = backend.history(ROOM).epoch
    eventually(is_forgotten)
    assert backend.history(ROOM).epoch == epoch == other.history(ROOM).epoch
    eventually(is_forgotten)
    first = backend.publish(ROOM, Message("1"), keep=True)
    assert (first.seq, first.epoch) == (1, epoch)
    assert host.wait_for_count(1)[0].epoch == epoch
    assert other.publish(ROOM, Message("2"), keep=True).epoch == epoch
    page = other.history(ROOM, after=0, epoch=epoch)
    assert page.recovered
    assert numbers(page.entries) == [1, 2]


def test_who_saw_another_empty_room_is_told_so(
    forgetful: None, sharing: Cluster
) -> None:
    backend, host = sharing.start(linger=0.1)
    other, _ = sharing.start(linger=0.1)
    backend.subscribe([ROOM])
    seen = backend.history(ROOM).epoch
    eventually(lambda: not sharing.store.topics(backend))
    # It could not know of those who wait in another process.
    assert other.publish(ROOM, Message("1"), keep=True).epoch != seen
    assert host.wait_for_count(1)[0].epoch != seen
    page = backend.history(ROOM, after=0, epoch=seen)
    assert not page.recovered
    assert numbers(page.entries) == [1]


# -- resume


def test_a_resume_gets_every_missed_message(backend: Backend) -> None:
    publish(backend, 8)
    epoch = backend.history(ROOM).epoch
    for after, limit, expected in [
        (3, 50, [4, 5, 6, 7, 8]),
        (3, 2, [4, 5]),
        (6, 50, [7, 8]),
        (8, 50, []),
    ]:
        page = backend.history(ROOM, after=after, epoch=epoch, limit=limit)
        assert page.recovered
        assert (page.epoch, page.seq) == (epoch, 8)
        assert numbers(page.entries) == expected


def test_a_resume_that_cannot_be_whole_says_so(backend: Backend) -> None:
    publish(backend, 8)
    epoch = backend.history(ROOM).epoch
    for after, known in [(2, epoch), (0, epoch), (-5, epoch), (6, "another")]:
        page = backend.history(ROOM, after=after, epoch=known, limit=2)
        assert not page.recovered
        assert (page.epoch, page.seq) == (epoch, 8)
        assert numbers(page.entries) == [7, 8]


def test_a_number_that_is_yet_to_come_changes_nothing_for_anybody(
    backend: Backend, host: RecordingHost
) -> None:
    """Clients choose the number: it may be any, and theirs alone is the answer."""
    backend.subscribe([ROOM])
    publish(backend, 3)
    epoch = backend.history(ROOM).epoch
    for after in (4, 9, 1 << 52, 1 << 53, 1 << 63, 1 << 200):
        page = backend.history(ROOM, after=after, epoch=epoch, limit=2)
        assert (page.epoch, page.seq, page.recovered) == (epoch, 3, False)
        assert numbers(page.entries) == [2, 3]
    resumed = backend.history(ROOM, after=1, epoch=epoch)
    assert (resumed.epoch, resumed.recovered) == (epoch, True)
    receipt = backend.publish(ROOM, Message("4"), keep=True)
    assert (receipt.epoch, receipt.seq) == (epoch, 4)
    assert {d.epoch for d in host.wait_for_count(4)} == {epoch}
    assert host.losses == []


def test_bounds_may_be_of_any_size(backend: Backend) -> None:
    publish(backend, 3)
    epoch = backend.history(ROOM).epoch
    for huge in (1 << 31, 1 << 53, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 200):
        assert numbers(backend.history(ROOM, limit=huge).entries) == [1, 2, 3]
        assert numbers(backend.history(ROOM, before=huge).entries) == [1, 2, 3]
        assert numbers(backend.history(ROOM, after=-huge).entries) == [1, 2, 3]
        assert backend.history(ROOM, after=huge).entries == []
        assert backend.history(ROOM, before=-huge).entries == []
        assert backend.history(ROOM, limit=-huge).entries == []
        page = backend.history(ROOM, after=1, epoch=epoch, limit=huge)
        assert page.recovered
        assert numbers(page.entries) == [2, 3]


def test_positions_of_one_topic_are_none_of_another(backend: Backend) -> None:
    """A client whose user changes must not go on in the other's inbox."""
    publish(backend, 3, "user:ann")
    publish(backend, 3, "user:bob")
    ann, bob = backend.history("user:ann"), backend.history("user:bob")
    assert ann.epoch != bob.epoch
    page = backend.history("user:bob", after=2, epoch=ann.epoch)
    assert not page.recovered
    assert numbers(page.entries) == [1, 2, 3]
    receipt = backend.publish("user:bob", Message("4"), keep=True)
    assert receipt.epoch == bob.epoch


def test_processes_share_history_and_epochs(two: Two) -> None:
    (backend, _), (other, _) = two
    publish(backend, 2)
    publish(other, 2, start=3)
    page = backend.history(ROOM)
    assert page == other.history(ROOM)
    assert numbers(page.entries) == [1, 2, 3, 4]
    assert other.history(ROOM, after=2, epoch=page.epoch).recovered


# -- messages tried again


def test_a_mid_is_stored_once(backend: Backend, host: RecordingHost) -> None:
    backend.subscribe([ROOM, "room:b"])
    said = Message("1", sender="ann", mid="m")
    first = backend.publish(ROOM, said, keep=True)
    publish(backend, 1, start=2)
    again = backend.publish(ROOM, said._replace(data="again"), keep=True)
    assert again == first._replace(fresh=False)
    # Another sender's, another topic's and what is not kept are others.
    assert backend.publish(ROOM, said._replace(sender="bob"), keep=True).seq == 3
    assert backend.publish(ROOM, said._replace(sender=None), keep=True).seq == 4
    assert backend.publish("room:b", said, keep=True).seq == 1
    assert backend.publish(ROOM, said).fresh
    assert backend.publish(ROOM, said._replace(mid="n"), keep=True).seq == 5
    assert len(host.wait_for_count(7)) == 7
    mids = [entry.mid for entry in backend.history(ROOM).entries]
    assert mids == ["m", None, "m", "m", "n"]


def test_mids_are_remembered_four_times_as_long_as_messages(backend: Backend) -> None:
    for number in range(1, 21):
        backend.publish(ROOM, Message("x", sender="ann", mid=str(number)), keep=True)
    for number in range(1, 21):
        message = Message("x", sender="ann", mid=str(number))
        receipt = backend.publish(ROOM, message, keep=True)
        assert (receipt.seq, receipt.fresh) == (number, False)


def test_of_many_attempts_at_once_one_is_stored(two: Two) -> None:
    backends = [backend for backend, _ in two]
    fresh: Counter[str] = Counter()

    def say(backend: Backend) -> None:
        for number in range(20):
            message = Message("x", sender="ann", mid=str(number))
            if backend.publish(ROOM, message, keep=True).fresh:
                fresh[str(number)] += 1

    together([lambda b=b: say(b) for b in backends * 4])  # type: ignore[misc]
    assert fresh == {str(number): 1 for number in range(20)}
    assert backends[0].history(ROOM).seq == 20


# -- messages that follow others


def follow(
    backend: Backend,
    mid: str,
    prev: str | None,
    topic: str = ROOM,
    sender: str | None = "ann",
) -> int | None:
    """Say ``mid`` after ``prev``; return its number, None: it is refused."""
    said = Message(mid, sender=sender, mid=mid, prev=prev)
    try:
        return backend.publish(topic, said, keep=True).seq
    except OutOfOrder:
        return None


@pytest.mark.parametrize("topic", [ROOM, "user:bob"])
def test_what_follows_a_message_is_stored_only_after_it(
    backend: Backend, host: RecordingHost, topic: str
) -> None:
    backend.subscribe([topic])
    assert follow(backend, "2", "1", topic) is None  # where nothing is known at all
    assert [follow(backend, "1", None, topic), follow(backend, "2", "1", topic)] == [
        1,
        2,
    ]
    assert follow(backend, "4", "3", topic) is None
    assert follow(backend, "4", "4", topic) is None
    # What is stored is stored, whatever was said to come before it.
    assert follow(backend, "2", "3", topic) == 2
    assert [follow(backend, mid, "2", topic) for mid in "34"] == [3, 4]
    # Another sender's, another topic's, and what has no mid, come before nothing.
    assert follow(backend, "5", "4", topic, "bob") is None
    assert follow(backend, "5", "4", topic, None) is None
    assert follow(backend, "5", "4", "room:b") is None
    assert follow(backend, "5", "", topic) is None
    assert follow(backend, "5", "żółw", topic) is None
    assert [d.message.data for d in host.wait_for_count(4)] == ["1", "2", "3", "4"]
    entries = backend.history(topic).entries
    assert [entry.data for entry in entries] == ["1", "2", "3", "4"]
    # What is not kept follows nothing.
    said = Message("6", sender="ann", mid="6", prev="5")
    assert backend.publish(topic, said).seq == 0


@pytest.mark.parametrize("topic", [ROOM, "user:bob"])
def test_of_what_comes_together_all_that_follows_a_missing_one_is_refused(
    backend: Backend, host: RecordingHost, topic: str
) -> None:
    backend.subscribe([topic])
    outcomes: queue.SimpleQueue[tuple[str, int | None]] = queue.SimpleQueue()

    def submit(mid: str, prev: str | None, sender: str = "ann") -> None:
        def done(outcome: Receipt | Exception) -> None:
            assert isinstance(outcome, Receipt | OutOfOrder)
            number = None if isinstance(outcome, OutOfOrder) else outcome.seq
            outcomes.put((f"{sender} {mid}", number))

        message = Message(f"{sender} {mid}", sender=sender, mid=mid, prev=prev)
        backend.submit(topic, message, done, keep=True)

    submit("1", None)
    submit("2", "1")
    for mid in "456":  # 3 is missing, and comes too late
        submit(mid, str(int(mid) - 1))
        submit(mid, None if mid == "4" else str(int(mid) - 1), "eve")
    submit("3", "2")
    submit("5", "4", "eve")  # is stored: whatever comes before it
    submit("8", "9")  # comes before the one that it follows
    submit("9", None)
    got = dict(outcomes.get(timeout=DEADLINE) for _ in range(12))
    assert got == {
        **{f"ann {mid}": None for mid in "4568"},
        **{"ann 1": 1, "ann 2": 2, "eve 4": 3, "eve 5": 4, "eve 6": 5},
        **{"ann 3": 6, "ann 9": 7},
    }
    for mid, prev in (("4", None), ("5", "4"), ("6", "5")):
        submit(mid, prev)
    assert [outcomes.get(timeout=DEADLINE)[1] for _ in "456"] == [8, 9, 10]
    heard = [delivery.message for delivery in host.wait_for_count(10)]
    ann = [message.data for message in heard if message.sender == "ann"]
    assert ann == [f"ann {mid}" for mid in "1239456"]


@pytest.mark.parametrize("topic", [ROOM, "user:bob"])
@pytest.mark.parametrize("seed", range(3))
def test_what_follows_what_is_as_one_who_counts_says(
    cluster: Cluster, topic: str, seed: int
) -> None:
    """Whatever is said in whatever order, and however much of it comes together."""
    backend, _ = cluster.start(size=1000, share=1)
    chance = random.Random(seed)
    expected: list[int | None] = []
    stored: dict[tuple[str, str], int] = {}
    outcomes: queue.SimpleQueue[Receipt | Exception] = queue.SimpleQueue()
    newest = 0
    for _ in range(300):
        sender = chance.choice(["ann", "ben", "bob"])
        mid, prev = (str(chance.randrange(newest + 3)) for _ in "12")
        said = Message("x", sender=sender, mid=mid, prev=chance.choice([prev, None]))
        if (sender, mid) in stored or not said.prev or (sender, prev) in stored:
            newest += (sender, mid) not in stored
            expected.append(stored.setdefault((sender, mid), newest))
        else:
            expected.append(None)
        backend.submit(topic, said, outcomes.put, keep=True)
    found = [outcomes.get(timeout=DEADLINE) for _ in expected]
    assert expected.count(None) > 20
    assert [
        outcome.seq if isinstance(outcome, Receipt) else None for outcome in found
    ] == expected
    refused = [outcome for outcome in found if isinstance(outcome, Exception)]
    assert {type(outcome) for outcome in refused} == {OutOfOrder}


def test_what_follows_one_that_a_full_inbox_refuses_is_refused(
    cluster: Cluster,
) -> None:
    backend, _ = cluster.start(share=0.01)  # 16 messages, 64 KiB
    outcomes: queue.SimpleQueue[Receipt | Exception] = queue.SimpleQueue()
    for number in range(20):
        prev = str(number - 1) if number else None
        data = "x" * 40_000 if number in (0, 7) else "x"
        said = Message(data, sender="ann", mid=str(number), prev=prev)
        backend.submit("user:bob", said, outcomes.put, keep=True)
    kinds = [type(outcomes.get(timeout=DEADLINE)) for _ in range(20)]
    assert kinds == [Receipt] * 7 + [ShareTaken] + [OutOfOrder] * 12


def test_a_message_that_is_forgotten_is_followed_by_none(cluster: Cluster) -> None:
    backend, _ = cluster.start(size=2)
    said = Message("x", sender="ann", mid="1")
    backend.publish(ROOM, said, keep=True)
    assert follow(backend, "2", "1") == 2
    for number in range(3, 50):
        newest = follow(backend, str(number), str(number - 1))
        assert newest == number
    # It may have: after so many messages, or five minutes, as the storage has it.
    forgotten = follow(backend, "50", "1") is None
    # Whoever leaves it out gets on.
    assert follow(backend, "50", None) == 50
    assert backend.publish(ROOM, said, keep=True).fresh == forgotten


# -- shares of an inbox


def tell(
    backend: Backend, sender: str | None, mid: int, data: str = "x", to: str = "bob"
) -> Receipt:
    message = Message(data, sender=sender, mid=f"{mid}")
    return backend.publish(f"user:{to}", message, keep=True)


def answer(backend: Backend, to: str, mid: int) -> None:
    """Keep what bob tells somebody in his own inbox."""
    message = Message("x", sender="bob", mid=f"{mid}", to=to)
    backend.publish("user:bob", message, keep=True)


def refused(backend: Backend, sender: str, mid: int, data: str = "x") -> bool:
    try:
        tell(backend, sender, mid, data)
    except ShareTaken:
        return True
    return False


def test_one_user_fills_a_share_of_an_inbox(cluster: Cluster) -> None:
    backend, host = cluster.start(size=100, share=0.2)
    backend.subscribe(["user:bob"])
    tell(backend, "ann", 0)
    for number in range(20):
        tell(backend, "eve", number)
    assert all(refused(backend, "eve", number) for number in range(20, 300))
    # What was stored is known, and others are not in the way of one another.
    again = tell(backend, "eve", 3)
    assert (again.seq, again.fresh) == (5, False)
    assert tell(backend, "ann", 1).seq == 22
    page = backend.history("user:bob", limit=100)
    assert [entry.sender for entry in page.entries] == ["ann", *["eve"] * 20, "ann"]
    assert len(host.wait_for_count(22)) == 22


def test_an_answer_gives_a_share_back(cluster: Cluster) -> None:
    backend, _ = cluster.start(size=100, share=0.2)
    for number in range(20):
        tell(backend, "eve", number)
        tell(backend, "ann", number)
    answer(backend, "ann", 1)
    assert refused(backend, "eve", 20)
    answer(backend, "eve", 2)
    for number in range(20, 40):
        tell(backend, "eve", number)
    assert refused(backend, "eve", 40)
    assert not refused(backend, "ann", 20)


def test_what_is_pushed_out_takes_no_share(cluster: Cluster) -> None:
    backend, _ = cluster.start(size=40, share=0.2)
    for number in range(16):
        tell(backend, "eve", number)
    assert refused(backend, "eve", 16)
    for number in range(39):
        tell(backend, None, number)
    assert refused(backend, "eve", 16)
    tell(backend, None, 39)
    assert not refused(backend, "eve", 16)


def test_a_share_comes_back_with_time(cluster: Cluster) -> None:
    backend, _ = cluster.start(ttl=0.5, size=1000, share=0.001)
    for number in range(16):
        tell(backend, "eve", number)
    eventually(lambda: not refused(backend, "eve", 16))


def test_a_share_is_of_bytes_too(cluster: Cluster) -> None:
    backend, _ = cluster.start(size=100, max_bytes=400_000)
    tell(backend, "eve", 1, "ż" * 30_000)
    assert not refused(backend, "eve", 2, "x" * 40_000)
    assert refused(backend, "eve", 3, "x")
    # One message always may be told.
    assert not refused(backend, "ann", 1, "x" * 200_000)
    assert refused(backend, "ann", 2, "x")


def test_nobody_has_a_share_of_what_is_no_others_inbox(cluster: Cluster) -> None:
    backend, _ = cluster.start(size=20, share=0.1)
    for number in range(50):
        tell(backend, None, number)
        tell(backend, "bob", number)
        said = Message("x", sender="eve", mid=f"{number}")
        backend.publish(ROOM, said, keep=True)
        backend.publish("user:bob", said)
    open_to_all, _ = cluster.start(size=20, share=1)
    for number in range(50):
        tell(open_to_all, "eve", number, to="eve's friend")


def test_a_share_is_one_over_all_processes(two: Two) -> None:
    backends = [backend for backend, _ in two]
    results: Counter[bool] = Counter()

    def fill(backend: Backend, name: int) -> None:
        for number in range(10):
            results[refused(backend, "eve", 100 * name + number)] += 1

    together(
        [
            lambda n=n: fill(backends[n % 2], n)  # type: ignore[misc]
            for n in range(4)
        ]
    )
    assert results == {False: 16, True: 24}


def test_many_who_tell_leave_little(cluster: Cluster) -> None:
    backend, _ = cluster.start(size=5, linger=0.1)
    for number in range(100):
        tell(backend, f"user {number}", 1)
    eventually(lambda: cluster.store.tellers(backend, "user:bob") <= 11)


# -- people


def test_a_claim_is_seen_by_all_and_told_once(two: Two) -> None:
    (backend, _), (other, host) = two
    claimed = Message("", event="claim")
    other.subscribe([ROOM, "room:b", "room:c"])
    before = backend.publish(ROOM, Message("1"), keep=True)
    assert not other.history(ROOM).plain
    backend.claim([ROOM, "room:b"], claimed)
    backend.claim([ROOM], claimed)
    other.claim(["room:b", "room:c"], claimed)
    after = other.publish(ROOM, Message("2"), keep=True)
    kept = host.wait_for_count(5)
    told = [(d.topic, d.seq) for d in kept]
    assert [seq for topic, seq in told if topic == ROOM] == [1, 0, 2]
    assert told.count(("room:b", 0)) == told.count(("room:c", 0)) == 1
    assert [d.message for d in kept if not d.seq] == [claimed] * 3
    # Numbers and positions go on.
    assert after.epoch == before.epoch
    for process in (backend, other):
        assert process.history(ROOM, after=1, epoch=before.epoch)[2:5] == (
            process.history(ROOM, limit=1).entries,
            True,
            True,
        )
        assert process.history("room:b").plain and process.history("room:c").plain
        assert not process.history("room:d").plain


def test_a_claim_lasts_as_long_as_what_is_kept_or_it_is_renewed(
    cluster: Cluster,
) -> None:
    backend, _ = cluster.start(ttl=0.5)
    claimed = Message("", event="claim")
    backend.claim([ROOM, "room:b"], claimed)
    first = backend.publish(ROOM, Message("x"), keep=True)

    def is_over() -> bool:
        backend.claim(["room:b"], claimed)
        return backend.publish(ROOM, Message("x"), keep=True).at > first.at + 2

    eventually(is_over)
    assert backend.history(ROOM).plain and backend.history("room:b").plain


def heard(host: RecordingHost, topic: str = ROOM) -> list[News]:
    """Return the news that came, in order."""
    deliveries = [d for d in list(host.deliveries) if d.topic == topic]
    return [News.of(d.message) for d in deliveries if d.message.event == PRESENCE]


def last_heard(host: RecordingHost, backend: Backend, topic: str = ROOM) -> set[str]:
    """Return who is there by the news since ``host`` began to listen."""
    version = backend.present(topic).version
    host.wait_for(lambda: heard(host, topic)[-1].version == version)
    there: set[str] = set()
    last: int | None = None
    for news in heard(host, topic):
        assert last is None or news.version == last + 1
        last = news.version
        # Each is a change: who comes was not there, and who goes was.
        assert there.isdisjoint(news.joined) and there.issuperset(news.left)
        there = (there | set(news.joined)) - set(news.left)
    return there


def test_who_comes_first_and_goes_last_is_told(
    backend: Backend, host: RecordingHost
) -> None:
    backend.subscribe([ROOM, "room:b", "user:ann", "all"])
    backend.attend([(ROOM, "ann", 1), (ROOM, "bob", 2), ("room:b", "ann", 1)])
    backend.attend([(ROOM, "ann", 3), (ROOM, "eve", 0)])
    backend.attend([(ROOM, "ann", 0)])
    backend.attend([(ROOM, "ann", 0), (ROOM, "bob", 1)])
    backend.attend([("user:ann", "ann", 1), ("all", "ann", 1)])
    backend.attend([])
    backend.attend([(ROOM, 'e"\\/ż', 1)])
    host.wait_for(lambda: len(heard(host)) == 3)
    told = [(sorted(news.joined), news.left) for news in heard(host)]
    assert told == [(["ann", "bob"], []), ([], ["ann"]), (['e"\\/ż'], [])]
    assert [news.joined for news in heard(host, "room:b")] == [["ann"]]
    assert heard(host, "user:ann") == heard(host, "all") == []
    there = backend.present(ROOM)
    assert there.users == there.here == {"bob": 1, 'e"\\/ż': 1}
    assert [news.version for news in heard(host)] == [
        *range(there.version - 2, there.version + 1)
    ]
    assert backend.present("all").users == {"ann": 1}
    assert not backend.refresh()


def test_an_empty_room_s_news_go_on_with_a_higher_version(
    backend: Backend, host: RecordingHost
) -> None:
    backend.subscribe([ROOM, "room:b"])
    for count in (1, 0) * 5:
        backend.attend([(ROOM, "ann", count), ("room:b", "bob", count)])
        assert backend.present(ROOM).version
    host.wait_for(lambda: len(heard(host)) == len(heard(host, "room:b")) == 10)
    for topic in (ROOM, "room:b"):
        versions = [news.version for news in heard(host, topic)]
        assert versions == sorted({*versions})


def test_users_are_counted_over_processes(two: Two) -> None:
    (one, host), (other, _) = two
    one.subscribe([ROOM])
    one.attend([(ROOM, "ann", 2), (ROOM, "bob", 1)])
    other.attend([(ROOM, "ann", 1), (ROOM, "eve", 1)])
    there = one.present(ROOM)
    assert there.users == {"ann": 3, "bob": 1, "eve": 1}
    assert there.here == {"ann": 2, "bob": 1}
    assert other.present(ROOM) == there._replace(here={"ann": 1, "eve": 1})
    assert other.present("room:b").users == {}
    one.attend([(ROOM, "ann", 0), (ROOM, "bob", 0)])
    assert other.present(ROOM).users == {"ann": 1, "eve": 1}
    other.attend([(ROOM, "ann", 0)])
    assert last_heard(host, other) == {"eve"}
    changes = [(sorted(news.joined), news.left) for news in heard(host)]
    assert changes == [
        (["ann", "bob"], []),
        (["eve"], []),
        ([], ["bob"]),
        ([], ["ann"]),
    ]


def test_each_change_is_told_once_in_the_order_of_its_version(two: Two) -> None:
    for backend, _ in two:
        backend.subscribe([ROOM])
        backend.attend([(ROOM, "zoe", 1)])

    def visit(backend: Backend) -> None:
        for number in range(20):
            for count in (1, 0):
                backend.attend([(ROOM, f"user{number % 4}", count)])

    together([lambda b=b: visit(b) for b, _ in two])  # type: ignore[misc]
    for _, host in two[:1]:
        assert last_heard(host, two[1][0]) == {"zoe"}
    assert two[0][0].present(ROOM).users == {"zoe": 2}


def test_a_dead_process_has_nobody(sharing: Cluster) -> None:
    dead, _ = sharing.start(presence_ttl=0.5)
    one, host = sharing.start(presence_ttl=0.5)
    other, _ = sharing.start(presence_ttl=0.5)
    one.subscribe([ROOM, "room:b"])
    dead.attend([(ROOM, "ann", 1), (ROOM, "bob", 1), ("room:b", "ann", 1)])
    one.attend([(ROOM, "bob", 1)])
    assert other.present(ROOM, heard=True).users == {"ann": 1, "bob": 2}

    def refresh() -> bool:
        assert not one.refresh() and not other.refresh()
        return bool(heard(host)[1:] and heard(host, "room:b")[1:])

    assert not refresh()
    eventually(refresh)
    refresh()
    assert last_heard(host, other) == {"bob"}
    assert last_heard(host, other, "room:b") == set()
    assert other.present(ROOM).users == {"bob": 1}

    # It was only asleep: it says again who is there.
    assert dead.refresh()
    dead.attend([(ROOM, "ann", 1), (ROOM, "bob", 1)])
    assert not dead.refresh()
    assert other.present(ROOM).users == {"ann": 1, "bob": 2}
    assert last_heard(host, other) == {"ann", "bob"}


def test_a_process_taken_for_dead_is_told_even_if_it_attends_first(
    sharing: Cluster,
) -> None:
    asleep, _ = sharing.start(presence_ttl=0.3)
    other, host = sharing.start(presence_ttl=0.3)
    other.subscribe([ROOM])
    asleep.attend([(ROOM, "ann", 1), (ROOM, "bob", 1)])
    eventually(lambda: other.refresh() or not other.present(ROOM).users)
    asleep.attend([(ROOM, "bob", 1)])
    assert asleep.refresh()
    asleep.attend([(ROOM, "bob", 1)])
    assert not asleep.refresh()
    assert not asleep.refresh()
    assert other.present(ROOM).users == {"bob": 1}
    assert last_heard(host, other) == {"bob"}
    assert [news.left for news in heard(host)].count(["bob"]) == 0


def test_who_lives_is_not_taken_for_dead(sharing: Cluster) -> None:
    one, _ = sharing.start(presence_ttl=0.4)
    other, _ = sharing.start(presence_ttl=0.4)
    start = one.publish(ROOM, Message("")).at
    one.attend([(ROOM, "ann", 1)])

    def later() -> bool:
        assert not one.refresh() and not other.refresh()
        assert other.present(ROOM, heard=True).users == {"ann": 1}
        return one.publish(ROOM, Message("")).at > start + 1

    eventually(later)


def test_nobody_dies_of_a_time_in_which_nobody_was_heard_of(sharing: Cluster) -> None:
    """The storage was away for longer than a process is believed to live."""
    one, _ = sharing.start(presence_ttl=0.3)
    other, _ = sharing.start(presence_ttl=0.3)
    for backend, user in ((one, "ann"), (other, "bob")):
        backend.attend([(ROOM, user, 1)])
        assert not backend.refresh()
    eventually(lambda: not one.present(ROOM, heard=True).users)
    # One that is new is no reason either.
    new, _ = sharing.start(presence_ttl=0.3)
    new.attend([("room:b", "cy", 1)])
    for backend in (new, one, other, one, new):
        assert not backend.refresh()
        assert one.present(ROOM).users == {"ann": 1, "bob": 1}
    assert new.present(ROOM, heard=True).users == {"ann": 1, "bob": 1}


def test_a_process_that_stops_takes_its_people_along(sharing: Cluster) -> None:
    one, _ = sharing.start()
    other, host = sharing.start()
    other.subscribe([ROOM])
    one.attend([(ROOM, "ann", 1)])
    one.stop()
    assert other.present(ROOM).users == {}
    assert last_heard(host, other) == set()


# -- polls


def test_a_voter_has_one_choice(backend: Backend) -> None:
    assert backend.tally("tea", "ann") == Tally({}, 0, False)
    first = backend.vote("tea", "ann", "green")
    assert first is not None
    assert (first.counts, first.closed, first.mine) == ({"green": 1}, False, "green")
    backend.vote("tea", "bob", "green")
    backend.vote("lunch", "ann", "soup")
    third = backend.vote("tea", "ann", "black")
    assert third is not None
    assert third.version > first.version
    assert {k: v for k, v in third.counts.items() if v} == {"green": 1, "black": 1}
    assert third.mine == "black"
    again = backend.vote("tea", "ann", "black")
    assert again is not None
    assert again.version >= third.version
    assert again.counts == third.counts
    assert backend.tally("tea", "bob") == again._replace(mine="green")
    assert (
        backend.tally("tea", "eve") == backend.tally("tea") == again._replace(mine=None)
    )


def test_who_votes_again_and_again_takes_no_more_room(backend: Backend) -> None:
    for turn in range(300):
        backend.vote("tea", "ann", f"tea {turn % 3}")
    tally = backend.vote("tea", "ann", "tea 0")
    assert tally is not None
    assert {choice for choice, count in tally.counts.items() if count} == {"tea 0"}
    assert len(tally.counts) <= 3
    assert sum(tally.counts.values()) == 1


def test_a_closed_poll_takes_no_votes_until_it_is_opened(backend: Backend) -> None:
    vote = backend.vote("tea", "ann", "green")
    assert vote is not None
    closed = backend.close_poll("tea")
    assert (closed.closed, closed.counts) == (True, {"green": 1})
    assert closed.version > vote.version
    assert backend.vote("tea", "ann", "black") is None
    assert backend.vote("tea", "bob", "black") is None
    assert backend.tally("tea", "ann") == closed._replace(mine="green")
    opened = backend.close_poll("tea", closed=False)
    assert not opened.closed
    assert opened.version > closed.version
    assert backend.vote("tea", "bob", "green") is not None
    assert backend.tally("tea").counts == {"green": 2}
    assert backend.close_poll("never seen").closed
    assert backend.vote("never seen", "ann", "x") is None


def test_no_vote_is_lost_or_counted_twice(two: Two) -> None:
    versions: list[list[int]] = []

    def vote(backend: Backend, voter: int) -> None:
        seen = []
        for turn in range(4):
            tally = backend.vote("tea", f"voter{voter}", f"tea{(voter + turn) % 3}")
            assert tally is not None
            assert sum(tally.counts.values()) <= 50
            seen.append(tally.version)
        versions.append(seen)

    together(
        [
            lambda voter=voter: vote(two[voter % 2][0], voter)  # type: ignore[misc]
            for voter in range(50)
        ]
    )
    expected = Counter(f"tea{voter % 3}" for voter in range(50))
    for backend, _ in two:
        assert backend.tally("tea").counts == expected
    assert all(seen == sorted(set(seen)) for seen in versions)


def test_votes_of_threads_in_one_process(backend: Backend) -> None:
    together(
        [
            lambda voter=voter: backend.vote("tea", f"{voter}", "green")  # type: ignore[misc]
            for voter in range(50)
        ]
    )
    assert backend.tally("tea").counts == {"green": 50}


def test_a_poll_closed_anywhere_is_closed_everywhere(two: Two) -> None:
    (one, _), (other, _) = two
    one.vote("tea", "ann", "green")
    other.close_poll("tea")
    assert one.vote("tea", "bob", "green") is None
    assert one.tally("tea") == other.tally("tea")


# -- polls made at run time


def test_a_poll_made_in_one_process_is_known_in_all(two: Two) -> None:
    (one, _), (other, _) = two
    assert other.made_poll("tea") is None and other.made_polls() == []
    made = one.make_poll("tea", "id1", '["żółw 🐢"]\n{}', 60)
    assert (made.name, made.id, made.text) == ("tea", "id1", '["żółw 🐢"]\n{}')
    assert time.time() - 60 < made.at <= time.time() + 1
    assert other.made_poll("tea") == made
    assert other.make_poll("tea", "id2", "other", 60) == made
    assert other.made_polls() == one.made_polls() == [made]
    tally = other.vote("tea", "ann", "green", "id1")
    assert tally is not None
    assert one.tally("tea", "ann", "id1") == tally
    assert one.close_poll("tea", id="id1").closed
    assert other.vote("tea", "bob", "green", "id1") is None
    assert not other.close_poll("tea", False, "id1").closed
    assert one.vote("tea", "bob", "green", "id1") is not None
    # One of the code has the name for itself.
    assert one.tally("tea") == Tally({}, 0, False)


def test_a_deleted_poll_takes_its_votes_along(backend: Backend) -> None:
    backend.make_poll("tea", "id1", "x", 60)
    voted = backend.vote("tea", "ann", "green", "id1")
    assert voted is not None
    assert not backend.delete_poll("tea", "id0")
    assert backend.delete_poll("tea", "id1")
    assert not backend.delete_poll("tea", "id1")
    calls: tuple[Callable[[], object], ...] = (
        lambda: backend.vote("tea", "ann", "green", "id1"),
        lambda: backend.tally("tea", None, "id1"),
        lambda: backend.close_poll("tea", True, "id1"),
    )
    for call in calls:
        with pytest.raises(UnknownPoll, match="'tea'"):
            call()
    assert backend.made_poll("tea") is None and backend.made_polls() == []
    backend.make_poll("tea", "id2", "y", 60)
    anew = backend.tally("tea", "ann", "id2")
    assert (anew.counts, anew.mine) == ({}, None)
    assert voted.version < anew.version < 2**53
    with pytest.raises(UnknownPoll):
        backend.vote("tea", "ann", "green", "id1")


def test_a_poll_and_its_votes_are_forgotten_together(backend: Backend) -> None:
    backend.make_poll("long", "a", "x", 60)
    backend.make_poll("tea", "id1", "x", 0.3)
    assert backend.vote("tea", "ann", "green", "id1") is not None
    eventually(lambda: backend.made_poll("tea") is None)
    with pytest.raises(UnknownPoll):
        backend.vote("tea", "ann", "green", "id1")
    assert [made.name for made in backend.made_polls()] == ["long"]
    backend.make_poll("tea", "id2", "x", 60)
    assert backend.tally("tea", "ann", "id2").counts == {}
    assert [made.id for made in backend.made_polls()] == ["id2", "a"]


@pytest.mark.parametrize("name", ["{a}", "a}b{", "a b", "'; --", "%s*?[", "żółw 🐢"])
def test_a_poll_may_have_any_name(backend: Backend, name: str) -> None:
    made = backend.make_poll(name, "id", "x", 60)
    assert backend.made_polls() == [made] and backend.made_poll(name) == made
    assert backend.vote(name, name, name, "id") is not None
    assert backend.delete_poll(name, "id") and backend.made_polls() == []


def test_of_those_who_make_a_poll_at_once_one_does(two: Two) -> None:
    had: list[str] = []

    def make(number: int) -> None:
        made = two[number % 2][0].make_poll("tea", f"id{number}", str(number), 60)
        assert made.id == f"id{made.text}"
        had.append(made.id)

    together([lambda n=n: make(n) for n in range(20)])  # type: ignore[misc]
    assert len(had) == 20 and len(set(had)) == 1
    for backend, _ in two:
        assert [made.id for made in backend.made_polls()] == had[:1]


def test_polls_are_only_so_many(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("polls", "sqlite.made", "redis.polls"):
        monkeypatch.setattr(f"flask_wschat.backends.{module}.MOST_POLLS", 3)
    made: list[MadePoll] = []
    with pytest.raises(TooManyPolls, match="3 polls are stored"):
        while True:
            made.append(backend.make_poll(f"tea{len(made)}", "id", "x", 60))
    assert 3 <= len(made) <= 6  # of two Redis each has its own
    assert backend.made_polls() == made[::-1]
    assert backend.make_poll("tea0", "id", "x", 60) == made[0]
    for each in made:
        backend.delete_poll(each.name, each.id)
    backend.make_poll("tea", "id", "x", 60)


# -- what may happen once


def test_a_key_is_had_once_and_by_one(two: Two) -> None:
    backends = [backend for backend, _ in two]
    had: list[bool] = []
    assert not any(backend.taken("k") for backend in backends)
    together(
        [lambda n=n: had.append(backends[n % 2].once("k", 60)) for n in range(20)]  # type: ignore[misc]
    )
    assert sorted(had) == [False] * 19 + [True]
    assert all(backend.taken("k") for backend in backends)
    assert backends[1].once("l", 60) and not backends[0].once("l", 60)


@pytest.mark.parametrize(
    "key", ["", "{a}", "a}b{", "a b\n", "\0", "'; --", "%s*?[", "żółw 🐢", "k" * 300]
)
def test_a_key_may_be_any_text(backend: Backend, key: str) -> None:
    assert backend.once(key, 60)
    assert not backend.once(key, 60) and backend.taken(key)
    assert not backend.taken(key + ".") and backend.once(key + ".", 60)


def test_a_key_is_forgotten_when_its_time_is_over(backend: Backend) -> None:
    assert backend.once("k", 0.05) and backend.once("long", 60)
    eventually(lambda: not backend.taken("k"))
    assert backend.once("k", 60) and not backend.once("k", 60)
    assert not backend.once("long", 60)


# -- what one at a time has


def test_a_lease_is_had_by_one(two: Two) -> None:
    backends = [backend for backend, _ in two]
    had: list[str] = []

    def take(n: int) -> None:
        if backends[n % 2].lease("k", f"{n}", 60):
            had.append(f"{n}")

    together([lambda n=n: take(n) for n in range(20)])  # type: ignore[misc]
    (holder,) = had
    for backend in backends:  # as a holder may who has moved
        assert backend.lease("k", holder, 60) and not backend.lease("k", "x", 60)
        backend.release("k", "x")
        assert not backend.lease("k", "x", 60) and backend.lease("l", "x", 60)
    backends[0].release("k", holder)
    backends[0].release("k", holder)
    backends[1].release("nobody's", holder)
    assert backends[1].lease("k", "x", 60) and not backends[0].lease("k", holder, 60)


def test_a_lease_that_is_not_renewed_is_for_others(two: Two) -> None:
    (one, _), (other, _) = two
    for key, seconds in (("k", 60), ("k", 0.05), ("renewed", 0.05), ("renewed", 60)):
        assert one.lease(key, "a", seconds)
    eventually(lambda: other.lease("k", "b", 60))
    assert not one.lease("k", "a", 60) and not other.lease("renewed", "b", 60)


@pytest.mark.parametrize(
    "key", ["", "{a}", "a}b{", "a b\n", "\0", "żółw 🐢", "k" * 300]
)
def test_a_lease_and_its_holder_may_be_any_text(backend: Backend, key: str) -> None:
    assert backend.lease(key, key, 60) and backend.lease(key, key, 60)
    assert not backend.lease(key, key + ".", 60) and backend.once(key, 60)
    assert backend.lease(key + ".", key + ".", 60)
    backend.release(key, key)
    assert backend.lease(key, key + ".", 60)


# -- beginning and end


def test_all_is_well_until_it_is_stopped(cluster: Cluster) -> None:
    backend, _ = cluster.start()
    assert backend.fault() is None
    publish(backend, 1)
    assert backend.fault() is None
    backend.stop()
    with pytest.raises(BackendError):
        backend.publish(ROOM, Message("x"), keep=True)
    backend.stop()


def test_what_was_stored_outlives_the_process(sharing: Cluster) -> None:
    backend, _ = sharing.start()
    publish(backend, 2)
    backend.publish(ROOM, Message("3", sender="ann", mid="m"), keep=True)
    backend.vote("tea", "ann", "green")
    backend.once("k", 60)
    backend.lease("k", "a", 60)
    page = backend.history(ROOM)
    backend.stop()
    other, _ = sharing.start()
    assert other.history(ROOM) == page
    assert not other.publish(ROOM, Message("", sender="ann", mid="m"), keep=True).fresh
    assert other.tally("tea", "ann").mine == "green"
    assert not other.once("k", 60)
    assert not other.lease("k", "b", 60) and other.lease("k", "a", 60)


def test_submitted_messages_keep_their_order(
    backend: Backend, host: RecordingHost
) -> None:
    """Their answers as well; the caller goes on at once."""
    backend.subscribe([ROOM])
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    for number in range(20):
        message = Message(str(number), sender="ann", mid=f"m{number % 10}")
        backend.submit(ROOM, message, answers.put, keep=True)
    receipts = [answers.get(timeout=5) for _ in range(20)]
    assert [getattr(r, "seq", r) for r in receipts] == [*range(1, 11)] * 2
    assert [getattr(r, "fresh", r) for r in receipts] == [True] * 10 + [False] * 10
    kept = host.wait_for_count(10)
    assert [(d.seq, d.message.data) for d in kept] == [
        (n + 1, str(n)) for n in range(10)
    ]


def test_a_page_is_cut_by_bytes(backend: Backend) -> None:
    epoch = backend.history(ROOM).epoch
    for number in range(6):
        backend.publish(ROOM, Message(str(number) * 100), keep=True)
    newest = backend.history(ROOM, max_bytes=250)
    assert [entry.seq for entry in newest.entries] == [5, 6]
    assert [e.seq for e in backend.history(ROOM, max_bytes=1).entries] == [6]
    after = backend.history(ROOM, after=1, epoch=epoch, max_bytes=250)
    assert after.recovered and [entry.seq for entry in after.entries] == [2, 3]


def test_a_deleted_message_leaves_its_number(
    backend: Backend, host: RecordingHost
) -> None:
    backend.subscribe([ROOM])
    for text in "one", "two", "three":
        backend.publish(ROOM, Message(text, sender="ann", mid=text), keep=True)
    assert backend.delete(ROOM, 2)
    assert not backend.delete(ROOM, 2)
    assert not backend.delete(ROOM, 9)
    assert not backend.delete(ROOM, 1 << 70)
    assert not backend.delete("room:nowhere", 1)
    news = host.wait_for_count(4)[3]
    assert (news.message.event, news.message.data, news.seq) == ("deleted", "2", 0)
    first, gone, last = backend.history(ROOM).entries
    assert (gone.seq, gone.data, gone.deleted) == (2, "null", True)
    assert gone.sender is None and not first.deleted and not last.deleted
    assert backend.taken_back(ROOM) == [2]
    assert backend.delete(ROOM, 1) and backend.taken_back(ROOM) == [1, 2]
    assert backend.taken_back("room:nowhere") == []
    # Its id is known: repeated, it does not come back.
    again = backend.publish(ROOM, Message("two", sender="ann", mid="two"), keep=True)
    assert (again.seq, again.fresh) == (2, False)
