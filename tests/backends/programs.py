"""Programs that tests run in processes of their own: name, URL."""

from __future__ import annotations

import sys

if sys.argv[1].startswith("patched"):
    from gevent import monkey

    monkey.patch_all()

import gc
import itertools
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import gevent
import gevent.event
import gevent.monkey
import gevent.threadpool

from flask_wschat.backends import open as open_backend
from flask_wschat.backends.redis.backend import RedisBackend
from flask_wschat.backends.redis.subscriber import Timings
from flask_wschat.messages import Delivery, Message, Receipt
from flask_wschat.transports.loop import new_event

T = TypeVar("T")

ROOM = "room:a"
start_new_thread: Any = gevent.monkey.get_original("_thread", "start_new_thread")


class Host:
    """A process that waits for its deliveries."""

    def __init__(self, evented: bool = False) -> None:
        self.evented = evented
        self.deliveries: list[Delivery] = []

    def deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def made(self, topic: str, epoch: str) -> None:
        pass

    def lost(self, topics: Iterable[str] | None) -> None:
        raise AssertionError("nothing was lost")

    def run_blocking(self, function: Callable[[], T]) -> T:
        if self.evented:
            result: T = gevent.get_hub().threadpool.apply(function)
            return result
        return function()

    def event(self) -> Any:
        return new_event()

    def start_thread(self, function: Callable[[], None]) -> None:
        start_new_thread(function, ())

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + 5
        while len(self.deliveries) < count:
            assert time.monotonic() < until, self.deliveries
            gevent.sleep(0.005) if self.evented else time.sleep(0.005)


def begin(url: str, evented: bool = False, **timings: float) -> tuple[Any, Host]:
    backend, host = RedisBackend(url, timings=Timings(**timings)), Host(evented)
    backend.start(host)
    backend.subscribe([ROOM])
    return backend, host


def fork(url: str) -> None:
    """Both processes go on after a fork, each with connections of its own."""
    backend, host = begin(url)
    backend.attend([("all", "ann", 1)])
    backend.publish(ROOM, Message("before"), keep=True)
    host.wait_for(1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            there = backend.present("all")
            assert (there.users, there.here) == ({"ann": 1}, {})  # in the other one
            backend.subscribe([ROOM])
            for number in range(20):
                backend.publish(ROOM, Message(f"child {number}"), keep=True)
            host.wait_for(21)
            backend.stop()
            status = 0
        finally:
            os._exit(status)
    for number in range(20):
        backend.publish(ROOM, Message(f"parent {number}"), keep=True)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    host.wait_for(41)
    assert [d.seq for d in host.deliveries] == list(range(1, 42))
    backend.attend([("all", "ann", 0)])
    assert backend.present("all").users == {}
    backend.stop()


def patched(url: str) -> None:
    """Greenlets share the connection; one that is ended leaves the others alone."""
    backend, host = begin(url)
    _publish_from_greenlets(backend, host)
    fine = gevent.spawn(backend.publish, ROOM, Message("mid", mid="1"), keep=True)
    for _ in range(100):
        greenlet = gevent.spawn(backend.publish, ROOM, Message("x"), keep=True)
        gevent.sleep(0)
        greenlet.kill()
    fine.get(timeout=5)
    # A native thread of a patched process has sockets of its own.
    pool = gevent.threadpool.ThreadPool(2)
    for number in range(10):
        pool.apply(backend.publish, (ROOM, Message(f"thread {number}")))
    host.wait_for(211)
    # Whether it waits for an answer or not.
    answers: list[Any] = []
    for number in range(10):
        message = Message(f"submitted {number}")
        pool.apply(backend.submit, (ROOM, message, answers.append), {"keep": True})
    host.wait_for(221)
    _until(lambda: len(answers) == 10)
    seqs = [answer.seq for answer in answers]
    assert seqs == sorted(seqs)
    _publish_after_all_were_killed(backend, host)
    backend.stop()


def _publish_after_all_were_killed(backend: RedisBackend, host: Host) -> None:
    lost: set[str] = set()
    host.lost = lost.update  # type: ignore[assignment, method-assign]
    all_there_are = [o for o in gc.get_objects() if isinstance(o, gevent.Greenlet)]
    # Of this thread's loop: to kill another thread's from here is a crash in gevent.
    own = gevent.get_hub().loop
    gevent.killall([each for each in all_there_are if each and each.loop is own])
    backend.publish(ROOM, Message("still here"), keep=True)
    _until(lambda: ROOM in lost)  # and is heard again
    last = backend.publish(ROOM, Message("heard"), keep=True)
    _until(lambda: host.deliveries[-1].seq == last.seq)


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        gevent.sleep(0.005)


def patched_fork(url: str) -> None:
    """What is forked off has copies of the greenlets, and leaves the sockets alone."""
    backend, host = begin(url)
    backend.publish(ROOM, Message("before"), keep=True)
    host.wait_for(1)
    child = os.fork()
    if child == 0:
        gevent.sleep(10)  # its loop turns until it is ended
        os._exit(1)
    for number in range(50):
        backend.publish(ROOM, Message(f"{number}"), keep=True)
        host.wait_for(number + 2)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    backend.stop()


def patched_threads(url: str) -> None:
    """Native threads and greenlets submit to one topic: each is told, in his order."""
    backend, host = open_backend(url), Host()
    backend.start(host)
    backend.subscribe([ROOM])
    sys.setswitchinterval(1e-6)  # so that they meet
    each = 4000
    told: list[Any] = []

    def submit(name: str) -> None:
        for number in range(each):
            message = Message(f"{name} {number}")
            backend.submit(ROOM, message, told.append, keep=number % 3 > 0)
            if number % 50 == 0:
                time.sleep(0.001)

    pool = gevent.threadpool.ThreadPool(3)
    jobs: list[Any] = [pool.spawn(submit, f"thread-{n}") for n in range(3)]
    jobs += [gevent.spawn(submit, f"greenlet-{n}") for n in range(3)]
    _until(lambda: len(told) == 6 * each)
    assert [answer for answer in told if not isinstance(answer, Receipt)] == []
    gevent.joinall(jobs, raise_error=True)
    host.wait_for(6 * each)
    said: defaultdict[str, list[int]] = defaultdict(list)
    for delivery in host.deliveries:
        name, number = str(delivery.message.data).split()
        said[name].append(int(number))
    assert all(numbers == list(range(each)) for numbers in said.values())
    backend.stop()


def patched_end(url: str) -> None:
    """No thread is left in a loop of gevent's, where Python must not end it."""
    backend, _ = begin(url)
    ended: list[object] = []

    def submit() -> None:
        backend.submit(ROOM, Message("x"), ended.append, keep=True)

    start_new_thread(submit, ())
    _until(lambda: bool(ended))
    backend.stop()
    own = gevent.monkey.get_original("_thread", "get_ident")()
    for ident, frame in sys._current_frames().items():
        file = frame.f_code.co_filename
        assert ident == own or not file.endswith("gevent/hub.py"), file


def evented(url: str) -> None:
    """Greenlets in a process that is not patched."""
    backend, host = begin(url, evented=True)
    _publish_from_greenlets(backend, host)
    backend.stop()


def _publish_from_greenlets(backend: RedisBackend, host: Host) -> None:
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.001)

    ticker = gevent.spawn(tick)
    jobs = [
        gevent.spawn(backend.publish, ROOM, Message(f"{n}"), keep=True)
        for n in range(200)
    ]
    seqs = [job.get(timeout=5).seq for job in jobs]
    host.wait_for(200)
    ticker.kill()
    assert sorted(seqs) == [d.seq for d in host.deliveries] == list(range(1, 201))
    longest = max(b - a for a, b in itertools.pairwise(ticks))
    assert longest < 0.5, longest


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    programs = (fork, patched, patched_end, patched_fork, patched_threads, evented)
    {program.__name__: program for program in programs}[sys.argv[1]](sys.argv[2])
    print("fine")
