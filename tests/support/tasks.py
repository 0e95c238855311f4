"""A program with a background task, for tests that end it.

    python -m tests.support.tasks HOW

``HOW``: "name" or "standby" start it; "serve" does while it is imported, and serves
then, on ``PORT``. It says so as the task begins, or that another process runs it.
"""

from __future__ import annotations

import os
import sys
import time

from flask import Flask, current_app
from gevent import monkey

from flask_wschat import Events, WSChat, event

app = Flask(__name__)
app.config.from_prefixed_env("TEST")
chat = WSChat(app)
how = sys.argv[-1]


def work() -> None:
    assert current_app.name == app.name
    print(f"{os.getpid()} works", flush=True)
    while True:
        chat.broadcast(monkey.is_module_patched("socket"), room="work")
        time.sleep(0.01)


def last(seconds: float) -> None:
    print("begun", flush=True)
    time.sleep(seconds)
    print("done", flush=True)


def write() -> None:
    with chat.stream(room="work") as stream:
        print("begun", flush=True)
        while True:
            stream.append("word ")
            time.sleep(0.001)


@chat.listener("/")
class Starter(Events):
    @event
    def begin(self, seconds: float, standby: bool = False) -> None:
        name = "last" if standby else None
        chat.start_background_task(last, seconds, name=name, standby=standby)

    @event
    def grow(self) -> None:
        chat.start_background_task(write)


standby = how in ("standby", "serve")
task = chat.start_background_task(work, name="work", standby=standby)
if task is None:
    print("another works", flush=True)

if __name__ == "__main__":
    if how == "serve":
        chat.run(app, port=int(os.environ["PORT"]))
    elif task is not None:
        task.wait()
