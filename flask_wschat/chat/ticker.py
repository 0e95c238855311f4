"""``Ticker``: does what is due for the growing messages that this process writes."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import time
from typing import Protocol

from ..errors import BackendError
from ..transports.patched import allocate_lock
from ..transports.waiting import NativeEvent, start_thread

logger = logging.getLogger("flask_wschat")

_GRAIN = 0.025  # seconds between two looks at the least
_LONGEST = 5.0  # seconds between two looks


class Writing(Protocol):
    """What there is something to do for."""

    def _work(self, now: float) -> float | None:
        """Do what is due; return when to come again, None: never."""

    def _leave(self) -> None:
        """The process ends.

        :raises BackendError: nobody could be told.
        """


class Ticker:
    """One thread of the system's; it ends when nothing is written.

    In a patched process a greenlet would stand still with the thread that it was begun
    in, which may be one of gevent's pool.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.over = False
        """The process ends: what was being written is discarded."""
        self._pid = os.getpid()
        self._lock = allocate_lock()
        self._writing: set[Writing] = set()
        self._runs = False
        self._wake = NativeEvent()
        self._at = 0.0  # when it will look; while it does: never

    def add(self, writing: Writing, at: float) -> None:
        """Come to ``writing`` at a time, and then as it says.

        :raises OSError: no thread can be had.
        """
        if self._pid != os.getpid():
            self._begin()  # forked: those are the parent's
        # Again, so that it comes before what the storage does at the end.
        atexit.unregister(self.end)
        atexit.register(self.end)
        with self._lock:
            self._writing.add(writing)
            runs, self._runs = self._runs, True
        if runs:
            self.soon(at)
            return
        try:
            start_thread(self._run)
        except OSError:
            self._runs = False
            raise

    def soon(self, at: float) -> None:
        """See that a look is taken at ``at``, or soon after it; from any thread."""
        if at < self._at - _GRAIN:
            self._at = at
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            self._at = float("inf")
            now = time.monotonic()
            next_at = now + _LONGEST
            for writing in list(self._writing):
                self._writing.discard(writing)  # first: it may be added meanwhile
                at = self._look(writing, now)
                if at is not None:
                    self._writing.add(writing)
                    next_at = min(next_at, at)
            with self._lock:
                if not self._writing:
                    self._runs = False
                    return
            self._at = min(self._at, next_at)
            self._wake.wait(max(self._at - time.monotonic(), _GRAIN))

    def _look(self, writing: Writing, now: float) -> float | None:
        try:
            return writing._work(now)
        except Exception:
            logger.exception("error in a growing message")
            return None

    def end(self) -> None:
        """The process ends: what is not finished by now never will be."""
        if self._pid == os.getpid():
            self.over = True
            with contextlib.suppress(BackendError):
                for writing in list(self._writing):
                    writing._leave()


TICKER = Ticker()
