"""What one process has of Redis: its connections, and what it says when they fail."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...errors import BackendError
from ...logs import printable
from ...messages import Delivery
from ...transports import Event
from ...transports.ending import at_last, not_at_last
from ...transports.patched import allocate_lock
from ...transports.waiting import NativeEvent, leave_loop
from ..contract import Host
from ..pages import Seen
from ..shares import Shares
from .cluster import ClusterAddress, Router
from .jobs import Job
from .packing import MADE, Announced, unpack_passing
from .people import People
from .pipe import Pipe
from .publishing import Limits, Publisher
from .shards import Shards
from .slots import Slots
from .subscriber import Subscriber, Timings
from .wire import (
    Arg,
    Call,
    Connection,
    LinkError,
    Reply,
    ReplyError,
    Script,
    as_refusal,
    code_of,
)
from .wishes import Wishes

logger = logging.getLogger("flask_wschat")

_WORDS = {
    "OOM": "its memory is full: raise maxmemory, or lower WSCHAT_HISTORY_SIZE or"
    " WSCHAT_HISTORY_BYTES",
    "READONLY": "it is a read-only replica: WSCHAT_URL must name the primary",
    "LOADING": "it is still loading its data: wait",
    "NOAUTH": "it wants a password: redis://user:password@host in WSCHAT_URL",
    "WRONGPASS": "it refuses the user or the password in WSCHAT_URL",
    "NOPERM": "the user in WSCHAT_URL may not: give it the rights in"
    " docs/deploy/redis.conf",
    "MISCONF": "it cannot write to its disk",
    "NOREPLICAS": "it has fewer replicas in time than its min-replicas-to-write",
    "MASTERDOWN": "it is a replica without its primary",
    "MOVED": "it is a part of a cluster: WSCHAT_URL must begin with redis+cluster://",
    "WRONGTYPE": "another program has written to a key of ours: delete it",
    "NOMASTER": "the sentinels know no primary of this name: look at WSCHAT_URL",
    "NOCLUSTER": "it is no cluster: WSCHAT_URL must begin with redis://",
    "CLUSTERDOWN": "the cluster has no primary for a part of the slots",
}

_PROBED = {
    "READONLY",
    "LOADING",
    "NOAUTH",
    "WRONGPASS",
    "MISCONF",
    "MASTERDOWN",
    "NOREPLICAS",
}
"""Those that the subscriber's probe meets, too, and the log has from there."""

_SILENT = "does not answer"
_END = 1.0  # seconds that a thread has to end
_QUIET = 60.0  # seconds without a refusal until the next one is news


class Endpoint(Protocol):
    """Where Redis is, and how its keys are called."""

    @property
    def where(self) -> str: ...
    @property
    def patience(self) -> float: ...
    def check(self) -> None: ...
    def key(self, topic: str, suffix: str) -> bytes: ...
    def script(self, name: str, limits: Sequence[int] = ()) -> Script: ...
    @property
    def publish(self) -> str: ...
    def channel(self, topic: str) -> bytes: ...
    def connect(self) -> Connection: ...


class Process:
    """What one process has: a connection for commands, one for publications."""

    def __init__(
        self,
        server: Endpoint,
        host: Host | None,
        timings: Timings,
        presence_ttl: float,
        limits: Limits,
        shares: Shares,
        replicas: int,
    ) -> None:
        self._server = server
        self._timings = timings
        self._host = host
        self._patched = socket.socket.__module__.startswith("gevent")
        self._replicas = replicas
        self._pipes: dict[tuple[int, bool], Pipe | Router] = {}
        self._lock = allocate_lock()
        self._listening = self._stopping = self._stopped = False
        self._garbage = 0.0
        self._refused: dict[str, float] = {}  # when last, by the refusal's word
        self._pid = os.getpid()
        self._apart: list[NativeEvent] = []  # the ends of threads in a patched process
        if self._patched:
            at_last(self._end)  # who ends before may still say so by it
        self.seen = Seen()
        self._announced: dict[str, Announced] = {}  # the rest of it is to come
        self.publisher = Publisher(self, server, limits, shares, waits=replicas > 0)
        self.people = People(self.run, server, presence_ttl)
        name = f"process:{self.people.process}"
        self._slots: Slots | None = None
        self.subscriber: Subscriber | Shards
        if isinstance(server, ClusterAddress):
            self._slots = slots = Slots(server, self._begin, self._event)
            self.wishes = Wishes(server.channel, self._event, slots.place)
            self.subscriber = Shards(
                self,
                server.at,
                slots,
                self.wishes,
                lambda number: server.key(f"{name}:{number}", "probe"),
                timings,
                self._begin,
            )
        else:
            self.wishes = Wishes(server.channel, self._event)
            probe = server.key(name, "probe")
            self.subscriber = Subscriber(self, server, self.wishes, probe, timings)

    def listen(self) -> None:
        """Have the connection for publications. Does not wait.

        :raises BackendError: there is no thread, or descriptor, for it; the next one
            who calls tries again.
        """
        if self._listening:
            return
        try:
            with self._lock:
                if self._listening:
                    return
                self.subscriber.prepare()
                self._listening = True
            self._begin(self.subscriber.run)
        except (OSError, RuntimeError) as error:
            self._listening = False
            raise BackendError(f"Redis cannot be listened to: {error}") from error

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """Hear no more of ``topics``, and keep nothing of what was heard."""
        self.subscriber.unsubscribe(topics)  # first: what comes now is not noted
        self.seen.forget(topics)
        for topic in topics:
            self._announced.pop(topic, None)

    def lane(self) -> int:
        """Return which of the connections for commands the caller's thread has.

        gevent's sockets belong to one thread. Those beside its loop share a connection
        that has a thread of its own, as nobody turns their loops.
        """
        if not self._patched or self._host is None:
            return 0
        return int(threading.get_native_id() != threading.main_thread().native_id)

    def _begin(self, run: Callable[[], None]) -> None:
        """Have ``run`` called beside the caller; again, if that is killed.

        Who ends greenlets that it does not know means what waits for Redis.
        """
        pid = os.getpid()

        def keep() -> None:
            try:
                run()
                if os.getpid() != pid:
                    # The copy of a greenlet in a fork, where threading knows no such
                    # thread: it may wait, but not end.
                    threading.Event().wait()
            except BaseException as error:  # greenlet's, as no other comes out of it
                if not self._stopped:
                    self._begin(run)
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise  # to the program

        self._start(keep)

    def _start(self, run: Callable[[], None]) -> None:
        if self._host is None or (self._patched and not self.lane()):
            # Patched, this is a greenlet in the loop that the connections are in: it
            # uses the loop's sockets, and hands on without waking another thread.
            threading.Thread(target=run, name="wschat-redis", daemon=True).start()
        elif not self._patched:
            self._host.start_thread(run)
        else:
            self._start_apart(run)

    def _start_apart(self, run: Callable[[], None]) -> None:
        """Run it in a thread of the system's, in a patched process."""
        ended = NativeEvent()

        def keep() -> None:
            try:
                run()
            finally:
                leave_loop()
                ended.set()

        assert self._host is not None
        self._host.start_thread(keep)
        self._apart.append(ended)

    def _end(self) -> None:
        """Stop, and have threads end before Python does: see ``leave_loop``."""
        if os.getpid() == self._pid:
            self.stop()

    def stop(self) -> None:
        """Let go of everything; nothing can be had any more."""
        with self._lock:
            first = not self._stopping
            self._stopping = self._listening = True
        if first:
            self._let_go()
        for ended in self._apart:
            ended.wait(_END)

    def _let_go(self) -> None:
        if self.subscriber.fault is None:
            self.people.leave()
        self._stopped = True
        self.subscriber.stop()
        for pipe in list(self._pipes.values()):
            pipe.close()
        not_at_last(self._end)

    def _event(self) -> Event:
        """Return what the caller waits for, and any thread sets."""
        return threading.Event() if self._host is None else self._host.event()

    def run(self, calls: Sequence[Call], *, again: bool) -> list[Reply]:
        """Return the replies to ``calls``, sent in one go.

        ``again``: they may be sent again, though the first ones may have arrived.

        :raises BackendError: one failed, or is not known to have not.
        """
        self._check(calls[0].key)
        return self._run(calls, again)

    def wait(self, submit: Callable[[Callable[[Any], None]], None]) -> Any:
        """Return what ``submit`` has its argument called with, or raise it.

        Waits in the caller's own manner.
        """
        outcome: list[Any] = []
        event = self._event()

        def done(result: Any) -> None:
            outcome.append(result)
            event.set()

        submit(done)
        # It comes within that; but a waiter does not rely on others alone.
        if not outcome and not event.wait(3 * self._timings.answer + 1):
            raise BackendError(self.words(LinkError(_SILENT, sent=True, silent=True)))
        if isinstance(outcome[0], Exception):
            # Others may have it, too: without their frames, which it would keep.
            raise outcome[0].with_traceback(None)
        return outcome[0]

    def put(self, key: Arg | None, job: Job, *, kept: bool = False) -> None:
        """Send ``job``, which is about ``key``; from any thread, and waits for nothing.

        ``kept``: it stores messages.

        :raises BackendError: there is no way now.
        """
        self._check(key)
        self._pipe(kept).put(job)

    def error(self, error: LinkError | ReplyError) -> BackendError:
        """Return what to raise for ``error``, and have it in the log if it is news."""
        raised = BackendError(self.words(error))
        raised.__cause__ = error
        self._note(error)
        return raised

    def position(self, topic: str) -> tuple[str, int, str]:
        return self.seen.position(topic)

    def _check(self, key: Arg | None) -> None:
        if self._stopped:
            raise BackendError("the connection to Redis was stopped")
        fault = self.subscriber.fault_at(key)
        if fault is not None:
            raise BackendError(fault)  # who knows it need not wait

    def _new_pipe(self, replicas: int) -> Pipe | Router:
        seconds, server = self._timings.answer, self._server
        hello = self.publisher.hello
        if self._slots is None or not isinstance(server, ClusterAddress):
            return Pipe(server.connect, seconds, self._begin, replicas, hello)

        def to(node: str) -> Pipe:
            connect = server.at(node).connect
            return Pipe(connect, seconds, self._begin, replicas, hello)

        return Router(self._slots, to, seconds)

    def _pipe(self, kept: bool = False) -> Pipe | Router:
        """Return the connection for commands; ``kept``: for what stores messages."""
        replicas = self._replicas if kept else 0  # others do not wait for a replica
        which = (self.lane(), replicas > 0)
        pipe = self._pipes.get(which)
        if pipe is None:
            pipe = self._pipes.setdefault(which, self._new_pipe(replicas))
        return pipe

    def _run(self, calls: Sequence[Call], again: bool) -> list[Reply]:
        def submit(done: Callable[[Any], None]) -> None:
            self._pipe().put(Job(calls, done, again=again))

        try:
            replies: list[Reply] = self.wait(submit)
        except (LinkError, ReplyError) as error:
            raise self.error(error) from error
        return replies

    def _note(self, error: LinkError | ReplyError) -> None:
        """Have a refusal in the log, once for as long as it lasts."""
        if isinstance(error, LinkError):
            # The subscriber has the others in the log, as it meets them as well.
            code = "WAIT" if error.alone else None
        else:
            code = code_of(error)
        if code is None or code in _PROBED:
            return
        now = time.monotonic()
        if now - self._refused.get(code, -_QUIET) >= _QUIET:
            logger.error("%s", self.words(error))
        self._refused[code] = now

    # -- what the subscriber asks of us

    def published(self, topic: str, payload: bytes) -> None:
        try:
            deliveries = self._unpacked(topic, payload)
        except ValueError as error:
            now = time.monotonic()
            if now >= self._garbage:  # who sends one may send many
                self._garbage = now + 1
                logger.warning(
                    "ignored a strange publication to %s: %s",
                    printable(topic),
                    printable(error),
                )
            return
        if self._host is None:
            return
        for delivery in deliveries:
            try:
                if delivery.message.event == MADE:
                    # A host that knows nothing of claims need not have it.
                    epoch = str(delivery.message.data)
                    getattr(self._host, "made", _ignore)(topic, epoch)
                else:
                    self._host.deliver(delivery)
            except Exception:
                logger.exception("error in a delivery to %s", topic)

    def _unpacked(self, topic: str, payload: bytes) -> list[Delivery]:
        """Return what is whole with ``payload``.

        :raises ValueError: it is none of ours.
        """
        if payload.startswith(b"0 "):
            return [unpack_passing(topic, payload)]
        if payload.startswith(b"{"):
            announced = self._announced.pop(topic, None)
            if announced is None:
                raise ValueError("bodies that nothing tells of")
            announced.add(payload)
        else:
            announced = Announced(payload)
        if not announced.whole:
            self._announced[topic] = announced
            return []
        deliveries = announced.deliveries(topic)
        last = deliveries[-1]
        self.seen.note(topic, last.epoch, last.seq, last.tag)
        return deliveries

    def lost(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self._announced.pop(topic, None)
        if self._host is not None:
            self._host.lost(topics)

    def probe(self, channel: bytes) -> None:
        # A write, as a replica or one with a full disk would publish all the same.
        self._run(
            [Call("DEL", [channel]), Call(self._server.publish, [channel, b""])], True
        )

    def words(self, error: Exception, where: str | None = None) -> str:
        if isinstance(error, BackendError):
            return str(error)
        place = self._server.where if where is None else where
        return f"Redis at {place}{_words(as_refusal(error, True))}"

    def reset(self) -> None:
        for pipe in list(self._pipes.values()):
            pipe.reset()


def _words(error: LinkError | ReplyError) -> str:
    """Return what is the matter with Redis, and the remedy."""
    if isinstance(error, LinkError):
        return f" {error}"
    remedy = _WORDS.get(code_of(error) or "")
    return f" refused: {error}" if remedy is None else f": {remedy} ({error})"


def _ignore(topic: str, epoch: str) -> None:
    pass
