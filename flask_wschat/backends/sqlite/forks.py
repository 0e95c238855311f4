"""``Unforked``: work in the middle of which this process does not fork.

SQLite remembers in the process which locks its connections have. A fork in the middle
of a transaction would inherit them, and nobody who gives them back: there, the file
would be locked for ever.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from _queue import Empty, SimpleQueue

_MOST = 1.0  # seconds that a fork may wait


class Unforked:
    """A block of one thread that a fork waits for; native, patched or not."""

    def __init__(self) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        self._free.put(None)
        _all.add(self)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *error: object) -> None:
        self._free.put(None)

    def hold(self) -> None:
        """Wait until nobody is in it, and let nobody in.

        :raises Empty: somebody is in it for too long.
        """
        self._free.get(timeout=_MOST)


_all: weakref.WeakSet[Unforked] = weakref.WeakSet()
_held: list[Unforked] = []


def _hold() -> None:
    for unforked in list(_all):
        with contextlib.suppress(Empty):
            unforked.hold()
            _held.append(unforked)


def _go_on() -> None:
    while _held:
        _held.pop().__exit__()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_go_on, after_in_child=_go_on)
