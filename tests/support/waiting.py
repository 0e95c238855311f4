"""Waiting for what should happen: until it does, and no longer than a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE = 5.0
"""Seconds that anything in this process may take; reached only by a failure."""
LONG = 30.0
"""Seconds for what other processes do: they start, and share the machine."""

What = str | Callable[[], str]


def eventually(
    condition: Callable[[], object],
    what: What = "what was waited for",
    seconds: float = DEADLINE,
    *,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Wait until ``condition`` holds; fail after ``seconds``.

    ``what`` it is for, in the failure's words; a function is asked for them then.
    ``sleep``: gevent's where its loop is to go on.
    """
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        if waited > seconds:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {words}")
        # The longer it takes, the less does a tenth of it matter: to ask costs, too.
        sleep(min(max(0.002, waited / 10), 0.05))


def move_on(clock: Callable[[], float], by: float = 0.0) -> None:
    """Wait until ``clock`` has gone on by more than so many seconds."""
    begun = clock()
    eventually(lambda: clock() > begun + by, "a clock that goes on")
