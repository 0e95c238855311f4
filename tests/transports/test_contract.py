"""What every transport must do, whatever its bytes go through."""

from __future__ import annotations

import abc
import io
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import gevent
import pytest

from flask_wschat.codec import Opcode, encode_frame
from flask_wschat.transports import Receiver, Transport
from flask_wschat.transports.evented import EventedTransport
from flask_wschat.transports.loop import EventedLoop
from flask_wschat.transports.memory import MemoryTransport, pair
from flask_wschat.transports.tls import TLSSocket
from tests.support.certificate import make_pair
from tests.support.waiting import DEADLINE, eventually

LIMIT = 64 * 1024
"""The queue's, in bytes."""
BIG = encode_frame(Opcode.BINARY, b"big " * (1 << 21))
"""A frame that no buffer of the system takes at once."""

Policy = Literal["close", "drop_oldest"]


def frame(number: int, size: int = 10) -> bytes:
    return encode_frame(Opcode.TEXT, str(number).encode().rjust(size, b"0"))


class Recorder:
    """A receiver that keeps what it is told."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = 0
        self.times_drained = 0
        self.dropped = 0

    def _data_received(self, data: bytes) -> None:
        assert data
        assert not self.lost
        self.data += data

    def _placed(self, size: int) -> None:
        raise AssertionError("nobody gave a place")

    def _connection_lost(self) -> None:
        self.lost += 1

    def _drained(self) -> None:
        assert not self.lost
        self.times_drained += 1

    def _dropped(self, count: int) -> None:
        assert not self.lost
        self.dropped += count


class Link(abc.ABC):
    """Two transports of a kind that are each other's peer."""

    policy: Policy = "close"

    def __init__(self) -> None:
        self.ours, self.theirs = self.make()
        self.us, self.them = Recorder(), Recorder()

    def start(self) -> Link:
        self.ours.start(self.us)
        self.theirs.start(self.them)
        return self

    def clog(self) -> Link:
        """Start so that what is written stays queued: the peer does not read."""
        self.start()
        self.theirs.pause()
        self.ours.write(BIG)
        self.turn()
        assert self.ours.queued
        return self

    def eventually(self, condition: Any) -> None:
        eventually(condition, sleep=lambda _: self.turn())

    def arrives(self, data: bytes) -> None:
        self.eventually(lambda: len(self.them.data) >= len(data))
        assert bytes(self.them.data) == data

    def end(self) -> None:
        self.ours.abort()
        self.theirs.abort()
        self.eventually(lambda: self.us.lost == self.them.lost == 1)

    @abc.abstractmethod
    def make(self) -> tuple[Transport, Transport]: ...

    @abc.abstractmethod
    def turn(self) -> None:
        """Let the loop do what is due."""

    @abc.abstractmethod
    def let_time_pass(self) -> None:
        """Make what is to happen later happen soon."""


class MemoryLink(Link):
    def make(self) -> tuple[MemoryTransport, MemoryTransport]:
        return pair(max_queue=LIMIT, policy=self.policy)

    def turn(self) -> None:
        pass

    def let_time_pass(self) -> None:
        assert isinstance(self.ours, MemoryTransport)
        for _, callback in list(self.ours.loop.timers):
            callback()


class SocketLink(Link):
    def make(self) -> tuple[EventedTransport, EventedTransport]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        return self.transport(ours.detach()), self.transport(theirs.detach())

    def transport(self, sock: int | TLSSocket) -> EventedTransport:
        return EventedTransport(sock, max_queue=LIMIT, policy=self.policy)

    def turn(self) -> None:
        gevent.sleep(0.001)

    def let_time_pass(self) -> None:
        pass  # it does


class TLSLink(SocketLink):
    certificate: Path
    key: Path

    def make(self) -> tuple[EventedTransport, EventedTransport]:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(self.certificate, self.key)
        client = ssl.create_default_context(cafile=str(self.certificate))
        left, right = socket.socketpair()
        ours = server.wrap_socket(left, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=ours.do_handshake)
        thread.start()
        theirs = client.wrap_socket(right, server_hostname="127.0.0.1")
        thread.join()
        return (
            self.transport(TLSSocket(ours, ours.close)),
            self.transport(TLSSocket(theirs, theirs.close)),
        )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=[MemoryLink, SocketLink, TLSLink])
def kind(request: pytest.FixtureRequest) -> type[Link]:
    """Each kind of transport in turn."""
    cls: type[Link] = request.param
    if issubclass(cls, TLSLink):
        cls.certificate, cls.key = request.getfixturevalue("certificate")
    return cls


@pytest.fixture
def link(kind: type[Link]) -> Iterator[Link]:
    """A pair of each kind, with the policy to close."""
    link = kind()
    yield link
    link.end()


@pytest.fixture
def lossy(kind: type[Link]) -> Iterator[Link]:
    """A pair of each kind, with the policy to drop the oldest."""
    link = type("Lossy", (kind,), {"policy": "drop_oldest"})()
    yield link
    link.end()


# -- what is written


def test_all_that_is_written_arrives_in_order(link: Link) -> None:
    link.start()
    written = b""
    for number in range(2000):
        written += (one := frame(number, number % 300 + 4))
        while link.ours.queued > LIMIT // 2:
            link.turn()
        assert link.ours.write(one)
    link.arrives(written)
    link.eventually(lambda: not link.ours.queued)


def test_a_frame_over_the_limit_arrives_whole(link: Link) -> None:
    link.start()
    assert link.ours.write(frame(1))
    assert link.ours.write(BIG)
    link.arrives(frame(1) + BIG)


def test_both_directions_at_once(link: Link) -> None:
    link.start()
    link.ours.write(BIG)
    link.theirs.write(BIG)
    link.arrives(BIG)
    link.eventually(lambda: len(link.us.data) == len(BIG))
    assert link.us.data == BIG


def test_what_came_with_the_handshake_is_told_first(link: Link) -> None:
    link.ours.write(frame(2))
    link.ours.start(link.us)
    link.theirs.start(link.them, frame(1))
    link.arrives(frame(1) + frame(2))


def test_a_receiver_may_answer_at_once(link: Link) -> None:
    class Echo(Recorder):
        def _data_received(self, data: bytes) -> None:
            super()._data_received(data)
            link.theirs.write(data)

    link.them = Echo()
    link.start()
    for number in range(500):
        link.ours.write(frame(number))
    link.eventually(lambda: len(link.us.data) == 500 * len(frame(0)))
    assert link.us.data == b"".join(frame(number) for number in range(500))


# -- a peer that does not keep up


def test_pause_and_resume(link: Link) -> None:
    link.start()
    link.theirs.pause()
    link.theirs.pause()
    link.ours.write(frame(1))
    for _ in range(5):
        link.turn()
    assert not link.them.data
    link.theirs.resume()
    link.theirs.resume()
    link.arrives(frame(1))


def test_a_full_queue_refuses(link: Link) -> None:
    link.clog()
    queued = link.ours.queued
    assert not link.ours.write(frame(1))
    assert link.ours.queued == queued
    ping = encode_frame(Opcode.PING, b"still there?")
    assert link.ours.write(ping)
    assert link.ours.queued == queued + len(ping)
    link.theirs.resume()
    link.arrives(BIG + ping)


def test_a_full_queue_drops_the_oldest(lossy: Link) -> None:
    lossy.clog()
    ping = encode_frame(Opcode.PING, b"still there?")
    lossy.ours.write(ping)
    for number in range(100):
        assert lossy.ours.write(frame(number, LIMIT // 10))
    assert lossy.ours.queued <= LIMIT + len(BIG)
    lossy.theirs.resume()
    last = frame(99, LIMIT // 10)
    lossy.eventually(lambda: lossy.them.data.endswith(last))
    rest = bytes(lossy.them.data).removeprefix(BIG)
    assert rest.startswith(ping)
    rest = rest.removeprefix(ping)
    kept = len(rest) // len(last)
    assert rest == b"".join(frame(n, LIMIT // 10) for n in range(100 - kept, 100))
    lost = [] if lossy.them.data.startswith(BIG) else [BIG]
    assert lossy.us.dropped == 100 - kept + len(lost)


def test_one_call_when_it_is_drained(link: Link) -> None:
    link.clog()
    link.ours.notify_drained()
    link.turn()
    assert link.us.times_drained == 0
    link.theirs.resume()
    link.eventually(lambda: link.us.times_drained)
    assert link.ours.queued <= LIMIT // 2
    link.arrives(BIG)
    link.ours.write(frame(1))
    link.arrives(BIG + frame(1))
    assert link.us.times_drained == 1


def test_what_was_counted_before_is_queued_full_or_not(link: Link) -> None:
    link.clog()
    assert not link.ours.write(frame(1))
    link.ours.admit(frame(2))
    link.theirs.resume()
    link.arrives(BIG + frame(2))


def test_a_peer_that_takes_anything_does_not_stand(link: Link) -> None:
    link.start()
    assert link.ours.standing() is None
    link.theirs.pause()
    link.ours.write(BIG)
    link.turn()
    stood = link.ours.standing()
    assert stood is not None
    link.turn()
    assert link.ours.standing() == stood
    link.theirs.resume()
    link.eventually(lambda: link.them.data)
    link.theirs.pause()
    assert link.ours.standing() != stood
    link.theirs.resume()
    link.arrives(BIG)
    link.eventually(lambda: link.ours.standing() is None)


def test_a_key_replaces_what_is_not_sent(link: Link) -> None:
    link.start()
    link.theirs.pause()
    link.ours.write(encode_frame(Opcode.BINARY, bytes(LIMIT // 4)), "other")
    if link.theirs.loop is link.ours.loop:
        for number in range(5):
            link.ours.write(frame(number), "state")
            link.ours.write(frame(number + 100))
    link.theirs.resume()
    expected = encode_frame(Opcode.BINARY, bytes(LIMIT // 4))
    expected += b"".join(frame(number + 100) for number in range(4))
    link.arrives(expected + frame(4) + frame(104))


def test_discard_leaves_whole_frames(link: Link) -> None:
    link.clog()
    link.ours.write(encode_frame(Opcode.PONG, b"to be forgotten"))
    link.ours.discard()
    assert link.ours.write(encode_frame(Opcode.CLOSE, b"\x03\xf5"))
    link.theirs.resume()
    end = encode_frame(Opcode.CLOSE, b"\x03\xf5")
    link.eventually(lambda: link.them.data.endswith(end))
    # The big one had to stay if a part of it was sent.
    assert bytes(link.them.data) in (BIG + end, end)


# -- the end


def test_finish_sends_what_is_queued_and_ends(link: Link) -> None:
    link.clog()
    link.ours.write(encode_frame(Opcode.CLOSE, b"\x03\xe8"))
    link.ours.finish(DEADLINE)
    link.ours.finish(DEADLINE)
    link.turn()
    assert not link.us.lost
    link.theirs.resume()
    link.arrives(BIG + encode_frame(Opcode.CLOSE, b"\x03\xe8"))
    link.eventually(lambda: link.them.lost and link.us.lost)
    assert (link.them.lost, link.us.lost) == (1, 1)


def test_finish_hears_nothing_any_more(link: Link) -> None:
    link.start()
    link.ours.finish(DEADLINE)
    link.theirs.write(frame(1))
    link.theirs.finish(DEADLINE)
    link.eventually(lambda: link.us.lost and link.them.lost)
    assert not link.us.data


def test_finish_has_an_end(link: Link) -> None:
    link.clog()
    link.ours.finish(0.05)
    link.let_time_pass()
    link.eventually(lambda: link.us.lost)
    assert link.ours.queued == 0


def test_abort_is_told_once_to_each(link: Link) -> None:
    link.start()
    link.ours.abort()
    assert link.us.lost == 1
    link.ours.abort()
    link.eventually(lambda: link.them.lost)
    link.theirs.abort()
    link.turn()
    assert (link.us.lost, link.them.lost) == (1, 1)


def test_abort_forgets_the_queue(link: Link) -> None:
    link.clog()
    link.ours.abort()
    assert link.ours.queued == 0
    link.theirs.resume()
    link.eventually(lambda: link.them.lost)
    assert BIG.startswith(bytes(link.them.data))


def test_a_receiver_may_abort(link: Link) -> None:
    class Quitter(Recorder):
        def _data_received(self, data: bytes) -> None:
            super()._data_received(data)
            link.theirs.abort()

    link.them = Quitter()
    link.start()
    link.ours.write(frame(1))
    link.ours.write(BIG)
    link.eventually(lambda: link.them.lost and link.us.lost)
    assert (link.them.lost, link.us.lost) == (1, 1)


def test_a_receiver_may_write_while_it_is_told(link: Link) -> None:
    class Last(Recorder):
        def _connection_lost(self) -> None:
            super()._connection_lost()
            link.ours.write(frame(1))
            link.ours.abort()

    link.us = Last()
    link.start()
    link.theirs.abort()
    link.eventually(lambda: link.us.lost)
    assert link.us.lost == 1


def test_an_error_of_one_receiver_costs_no_other_its_turn() -> None:
    """All are sent to by one pass over a list."""

    class Faulty(Recorder):
        def _drained(self) -> None:
            super()._drained()
            raise ZeroDivisionError

        def _connection_lost(self) -> None:
            super()._connection_lost()
            raise ZeroDivisionError

    links = [SocketLink() for _ in range(4)]
    hub: Any = gevent.get_hub()
    stream, hub.exception_stream = hub.exception_stream, io.StringIO()
    try:
        for link in links[:2]:
            link.us = Faulty()
        for link in links:
            link.start()
            link.ours.notify_drained()
            link.ours.write(frame(1))
        for link in links:
            link.arrives(frame(1))
            link.eventually(lambda link=link: link.us.times_drained)
        for link in links:
            link.end()
        assert hub.exception_stream.getvalue().count("ZeroDivisionError\n") >= 4
    finally:
        hub.exception_stream = stream


@pytest.mark.parametrize("kind", [SocketLink, TLSLink], indirect=True)
@pytest.mark.parametrize("placed", [False, True])
def test_an_error_about_what_came_ends_that_connection(
    kind: type[Link], placed: bool
) -> None:
    """gevent would not read it any more, and nobody would know."""

    class Faulty(Recorder):
        def _data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

        _placed = _data_received  # type: ignore[assignment]

    hub: Any = gevent.get_hub()
    stream, hub.exception_stream = hub.exception_stream, io.StringIO()
    try:
        link, other = kind(), kind()
        link.us = Faulty()
        link.start()
        other.start()
        if placed:
            link.ours.expect(memoryview(bytearray(100)))
        for each in (link, other):
            each.theirs.write(frame(1))
        link.eventually(lambda: link.us.lost == link.them.lost == 1)
        other.eventually(lambda: bytes(other.us.data) == frame(1))
        other.end()
        assert hub.exception_stream.getvalue().count("failed with") == 1
    finally:
        hub.exception_stream = stream


@pytest.mark.parametrize("by_peer", [False, True])
def test_after_the_end_nothing_does_harm(link: Link, by_peer: bool) -> None:
    link.start()
    (link.theirs if by_peer else link.ours).abort()
    link.eventually(lambda: link.us.lost)
    assert link.ours.write(frame(1))
    assert link.ours.write(frame(1), "key")
    link.ours.admit(frame(1))
    assert link.ours.standing() is None
    link.ours.notify_drained()
    link.ours.discard()
    link.ours.pause()
    link.ours.resume()
    link.ours.finish(0.01)
    link.ours.abort()
    link.let_time_pass()
    link.turn()
    assert link.us.lost == 1
    assert link.ours.queued == 0
    assert link.us.times_drained == 0


def test_a_receiver_is_what_the_protocol_says() -> None:
    receiver: Receiver = Recorder()
    assert receiver


def test_who_gives_turns_again_and_again_does_not_come_before_the_sockets() -> None:
    """gevent looks at them after fifty callbacks, however long those take."""
    link = SocketLink().start()
    loop = EventedLoop.current()
    turns = 0

    def work() -> None:
        nonlocal turns
        while not link.us.data:
            turns += 1
            time.sleep(0.005)
            loop.give_turn()

    workers = [gevent.spawn(work) for _ in range(5)]
    link.theirs.write(frame(1))
    gevent.joinall(workers, DEADLINE)
    assert bytes(link.us.data) == frame(1)
    assert turns < 30
    link.end()


def test_who_waits_for_his_turn_may_be_killed() -> None:
    loop = EventedLoop.current()

    def work() -> None:
        while True:
            loop.give_turn()

    workers = [gevent.spawn(work) for _ in range(5)]
    with gevent.Timeout(0.01, False):  # type: ignore[arg-type]
        work()
    gevent.killall(workers)
    for _ in range(10):
        loop.give_turn()
    assert not any(workers)


def test_an_idle_worker_keeps_nothing_of_its_last_task() -> None:
    class Task:
        def __call__(self) -> None:
            ran.append(1)

    ran: list[int] = []
    task = Task()
    kept = weakref.ref(task)
    EventedLoop.current().run(task)
    del task
    gevent.sleep(0)
    assert ran == [1]
    assert kept() is None
