"""Threads of which one runs at a time, and another one from whatever line is asked for.

``explore`` runs a scenario again and again over the real classes: first as it comes,
then once for each line of the files that are watched and each thread that may go on
there, and then with two such switches. That is nearly all there is to find: most races
need one switch at the wrong line, few need three. Nothing is left to chance, so that a
failure says which schedule it was, and ``Schedule`` repeats it.

What threads wait for in those files are the locks here instead of the system's: they
know who waits, so a deadlock is seen at once, and a wait with a time limit ends when
nobody else can do anything, at no expense of time.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import flask_wschat
from flask_wschat.transports import waiting
from flask_wschat.transports.patched import allocate_lock, get_ident

from .waiting import LONG

PACKAGE = os.path.dirname(flask_wschat.__file__) + os.sep

Schedule = dict[int, int]
"""By step: the number of the thread that goes on there instead of the one that did."""
Threads = Generator["list[Callable[[], Any]]", None, None]
Scenario = Callable[[], Threads]
"""Sets up, yields what is to run in a thread each, then checks."""

SEED = int(os.environ.get("SEED", "1"))
PAIRS = os.environ.get("INTERLEAVINGS", "25")
"""How many schedules with two switches are tried of each scenario, or ``all``."""
SINGLE = 6
"""With one switch so many times as many, if not all. Where somebody waits in a loop,
each of its lines is a place to switch at, which makes thousands."""


class Ended(SystemExit):
    """Raised in threads that wait when a run is over; nobody prints it."""


class Task:
    """A thread of a run."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.baton = allocate_lock()
        self.baton.acquire()
        self.ready: Callable[[], bool] | None = None  # waits until this holds
        self.limited = False  # it does not wait for ever
        self.timed_out = False
        self.finished = False
        self.serves = False  # a loop or a worker: a run ends without its end


class Scheduler:
    """One run."""

    now: Scheduler | None = None

    def __init__(self, schedule: Schedule, files: frozenset[str]) -> None:
        self.schedule = schedule
        self.files = files
        self.tasks: list[Task] = []
        self.by_thread: dict[int, Task] = {}
        self.step = 0
        self.active = 0  # what was done, so that a loop knows when there is nothing
        self.choices: list[tuple[int, ...]] = []
        self.switches: list[str] = []
        self.errors: list[BaseException] = []
        self.over = False
        self.always: Callable[[], Any] = nothing
        self.done = allocate_lock()
        self.done.acquire()

    # -- threads

    def add(self, name: str, *, serves: bool = False) -> Task:
        task = Task(len(self.tasks), name)
        task.serves = serves
        self.tasks.append(task)
        return task

    def run(self, task: Task, function: Callable[[], Any]) -> None:
        """Call ``function`` as ``task``, in the thread for it."""
        self.by_thread[get_ident()] = task
        task.baton.acquire()
        try:
            if not self.over:
                sys.settrace(self._trace)
                function()
        except Ended:
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            sys.settrace(None)
            task.finished = True
            self.active += 1
            del self.by_thread[get_ident()]
            if not self.over:
                self._hand_over(self._next(task))

    def current(self) -> Task | None:
        return self.by_thread.get(get_ident())

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            self.active += 1
        return self._trace_line if name in self.files else None

    def _trace_line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line" and not self.over:
            self._may_switch(frame)
        return self._trace_line

    # -- who goes on

    def _may_switch(self, frame: FrameType) -> None:
        self.always()
        task = self.current()
        assert task is not None
        other = self._chosen(task, self._able(task))
        if other is not None:
            code = frame.f_code
            self.switches.append(
                f"{task.name} stops before line {frame.f_lineno} of {code.co_name} in"
                f" {os.path.basename(code.co_filename)}: {other.name} goes on"
            )
            self._hand_over(other)
            self._await_baton(task)

    def block(self, ready: Callable[[], bool], limited: bool = False) -> bool:
        """Return True when ``ready``; False: it was limited, and nobody does it."""
        self.active += 1
        return self.idle(ready, limited)

    def idle(self, ready: Callable[[], bool], limited: bool = False) -> bool:
        """Do as ``block``, of which no loop need hear."""
        task = self.current()
        assert task is not None
        task.ready, task.limited = ready, limited
        try:
            while not ready():
                self._hand_over(self._next(task))
                self._await_baton(task)
                if task.timed_out:
                    task.timed_out = False
                    return ready()
            return True
        finally:
            task.ready, task.limited = None, False

    def _able(self, but: Task) -> list[Task]:
        return [
            task
            for task in self.tasks
            if task is not but
            and not task.finished
            and (task.ready is None or task.ready())
        ]

    def _chosen(self, task: Task, others: list[Task]) -> Task | None:
        """Note what might go on here; return what the schedule says."""
        self.step += 1
        self.choices.append(tuple(other.number for other in others))
        number = self.schedule.get(self.step)
        return next((other for other in others if other.number == number), None)

    def _next(self, task: Task) -> Task | None:
        """Return who goes on where ``task`` cannot; None: nobody can."""
        others = self._able(task)
        if others:
            return self._chosen(task, others[1:]) or others[0]
        if all(each.finished or each.serves for each in self.tasks):
            return None
        for each in self.tasks:
            if each.limited and not each.finished:
                each.timed_out = True
                return each
        frames = sys._current_frames()
        stuck = [
            f"{self.by_thread[ident].name}:\n"
            + "".join(traceback.format_stack(frame)[-6:-2])
            for ident, frame in frames.items()
            if ident in self.by_thread
        ]
        self.errors.append(AssertionError("they wait for ever:\n" + "\n".join(stuck)))
        return None

    def _hand_over(self, other: Task | None) -> None:
        if other is None:
            self.over = True
            self.done.release()
        else:
            other.baton.release()

    def _await_baton(self, task: Task) -> None:
        task.baton.acquire()
        if self.over:
            raise Ended

    def go(self) -> None:
        """Run until nobody can do anything; called outside of the run."""
        self.tasks[0].baton.release()
        ended = self.done.acquire(timeout=LONG)
        self.over = True
        for task in self.tasks:
            if not task.finished and task.baton.locked():
                task.baton.release()
        assert ended, f"a step took over {LONG:g} s"


class Lock:
    """A lock of the tasks; outside of a run it is there, and nobody waits."""

    reentrant = False

    def __init__(self) -> None:
        self._owner: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me, scheduler = get_ident(), Scheduler.now
        if self._count and not (self.reentrant and self._owner == me):
            if not blocking:
                return False
            assert scheduler is not None, "it would wait for ever"
            if not scheduler.block(lambda: not self._count, timeout >= 0):
                return False
        self._owner = me
        self._count += 1
        return True

    def release(self) -> None:
        if not self._count:
            raise RuntimeError("release unlocked lock")
        self._count -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class RLock(Lock):
    reentrant = True


class Gate:
    """Where a task of a scenario waits for another one of it."""

    def __init__(self) -> None:
        self._opened = False

    def open(self) -> None:
        self._opened = True

    def wait(self) -> None:
        assert Scheduler.now is not None
        Scheduler.now.block(lambda: self._opened)


class Semaphore:
    def __init__(self) -> None:
        self._value = 0

    def acquire(self, *, blocking: bool) -> bool:
        assert not blocking
        if self._value:
            self._value -= 1
            return True
        return False

    def release(self) -> None:
        self._value += 1


class Tasks:
    """A queue whose readers wait as tasks do."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        assert Scheduler.now is not None
        Scheduler.now.block(lambda: bool(self._items))
        return self._items.popleft()


class Serving(Protocol):
    """A loop whose thread may be one of a run."""

    def reset(self) -> None:
        """Have no workers: those of the last run have ended with it."""

    def serve(self, scheduler: Scheduler) -> None:
        """Be a task of ``scheduler`` until its run is over."""

    def begin(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Begin ``function`` in its thread; call what is returned to have it end."""


def nothing() -> None:
    pass


class Explorer:
    """Runs scenarios on loops, switching in ``files`` (from the package's folder).

    ``errors``: what must be empty after each run, besides.
    """

    def __init__(self, *serving: Serving, files: Iterable[str]) -> None:
        self.serving = serving
        self.files = frozenset(os.path.join(PACKAGE, name) for name in files)
        self.runs = 0
        self.always: Callable[[], Any] = nothing
        """Called before each line: for what must hold at any time."""

    def explore(self, scenario: Scenario, *, pairs: str = PAIRS) -> None:
        """Run ``scenario`` on its schedules; raise the first failure, and say which."""
        first = self._run(scenario, {})
        single = list(_children({}, first))
        chance = random.Random(SEED)
        if pairs != "all" and len(single) > SINGLE * int(pairs):
            single = chance.sample(single, SINGLE * int(pairs))
        extended = [(schedule, self._run(scenario, schedule)) for schedule in single]
        if pairs == "all":
            for schedule, choices in extended:
                for further in _children(schedule, choices):
                    self._run(scenario, further)
            return
        print(f"{self.runs} schedules; {pairs} with two switches, SEED={SEED}")
        for _ in range(int(pairs)):
            schedule, choices = chance.choice(extended)
            if (child := _any_child(schedule, choices, chance)) is not None:
                self._run(scenario, child)

    def _run(self, scenario: Scenario, schedule: Schedule) -> list[tuple[int, ...]]:
        self.runs += 1
        scheduler = Scheduler(schedule, self.files)
        self.always = nothing
        steps = scenario()
        try:
            functions = next(steps)
            scheduler.always = self.always
            with _as_now(scheduler):
                self._let_run(scheduler, functions)
            for error in scheduler.errors:
                raise error
            assert next(steps, None) is None
        except BaseException as error:
            switches = "\n".join(scheduler.switches) or "no switch"
            said = f"schedule {schedule}:\n{switches}"
            # Python 3.11 has it.
            getattr(error, "add_note", print)(said)
            raise
        finally:
            steps.close()
        return scheduler.choices

    def _let_run(
        self, scheduler: Scheduler, functions: list[Callable[[], Any]]
    ) -> None:
        threads = []
        for number, function in enumerate(functions):
            task = scheduler.add(f"thread {number + 1}")
            run = functools.partial(scheduler.run, task, function)
            threads.append(threading.Thread(target=run))
        serving = []
        for loop in self.serving:
            loop.reset()
            task = scheduler.add("the loop", serves=True)
            serve = functools.partial(loop.serve, scheduler)
            run = functools.partial(scheduler.run, task, serve)
            serving.append(loop.begin(run))
        for thread in threads:
            thread.start()
        scheduler.go()
        for finish in serving:
            finish()
        for thread in [*threads, *scheduler_threads(scheduler)]:
            thread.join(LONG)
            assert not thread.is_alive()


_spawned: list[tuple[Scheduler, threading.Thread]] = []


def scheduler_threads(scheduler: Scheduler) -> list[threading.Thread]:
    """Return the threads that began in the run."""
    found = [thread for whose, thread in _spawned if whose is scheduler]
    _spawned.clear()
    return found


@contextmanager
def _as_now(scheduler: Scheduler) -> Iterator[None]:
    """Have new threads of the run be tasks of it, and locks be theirs."""
    start = threading.Thread.start

    def start_as_task(thread: threading.Thread) -> None:
        if scheduler.current() is not None:
            task = scheduler.add(thread.name, serves=True)
            run = functools.partial(scheduler.run, task, thread.run)
            thread.run = run  # type: ignore[method-assign]
            _spawned.append((scheduler, thread))
        start(thread)

    Scheduler.now = scheduler
    threading.Thread.start = start_as_task  # type: ignore[assignment, method-assign]
    vars(waiting)["allocate_lock"] = Lock
    try:
        yield
    finally:
        Scheduler.now = None
        threading.Thread.start = start  # type: ignore[method-assign]
        vars(waiting)["allocate_lock"] = allocate_lock


def _children(schedule: Schedule, choices: list[tuple[int, ...]]) -> Iterator[Schedule]:
    """Yield ``schedule`` with one more switch, after those it has."""
    begin = max(schedule, default=0)
    for step, others in enumerate(choices[begin:], begin + 1):
        for other in others:
            yield {**schedule, step: other}


def _any_child(
    schedule: Schedule, choices: list[tuple[int, ...]], chance: random.Random
) -> Schedule | None:
    begin = max(schedule)
    steps = [step for step in range(begin, len(choices)) if choices[step]]
    if not steps:
        return None
    step = chance.choice(steps)
    return {**schedule, step + 1: chance.choice(choices[step])}
