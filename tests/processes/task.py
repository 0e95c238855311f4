"""A process without a server, as a task queue runs: calls of ``WSChat``, in order.

Its argument is JSON: name, arguments and keyword arguments of each call. It prints a
line of JSON for each result.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from flask import Flask

from flask_wschat import WSChat

app = Flask(__name__)
app.config.from_prefixed_env("TEST")
chat = WSChat(app)
biscuits = chat.poll("Biscuits", ("Ginger", "Oat", "None"))


def vote(voter: str, choice: str) -> int:
    return biscuits.vote(voter, choice).total


def call(name: str, args: list[Any], options: dict[str, Any]) -> Any:
    return vote(*args) if name == "vote" else getattr(chat, name)(*args, **options)


if __name__ == "__main__":
    for step in json.loads(sys.argv[1]):
        print(json.dumps(call(*step)), flush=True)
