"""What gunicorn's workers serve where the figures of all of them are tested."""

from __future__ import annotations

import os

from flask import Flask, Response

from flask_wschat import Listener, WebSocket, WSChat

app = Flask(__name__)
app.config.from_prefixed_env("TEST")
chat = WSChat(app)


@chat.listener("/echo")
class Echo(Listener):
    """Sends which process it is in, and then what comes."""

    def on_open(self, ws: WebSocket) -> None:
        ws.send(str(os.getpid()))

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


@chat.listener("/tell")
class Tell(Echo):
    """Tells all of its room what comes."""

    def on_open(self, ws: WebSocket) -> None:
        ws.join("Room")
        super().on_open(ws)

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        chat.broadcast(str(message), room="Room")


@app.after_request
def say_who(answer: Response) -> Response:
    answer.headers["X-Pid"] = str(os.getpid())
    return answer
