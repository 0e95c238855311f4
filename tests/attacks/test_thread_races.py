"""Connections under servers with threads, and an interpreter that always switches."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.codec import Closed, Connection, Event
from flask_wschat.errors import ConnectionClosed
from flask_wschat.hub.hub import Hub
from flask_wschat.incoming import INBOX_LIMIT
from flask_wschat.settings import Settings
from flask_wschat.transports.evented import EventedTransport
from flask_wschat.transports.threaded import ThreadedLoop
from flask_wschat.websocket import Listener, WebSocket
from tests.support.waiting import DEADLINE, eventually

ROUNDS = 60


@pytest.fixture(autouse=True)
def switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Pair:
    """A connection in the loop of a threaded server, and its peer's socket."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.hub = Hub(self.settings, MemoryBackend(), dumps=repr, loads=eval)
        self.loop = ThreadedLoop.shared()
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(DEADLINE)
        self.codec = Connection(client=True, max_message=1 << 30)
        ours.setblocking(False)
        self.ws: WebSocket = self.loop.call(self._open, ours.detach())

    def _open(self, descriptor: int) -> WebSocket:
        transport = EventedTransport(
            descriptor, self.loop, max_queue=self.settings.MAX_QUEUE
        )
        ws = WebSocket(transport, self.hub, Connection())
        self.hub.register(ws, self.loop)
        ws._start()
        return ws

    def say(self, *messages: str | bytes) -> None:
        self.peer.sendall(b"".join(map(self.codec.send, messages)))

    def hear(self) -> Iterator[Event]:
        with contextlib.suppress(OSError):
            while data := self.peer.recv(65536):
                yield from self.codec.receive_data(data)
                self.peer.sendall(self.codec.data_to_send())

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *error: object) -> None:
        self.peer.close()
        eventually(lambda: self.ws._gone)


def together(*tasks: Any) -> None:
    """Run ``tasks`` in a thread each, as much at the same time as can be."""
    barrier = threading.Barrier(len(tasks))
    errors: list[BaseException] = []

    def run(task: Any) -> None:
        barrier.wait()
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * DEADLINE)
        assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


class Careful(Listener):
    """Notes what comes, and whether two calls ever overlap."""

    app_context = False

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.closes: list[tuple[int, str]] = []
        self.inside = 0
        self.most = 0

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.messages.append(message)
        self.inside -= 1

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        self.closes.append((code, reason))


def test_a_listener_that_begins_while_messages_come_hears_all_in_order() -> None:
    for _ in range(ROUNDS):
        with Pair() as pair:
            listener = Careful()
            expected = [str(number) for number in range(40)]

            def talk(pair: Pair = pair, expected: list[str] = expected) -> None:
                for message in expected:
                    pair.say(message)

            together(talk, lambda: pair.ws._listen(listener))  # noqa: B023
            eventually(lambda: len(listener.messages) >= 40)  # noqa: B023
            pair.peer.sendall(pair.codec.close(4001, "bye"))
            eventually(lambda: listener.closes)  # noqa: B023
        assert listener.messages == expected
        assert listener.most == 1
        assert listener.closes == [(4001, "bye")]


def test_the_first_sends_of_many_threads_all_arrive() -> None:
    for _ in range(ROUNDS):
        with Pair() as pair:
            names = [str(number) for number in range(6)]
            together(*(lambda name=name: pair.ws.send(name) for name in names))
            came: list[Any] = []
            for event in pair.hear():
                came.append(event)
                if len(came) == len(names):
                    break
            assert sorted(came) == names


def test_who_reads_an_inbox_that_is_full_again_and_again_gets_all() -> None:
    """Each time it is emptied while more comes, somebody has to go on reading."""
    size, count = INBOX_LIMIT // 3, 120
    with Pair() as pair:
        together(
            lambda: pair.peer.sendall(pair.codec.send(bytes(size)) * count),
            lambda: [pair.ws.receive(DEADLINE) for _ in range(count)],
        )


def test_an_end_is_seen_with_its_code() -> None:
    for number in range(ROUNDS):
        code = 4000 + number
        with Pair() as pair:
            seen: list[int | None] = []

            def look(pair: Pair = pair, seen: Any = seen) -> None:
                with contextlib.suppress(ConnectionClosed):
                    while not pair.ws.closed:
                        pass
                    seen.append(pair.ws.close_code)
                    pair.ws.send("x")

            def wait(pair: Pair = pair, seen: Any = seen) -> None:
                with pytest.raises(ConnectionClosed) as caught:
                    pair.ws.receive(DEADLINE)
                seen.append(caught.value.code)

            end = pair.codec.close(code, "bye")
            together(look, wait, lambda: pair.peer.sendall(end))  # noqa: B023
            assert seen == [code, code]


def test_a_listener_that_closes_hears_no_more() -> None:
    class Once(Careful):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            super().on_message(ws, message)
            ws.close(4100, "enough")

    for _ in range(ROUNDS):
        with Pair() as pair:
            listener = Once()
            pair.ws._listen(listener)
            pair.say(*map(str, range(50)))
            events = list(pair.hear())
            eventually(lambda: listener.closes)  # noqa: B023
            assert listener.messages == ["0"]
            assert listener.closes == [(4100, "enough")]
            assert events == [Closed(4100, "enough")]
