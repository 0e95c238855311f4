"""Backends of one's own, which raise what the contract does not name."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from flask import Flask

from flask_wschat import ChatListener, WSChat
from flask_wschat.backends import MemoryBackend
from flask_wschat.messages import Page, Receipt
from tests.support.chat_client import ChatClient
from tests.support.live import LiveServer, Serve


class Strange(MemoryBackend):
    """Breaks in those of its methods that are named."""

    broken: tuple[str, ...] = ()
    error: type[BaseException] = KeyError

    def subscribe(self, *args: Any) -> None:
        self._check("subscribe")
        super().subscribe(*args)

    def attend(self, *args: Any) -> None:
        self._check("attend")
        super().attend(*args)

    def history(self, *args: Any, **options: Any) -> Page:
        self._check("history")
        return super().history(*args, **options)

    def publish(self, *args: Any, **options: Any) -> Receipt:
        self._check("publish")
        return super().publish(*args, **options)

    def _check(self, name: str) -> None:
        if name in self.broken:
            raise self.error


@pytest.fixture
def backend() -> Strange:
    return Strange()


@pytest.fixture
def chat(backend: Strange) -> WSChat:
    app = Flask("an_app")
    app.config["WSCHAT_URL"] = backend
    chat = WSChat(app)
    chat.authenticate(lambda: "ann")
    chat.listener("/chat")(ChatListener)
    return chat


@pytest.fixture
def server(chat: WSChat, serve: Serve) -> LiveServer:
    return serve(chat._app())


def test_who_is_told_that_a_join_failed_is_not_in_the_room(
    backend: Strange, chat: WSChat, server: LiveServer
) -> None:
    with ChatClient(server.connect("/chat")) as ann:
        backend.broken = ("history",)
        assert ann.ask("join", room="Lobby")["error"]["code"] == "internal"
        assert ann.ask("who", room="Lobby")["error"]["code"] == "not_joined"
        assert chat.online("Lobby") == []
        backend.broken = ()
        assert ann.ask("join", room="Lobby")["present"] == ["ann"]
        backend.broken = ("history",)
        again = ann.ask("join", room="Lobby", after=0, epoch="e")
        assert again["error"]["code"] == "internal"
        backend.broken = ()
        assert ann.ask("who", room="Lobby")["present"] == ["ann"]


def test_a_vote_that_is_stored_is_no_error_though_nobody_can_be_told(
    backend: Strange, chat: WSChat, server: LiveServer
) -> None:
    chat.poll("Tea", ["Green", "Black"])
    with ChatClient(server.connect("/chat")) as ann:
        backend.broken = ("publish",)
        assert ann.ask("vote", poll="Tea", choice="Green")["total"] == 1
        backend.broken = ()
        assert ann.expect("tally")["total"] == 1


@pytest.mark.parametrize("error", [KeyError, gevent.Timeout, SystemExit])
def test_whatever_it_raises_ends_no_more_than_what_was_asked(
    backend: Strange, chat: WSChat, server: LiveServer, error: type[BaseException]
) -> None:
    backend.error = error
    with ChatClient(server.connect("/chat")) as ann:
        backend.broken = ("subscribe", "attend")
        assert ann.ask("join", room="Lobby")["error"]["code"] == "unavailable"
        backend.broken = ()
        assert ann.ask("join", room="Lobby")["present"] == ["ann"]
        assert ann.expect("presence", joined=["ann"])["room"] == "Lobby"
