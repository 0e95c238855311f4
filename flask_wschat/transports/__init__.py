"""Ways to move a connection's bytes: pushed up as they come, taken down unasked.

A transport owns a peer's descriptor and its queue, and knows nothing of WebSockets but
that what it is given to write are whole frames. Three parties meet here, each known to
the others by these protocols alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Event(Protocol):
    """What ``threading.Event`` is, in the manner of a loop."""

    def set(self) -> Any: ...
    def clear(self) -> Any: ...
    def wait(self, timeout: Any = None) -> Any: ...


class Loop(Protocol):
    """Where transports live, and where work for them runs."""

    shares_workers: bool
    """Whether tasks may have to wait for a worker, so that a long one should end."""

    def has_killed(self, error: BaseException) -> bool:
        """Whether ``error`` ended a task from outside, and was not raised by it."""

    @property
    def stalled(self) -> Collection[Any]:
        """Transports that have more to send than their peers have taken so far."""

    @property
    def lock(self) -> Any:
        """For what several threads change together, never while anything waits."""

    def is_alive(self) -> bool:
        """Whether the loop can still run anything."""

    def is_current(self) -> bool:
        """Whether the caller may touch this loop's transports directly."""

    def may_wait(self) -> bool:
        """Whether the caller may wait without stopping the loop."""

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call ``function`` in the loop, from any thread; return what it returns.

        Where the caller is in another loop, that one goes on meanwhile.

        :raises TimeoutError: the loop had no time for it within ten seconds, and will
            not do it.
        """

    def call_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back soon, in the loop and in order; from any thread."""

    def call_in_turn(self, callback: Callable[[], Any]) -> None:
        """Call back in the loop, after its sockets had their turn.

        All such callbacks share a few milliseconds of each turn, first come, first
        served. Only to be called in the loop.
        """

    def call_later(
        self, seconds: float, callback: Callable[[], Any]
    ) -> Callable[[], Any]:
        """Call back once after ``seconds``; the callable returned cancels that."""

    def run(self, task: Callable[[], Any]) -> None:
        """Run ``task``, which may wait, beside the loop."""

    def run_own(self, task: Callable[[], Any]) -> None:
        """Do as ``run`` with what those that ``run`` has been given may wait for.

        It may wait for the loop and the storage, and for nothing that is run.
        """

    def give_turn(self) -> None:
        """Let others run before the caller goes on, be it in the loop or elsewhere."""

    def event(self) -> Event:
        """Return a new event: the caller waits for it, and it is set in the loop."""


class Receiver(Protocol):
    """Who is told what happens to a transport; called in its loop, must not wait."""

    def _data_received(self, data: bytes) -> None:
        """These bytes came, at least one."""

    def _placed(self, size: int) -> None:
        """So many bytes came, and are in the place that ``expect`` was given."""

    def _connection_lost(self) -> None:
        """No more will come: end of file, a reset, an abort. At most once."""

    def _drained(self) -> None:
        """The queue, which ``notify_drained`` asked about, is empty enough."""

    def _dropped(self, count: int) -> None:
        """So many messages were lost for a newer one, as the queue was full."""


class Transport(Protocol):
    """One peer's bytes. Only its loop may call, but ``queued``, ``loop``, ``offer``."""

    @property
    def loop(self) -> Loop: ...

    @property
    def fd(self) -> int:
        """The descriptor, -1 where that is not all there is to it."""

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""

    def start(self, receiver: Receiver, received: bytes = b"") -> None:
        """Begin reading; ``received`` came with the handshake and is told first."""

    def offer(self, frame: bytes) -> bool:
        """Queue a whole frame if there is room; from any thread.

        False: there is none, for this peer or for all, or this is not the loop's
        thread; nothing has happened.
        """

    def write(self, frame: bytes, key: str | None = None) -> bool:
        """Queue a whole frame, to be sent with this turn's others. Never waits.

        False: the queue is full and its policy is to close; nothing was queued.
        """

    def admit(self, frame: bytes) -> None:
        """Queue a whole frame, full or not: it was counted before it came here."""

    @staticmethod
    def write_all(transports: list[Any], frame: bytes) -> list[Any]:
        """Write ``frame`` to each of ``transports``, which are of one loop and kind.

        Return those that could not take it as simply as that: to ``write`` it to.
        """

    @staticmethod
    def held(transports: list[Any]) -> list[int]:
        """Return the bytes of memory that the queue of each of ``transports`` holds.

        They are of one loop and kind. Of what several hold each has a part, so that the
        sum is what all of them hold. The kernel's memory is not counted.
        """

    def send_now(self) -> None:
        """Send what the peer takes at once, without waiting for the turn's end."""

    def expect(self, place: memoryview) -> None:
        """Put the next bytes there, if that spares a copy, and tell by ``_placed``.

        Once; it is void as soon as ``_data_received`` was told of other bytes.
        """

    def standing(self) -> tuple[int, int] | None:
        """Return how far a peer has come that takes less than there is for it.

        It is another value as soon as the peer takes anything. None: nothing waits for
        this one.
        """

    def notify_drained(self) -> None:
        """Ask for one ``_drained`` once the queue is half its limit or less."""

    def discard(self) -> None:
        """Forget what is queued, except a frame that is partly sent."""

    def pause(self) -> None:
        """Stop reading: the peer will feel it."""

    def resume(self) -> None:
        """Read again."""

    def finish(self, timeout: float) -> None:
        """Send what is queued, then end; cut off after ``timeout`` seconds."""

    def abort(self) -> None:
        """Let go of the peer now, whatever is queued."""
