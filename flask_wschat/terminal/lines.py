"""What is typed or piped in. A thread reads it, as that waits."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterable, Iterator

LINES_AHEAD = 100
"""Lines of input that are read before they can be sent."""


class Lines:
    """What is typed or piped in, line by line, in bytes; ``select`` tells of each."""

    def __init__(self, typing: bool) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(LINES_AHEAD)
        self._ready, self._signal = os.pipe()
        source = _typed() if typing else _piped()
        threading.Thread(target=self._read, args=(source,), daemon=True).start()

    def fileno(self) -> int:
        return self._ready

    @property
    def pending(self) -> bool:
        """Whether lines were read that nobody took."""
        return not self._queue.empty() and self._queue.queue[0] is not None

    def take(self) -> bytes | None:
        """Return the next line, once ``select`` told of it; None: that was all."""
        os.read(self._ready, 1)
        return self._queue.get()

    def _read(self, source: Iterable[bytes]) -> None:
        for line in source:
            self._put(line)
        self._put(None)

    def _put(self, line: bytes | None) -> None:
        self._queue.put(line)
        os.write(self._signal, b".")


def _typed() -> Iterator[bytes]:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives input() its editing and history
    while True:
        try:
            line = input("> ")
        except (EOFError, OSError):
            return
        if line:
            yield line.encode("utf-8", "surrogateescape")


def _piped() -> Iterator[bytes]:
    # Not sys.stdin: Python would wait at exit for the lock that its reader holds.
    with contextlib.suppress(OSError), open(0, "rb", closefd=False) as file:
        for line in file:
            yield line.removesuffix(b"\n").removesuffix(b"\r")
