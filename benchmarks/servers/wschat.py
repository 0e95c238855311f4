"""Flask-WSChat with its public API: `/echo` sends back, `/fan` broadcasts."""

from typing import Any

from flask import Flask

from benchmarks.servers.serving import serve
from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.server import WebSocketHandler

app = Flask(__name__)
chat = WSChat(app)


@chat.listener("/echo")
class Echo(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


@chat.listener("/fan")
class Fan(Listener):
    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        ws.join("all")

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        chat.broadcast(message, room="all")


if __name__ == "__main__":
    serve(app, WebSocketHandler)
