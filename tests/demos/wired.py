"""An application whose sockets have wires: it echoes, and spoils them when it is asked.

``python -m tests.demos.wired``, ``flask --app tests.demos.wired run``, or gunicorn's.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from flask import Flask, request

from demos.wire import WIRE, Wires
from flask_wschat import Listener, WebSocket, WSChat

app = Flask(__name__)
chat = WSChat(app)
app.wsgi_app = Wires(app.wsgi_app, ("/ws/",))  # type: ignore[method-assign]
seen = {"received": b"", "sent": b""}


class Echo(Listener):
    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        self.wire = request.environ.get(WIRE)
        ws.send(f"you are {request.remote_addr}:{request.environ['REMOTE_PORT']}")

    def on_message(self, ws: WebSocket, message: Any) -> None:
        name, _, seconds = str(message).partition(" ")
        if name in ("cut", "freeze", "swallow") and self.wire is not None:
            getattr(self.wire, name)(*map(float, seconds.split()))
        if name == "bye":
            ws.close(1000, "bye")
        elif name == "wire":
            ws.send(str(self.wire is not None))
        else:
            ws.send(message)


def tapped(view: Any) -> Any:
    def tap(**url_args: Any) -> Any:
        def note(direction: str, data: bytes) -> None:
            seen[direction] += data

        def fail(direction: str, data: bytes) -> None:
            raise ValueError("a tap")

        def change(direction: str, data: bytes) -> bytes:
            return data.replace(b"bad", b"fun")

        wire = request.environ[WIRE]
        wire.tap(note)
        wire.tap(fail)
        wire.tap(change)
        return view(**url_args)

    return tap


chat.listener("/ws/echo")(Echo)
chat.listener("/ws/tapped", endpoint="tapped", decorators=[tapped])(Echo)
chat.listener("/plain", endpoint="plain")(Echo)


@app.get("/left")
def left() -> dict[str, int]:
    """How much there is of what a wire needs."""
    wires = sum(thread.name == WIRE for thread in threading.enumerate())
    return {"descriptors": len(os.listdir("/proc/self/fd")), "wires": wires}


@app.get("/seen")
def bytes_seen() -> dict[str, str]:
    return {direction: data.hex() for direction, data in seen.items()}


@app.get("/ws/http")
def http() -> str:
    return f"no wire: {WIRE not in request.environ}"


if __name__ == "__main__":
    chat.run(port=os.environ["PORT"])
