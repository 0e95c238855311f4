"""An application that operators look after, for tests of what they do."""

from __future__ import annotations

import os
from typing import Any

import gevent.monkey
from flask import Blueprint, Flask, request

from flask_wschat import ChatListener, Events, Listener, WebSocket, WSChat, event


def create_app(url: str = "") -> Flask:
    app = Flask("operated")
    app.secret_key = "the same in all processes"
    app.config["WSCHAT_URL"] = url or os.environ.get("WSCHAT_URL", "memory://")
    chat = WSChat(app)
    chat.authenticate(lambda: request.args.get("user"))

    @chat.listener("/chat", limit=(10, 50))
    class Chat(ChatListener):
        @event
        def move(self, room: str, x: int) -> None: ...

    @chat.listener("/board/<int:game>")
    class Board(Events):
        @event("turn")
        def on_turn(self, piece: str) -> None: ...

    inside = Blueprint("inside", __name__, url_prefix="/in")

    @chat.listener("/plain", blueprint=inside)
    class Plain(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.join("Plain")

    app.register_blueprint(inside)

    @chat.route("/echo", subprotocols=["v1", "v2"])
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    @app.get("/about")
    def about() -> dict[str, Any]:
        patched = gevent.monkey.is_module_patched("time")
        return {"pid": os.getpid(), "patched": patched, "debug": app.debug}

    def other() -> str:
        return ""

    app.add_url_rule("/other", "other", other, websocket=True)
    return app
