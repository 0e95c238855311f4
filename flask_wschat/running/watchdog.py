"""Names the line that keeps the loop, and with it every connection, waiting."""

from __future__ import annotations

import linecache
import logging
import sys
import sysconfig
import time
from pathlib import Path
from types import FrameType

from ..transports.loop import EventedLoop
from ..transports.patched import allocate_lock, sleep
from ..transports.waiting import start_thread

logger = logging.getLogger("flask_wschat")

PATIENCE = 0.25
"""Seconds without an answer from the loop that are worth a line in the log."""
PERIOD = 0.5
"""Seconds between two questions."""
AGAIN = 60.0
"""Seconds until the same line is named again."""
_NOT_THE_APP = (
    str(Path(__file__).parent.parent),
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
    sysconfig.get_path("platlib"),
    "<",  # frozen modules, generated code
)


class Watchdog:
    """Asks ``loop``, from a thread, twice a second whether it still turns.

    gevent's own monitor traces each switch of greenlets instead, and prints the whole
    tree of them ten times a second while one of them blocks.
    """

    def __init__(self, loop: EventedLoop) -> None:
        self._loop = loop
        self._named: dict[tuple[str, int], float] = {}

    def start(self) -> None:
        """Watch as long as the loop lives."""
        start_thread(self._run)

    def _run(self) -> None:
        while self._loop.is_alive():
            answer = allocate_lock()
            answer.acquire()
            self._loop.call_threadsafe(answer.release)
            if not answer.acquire(timeout=PATIENCE):
                self._tell(sys._current_frames().get(self._loop.thread))
                answer.acquire()
            sleep(PERIOD)

    def _tell(self, frame: FrameType | None) -> None:
        frame = to_blame(frame)
        if frame is None:
            return
        place = frame.f_code.co_filename, frame.f_lineno
        now = time.monotonic()
        if now - self._named.get(place, -AGAIN) < AGAIN:
            return
        self._named[place] = now
        logger.warning(
            "every connection has been waiting for over %s s for %s:%d in %s: %s",
            PATIENCE,
            *place,
            frame.f_code.co_name,
            linecache.getline(*place).strip(),
        )


def to_blame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that is the user's, else the innermost of all.

    None: the loop is waiting for events. Then all of the process stood still.
    """
    if frame is None or frame.f_globals.get("__name__") == "gevent.hub":
        return None
    each: FrameType | None = frame
    while each is not None:
        if not each.f_code.co_filename.startswith(_NOT_THE_APP):
            return each
        each = each.f_back
    return frame
