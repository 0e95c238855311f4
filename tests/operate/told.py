"""An application that prints what its signals tell; ``python -m tests.operate.told``
serves it by ``chat.run``."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from flask import Flask, request

from flask_wschat import (
    Listener,
    WebSocket,
    WSChat,
    connected,
    disconnected,
    message_received,
)

app = Flask(__name__)
app.secret_key = "x"
app.config.update(WSCHAT_ACCESS_LOG=True, WSCHAT_DRAIN=1.0)
chat = WSChat(app)
chat.authenticate(lambda: request.args.get("user"))


def say(name: str, ws: WebSocket, *words: object) -> None:
    line = " ".join(map(str, ["told", name, ws.user, *words])) + "\n"
    os.write(1, line.encode())  # at once: threads do this at the same time


@connected.connect
def opened(app: Flask, ws: WebSocket) -> None:
    say("connected", ws)


@message_received.connect
def came(app: Flask, ws: WebSocket, message: Any) -> None:
    say("message", ws, message)


@disconnected.connect
def ended(app: Flask, ws: WebSocket, code: int, reason: str) -> None:
    time.sleep(0.01)
    say("disconnected", ws, code)


@chat.listener("/listen")
class Listen(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)
        if message == "hang":
            threading.Event().wait(60)


@chat.route("/view")
def view(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)
        if message == "hang":
            threading.Event().wait(60)


@app.get("/old")
def old() -> str:
    ws = request.environ["wsgi.websocket"]
    while (message := ws.receive()) is not None:
        ws.send(message)
    return ""


if __name__ == "__main__":
    chat.run(app, port=int(sys.argv[1]), log=None)
