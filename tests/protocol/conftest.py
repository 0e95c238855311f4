"""The ready-made chat on a live server, and people who come to it."""

from __future__ import annotations

from collections.abc import Iterator

import flask
import pytest
from flask import Flask

from flask_wschat import WSChat
from tests.support.live import LiveServer

from .peers import Chat, Meet, Peer


@pytest.fixture
def chat(app: Flask, request: pytest.FixtureRequest) -> WSChat:
    app.config["WSCHAT_MAX_MESSAGE"] = 100_000
    app.config["WSCHAT_RATE_LIMIT"] = None
    app.config.update(getattr(request, "param", {}))
    chat = WSChat(app)
    chat.listener("/chat")(Chat)
    chat.authenticate(lambda: flask.request.args.get("user") or None)
    chat.poll("Drinks", ["tea", "coffee"])
    shutdown = app.extensions["wschat.hub"].shutdown
    app.add_url_rule("/restart", view_func=lambda: shutdown() or "")
    return chat


@pytest.fixture
def meet(server: LiveServer) -> Iterator[Meet]:
    """Connect as a user."""
    peers: list[Peer] = []

    def meet(user: str = "", room: str | None = None) -> Peer:
        peers.append(Peer(server, user))
        if room is not None:
            peers[-1].ask("join", room=room)
        return peers[-1]

    yield meet
    for peer in peers:
        peer.client.close()
