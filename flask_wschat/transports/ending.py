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

from .waiting import start_thread


class Closing(Protocol):
    """What has connections to close."""

    def drain(self, seconds: float | None = None) -> Any:
        """Begin to close them all, within so many seconds; its own, unless given."""

    def shutdown(self, seconds: float | None = None) -> Any:
        """``drain``, and wait for that; not at all where there are none."""

    def hurry(self) -> Any:
        """Let that end at once."""

    def stop(self) -> Any:
        """Let go of all else."""

    def run_beside(self, task: Callable[[], Any]) -> bool:
        """Run ``task`` beside the caller, if that is in its loop; False: it is not."""


BRIEF = 1.0
"""Seconds to close all where somebody at a terminal waits for it."""

_open: weakref.WeakSet[Closing] = weakref.WeakSet()
_last: list[Callable[[], Any]] = []
_at_exit: float | None = None
_begun = _done = 0  # the process that began to end, and the one that may


def watch(closing: Closing) -> None:
    """Have ``closing`` closed at the end of the process."""
    _open.add(closing)


def at_last(step: Callable[[], Any]) -> None:
    """Call ``step`` at the interpreter's exit, once all that is open has been closed.

    What registers itself with ``atexit`` is called before that.
    """
    _last.append(step)


def not_at_last(step: Callable[[], Any]) -> None:
    """Forget it; nothing happens where it is not known."""
    with contextlib.suppress(ValueError):
        _last.remove(step)


def has_begun() -> bool:
    """Whether this process ends, so that whom it let in would not be told."""
    return _begun == os.getpid()


def close_all(seconds: float | None = None) -> None:
    """Close all that is open, as at the interpreter's exit."""
    closings = list(_open)
    for closing in closings:  # all at the same time
        closing.drain(seconds)
    for closing in closings:
        closing.shutdown(seconds)
        closing.stop()


@atexit.register
def _close_at_exit() -> None:
    global _begun
    if _begun == os.getpid():
        _hurry()  # SIGTERM had begun to, and Ctrl-C came after it
    _begun = os.getpid()
    with contextlib.ExitStack() as last:
        for step in _last:
            last.callback(step)
        try:
            close_all(_at_exit)
        except (KeyboardInterrupt, SystemExit):  # a second signal
            _hurry()
            close_all()


def _hurry() -> None:
    for closing in list(_open):
        closing.hurry()


def close_on_signals() -> None:
    """Let SIGTERM close what is open before it ends the process, as it does anyway.

    Only where nobody else has a say in what SIGTERM does, and in the main thread. Any
    other end, as by Ctrl-C, takes ``BRIEF`` seconds at most.
    """
    global _at_exit
    _at_exit = BRIEF
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with contextlib.suppress(ValueError):  # this is another thread
            signal.signal(signal.SIGTERM, _close_and_end)


def _close_and_end(number: int, frame: object) -> None:
    """The first time close all, the second time at once; then end as by default.

    This may have come in the middle of a view that is waited for, so it does not wait.
    """
    global _begun
    pid = os.getpid()
    if _done == pid:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    elif _begun == pid:
        _hurry()
    else:
        _begun = pid
        if not any(closing.run_beside(_close_then_end) for closing in list(_open)):
            start_thread(_close_then_end)


def _close_then_end() -> None:
    global _done
    try:
        close_all()
    finally:
        _done = os.getpid()
        os.kill(_done, signal.SIGTERM)  # only the main thread can let go of it


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
