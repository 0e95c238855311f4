"""A joined pair of transports in memory, for tests: real bytes, no descriptor."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Any, Literal

from . import Receiver, T
from .accelerated import Allowance
from .outbox import Outbox, held


class InlineLoop:
    """A loop that runs what it is given before the outermost call returns.

    ``timers`` holds what was asked for later, as (seconds, callback), for a test to
    call: time does not pass here by itself.
    """

    shares_workers = False
    stalled = ()  # each transport has a loop of its own

    def __init__(self) -> None:
        self._ready: collections.deque[Callable[[], Any]] = collections.deque()
        self._running = False
        self.lock = threading.RLock()
        self.timers: list[tuple[float, Callable[[], Any]]] = []

    def is_alive(self) -> bool:
        return True

    def has_killed(self, error: BaseException) -> bool:
        return False

    def is_current(self) -> bool:
        return True

    def may_wait(self) -> bool:
        return False

    def call(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    def call_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        self.run(lambda: callback(*args))

    def call_in_turn(self, callback: Callable[[], Any]) -> None:
        self.run(callback)

    def call_later(
        self, seconds: float, callback: Callable[[], Any]
    ) -> Callable[[], Any]:
        entry = (seconds, callback)
        self.timers.append(entry)

        def cancel() -> None:
            if entry in self.timers:
                self.timers.remove(entry)

        return cancel

    def run(self, task: Callable[[], Any]) -> None:
        self._ready.append(task)
        if self._running:
            return
        self._running = True
        try:
            while self._ready:
                self._ready.popleft()()
        finally:
            self._running = False

    run_own = run

    def give_turn(self) -> None:
        pass

    def event(self) -> threading.Event:
        return threading.Event()


class MemoryTransport:
    """One end of a pair; see ``pair``."""

    fd = -1

    def __init__(
        self,
        loop: InlineLoop,
        *,
        max_queue: int,
        policy: Literal["close", "drop_oldest"] = "close",
        allowance: Allowance | None = None,
    ) -> None:
        self.loop = loop
        self.peer: MemoryTransport | None = None
        self._outbox = Outbox(max_queue, policy, allowance)
        self._receiver: Receiver | None = None
        self._inbound = bytearray()
        self._paused = True
        self._notify = False
        self._finishing = False
        self._cancel: Callable[[], Any] | None = None
        self._ended = False  # nothing more will be written to the peer
        self._taken = 0
        self.open = True

    @property
    def queued(self) -> int:
        return self._outbox.size

    def start(self, receiver: Receiver, received: bytes = b"") -> None:
        self._receiver = receiver
        self._inbound[:0] = received
        self.resume()

    def offer(self, frame: bytes) -> bool:
        outbox = self._outbox
        if outbox.size >= outbox.limit or outbox.allowance.left < 0:
            return False
        return self.write(frame)

    def write(self, frame: bytes, key: str | None = None) -> bool:
        if not self.open:
            return True
        if not self._outbox.push(frame, key):
            return False
        self.loop.run(self._flush)
        if self._outbox.dropped and self._receiver is not None:
            self._receiver._dropped(self._outbox.take_dropped())
        return True

    def admit(self, frame: bytes) -> None:
        if self.open:
            self._outbox.append(frame)
            self.loop.run(self._flush)

    def standing(self) -> tuple[int, int] | None:
        return (self._taken, 0) if self._outbox.size else None

    @staticmethod
    def write_all(
        transports: list[MemoryTransport], frame: bytes
    ) -> list[MemoryTransport]:
        return transports

    @staticmethod
    def held(transports: list[MemoryTransport]) -> list[int]:
        return held([transport._outbox for transport in transports])

    def send_now(self) -> None:
        self._flush()

    def expect(self, place: memoryview) -> None:
        pass  # all is copied here anyway

    def notify_drained(self) -> None:
        self._notify = True

    def discard(self) -> None:
        self._outbox.clear()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self.loop.run(self._pump)

    def finish(self, timeout: float) -> None:
        if not self.open or self._finishing:
            return
        self._finishing = True
        self._cancel = self.loop.call_later(timeout, self.abort)
        self.resume()
        self.loop.run(self._flush)

    def abort(self) -> None:
        if not self.open:
            return
        self.open = False
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        receiver, self._receiver = self._receiver, None
        self._outbox.clear()
        if self.peer is not None and not self._ended:
            self._ended = True
            self.loop.run(self.peer._pump)
        if receiver is not None:
            receiver._connection_lost()

    def _flush(self) -> None:
        """Hand over the queue, as far as the peer reads: pausing is its full buffer."""
        peer = self.peer
        if not self.open or peer is None:
            return
        if not peer._paused and self._outbox.size:
            self._taken += self._outbox.size
            self._outbox.drain(peer._take)
            self.loop.run(peer._pump)
        if self._notify and self._outbox.size <= self._outbox.limit // 2:
            self._notify = False
            if self._receiver is not None:
                self._receiver._drained()
        if self._finishing and not self._outbox.size and not self._ended:
            self._ended = True
            self.loop.run(peer._pump)

    def _take(self, data: bytes | memoryview) -> int:
        self._inbound += data
        return len(data)

    def _pump(self) -> None:
        peer = self.peer
        if self._paused or not self.open or peer is None:
            return
        if self._inbound:
            data = bytes(self._inbound)
            self._inbound.clear()
            if not self._finishing and self._receiver is not None:
                self._receiver._data_received(data)
        if peer._ended and not peer._outbox.size and not self._inbound:
            self.abort()
        elif peer._outbox.size:
            self.loop.run(peer._flush)


def pair(
    *,
    max_queue: int = 1 << 20,
    policy: Literal["close", "drop_oldest"] = "close",
    allowance: Allowance | None = None,
) -> tuple[MemoryTransport, MemoryTransport]:
    """Return two ends: what one writes, the other's receiver is told.

    ``allowance`` is of the first one's queue.
    """
    loop = InlineLoop()
    ends = (
        MemoryTransport(loop, max_queue=max_queue, policy=policy, allowance=allowance),
        MemoryTransport(loop, max_queue=max_queue, policy=policy),
    )
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    return ends
