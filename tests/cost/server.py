"""A server that tells what it is made of: ``python -m tests.cost.server``.

It serves on a free port of the loopback interface, printed as the first line, until
stdin ends. What is sent to `/echo` comes back, what is sent to `/all` goes to everyone
there. `/control` takes orders as JSON, ``[NAME, ARGUMENT]``, and answers each.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

from flask import Flask
from greenlet import greenlet

from flask_wschat import Listener, WebSocket, WSChat
from tests.support.standing import stand

TASKS = Path("/proc/self/task")  # threads that Python need not know of; Linux has it

app = Flask(__name__)
# No ping amid what is counted. The sweep looks once a second, and finds nothing due.
app.config.update(WSCHAT_PING_INTERVAL=3600, WSCHAT_PING_TIMEOUT=3600)
chat = WSChat(app)


@chat.listener("/echo")
class Echo(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


@chat.listener("/all")
class Everyone(Listener):
    def on_open(self, ws: WebSocket) -> None:
        ws.join("all")

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        chat.broadcast(message, room="all")


@chat.listener("/control")
class Control(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        name, argument = json.loads(message)
        ws.send_json(ORDERS[name](argument))


def mark(name: str) -> None:
    """Leave a sign in the trace of system calls."""
    os.access(f"/mark/{name}", os.F_OK)


def burst(count: int) -> None:
    """Publish ``count`` messages in one turn of the loop."""
    for number in range(count):
        chat.broadcast(str(number), room="all")


def census(_: None) -> dict[str, int]:
    """Count what this process has and could have one of for each connection."""
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]  # before the lists that follow
    objects = gc.get_objects()
    watchers = [
        type(each).__name__
        for each in objects
        if str(type(each).__module__).startswith("gevent.")
    ]
    return {
        "greenlets": sum(isinstance(each, greenlet) for each in objects),
        "timers": watchers.count("timer"),
        "watchers": watchers.count("io"),
        "threads": len(threading.enumerate()),
        "tasks": len(list(TASKS.iterdir())) if TASKS.exists() else 0,
        "objects": len(objects),
        "bytes": size,
    }


ORDERS: dict[str, Any] = {"mark": mark, "burst": burst, "census": census}


if __name__ == "__main__":
    stand(app)
