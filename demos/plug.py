"""What breaks in networks and machines, at the push of a button.

A page asks for it over its own socket: so it meets this socket's wire, and the process
that serves it. Others than this machine's own browsers may not, unless ``DEMO_PLUG=1``.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from flask import request

from flask_wschat import ChatListener, WebSocket, event

from . import Refused
from .hall import HOST, is_loopback, is_near
from .wire import WIRE

# As far as the environment knows; ``pulls`` asks who is there.
PLUG = os.environ.get("DEMO_PLUG", "1" if is_loopback(HOST) else "") not in ("", "0")

# tools/demo.py says whether somebody starts again what ends here.
STARTS_WORKERS, STARTS_REDIS = "DEMO_WORKERS", "DEMO_REDIS"


def pulls() -> list[str]:
    """What the browser of this request may pull."""
    if not PLUG or not (is_near() or "DEMO_PLUG" in os.environ):
        return []
    names = ["cut", "freeze", "swallow"]
    names += ["kill"] * (STARTS_WORKERS in os.environ)
    return names + ["redis"] * (STARTS_REDIS in os.environ)


class Pluggable(ChatListener):
    """A socket whose page may pull its plug."""

    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        super().on_open(ws)
        self.wire = request.environ.get(WIRE)
        self.pulls = pulls()

    if PLUG:

        @event(limit=(1, 5))
        def pull(self, what: str) -> None:
            if what not in self.pulls:
                raise Refused("There is nothing of this kind here.")
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif what == "redis":
                os.kill(int(os.environ[STARTS_REDIS]), signal.SIGUSR1)
            elif self.wire is None:
                raise Refused("This socket has no wire that could be spoilt.")
            elif what == "cut":
                self.wire.cut()
            elif what == "freeze":
                self.wire.freeze(10)
            else:
                self.wire.swallow(120)
