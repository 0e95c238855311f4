"""The ready-made chat for gunicorn's workers, configured by ``TEST_WSCHAT_*``."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request

from flask_wschat import WebSocket, WSChat
from flask_wschat.chat.listener import ChatListener

OPTIONS = ("Ginger", "Oat", "None")

app = Flask(__name__)
app.config["WSCHAT_RATE_LIMIT"] = None
app.config.from_prefixed_env("TEST")
chat = WSChat(app)
biscuits = chat.poll("Biscuits", OPTIONS)


@chat.authenticate
def who() -> str | None:
    return request.args.get("user")


@chat.listener("/chat")
class Chat(ChatListener):
    """Tells a client, after hello, which process it has."""

    def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
        super().on_open(ws)
        ws.send_json({"type": "process", "pid": os.getpid()})


print(f"process {os.getpid()} has the app", flush=True)
