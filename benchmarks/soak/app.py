"""The server of a soak: all kinds of routes, and what it holds, at ``/state``.

    python -m benchmarks.soak.app PORT

or any server of ``benchmarks.soak.app:app``; ``SOAK_WSCHAT_*`` are its settings.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from flask import Flask, abort, request
from greenlet import greenlet

from flask_wschat import ChatListener, Listener, WebSocket, WSChat
from flask_wschat.backends import MemoryBackend
from flask_wschat.errors import BackendError
from flask_wschat.transports.loop import EventedLoop

app = Flask(__name__)
app.config.from_prefixed_env("SOAK")
chat = WSChat(app)
chat.poll("Tea", ["Green", "Black"])
chat.listener("/chat")(ChatListener)


@chat.authenticate
def who() -> str | None:
    if request.path == "/refused":
        abort(403)
    return request.args.get("user")


@chat.route("/refused")
@chat.route("/block", endpoint="block")
def block(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


@chat.listener("/echo")
class Echo(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


@chat.listener("/fan/<room>")
class Fan(Listener):
    def on_open(self, ws: WebSocket, room: str) -> None:
        self.room = f"fan {room}"
        try:
            ws.join(self.room)
        except BackendError:  # Redis is down, now and then
            ws.close(1013)

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        with contextlib.suppress(BackendError):
            chat.broadcast(message, room=self.room)


@app.post("/disconnect/<user>")
def disconnect(user: str) -> dict[str, int]:
    with contextlib.suppress(BackendError):
        return {"closed": chat.disconnect_user(user, 4001, "by the soak")}
    abort(503)


@app.get("/state")
def state() -> dict[str, int]:
    """Return what this process holds, garbage apart."""
    gc.collect()
    objects = gc.get_objects()
    hub = app.extensions["wschat.hub"]
    # Some wait for work, up to a number: they serve one connection after another.
    idle = len(EventedLoop.current()._idle)
    found = {
        "pid": os.getpid(),
        "objects": len(objects),
        "greenlets": sum(isinstance(o, greenlet) for o in objects) - idle,
        "connections": hub.count(),
        "ending": len(hub.leaving),
        "topics": len(hub.members.plain) - 1 + len(hub.feeds.topics),
        "queued": sum(ws._transport.queued for ws in hub.everyone()),
    }
    if isinstance(hub.backend, MemoryBackend):
        kept = hub.backend
        found["keys"] = sum(map(len, (kept._topics, kept._idle, kept._ended)))
    return found


def main() -> None:
    chat.run(app, port=int(sys.argv[1]), log=None)


if __name__ == "__main__":
    main()
