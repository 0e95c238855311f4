"""Workers that all wait: for what needs a worker, and for a loop that stands still."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from websockets.sync.client import connect

from flask_wschat import ChatListener, WSChat
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.hub.mending import Mender
from flask_wschat.transports import loop as loops
from flask_wschat.transports.threaded import WORKERS, ThreadedLoop
from tests.support.chat_client import ChatClient
from tests.support.threaded import serve_threaded
from tests.support.waiting import DEADLINE


def test_as_many_may_join_at_once_as_there_are_workers() -> None:
    app, together = Flask(__name__), threading.Barrier(WORKERS)
    chat = WSChat(app)

    @chat.listener("/chat")
    class Room(ChatListener):
        def can_join(self, user: str | None, room: str) -> bool:
            together.wait(DEADLINE)
            return True

    with serve_threaded(app) as port:
        address = f"ws://127.0.0.1:{port}/chat"

        def come(number: int) -> ChatClient:
            client = connect(address, compression=None, ping_interval=None)
            return ChatClient(client.__enter__())

        with ThreadPoolExecutor(8) as pool:
            clients = list(pool.map(come, range(WORKERS)))
        asked = [
            client.put("join", room=f"r{number}")
            for number, client in enumerate(clients)
        ]
        for client, ref in zip(clients, asked, strict=True):
            assert client.reply(ref)["ok"]
        for client in clients:
            client.close()


def test_what_a_loop_had_no_time_for_is_not_done_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "ANSWER", 0.05)
    loop, go_on = ThreadedLoop.shared(), threading.Event()
    done: list[str] = []
    loop.call_threadsafe(go_on.wait, DEADLINE)
    with pytest.raises(TimeoutError):
        loop.call(done.append, "late")
    monkeypatch.undo()
    go_on.set()
    loop.call(done.append, "in time")
    assert done == ["in time"]


def test_a_loop_that_stood_still_costs_nobody_what_they_have_missed() -> None:
    tasks: list[Callable[[], Any]] = []

    class Still:
        """One that has no time for what it is asked."""

        def run_own(self, task: Callable[[], Any]) -> None:
            tasks.append(task)

        def call(self, function: Callable[..., Any], *args: Any) -> Any:
            raise TimeoutError

        def call_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
            callback(*args)

    home: Any = SimpleNamespace(loop=Still())
    feed: Any = SimpleNamespace(live=[])
    mender = Mender(home, MemoryBackend(), 1000, lambda delivery: None)
    mender.add(feed)
    for _ in range(10):
        tasks.pop()()
    home.loop.call = lambda function, *args: function(*args)
    asked: list[None] = []
    feed.missing = lambda: asked.append(None)
    tasks.pop()()
    assert asked and not tasks
