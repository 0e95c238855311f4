"""A loop that turns when it is its turn, and connections in it."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_wschat.backends import Backend
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.codec import Connection, Event
from flask_wschat.hub.hub import Hub
from flask_wschat.settings import Settings
from flask_wschat.transports.evented import EventedTransport
from flask_wschat.transports.threaded import WORKERS, ThreadedLoop, Workers
from flask_wschat.websocket import WebSocket

from .interleaving import RLock, Scheduler, Semaphore, Tasks
from .waiting import LONG


class SteppedLoop(ThreadedLoop):
    """The loop of servers with threads, which turns only when it is its turn."""

    def __init__(self) -> None:
        self._jobs = Jobs()
        super().__init__()
        self.lock = RLock()
        self.reset()

    def reset(self) -> None:
        """Have no workers: those of the last run have ended with it."""
        self._callbacks = self._own = SteppedWorkers()
        self._outside: deque[Callable[[], Any]] = deque()

    def run(self, task: Callable[[], Any]) -> None:
        if Scheduler.now is not None:
            super().run(task)
        else:
            self._outside.append(task)

    run_own = run

    def run_forever(self) -> None:
        self._turn()
        while (job := self._jobs.get()) is not None:
            job()
        self._hub.destroy(destroy_loop=True)

    def _turn(self) -> None:
        self._loop.run(nowait=True, once=True)

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what ``function`` returns in the loop; outside of a run only."""
        return self._jobs.do(lambda: function(*args))

    def settle(self) -> None:
        """Turn as long as workers have anything to do; outside of a run only."""

        def work_off() -> None:
            for _ in range(3):
                self._turn()
                while self._outside:
                    worker = threading.Thread(target=self._outside.popleft())
                    worker.start()
                    while worker.is_alive():
                        self._turn()
                        worker.join(0.0001)

        self._jobs.do(work_off)

    def serve(self, scheduler: Scheduler) -> None:
        """Be a task of ``scheduler`` until its run is over."""
        seen = -1

        def others_did_something() -> bool:
            return scheduler.active != seen

        while True:
            scheduler.idle(others_did_something)
            before = scheduler.active
            self._turn()
            idle = scheduler.active == before
            seen = scheduler.active if idle else -1

    def begin(self, function: Callable[[], Any]) -> Callable[[], Any]:
        return self._jobs.begin(function)

    def stop(self) -> None:
        self._jobs.put(None)


class SteppedWorkers(Workers):
    def __init__(self) -> None:
        super().__init__(WORKERS, "stepped")
        self._tasks: Any = Tasks()
        self._free: Any = Semaphore()


@pytest.fixture(scope="module")
def loop() -> Iterator[SteppedLoop]:
    loop = SteppedLoop()
    yield loop
    loop.stop()


class Jobs:
    """What a thread is to do next, one after the other."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self._come = threading.Semaphore(0)

    def put(self, job: Any) -> None:
        self._waiting.append(job)
        self._come.release()

    def get(self) -> Any:
        self._come.acquire()
        return self._waiting.popleft()

    def begin(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Begin ``function`` there; call what is returned to have its outcome."""
        outcome: list[Any] = []
        done = threading.Event()

        def job() -> None:
            try:
                outcome.append((function(), None))
            except BaseException as error:
                outcome.append((None, error))
            done.set()

        def finish() -> Any:
            assert done.wait(LONG), "it does not end"
            value, error = outcome[0]
            if error is not None:
                raise error
            return value

        self.put(job)
        return finish

    def do(self, function: Callable[[], Any]) -> Any:
        return self.begin(function)()


def make_hub(backend: Backend | None = None, **settings: Any) -> Hub:
    """Return one whose locks are those of a run."""
    if backend is None:
        backend = MemoryBackend()
    errors: list[BaseException] = []
    hub = Hub(
        Settings(**settings),
        backend,
        dumps=repr,
        loads=eval,
        report=lambda error, ws=None, event="": errors.append(error),
    )
    hub.errors = errors  # type: ignore[attr-defined]
    hub.home.choosing = RLock()
    if isinstance(backend, MemoryBackend):
        vars(backend)["_lock"] = RLock()
    return hub


class Pair:
    """A connection in a loop that is stepped, and its peer's socket."""

    ws: WebSocket

    def __init__(
        self,
        loop: SteppedLoop,
        *,
        hub: Hub | None = None,
        user: str | None = None,
        open_now: bool = True,
        **settings: Any,
    ) -> None:
        self.hub = hub or make_hub(**settings)
        self.loop: Any = loop
        self._user = user
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.codec = Connection(client=True, max_message=1 << 30)
        self.events: list[Event] = []
        ours.setblocking(False)
        self._descriptor = ours.detach()
        if open_now:
            loop.do(self._open, loop)
            loop.settle()

    def open_where_the_others_are(self) -> None:
        """Open in the hub's home, as a request does that came to ``loop``."""
        home = self.hub.home

        def open_there(loop: SteppedLoop) -> bool:
            with home.choosing:
                if home.loop_for(loop) is not loop:
                    return False
                self._open(loop)
                return True

        home.settled(self.loop)
        while not (loop := home.loop_for(self.loop)).call(open_there, loop):
            pass

    def _open(self, loop: SteppedLoop) -> None:
        limit = self.hub.settings.MAX_QUEUE
        transport = EventedTransport(self._descriptor, loop, max_queue=limit)
        self.ws = WebSocket(transport, self.hub, Connection(), user=self._user)
        self.hub.register(self.ws, loop)
        self.ws._start()

    def say(self, *messages: str | bytes) -> None:
        self.peer.sendall(b"".join(map(self.codec.send, messages)))

    def hear(self) -> list[Event]:
        """Return all that the peer has heard until now."""
        try:
            while data := self.peer.recv(1 << 20):
                self.events += self.codec.receive_data(data)
        except BlockingIOError:
            pass
        return self.events

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.do(self.ws._transport.abort)
        self.peer.close()
        if error[0] is None:
            assert not self.hub.errors  # type: ignore[attr-defined]
