"""Why we end connections: a close code and a reason for each cause, no two alike.

An operator tells causes apart by them, in ``on_close``, the log, and what clients
report. ``docs/deploy/README.md`` has the same table, with what to do. Besides these
there are the codec's (1002, 1007, 1009: its errors' words) and the application's own.
"""

from __future__ import annotations

from typing import NamedTuple


class Ending(NamedTuple):
    """What a close frame says; with 1006 there is none, and only we know it."""

    code: int
    reason: str


PING_TIMEOUT = Ending(1006, "ping timeout")
RATE_LIMIT = Ending(1008, "rate limit")
CONTROL_FLOOD = Ending(1008, "too many pings or pongs")
TINY_FRAMES = Ending(1008, "a message in too many tiny frames")
NO_REQUESTS = Ending(1008, "these are no requests")
INTERNAL_ERROR = Ending(1011, "internal error")
HANDSHAKE_FAILED = Ending(1011, "the handshake failed after its answer")
RESTART = Ending(1012, "service restart")
TOO_SLOW = Ending(1013, "too slow")
TAKES_NOTHING = Ending(1013, "takes nothing")
TOO_MUCH_WAITS = Ending(1013, "too much waits for all")
NO_STORAGE = Ending(1013, "no storage")
