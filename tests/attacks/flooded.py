"""A server whose handlers wait: ``python -m tests.attacks.flooded``.

It serves on a free port of the loopback interface, printed as the first line, until
stdin ends. What comes to ``/listen``, ``/block`` or ``/legacy`` is not looked at until
somebody asks for ``/go``. Then each is told how many messages it sent, and of how many
bytes together, once that was as many as it said in ``?count=``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent.event
from flask import Flask, request

from flask_wschat import Listener, WebSocket, WSChat
from tests.support.standing import stand

app = Flask(__name__)
chat = WSChat(app)
go = gevent.event.Event()


def peak() -> int:
    """Return the most bytes of memory that this process ever had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@app.get("/peak")
def get_peak() -> str:
    return str(peak())


@app.post("/go")
def let_go() -> str:
    go.set()
    return ""


@chat.listener("/echo")
class Echo(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


@chat.listener("/listen")
class Counting(Listener):
    def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
        self.count = int(request.args["count"])
        self.sizes: list[int] = []

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        go.wait()
        self.sizes.append(len(message))
        if len(self.sizes) == self.count:
            ws.send([len(self.sizes), sum(self.sizes)])


@chat.route("/block")
def block(ws: WebSocket) -> None:
    go.wait()
    sizes = [len(ws.receive()) for _ in range(int(request.args["count"]))]
    ws.send([len(sizes), sum(sizes)])


@app.get("/legacy")
def legacy() -> str:
    ws = request.environ["wsgi.websocket"]
    sizes = [len(ws.receive())]
    go.wait()
    sizes += [len(ws.receive()) for _ in range(int(request.args["count"]) - 1)]
    ws.send(f"[{len(sizes)}, {sum(sizes)}]")
    return ""


if __name__ == "__main__":
    stand(app)
