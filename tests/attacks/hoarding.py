"""A server that tells what memory it needs: ``python -m tests.attacks.hoarding``.

It serves on a free port of the loopback interface, printed as the first line, until
stdin ends, with settings of the environment. ``/echo`` sends back, ``/fan`` broadcasts,
``/never`` reads nothing of what comes. ``/memory`` is the most since ``/begin``.
"""

from __future__ import annotations

from pathlib import Path

import gevent.event
from flask import Flask

from flask_wschat import Listener, WebSocket, WSChat
from tests.support.standing import stand

app = Flask(__name__)
app.config.from_prefixed_env()
chat = WSChat(app)
hub = app.extensions["wschat.hub"]


@chat.listener("/echo")
class Echo(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


@chat.listener("/fan")
class Fan(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        chat.broadcast(message)


@chat.route("/never")
def never(ws: WebSocket) -> None:
    gevent.event.Event().wait(60)


@app.get("/begin")
def begin() -> dict[str, int]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
    return memory()


@app.get("/memory")
def memory() -> dict[str, int]:
    status = Path("/proc/self/status").read_text()
    return {
        "peak": int(status.partition("VmHWM:")[2].split()[0]) << 10,
        "held": hub.backlog.held(),
        "queued": hub.backlog.queued(),
        "slow": hub.figures["slow_closes"],
        "members": hub.count(),
    }


if __name__ == "__main__":
    stand(app)
