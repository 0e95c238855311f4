"""The end of this process: whatever ends it, what is open is closed before."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Closing(Protocol):
    """What has connections to close."""

    def shutdown(self) -> Any:
        """Close them all, and wait for that; not at all where there are none."""

    def stop(self) -> Any:
        """Let go of all else."""

    def run_waiting(self, task: Callable[[], Any]) -> bool:
        """Run ``task`` where it may wait, if the caller may not; False: it may."""


_open: weakref.WeakSet[Closing] = weakref.WeakSet()


def watch(closing: Closing) -> None:
    """Have ``closing`` closed at the end of the process."""
    _open.add(closing)


@atexit.register
def close_all() -> None:
    """Close all that is open, as at the interpreter's exit."""
    for closing in list(_open):
        closing.shutdown()
        closing.stop()


def close_on_sigterm() -> None:
    """Let SIGTERM close what is open before it ends the process, as it does anyway.

    Only where nobody else has a say in what SIGTERM does, and in the main thread.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with contextlib.suppress(ValueError):  # this is another thread
            signal.signal(signal.SIGTERM, _close_and_end)


def _close_and_end(number: int, frame: object) -> None:
    def close_and_end() -> None:
        try:
            close_all()
        finally:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(number, signal.SIG_IGN)  # once is enough
    if not any(closing.run_waiting(close_and_end) for closing in list(_open)):
        close_and_end()


_STOPPING = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGABRT", "SIGHUP", "SIGALRM")


def is_order(error: BaseException) -> bool:
    """Whether ``error`` tells the program to end, and is no fault of what it came from.

    It is what a signal's handler raises in whatever runs just then. The same raised by
    a view, as by an argument parser that it asks, is a fault like any other.
    """
    if sys.platform == "linux" and threading.get_native_id() != os.getpid():
        return False  # signals are the main thread's
    if isinstance(error, KeyboardInterrupt):
        return True
    if isinstance(error, Exception):
        return False
    handlers = [signal.getsignal(getattr(signal, name)) for name in _STOPPING]
    codes = {getattr(handler, "__code__", None) for handler in handlers} - {None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False
