"""``Ticker``: does what is due for the growing messages that this process writes."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from typing import Protocol

from ..errors import BackendError
from ..transports import Event
from ..transports.loop import new_event
from ..transports.patched import allocate_lock

logger = logging.getLogger("flask_wschat")

_GRAIN = 0.025  # seconds between two looks at the least
_LONGEST = 5.0  # seconds between two looks
_STUCK = 15.0  # seconds without one, after which it must have ended


class Writing(Protocol):
    """What there is something to do for."""

    def _work(self, now: float) -> float | None:
        """Do what is due; return when to come again, None: never."""

    def _leave(self) -> None:
        """The process ends.

        :raises BackendError: nobody could be told.
        """


class Ticker:
    """One thread, patched or not as the process is; it ends when nothing is written."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = allocate_lock()
        self._writing: set[Writing] = set()
        self._runs: object = None
        """The thread's own, if there is one."""
        self._wake: Event | None = None
        self._at = 0.0  # when it will look; while it does: never
        self._looked = 0.0

    def add(self, writing: Writing, at: float) -> None:
        """Come to ``writing`` at a time, and then as it says.

        :raises RuntimeError: no thread can be had.
        """
        if self._pid != os.getpid():
            self._begin()  # forked: those are the parent's
        with self._lock:
            self._writing.add(writing)
            # In a patched process it is a greenlet, and ends with the thread that it
            # was begun in.
            runs = self._runs and time.monotonic() - self._looked < _STUCK
            if not runs:
                self._runs = mine = object()
                self._looked = time.monotonic()
        if runs:
            self.soon(at)
            return
        try:
            threading.Thread(
                target=self._run, args=(mine,), name="wschat-streams", daemon=True
            ).start()
        except RuntimeError:
            self._runs = None
            raise

    def soon(self, at: float) -> None:
        """See that a look is taken at ``at``, or soon after it; from any thread."""
        wake = self._wake
        if wake is not None and at < self._at - _GRAIN:
            self._at = at
            wake.set()

    def _run(self, mine: object) -> None:
        wake = self._wake = new_event()
        while True:
            wake.clear()
            self._at = float("inf")
            self._looked = now = time.monotonic()
            next_at = now + _LONGEST
            for writing in list(self._writing):
                self._writing.discard(writing)  # first: it may be added meanwhile
                at = self._look(writing, now)
                if at is not None:
                    self._writing.add(writing)
                    next_at = min(next_at, at)
            with self._lock:
                if self._runs is not mine:
                    return
                if not self._writing:
                    self._runs = self._wake = None
                    return
            self._at = min(self._at, next_at)
            wake.wait(max(self._at - time.monotonic(), _GRAIN))

    def _look(self, writing: Writing, now: float) -> float | None:
        try:
            return writing._work(now)
        except Exception:
            logger.exception("error in a growing message")
            return None

    def end(self) -> None:
        """The process ends: what is not finished by now never will be."""
        if self._pid == os.getpid():
            with contextlib.suppress(BackendError):
                for writing in list(self._writing):
                    writing._leave()


TICKER = Ticker()
atexit.register(TICKER.end)
