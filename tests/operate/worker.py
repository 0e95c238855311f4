"""A worker that counts, and shares its figures: ``python -m tests.operate.worker``.

Arguments: how many messages it has, and what it does then, "stay" unless said; it is in
the folder that the environment names. It says "ready" before that, and ends by itself.

- ``stay``: until it is killed.
- ``leave``: at once.
- ``ask``: print what all have, again and again, until there is a file "enough".
- ``fork``: stay, beside a child that does so until there is a file "enough".
- ``die N``: as ``leave``, but be killed at the Nth time that it uses a file.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from flask_wschat.hub.figures import Figures
from flask_wschat.operate.folder import GIVEN
from flask_wschat.operate.sharing import Sharing

ENOUGH = "enough"
_LIFE = 30  # seconds


def main(count: str, task: str = "stay", step: str = "0") -> None:
    if task == "die":
        be_killed_at(int(step))
    figures = Figures()
    sharing = Sharing(figures, "app")
    sharing.join()
    figures.add("messages_in", int(count))
    figures.set("connections", int(count))
    figures.set("users", 9)
    figures.set("backend_up", int(count) > 0)
    enough = Path(os.environ[GIVEN]) / ENOUGH
    if task == "fork" and not os.fork():
        figures.add("messages_in", 1_000_000)
        while not enough.exists():
            time.sleep(0.01)
        os._exit(0)
    print("ready", flush=True)
    if task == "ask":
        while not enough.exists():
            print(sharing.read()[0]["messages_in"], flush=True)
    if task in ("stay", "fork"):
        signal.pause()


def be_killed_at(step: int) -> None:
    """Be killed before the call with that number, from 0, of those that use files."""
    number = itertools.count()

    def before(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if next(number) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    for name in ("open", "rename", "unlink", "write"):
        setattr(os, name, before(getattr(os, name)))


if __name__ == "__main__":
    signal.alarm(_LIFE)
    main(*sys.argv[1:])
