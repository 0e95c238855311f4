"""Sockets of servers that give each request a thread, gathered on one loop.

A thread of our own runs the loop; the server's threads and a few workers only wait for
messages and hand frames over. So a listener's idle connection holds no thread here
either, and one slow reader keeps nobody else waiting: see docs/decisions/11.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .loop import EventedLoop
from .waiting import threads_may_lack

_DESCRIPTORS = 16  # more than a loop needs, and what is imported for it

WORKERS = 32
"""Threads for listeners' callbacks: so many may wait for something at the same time."""
OWN_WORKERS = 16
"""Threads for what those wait for: behind them it would never have its turn."""

logger = logging.getLogger("flask_wschat")


class ThreadedLoop(EventedLoop):
    """A loop in a thread of its own; what may wait runs in other threads."""

    shares_workers = True

    _shared: ThreadedLoop | None = None
    _sharing = threading.Lock()

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._callbacks = Workers(WORKERS, "wschat")
        self._own = Workers(OWN_WORKERS, "wschat-own")
        # libev asks for its descriptors again and again, for ever, if there are none.
        with contextlib.ExitStack() as stack:
            for _ in range(_DESCRIPTORS):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        started: Future[None] = Future()
        thread = threading.Thread(
            target=self._run_loop, args=(started,), name="wschat-loop", daemon=True
        )
        with threads_may_lack():
            thread.start()
        started.result()

    @classmethod
    def shared(cls) -> ThreadedLoop:
        """Return this process's loop; started at the first call, anew after a fork.

        :raises OSError: it cannot be started, as at the limit of open files or threads.
        """
        with cls._sharing:
            if cls._shared is None or cls._shared._pid != os.getpid():
                cls._shared = cls()
            return cls._shared

    def may_wait(self) -> bool:
        return not self.is_current()

    def run(self, task: Callable[[], Any]) -> None:
        if not self._callbacks.run(task):
            self.call_threadsafe(task)

    def run_own(self, task: Callable[[], Any]) -> None:
        if not self._own.run(task):
            self.run(task)

    def _run_loop(self, started: Future[None]) -> None:
        try:
            super().__init__()
        except BaseException as error:  # else its maker waits for ever
            started.set_exception(error)
            return
        self.call_threadsafe(started.set_result, None)
        self.run_forever()


class Workers:
    """At most so many threads, started one by one as they are needed."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._tasks: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._free = threading.Semaphore(0)  # workers that wait for a task
        self._count = 0

    def run(self, task: Callable[[], Any]) -> bool:
        """Have a worker run ``task``; False: there is none. From one thread only."""
        self._tasks.put(task)
        if not self._free.acquire(blocking=False) and self._count < self._most:
            self._count += 1
            # Daemons: a handler that waits for ever must not keep the program alive.
            worker = threading.Thread(
                target=self._work_off, name=f"{self._name}-{self._count}", daemon=True
            )
            try:
                worker.start()
            except RuntimeError:
                # None can be had, as at the program's end (since Python 3.12): one of
                # those there are comes to it.
                self._count -= 1
                if not self._count:
                    self._tasks.get()
                    return False
        return True

    def _work_off(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                task()
            except BaseException:  # whatever it is, it must not cost a worker
                logger.exception("error in %r", task)
            del task  # an idle worker would keep it, with a connection
            self._free.release()
