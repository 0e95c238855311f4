"""Waiting where the caller is: in a greenlet, whose loop goes on, or in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import gevent.monkey
from greenlet import getcurrent

from . import Loop, T
from .patched import allocate_lock, start_new_thread


def runs_here() -> bool:
    """Whether the caller is a greenlet of a running loop."""
    return getcurrent().parent is not None


class LoopEvent:
    """Waited for by a greenlet, set by any thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._event = gevent.event.Event()

    def set(self) -> None:
        if self._loop.is_current():
            self._event.set()
        else:
            with contextlib.suppress(ValueError):  # the loop ended, and who waited
                self._loop.call_threadsafe(self._event.set)

    def clear(self) -> None:
        self._event.clear()

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            return bool(self._event.wait(timeout))
        # A timer, so that gevent does not take a loop without watchers for finished.
        while not self._event.wait(60):
            pass
        return True


class NativeEvent:
    """Waited for by a thread, patched or not: a lock that is taken until it is set."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was set before
            self._lock.release()

    def clear(self) -> None:
        self._lock.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        came: bool = self._lock.acquire(timeout=-1 if timeout is None else timeout)
        if came:
            self.set()
        return came


def start_thread(function: Callable[[], None]) -> None:
    """Run ``function`` in a thread of the system's, also in a patched process.

    :raises OSError: none can be had.
    """
    with threads_may_lack():
        start_new_thread(function, ())


def leave_loop() -> None:
    """Let go of the loop that gevent has made for this thread, which is about to end.

    Where Python exits, it ends threads wherever they are, and greenlet's own frames do
    not bear it: the process dies by a segmentation fault.
    """
    gevent.get_hub().destroy(destroy_loop=True)


@contextlib.contextmanager
def threads_may_lack() -> Iterator[None]:
    """Have a thread that cannot be had told as what it is, a limit of the system's.

    :raises OSError: in the place of Python's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{error} (see ulimit -u)") from error


def run_blocking(function: Callable[[], T]) -> T:
    """Return what ``function`` returns; a greenlet's loop goes on meanwhile.

    :raises OSError: there is no thread for it, or ``function`` does.
    """
    if not runs_here() or gevent.monkey.is_module_patched("socket"):
        return function()

    def run() -> tuple[Any, BaseException | None]:
        # An error returned, as the pool prints those that are raised.
        try:
            return function(), None
        except BaseException as error:
            return None, error

    with threads_may_lack():
        result, error = gevent.get_hub().threadpool.apply(run)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]
