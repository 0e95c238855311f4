"""What a cluster does to a backend; what each promises is in test_contract."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.crc import key_slot

from flask_wschat.backends import open as open_backend
from flask_wschat.backends.redis import RedisBackend
from flask_wschat.backends.redis.cluster import ClusterAddress, Router
from flask_wschat.backends.redis.jobs import Job, Outcome
from flask_wschat.backends.redis.pipe import Pipe
from flask_wschat.backends.redis.slots import Slots, slot_of
from flask_wschat.backends.redis.subscriber import Timings
from flask_wschat.backends.redis.wire import Call
from flask_wschat.errors import BackendError, ConfigError
from flask_wschat.messages import Message, Receipt
from tests.backends.cluster import PROGRAMS, Begin, RecordingHost, run_program
from tests.backends.talk import Talk, check
from tests.support.ports import free_port
from tests.support.redis_cluster import RedisCluster
from tests.support.waiting import DEADLINE, LONG, eventually

QUICK = Timings(probe=0.2, answer=3.0)  # busy is not deaf
ROOMS = [f"room:{number}" for number in range(30)]

Process = tuple[RedisBackend, RecordingHost]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as started:
        yield started


@pytest.fixture
def one_more(cluster: RedisCluster, begin: Begin) -> Callable[[], Process]:
    """Make processes of the cluster, which is empty."""
    for server in cluster.servers:
        with server.client() as client:
            if client.info("replication")["role"] == "master":
                client.flushall()
    return lambda: begin(RedisBackend(cluster.url, timings=QUICK))


@pytest.mark.slow
@pytest.mark.timeout(60)  # six servers begin, and a seventh
def test_slots_move_under_load(
    cluster: RedisCluster, one_more: Callable[[], Process]
) -> None:
    (backend, host), (other, _) = one_more(), one_more()
    backend.subscribe(ROOMS)
    talk = Talk(other, ROOMS)
    try:
        talk.go_on()
        for slot in 2 * sorted({slot_of(f"{{{room}}}") for room in ROOMS}):
            source = cluster.primary_of(slot)
            target = next(s for s in cluster.primaries() if s is not source)
            cluster.move_one(slot, source, target)
            talk.go_on(20)
    finally:
        talk.end()
    assert talk.failed == 0
    backend.subscribe(["room:last"])
    backend.publish("room:last", Message("x"), keep=True)
    host.wait_for(lambda: host.data("room:last") == ["x"])
    eventually(lambda: backend.fault() is None)
    check(talk, backend, host)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_primary_fails_under_load(
    cluster: RedisCluster, one_more: Callable[[], Process]
) -> None:
    (backend, host), (other, _) = one_more(), one_more()
    backend.subscribe(ROOMS)
    backend.attend([(room, "ann", 1) for room in ROOMS])
    talk = Talk(other, ROOMS[:10])
    try:
        talk.go_on()
        gone = cluster.primary_of(slot_of("{room:3}"))
        with gone.client() as client:
            # Its replica tells once a second how far it is; the end comes first.
            client.client_pause(1000 * int(LONG), all=False)
            eventually(lambda: _is_replicated(client))
            gone.kill()
        eventually(backend.fault, "the fault is told")
        assert f":{gone.port}" in str(backend.fault())
        eventually(lambda: backend.fault() is None, "another one takes over", LONG)
        talk.go_on()
    finally:
        talk.end()
    gone.start()
    lost = {topic for topics in host.losses for topic in topics or ()}
    assert ROOMS[3] in lost
    assert lost != set(ROOMS)  # those of the others go on
    check(talk, backend, host)
    assert backend.present(ROOMS[3]).users == {"ann": 1}
    # Who was the primary is a replica now; and may be the primary again.
    eventually(lambda: len(cluster.primaries()) == 3, seconds=LONG)


def _is_replicated(client: Any) -> bool:
    info = client.info("replication")
    return bool(info["slave0"]["offset"] >= info["master_repl_offset"])


@pytest.mark.slow
def test_what_is_submitted_keeps_its_order_while_its_slot_moves(
    cluster: RedisCluster, one_more: Callable[[], Process]
) -> None:
    backend, _ = one_more()
    done: list[Receipt | Exception] = []
    room = ROOMS[3]
    moved = threading.Event()
    count = 0

    def submit() -> None:
        nonlocal count
        while not moved.is_set() or count % 10:
            message = Message(f"{count}", sender="ann", mid=f"{count}")
            backend.submit(room, message, done.append, keep=True)
            count += 1
            if count % 10 == 0:
                moved.wait(0.005)

    thread = threading.Thread(target=submit)
    thread.start()
    for _ in range(3):
        source = cluster.primary_of(slot_of("{room:3}"))
        target = next(s for s in cluster.primaries() if s is not source)
        slot = slot_of("{room:3}")
        cluster.move_one(slot, source, target)
    moved.set()
    thread.join()
    backend.publish(room, Message("last"), keep=True)
    eventually(lambda: len(done) == count)
    assert [type(receipt) for receipt in done if not isinstance(receipt, Receipt)] == []
    seqs = [receipt.seq for receipt in done if isinstance(receipt, Receipt)]
    assert seqs == list(range(1, len(seqs) + 1))
    page = backend.history(room, limit=256)
    numbers = [int(entry.data) for entry in page.entries[:-1]]
    assert numbers == [entry.seq - 1 for entry in page.entries[:-1]]


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_in_a_process_that(
    cluster: RedisCluster, one_more: Callable[[], Process], program: str
) -> None:
    del one_more  # it has made the cluster empty
    run_program(program, cluster.url)


def test_who_is_told_of_a_failure_may_wait_for_one_who_submits() -> None:
    address = ClusterAddress(f"redis+cluster://127.0.0.1:{free_port()}", 1.0)

    def start(run: Callable[[], None]) -> None:
        threading.Thread(target=run, daemon=True).start()

    def pipe(node: str) -> Pipe:
        raise AssertionError(node)

    slots = Slots(address, start, threading.Event)
    router = Router(slots, pipe, DEADLINE)
    lock, failed = threading.Lock(), threading.Event()
    told: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        failed.set()
        with lock:
            told.append(outcome)

    def submit() -> None:
        with lock:
            router.put(Job([Call("GET", ["a"])], done, again=False))
            failed.wait(DEADLINE)
            # This one would be in the way if those were told amid the order of slots.
            router.put(Job([Call("GET", ["a"])], told.append, again=False))

    start(submit)
    eventually(lambda: len(told) == 2)
    slots.stop()
    assert [str(outcome)[:17] for outcome in told] == 2 * ["cannot be reached"]


def test_where_no_thread_can_be_had_each_is_told_once() -> None:
    class Host(RecordingHost):
        def start_thread(self, function: Callable[[], None]) -> None:
            raise OSError("no more threads")

    url = f"redis+cluster://127.0.0.1:{free_port()}"
    backend = RedisBackend(url, timings=Timings(answer=0.01))
    backend.start(Host())
    told: list[Receipt | Exception] = []
    count, until = 0, time.monotonic() + 0.05
    while time.monotonic() < until:
        backend.submit("room:a", Message("x"), told.append, keep=count % 2 > 0)
        count += 1
    assert len(told) == count
    assert {type(outcome) for outcome in told} == {BackendError}
    assert "no more threads" in str(told[0])
    backend.stop()


def test_slots_are_those_of_redis() -> None:
    keys = [b"", b"{", b"{}", b"{}x", b"a{b}c", b"a{b}{c}", b"a}{b", b"{{b}}", b"\xff{"]
    keys += [os.urandom(9) for _ in range(1000)]
    assert [slot_of(key) for key in keys] == [key_slot(key) for key in keys]
    counts = Counter(slot_of(f"wschat:{{room:{n}}}:log") // 5462 for n in range(3000))
    assert len(counts) == 3


def test_urls_that_cannot_work() -> None:
    for url in ("redis+cluster://h/1", "redis+cluster://h:x", "unix+cluster:///x,y"):
        with pytest.raises(ConfigError, match="WSCHAT_URL"):
            open_backend(url)
