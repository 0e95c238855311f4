"""A process without a server that writes messages which grow.

    python -m tests.processes.writer ROOM IDS PIECES PAUSE

Each of the comma-separated ``IDS`` grows by so many ``PIECES``, "0 ", "1 ", "2 " …,
with a ``PAUSE`` of seconds between two.
"""

from __future__ import annotations

import sys
import time

from flask import Flask

from flask_wschat import WSChat

app = Flask(__name__)
app.config.from_prefixed_env("TEST")  # also for how long a writer may be silent
chat = WSChat(app)


def write(room: str, ids: list[str], pieces: int, pause: float) -> None:
    streams = [chat.stream(room=room, sender="bot", id=id) for id in ids]
    print("begun", flush=True)
    for number in range(pieces):
        for stream in streams:
            stream.append(f"{number} ")
        time.sleep(pause)
    for stream in streams:
        stream.finish()


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), float(sys.argv[4]))
