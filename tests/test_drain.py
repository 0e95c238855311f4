"""How connections are closed before their process ends: in time, not all at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import gevent
import pytest
from flask import Flask
from websockets.sync.client import ClientConnection

from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.hub import drain
from flask_wschat.hub.drain import Closing, Drain
from tests.servers.serving import RawClient
from tests.support.live import LiveServer, closed, receive
from tests.support.waiting import eventually

RESTART = (1012, "service restart")
LONG = 60.0
"""Seconds that no test has: what may take so long ends before."""


class Ends:
    """What ends when connections do, and the moments."""

    def __init__(self) -> None:
        self.held = False
        self.times: list[float] = []

    def end(self) -> None:
        while self.held:
            gevent.sleep(0.005)
        self.times.append(time.monotonic())


@pytest.fixture
def ends(chat: WSChat) -> Iterator[Ends]:
    ends = Ends()

    @chat.route("/view")
    def view(ws: WebSocket) -> None:
        ws.send("begun")
        for _ in ws:
            pass
        ends.end()

    @chat.listener("/listen")
    class Listen(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.send("begun")

        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            ends.end()

    yield ends
    ends.held = False


@pytest.fixture
def closing(app: Flask, ends: Ends) -> Closing:
    found: Closing = app.extensions["wschat.hub"].closing
    return found


@contextlib.contextmanager
def clients(
    server: LiveServer, count: int, path: str = "/listen"
) -> Iterator[list[ClientConnection]]:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(server.connect(path)) for _ in range(count)]
        for client in made:
            assert receive(client) == "begun"
        yield made


def begin(closing: Closing, seconds: float) -> Drain:
    begun = closing.drain(seconds)
    assert begun is not None
    return begun


def test_few_are_closed_at_once_and_nobody_waits(
    server: LiveServer, closing: Closing, ends: Ends
) -> None:
    with clients(server, 4) as made, clients(server, 1, "/view") as viewing:
        begin(closing, LONG).wait()
        assert len(ends.times) == 5
        assert [closed(client) for client in made + viewing] == [RESTART] * 5


@pytest.mark.pain(19)
def test_many_are_closed_one_after_another(
    server: LiveServer,
    closing: Closing,
    ends: Ends,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain, "RATE", 20)
    with clients(server, 8) as made:
        began = time.monotonic()
        begin(closing, LONG).wait()
        assert [closed(client) for client in made] == [RESTART] * 8
    late = [ended - began for ended in sorted(ends.times)]
    assert all(seconds > 0.05 * n - 0.01 for n, seconds in enumerate(late)), late


def test_more_than_the_time_allows_are_all_told_in_time(
    server: LiveServer,
    closing: Closing,
    ends: Ends,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain, "RATE", 1)
    with clients(server, 10) as made:
        began = time.monotonic()
        begin(closing, 0.5).wait()
        assert [closed(client) for client in made] == [RESTART] * 10
    assert ends.times[-1] - began > 0.25


@pytest.mark.parametrize("path", ["/view", "/listen"])
def test_what_runs_for_a_connection_may_end(
    server: LiveServer, closing: Closing, ends: Ends, path: str
) -> None:
    ends.held = True
    with clients(server, 1, path) as made:
        begun = begin(closing, LONG)
        assert closed(made[0]) == RESTART
        made[0].close()
        hub = closing._emptied
        eventually(lambda: not hub.leaving)
        assert not begun.over
        ends.held = False
        begun.wait()
        assert len(ends.times) == 1


def test_what_never_ends_has_its_time(
    server: LiveServer, closing: Closing, ends: Ends
) -> None:
    ends.held = True
    with clients(server, 1, "/view") as made:
        begin(closing, 0.3).wait()
        assert closed(made[0]) == RESTART
    assert closing.drain(LONG) is closing.drain(LONG)  # which does not wait again
    closing.shutdown()
    assert not ends.times


def test_a_second_time_is_at_once(
    server: LiveServer,
    closing: Closing,
    ends: Ends,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain, "RATE", 1)
    ends.held = True
    with clients(server, 5) as made, RawClient(server).open("/view"):
        begun = begin(closing, LONG)
        assert closing.is_stopping()
        closing.hurry()
        begun.wait()
        assert [closed(client) for client in made] == [RESTART] * 5


def test_without_any_time_all_are_told(server: LiveServer, closing: Closing) -> None:
    with clients(server, 5) as made, RawClient(server).open("/view") as silent:
        begin(closing, 0).wait()
        assert [closed(client) for client in made] == [RESTART] * 5
        assert silent.closed().code == 1012
