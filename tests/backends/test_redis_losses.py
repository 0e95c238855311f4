"""What Redis has lost, or others have done to it, is told once, and then passed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flask_wschat.backends.redis.backend import RedisBackend
from flask_wschat.backends.redis.subscriber import Timings
from flask_wschat.errors import ShareTaken
from flask_wschat.messages import Entry, Message, Page
from tests.backends.cluster import Begin, RecordingHost
from tests.support.redis_server import RedisServer
from tests.support.waiting import DEADLINE, eventually

ROOM = "room:a"
META, LOG = "wschat:{room:a}:meta", "wschat:{room:a}:log"


class Processes:
    """Makes processes; each call without a name is done by one that knows nothing."""

    def __init__(self, url: str, begin: Begin) -> None:
        self._url = url
        self._begin = begin

    def new(self) -> RedisBackend:
        return self._begin(
            RedisBackend(self._url, max_bytes=1000, size=50, timings=Timings())
        )[0]

    def say(self, *texts: str) -> None:
        backend = self.new()
        for text in texts:
            backend.publish(ROOM, Message(text, sender="ann", mid=text), keep=True)

    def resume(self, page: Page, after: Entry | None = None, limit: int = 50) -> Page:
        """Ask as a client that has read ``page`` up to ``after``."""
        seq, tag = (page.seq, page.tag) if after is None else (after.seq, after.tag)
        return self.new().history(
            ROOM, after=seq, tag=tag, epoch=page.epoch, limit=limit
        )


@pytest.fixture
def processes(server: RedisServer, client: Any, begin: Begin) -> Processes:
    return Processes(server.url, begin)


def seqs(page: Page) -> list[int]:
    return [entry.seq for entry in page.entries]


def test_tags_are_a_chain(processes: Processes) -> None:
    processes.say("1", "2", "3")
    page = processes.new().history(ROOM)
    first, second, third = page.entries
    assert len({first.tag, second.tag, third.tag}) == 3
    assert page.tag == third.tag
    assert seqs(processes.resume(page, first)) == [2, 3]
    assert processes.resume(page).recovered
    for other in (second.tag, "nobody", "-"):
        assert not processes.resume(page, first._replace(tag=other)).recovered
        assert not processes.resume(page, third._replace(tag=other)).recovered
    assert processes.new().history(ROOM).epoch == page.epoch


@pytest.mark.parametrize("more", [1, 2, 3])
def test_numbers_given_again_by_a_stranger_are_noticed(
    processes: Processes, client: Any, more: int
) -> None:
    """As after a failover without the last messages, by a process that came later."""
    processes.say("1")
    older = {key: client.dump(key) for key in (META, LOG)}
    processes.say("2", "3")
    page = processes.new().history(ROOM)
    for key, value in older.items():
        client.restore(key, 0, value, replace=True)
    assert not processes.resume(page).recovered
    processes.say(*(f"other {n}" for n in range(more)))
    for known in page.entries[1:]:
        again = processes.resume(page, known)
        assert not again.recovered
        assert again.epoch == page.epoch  # nobody could know
        assert processes.resume(again).recovered
    assert seqs(processes.resume(page, page.entries[0])) == [*range(2, 2 + more)]


def test_a_number_put_back(processes: Processes, client: Any) -> None:
    processes.say("1", "2", "3", "4")
    page = processes.new().history(ROOM)
    client.hset(META, "seq", 2)
    assert not processes.resume(page).recovered
    processes.say("other")
    after = processes.new().history(ROOM)
    assert after.epoch != page.epoch  # the log knew better
    for known in page.entries:
        assert not processes.resume(page, known).recovered
    processes.say("5")
    assert seqs(processes.resume(after)) == [after.seq + 1]


@pytest.mark.parametrize("parts", [[META], [LOG], [META, LOG]])
def test_parts_that_are_deleted(
    processes: Processes, client: Any, parts: list[str]
) -> None:
    processes.say("1", "2", "3")
    page = processes.new().history(ROOM)
    client.delete(*parts)
    assert not processes.resume(page, page.entries[0]).recovered
    processes.say("4")
    assert not processes.resume(page, page.entries[0]).recovered
    now = processes.new().history(ROOM)
    assert [entry.data for entry in now.entries] == ["4"]
    assert processes.resume(page).recovered == (parts == [LOG])
    assert client.pttl(LOG) > 0 and client.pttl(META) > 0


@pytest.mark.parametrize("hole", ["deleted", "of a newer version", "no header"])
def test_a_hole_is_told_once(processes: Processes, client: Any, hole: str) -> None:
    processes.say("1", "2", "3")
    if hole == "deleted":
        processes.say("4")
        client.xdel(LOG, *[key for key, _ in client.xrange(LOG, 4, 4)])
    else:
        fields = {"9e9 tag before 4": "junk"}
        if hole == "of a newer version":
            fields = {"v": "2"}
        client.xadd(LOG, fields, id=f"4-{client.hget(META, 'said').decode()}")
        client.hset(META, "seq", 4)
    processes.say("5", "6")
    page = processes.new().history(ROOM)
    assert seqs(page) == [1, 2, 3, 5, 6]
    until = processes.resume(page, page.entries[0])
    assert until.recovered
    assert (seqs(until), until.seq) == ([2, 3], 6)
    told = processes.resume(page, until.entries[-1])
    assert not told.recovered
    assert told.epoch == page.epoch
    assert processes.resume(told).recovered
    assert seqs(processes.resume(told, told.entries[-2])) == [6]
    # As a client without tags has it.
    foreign = processes.new().history(ROOM, after=3, epoch=page.epoch)
    assert not foreign.recovered
    assert seqs(foreign) == [1, 2, 3, 5, 6]


def test_what_a_newer_version_adds_to_a_header_is_left_out(
    processes: Processes, client: Any
) -> None:
    backend = processes.new()
    host: Any = backend._host
    backend.subscribe([ROOM])
    processes.say("1")
    body = '{"json":true,"sender":"ann","mood":{"a":[1]}}\n"2"'
    said = client.hget(META, "said").decode()
    at = "9000000000.5 tag2 " + processes.new().history(ROOM).tag
    client.xadd(LOG, {f"{at} {len(body)}": body}, id=f"2-{said}")
    client.hset(META, mapping={"seq": 2, "tag": "tag2"})
    (channel,) = client.pubsub_channels("*room*")
    epoch = processes.new().history(ROOM).epoch
    payload = f"2 {epoch} 9000000000.5 tag2 tag1 {len(body)} {body}"
    client.publish(channel, payload)
    delivery = host.wait_for_count(2)[1]
    assert delivery.message == Message('"2"', json=True, sender="ann")
    assert (delivery.tag, delivery.before) == ("tag2", "tag1")
    entry = processes.new().history(ROOM).entries[1]
    assert (entry.data, entry.sender, entry.tag) == ('"2"', "ann", "tag2")


def test_pages_with_messages_that_were_taken_back(processes: Processes) -> None:
    processes.say(*"123456789")
    backend = processes.new()
    page = backend.history(ROOM)
    for seq in (1, 4, 5, 9):
        assert backend.delete(ROOM, seq)
    now = backend.history(ROOM)
    assert [e.seq for e in now.entries if e.deleted] == [1, 4, 5, 9]
    assert seqs(now) == [*range(1, 10)]
    assert [e.tag for e in now.entries] == [e.tag for e in page.entries]
    assert seqs(backend.history(ROOM, limit=3)) == [7, 8, 9]
    assert seqs(backend.history(ROOM, before=6, limit=3)) == [3, 4, 5]
    assert seqs(backend.history(ROOM, before=2)) == [1]
    for after in range(9):
        for limit in (1, 2, 20):
            known = page.entries[after - 1] if after else page.entries[0]
            known = known._replace(seq=after, tag=known.tag if after else "")
            resumed = processes.resume(page, known, limit)
            assert resumed.recovered
            assert seqs(resumed) == [*range(after + 1, 10)][:limit]
    processes.say(*(f"more {n}" for n in range(50)))
    assert seqs(backend.history(ROOM, limit=99)) == [*range(10, 60)]
    assert not backend.delete(ROOM, 9)


def test_large_and_small_together(processes: Processes) -> None:
    """Each comes as it was said, in one batch or in several."""
    backend = processes.new()
    host: Any = backend._host
    backend.subscribe([ROOM])
    sizes = [10, 5000, 1, 30_000, 2047, 2048, 70_000, 3, 300_000, 1]
    answers: list[Any] = []
    texts = [f"{n}" * size for n, size in enumerate(sizes)]
    for text in texts:
        backend.submit(ROOM, Message(text), answers.append, keep=True)
    deliveries = host.wait_for_count(10)
    assert [d.message.data for d in deliveries] == texts
    assert [d.seq for d in deliveries] == [*range(1, 11)]
    befores = [d.before for d in deliveries]
    assert befores == ["", *(d.tag for d in deliveries[:-1])]
    assert [e.data for e in backend.history(ROOM).entries] == texts[-1:]


def test_who_fails_when_told_keeps_nobody_else_waiting(
    processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    backend, told = processes.new(), list[Any]()
    held, go_on = threading.Event(), threading.Event()

    def hold(receipt: Any) -> None:
        held.set()
        assert go_on.wait(5)  # so that what follows leaves as one

    def fail(receipt: Any) -> None:
        raise KeyError("made by who is told")

    backend.submit(ROOM, Message("x"), hold, keep=True)
    assert held.wait(5)
    for done in (fail, told.append, fail, told.append):
        backend.submit(ROOM, Message("x"), done, keep=True)
    go_on.set()
    eventually(lambda: len(told) == 2, "all are told")
    assert caplog.text.count("made by who is told") >= 2


def test_of_a_topic_that_is_given_up_nothing_stays() -> None:
    """A body that was to come is not looked for in what comes later."""
    backend = RedisBackend("redis://127.0.0.1:1")
    host: Any = RecordingHost()
    backend.start(host)
    process = backend._here()
    process.published(ROOM, b"7 e 1.5 tag - 5 ")
    backend.unsubscribe([ROOM])
    process.published(ROOM, b"{}\nxy")
    assert host.deliveries == [] and process.position(ROOM) == ("", 0, "")
    process.published(ROOM, b"8 e 1.5 tag - 5 ")
    process.published(ROOM, b"{}\nxy")
    assert [d.seq for d in host.deliveries] == [8]
    backend.stop()


def test_mids_are_in_two_hashes_that_take_turns(
    processes: Processes, client: Any
) -> None:
    backend = processes.new()

    def say(first: int, count: int, fresh: bool = True) -> None:
        for n in range(first, first + count):
            message = Message("x", sender="ann", mid=f"m{n}")
            assert backend.publish(ROOM, message, keep=True).fresh == fresh

    def sizes() -> list[int]:
        for key in ("wschat:{room:a}:mids0", "wschat:{room:a}:mids1"):
            assert client.pttl(key) != -1
        return [client.hlen(f"wschat:{{room:a}}:mids{n}") for n in (0, 1)]

    say(0, 100)
    assert sizes() == [100, 0]
    for turn in (1, 2, 3):  # as if five minutes had gone by
        start = 100 * turn
        client.hset(META, "turned", 0)
        say(start, 100)
        say(start - 5, 105, fresh=False)
    assert sum(sizes()) < 300
    say(0, 1)  # that one is forgotten
    client.hset(META, "turned", 0)
    backend.history(ROOM)
    say(305, 60, fresh=False)  # nothing new: nothing is forgotten


def test_a_share_is_counted_within_a_batch(processes: Processes) -> None:
    backend = processes.new()
    answers: list[Any] = []
    for n in range(40):
        sender = "ann" if n % 2 else "ben"
        message = Message("x", sender=sender, mid=f"{n}")
        backend.submit("user:eve", message, answers.append, keep=True)
    eventually(lambda: len(answers) == 40)
    taken = [n for n, answer in enumerate(answers) if isinstance(answer, ShareTaken)]
    assert taken == [*range(32, 40)]
    assert [a.seq for a in answers[:32]] == [*range(1, 33)]
    answer = Message("thanks", sender="eve", mid="a", to="ann")
    backend.publish("user:eve", answer, keep=True)
    again = Message("x", sender="ann", mid="again")
    assert backend.publish("user:eve", again, keep=True).seq == 34


@pytest.mark.parametrize("keep", [True, False])
def test_who_submits_after_another_is_not_before_himself(
    server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    """A thread that has begun a batch, and loses its turn before it is on its way."""
    backend, host = RedisBackend(server.url), RecordingHost()
    backend.start(host)
    backend.subscribe([ROOM])
    process = backend._here()
    put, held, go = process.put, threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> None:
        if not held.is_set():
            held.set()
            go.wait(DEADLINE)
        put(*args, **options)

    monkeypatch.setattr(process, "put", slow)
    done: list[object] = []
    first = threading.Thread(
        target=backend.submit,
        args=(ROOM, Message("0"), done.append),
        kwargs={"keep": True},
    )
    first.start()
    assert held.wait(DEADLINE)
    for number in range(1, 100):
        backend.submit(
            ROOM, Message(str(number)), done.append, keep=keep or number % 2 == 1
        )
    go.set()
    first.join(DEADLINE)
    host.wait_for(lambda: len(host.data(ROOM)) == 100)
    assert host.data(ROOM) == list(map(str, range(100)))
    assert not process.publisher._lines
    backend.stop()
