"""``EventedLoop``: gevent's loop of one thread, and whose turn it is in it."""

from __future__ import annotations

import collections
import functools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import gevent
import gevent.event
import gevent.hub
import gevent.monkey
from greenlet import GreenletExit, getcurrent, greenlet

from . import Event, T
from .accelerated import flush_ready
from .patched import RLock, get_ident, sleep
from .waiting import LoopEvent, NativeEvent, runs_here

FLUSH_LIMIT = 512
"""Transports sent to in one turn of the loop: about 2 ms, by docs/decisions/12."""
TURN = 0.01
"""Seconds that tasks may take until the sockets have their turn."""
SHARE = 0.001
"""Seconds of a turn for all who send more than is worked off at once: so long some are
read first, and others go on."""
ANSWER = 10
"""Seconds that another thread waits for what it has the loop do."""
IDLE_WORKERS = 128
"""Greenlets kept for the next message once they have nothing to do."""


class EventedLoop:
    """gevent's loop of one thread, as the transports and the engine use it."""

    shares_workers = False

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self._loop = self._hub.loop
        self.thread = get_ident()
        self._idle: list[greenlet] = []
        self._ready: collections.deque[Callable[[], Any]] = collections.deque()
        self._work_until = 0.0
        self.lock = RLock()
        """For what several threads change together, never while anything waits."""
        self._read_until = 0.0  # those who send much; 0: none was read in this turn
        self._in_turn: collections.deque[Callable[[], Any]] = collections.deque()
        self.unflushed: list[Any] = []  # transports with something to send
        self.stalled: set[Any] = set()
        self._backlog: list[Any] = []  # of more than one turn can send to
        self.io = self._loop.io
        # gevent's own way in from other threads touches libev's timers while the loop
        # is in the kernel without the GIL, and ends in LoopExit now and then (26.9).
        # Sending to an async watcher is what libev allows from anywhere.
        self._posted: collections.deque[tuple[Callable[..., Any], Any]]
        self._posted = collections.deque()
        self._waker: Any = self._loop.async_(ref=False)
        self._waker.start(self._run_posted)

    @classmethod
    def current(cls) -> EventedLoop:
        """Return the loop of this thread, always the same one."""
        hub: Any = gevent.get_hub()
        loop: EventedLoop | None = getattr(hub, "wschat_loop", None)
        if loop is None or loop._loop is not hub.loop:
            loop = hub.wschat_loop = cls()
        return loop

    def __str__(self) -> str:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return f"the loop of thread {names.get(self.thread, self.thread)}"

    def has_killed(self, error: BaseException) -> bool:
        if not isinstance(error, GreenletExit):
            return False
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        # Thrown by a kill, it comes out of where gevent waits.
        name = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
        return str(name).startswith("gevent.")

    def run_forever(self) -> None:
        """Run the loop in this thread, whose business that is from now on."""
        # A thread's first greenlet waits in the hub for something that never comes.
        keep_alive = self._loop.timer(3600, repeat=3600)
        keep_alive.start(lambda: None)
        self._hub.switch()

    def is_alive(self) -> bool:
        try:
            self._loop.now()
        except ValueError:  # destroyed, with its thread or at the program's end
            return False
        return True

    def is_current(self) -> bool:
        return get_ident() == self.thread

    def may_wait(self) -> bool:
        return getcurrent() is not self._hub

    def call(self, function: Callable[..., T], *args: Any) -> T:
        if self.is_current():
            return function(*args)
        done, outcome = new_event(), Future[T]()

        def run() -> None:
            if not outcome.set_running_or_notify_cancel():
                return  # whoever asked has been told that it was not done
            try:
                outcome.set_result(function(*args))
            except BaseException as error:  # else the caller waits for nothing
                outcome.set_exception(error)
            done.set()

        self.call_threadsafe(run)
        try:
            # In two parts: of a process that was stopped, the loop has some time, too.
            answered = done.wait(ANSWER / 2) or done.wait(ANSWER / 2)
            if not answered and not outcome.cancel():  # it has just begun
                answered = done.wait(ANSWER)
        except BaseException:
            outcome.cancel()  # else it were done for somebody who has gone
            raise
        if not answered:
            raise TimeoutError(f"{self} did nothing else for {ANSWER} s")
        return outcome.result(0)

    def call_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        self._posted.append((callback, args))
        self._waker.send()

    def _run_posted(self) -> None:
        posted = self._posted
        until = time.monotonic() + TURN
        for _ in range(len(posted)):
            callback, args = posted.popleft()
            self.guard(callback, *args)
            if posted and time.monotonic() > until:
                self._waker.send()  # the sockets have their turn between
                return

    def guard(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back; an error is told of here, and stops nothing that follows."""
        try:
            callback(*args)
        except BaseException:
            self.tell(callback)

    def tell(self, context: object) -> None:
        """Tell of the error that is being handled, where nobody waits for one."""
        self._hub.handle_error(context, *sys.exc_info())

    def call_later(
        self, seconds: float, callback: Callable[[], Any]
    ) -> Callable[[], Any]:
        # ref=False: a timer alone must not keep a finished program alive.
        timer = self._loop.timer(seconds, ref=False)
        timer.start(callback)
        return timer.close

    def has_time_to_read(self) -> bool:
        """Whether who sends much may be read once more in this turn of the loop."""
        now = time.monotonic()
        if not self._read_until:
            self._read_until = now + SHARE
            self._loop.run_callback(self._end_reading)
        return now < self._read_until

    def _end_reading(self) -> None:
        self._read_until = 0.0

    def call_in_turn(self, callback: Callable[[], Any]) -> None:
        self._in_turn.append(callback)
        if len(self._in_turn) == 1:
            self._start_turns()

    def _start_turns(self) -> None:
        # Not by `call_later`: gevent has to know of it, as nothing is read meanwhile.
        self._loop.timer(0).start(self._take_turns)

    def _take_turns(self) -> None:
        until = self._work_until = time.monotonic() + SHARE
        waiting = self._in_turn
        for _ in range(len(waiting)):  # who asks meanwhile has the next turn
            # It stays in there meanwhile, so that who asks now starts no other timer.
            callback = waiting[0]
            try:
                callback()
            except BaseException:
                self.tell(callback)
            waiting.popleft()
            if self._ready:
                self._work_off(until)  # what came of it is a part of this turn
            if time.monotonic() > until:
                break
        if waiting:
            self._start_turns()

    def give_turn(self) -> None:
        if not self.is_current():
            if runs_here():
                EventedLoop.current().give_turn()
            else:
                # The other threads run anyway; but who asks again and again would
                # have the interpreter for 5 ms each time (sys.getswitchinterval).
                sleep(0.0001)
            return
        # Not `gevent.sleep(0)`: the sockets have their turn after fifty of those.
        waiter: Any = gevent.hub.Waiter(self._hub)
        self.call_in_turn(functools.partial(waiter.switch, None))
        waiter.get()

    def event(self) -> Event:
        return gevent.event.Event() if self.is_current() else new_event()

    def run(self, task: Callable[[], Any]) -> None:
        self._ready.append(task)
        if len(self._ready) == 1:
            self._loop.run_callback(self._start_work)

    run_own = run  # there are always enough greenlets

    def _start_work(self) -> None:
        self._work_off(time.monotonic() + TURN)

    def _work_off(self, until: float) -> None:
        # One worker does all that are due, until one has to wait: a greenlet for each
        # task makes an echo a sixth dearer (python -m benchmarks --only echo).
        self._work_until = until
        while self._ready:
            (
                self._idle.pop() if self._idle else greenlet(self._work, self._hub)
            ).switch()
            if time.monotonic() > until:
                self.call_later(0, self._start_work)
                return

    def flush_soon(self) -> None:
        """Flush what will be ``unflushed`` at the end of this turn of the loop."""
        self._loop.run_callback(self._flush)

    def _flush(self) -> None:
        transports, self.unflushed = self.unflushed, []
        if len(transports) > FLUSH_LIMIT:
            # Who has something to send meanwhile does not wait for all the others.
            if not self._backlog:
                self.call_later(0, self._flush_backlog)
            self._backlog += transports[FLUSH_LIMIT:]
            del transports[FLUSH_LIMIT:]
        for transport in flush_ready(transports):
            transport.flush_rest()

    def _flush_backlog(self) -> None:
        # By a timer each, after the sockets; callbacks would come before them.
        transports = self._backlog[:FLUSH_LIMIT]
        del self._backlog[:FLUSH_LIMIT]
        if self._backlog:
            self.call_later(0, self._flush_backlog)
        for transport in flush_ready(transports):
            transport.flush_rest()

    def _work(self) -> None:
        """Run tasks, one after another, in a greenlet that the loop switches to."""
        tasks = self._ready
        while True:
            while tasks and time.monotonic() < self._work_until:
                task = tasks.popleft()
                try:
                    task()
                except BaseException:
                    self.tell(task)
                del task  # an idle worker would keep it, with a connection
            if len(self._idle) >= IDLE_WORKERS:
                return
            self._idle.append(getcurrent())
            self._hub.switch()


def new_event() -> Event:
    """Return an event to wait for where the caller is: see ``backends.Host``."""
    if runs_here() or gevent.monkey.is_module_patched("threading"):
        return LoopEvent(EventedLoop.current())
    return NativeEvent()
