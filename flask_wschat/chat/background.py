"""``start_background_task``: what goes on when the view that began it is over.

See docs/decisions/54.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import logging
import os
import secrets
import threading
from collections.abc import Callable
from typing import Any

from ..errors import BackendError, StreamGone, check_ran
from ..hub.hub import Hub
from ..messages import as_name, shown
from ..transports import Event
from ..transports.waiting import threads_may_lack
from .streams import ASKER
from .ticker import TICKER

logger = logging.getLogger("flask_wschat")

THREAD = "wschat-task"
"""What their threads are called."""
LEASE = 0.75
"""Of the time until a dead process's people are gone: a name is had for so long."""
RENEW = 0.25
"""Of the same: two renewals may fail before others have the name."""
LOOK = 0.1
"""Of the same: so often those in standby look, and are there before it is over."""

_HOLDER = "WSCHAT_HOLDER"
_numbers = itertools.count()


class BackgroundTask:
    """A function in a thread of its own, or in a greenlet where gevent has patched."""

    __slots__ = ("_event", "_over", "_waiting", "name", "running", "standby")

    def __init__(
        self, name: str | None, standby: bool, event: Callable[[], Event]
    ) -> None:
        self.name = name
        """One process at a time runs a task of this name; None: it has none."""
        self.standby = standby
        """Another process goes on with it where this one ends."""
        self.running = False
        """Whether its function has begun, and has not ended."""
        self._event = event
        self._over = False
        self._waiting: list[Event] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether it is over, once it is or after ``timeout`` seconds."""
        event = self._event()
        self._waiting.append(event)  # first: who ends it looks here after the mark
        if not self._over:
            event.wait(timeout)
        self._waiting.remove(event)
        return self._over

    def _end(self) -> None:
        self.running, self._over = False, True
        for event in list(self._waiting):
            event.set()


class Background:
    """The background tasks of an app in this process.

    ``context`` makes the app context that one runs in.
    """

    def __init__(
        self, hub: Hub, context: Callable[[], contextlib.AbstractContextManager[Any]]
    ) -> None:
        self._hub = hub
        self._context = context
        self._number = next(_numbers)
        self._lock = threading.Lock()
        self._named: dict[str, BackgroundTask] = {}
        self._had: set[str] = set()  # names that no other process has
        self._told: set[str] = set()  # of which the log knows that another has them
        self._renewing = False
        self._stopped = False
        self._ttl = hub.settings.patience
        hub.on_stop = self.stop

    def start(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        name: Any = None,
        standby: Any = False,
    ) -> BackgroundTask | None:
        """Call ``function`` beside the caller; None: it runs already, by its name.

        :raises TypeError: an argument is not what it is to be.
        :raises ValueError: the name cannot be one, or is missing.
        :raises BackendError: whether it runs elsewhere cannot be known.
        :raises OSError: there is no thread for it.
        """
        if not isinstance(standby, bool):
            raise TypeError(f"standby is True or False, unlike {shown(standby)}")
        if standby and name is None:
            raise ValueError("standby is for a task with a name, which others know")
        name = None if name is None else as_name(name, "a task's name")
        task = BackgroundTask(name, standby, self._hub.event)
        if name is not None and not self._enter(name, task):
            return None

        # A context of its own: what was set where it is started, as the request, is not
        # there any more. But who asked for it is who asks for what it writes.
        context = contextvars.Context()
        context.run(ASKER.set, ASKER.get())

        def run() -> None:
            context.run(self._run, task, function, args, kwargs)

        try:
            _start(run)
        except BaseException:
            self._leave(task)
            raise
        return task

    def stop(self) -> None:
        """Let others have the names; the process ends."""
        self._stopped = True
        for name in sorted(self._had):
            self._give_back(name)

    # -- whose turn it is

    def _enter(self, name: str, task: BackgroundTask) -> bool:
        """Note a task; False: it is not to run here now."""
        with self._lock:
            if self._named.setdefault(name, task) is not task:
                return False
        try:
            if task.standby or self._take(name):
                return True
        except BaseException:
            self._named.pop(name)
            raise
        self._named.pop(name)
        return False

    def _take(self, name: str) -> bool:
        if not self._lease(name):
            return False
        with self._lock:
            self._had.add(name)
            begins, self._renewing = not self._renewing, True
        if begins:
            try:
                _start(self._renew)
            except BaseException:
                self._renewing = False
                self._give_back(name)
                raise
        return True

    def _leave(self, task: BackgroundTask) -> None:
        name = task.name
        if name is None or self._named.get(name) is not task:
            return
        if name in self._had:
            self._give_back(name)
        self._named.pop(name)

    def _give_back(self, name: str) -> None:
        self._had.discard(name)
        with contextlib.suppress(BackendError):  # others have it when its time is over
            self._release(name)

    def _lease(self, name: str) -> bool:
        backend, seconds = self._hub.backend, LEASE * self._ttl
        return backend.lease(f"task:{name}", self._holder(), seconds)

    def _release(self, name: str) -> None:
        self._hub.backend.release(f"task:{name}", self._holder())

    def _holder(self) -> str:
        """Return a name for this app in this process.

        It is the same where the program is started again in its process, by
        ``chat.run``: what began before that begins anew.
        """
        known, pid = os.environ.get(_HOLDER, ""), f"{os.getpid()}-"
        if not known.startswith(pid):
            known = os.environ[_HOLDER] = pid + secrets.token_hex(8)
        return f"{known}-{self._number}"

    def _renew(self) -> None:
        """Keep the names, in a thread for all of them."""
        pause = self._hub.event()
        while True:
            pause.wait(RENEW * self._ttl)
            with self._lock:
                names = sorted(self._had)
                if not names or self._stopped:
                    self._renewing = False
                    return
            try:
                for name in names:
                    self._see_to(name)
            except BackendError:
                pass  # the backend logs it
            except Exception as error:
                self._hub.report(error)

    def _see_to(self, name: str) -> None:
        if self._lease(name):
            self._told.discard(name)
        elif name in self._had and name not in self._told:
            self._told.add(name)
            logger.warning(
                "the background task %r runs in another process, too: this one, or the"
                " storage, stood still for so long that it was taken for dead",
                name,
            )
        if name not in self._had:
            self._release(name)  # it has ended meanwhile

    # -- in its thread

    def _run(
        self,
        task: BackgroundTask,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        under_way = self._hub.closing.under_way
        try:
            if task.standby and not self._await_turn(task):
                return
            if not task.standby:
                under_way.add(task)  # a drain waits for it
            task.running = True
            with self._context():
                check_ran(function(*args, **kwargs), function)
        except SystemExit:
            pass  # of itself alone, as in any thread
        except BaseException as error:
            # Once all has stopped, nothing can be had any more, or grow.
            stopped = self._stopped or TICKER.over
            if not (stopped and isinstance(error, BackendError | StreamGone)):
                name = getattr(function, "__qualname__", shown(function))
                where = f"the background task {task.name or name}"
                self._hub.report(error, where=where)
        finally:
            under_way.discard(task)
            self._leave(task)
            task._end()

    def _await_turn(self, task: BackgroundTask) -> bool:
        """Return once no other process runs it; False: this one ends."""
        assert task.name is not None
        pause = self._hub.event()
        while not self._stopped:
            try:
                if self._take(task.name):
                    return True
            except BackendError:
                pass  # the backend logs it, and is asked again
            pause.wait(LOOK * self._ttl)
        return False


def _start(run: Callable[[], None]) -> None:
    """:raises OSError: there is no thread for it."""
    with threads_may_lack():
        threading.Thread(target=run, name=THREAD, daemon=True).start()
