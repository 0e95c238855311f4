"""Clients that obey the protocol's page, and chats on each backend for them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from flask import Flask

from flask_wschat import ChatListener, WSChat
from tests.protocol.peers import Peer
from tests.support.chat_client import ChatClient, Json
from tests.support.live import LiveServer, Serve
from tests.support.redis_server import RedisServer


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the messages are."""
    if request.param != "redis":
        yield {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/db"}[
            request.param
        ]
        return
    server: RedisServer = request.getfixturevalue("redis")
    yield server.url


@pytest.fixture
def make_chat(url: str) -> Iterator[Callable[..., WSChat]]:
    """Return a function that makes an app with a chat: one more process, as it were."""
    made: list[WSChat] = []

    def make(listener: type[ChatListener] = ChatListener, **config: Any) -> WSChat:
        app = Flask(f"process_{len(made)}")
        app.config["WSCHAT_URL"] = url
        app.config["WSCHAT_RATE_LIMIT"] = None  # a test does at once what takes a day
        if "HISTORY_SIZE" in config:  # it is messages that are counted then
            app.config["WSCHAT_HISTORY_BYTES"] = 1 << 30
        app.config.update({f"WSCHAT_{key}": value for key, value in config.items()})
        chat = WSChat(app)
        strangers = {"anonymous": listener.anonymous or "say"}
        chat.listener("/chat")(type("Chat", (listener,), strangers))
        chat.authenticate(lambda: flask.request.args.get("user") or None)
        made.append(chat)
        return chat

    yield make
    for chat in made:
        chat._hub().backend.stop()


@pytest.fixture
def chat(make_chat: Callable[..., WSChat]) -> WSChat:
    return make_chat(HISTORY_SIZE=100_000)


@pytest.fixture
def server(chat: WSChat, serve: Serve) -> LiveServer:
    return serve(chat._app())


class Quick(Peer):
    """One that believes what it is sent, to keep up with many messages."""

    def hear(self) -> Json:
        return ChatClient.hear(self)

    def ask(self, kind: str, **fields: Any) -> Json:
        reply = ChatClient.ask(self, kind, **fields)
        assert reply["ok"], reply
        return reply


class Follower:
    """A client that obeys the protocol's page: shows each message once, or tells."""

    def __init__(self, server: LiveServer, user: str = "", room: str = "Lobby") -> None:
        self.server, self.user, self.room = server, user, room
        self.shown: list[Json] = []
        self.resets = 0
        self.at: Json = {}
        self.peer: Peer | None = None

    def connect(self) -> Follower:
        """Connect, again, and read on."""
        if self.peer is not None:
            self.peer.client.close_socket()
        self.peer = Quick(self.server, self.user)
        self.read()
        return self

    def read(self) -> None:
        assert self.peer is not None
        page: Json = {"more": True}
        while page["more"]:
            page = self.peer.ask("join", room=self.room, **self.at)
            if not page["recovered"]:
                self.resets += bool(self.at)
                self.at = {"after": page["seq"], "epoch": page["epoch"]}
                self.at["tag"] = page["tag"]
                self.shown += page["messages"]
            else:
                for message in page["messages"]:
                    self.take(message)

    def take(self, message: Json) -> None:
        seq = message["seq"]
        if seq <= self.at["after"]:
            return
        assert seq == self.at["after"] + 1, "a hole"
        self.shown.append(message)
        self.at |= {"after": seq, "tag": message.get("tag", "")}

    def follow(self, until: Any) -> None:
        """Show messages until one has ``until`` as its data, if none had."""
        assert self.peer is not None
        while all(message["data"] != until for message in self.shown[::-1]):
            event = self.peer.events.pop(0) if self.peer.events else self.peer.hear()
            if event["type"] == "gap":
                time.sleep(random.uniform(0, event.get("spread", 0)))
                self.read()
            elif event["type"] == "message":
                self.take(event)

    @property
    def data(self) -> list[Any]:
        return [message["data"] for message in self.shown]


def in_threads(*functions: Callable[[], Any]) -> None:
    """Run each in a thread of its own; raise what one raises."""
    errors: list[BaseException] = []

    def run(function: Callable[[], Any]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
