"""Workers that all wait: for what needs a worker, and for a loop that stands still."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from websockets.sync.client import connect

from flask_wschat import ChatListener, WSChat
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
