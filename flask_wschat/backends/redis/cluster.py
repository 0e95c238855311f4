"""A cluster: commands go to the node that has their keys, and follow these.

See docs/decisions/48.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from ...errors import ConfigError
from ...transports.patched import RLock
from .address import Address, several
from .jobs import Anew, Job, Outcome, nothing, settled
from .pipe import Pipe
from .slots import Slots, slot_of
from .wire import Connection, LinkError, Reply, ReplyError, code_of, pack

_ASKING = pack("ASKING")
_ELSEWHERE = {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"}
_LATER = 0.05  # seconds until what cannot be done now is tried again


class ClusterAddress(Address):
    """``redis+cluster://user:password@host:6379,host2,host3?options``: some nodes.

    :raises ConfigError: the URL cannot work.
    """

    publish = "SPUBLISH"
    patience = 1.0

    def __init__(self, url: str, timeout: float) -> None:
        urls = several(url.replace("+cluster:", ":", 1))
        if urlsplit(urls[0]).path.strip("/") not in ("", "0"):
            raise ConfigError("WSCHAT_URL cannot work: a cluster has one database, 0")
        self.seeds = []
        for each in urls:
            super().__init__(each, timeout)
            self.seeds.append(self.where)
        self.where = ", ".join(self.seeds)

    def dial(self, node: str) -> Connection:
        """Open a connection to ``node``."""
        host, _, port = node.rpartition(":")
        return self._open(self._options | {"host": host.strip("[]"), "port": int(port)})

    def at(self, node: str) -> Node:
        return Node(self, node)


class Node:
    """One of them, for the connection that listens to it."""

    patience = 1.0

    def __init__(self, cluster: ClusterAddress, name: str) -> None:
        self._cluster = cluster
        self.where = name

    def connect(self) -> Connection:
        return self._cluster.dial(self.where)

    def check(self) -> None:
        pass


Due = Callable[[], None]


class Router:
    """What is a ``Pipe`` elsewhere: the connections to all nodes.

    What is about keys of one slot keeps its order, also while the slot moves from one
    node to another: it waits until nothing of it is on its way to the old one.
    """

    def __init__(
        self, slots: Slots, pipe: Callable[[str], Pipe], seconds: float
    ) -> None:
        self._slots = slots
        self._make = pipe
        self._seconds = seconds
        self._pipes: dict[str, Pipe] = {}
        self._lanes: dict[int, _Lane] = {}
        # The system's, held for moments: gevent's may not wake another thread. While it
        # is held nobody is told anything, and no thread is started.
        self._lock = RLock()
        self._closed = False
        slots.heard.append(self._go_on)

    def put(self, job: Job) -> None:
        """Send this soon, from any thread."""
        slots = {slot_of(call.key or b"") for call in job.calls}
        if len(slots) > 1:
            self._split(job)
            return
        slot = slots.pop() if slots else slot_of(job.key or b"")
        routed = _Routed(self, slot, job, time.monotonic() + self._seconds)
        with self._lock:
            lane = self._lanes.get(slot)
            if lane is None:
                lane = self._lanes[slot] = _Lane()
            lane.waiting.append(routed)
            due = self._advance(slot, lane)
        _do(due)

    def reset(self) -> None:
        """Use new connections from the next command on."""
        for pipe in list(self._pipes.values()):
            pipe.reset()

    def close(self) -> None:
        """Let go of all connections; who waits is told."""
        self._slots.heard.remove(self._go_on)
        with self._lock:
            self._closed = True
            due: list[Due] = [pipe.close for pipe in self._pipes.values()]
            due += self._advance_all()
        _do(due)

    def _split(self, job: Job) -> None:
        """Send the calls of each slot apart, and gather the replies."""
        groups: dict[int, list[int]] = {}
        for index, call in enumerate(job.calls):
            groups.setdefault(slot_of(call.key or b""), []).append(index)
        replies: list[Reply] = [None] * len(job.calls)
        errors: list[LinkError | ReplyError] = []
        left = len(groups)

        def gather(indices: list[int]) -> Callable[[Outcome], None]:
            def done(outcome: Outcome) -> None:
                nonlocal left
                with self._lock:
                    if isinstance(outcome, list):
                        for index, reply in zip(indices, outcome, strict=True):
                            replies[index] = reply
                    else:
                        errors.append(outcome)
                    left -= 1
                    last = not left
                if last:
                    self._end(job, errors[0] if errors else replies)

            return done

        for indices in groups.values():
            calls = [job.calls[index] for index in indices]
            self.put(Job(calls, gather(indices), again=job.again))

    def _end(self, job: Job, outcome: Outcome) -> None:
        more = settled(self, job, outcome)
        if more is not None:
            self.put(more)

    # -- the order in a slot; all with the lock

    def _advance(self, slot: int, lane: _Lane) -> list[Due]:
        """Have each pipe line up what may be sent; return what is due without the lock.

        Who is told may submit again, or take locks that others hold who submit.
        """
        due: list[Due] = []
        if lane.refused and not lane.flying:
            lane.waiting.extendleft(reversed(lane.refused))
            lane.refused.clear()
        node = self._slots.node(slot)
        while lane.waiting and not lane.refused:
            first, now = lane.waiting[0], time.monotonic()
            error = self._slots.error if not node and not first.node else None
            if self._closed or first.deadline <= now or error is not None:
                lane.waiting.popleft()
                why = LinkError("does not answer", sent=False, silent=True)
                due.append(partial(self._end, first.job, error or first.error or why))
                continue
            to = first.node or node
            moved = lane.flying and (lane.node != to or lane.careful)
            if moved or lane.due > now or not to:
                if not moved:
                    due.append(self._wake)
                return due
            lane.waiting.popleft()
            lane.node = to
            lane.flying += 1
            pipe = self._pipe(to)
            pipe.line_up(first)
            due.append(pipe.send_soon)
        if not lane.waiting and not lane.flying and not lane.refused:
            self._lanes.pop(slot, None)
        return due

    def _advance_all(self) -> list[Due]:
        due: list[Due] = []
        for slot, lane in list(self._lanes.items()):
            due += self._advance(slot, lane)
        return due

    def _pipe(self, node: str) -> Pipe:
        pipe = self._pipes.get(node)
        if pipe is None:
            pipe = self._pipes[node] = self._make(node)
        return pipe

    def done(self, routed: _Routed) -> None:
        """Note that it was answered."""
        with self._lock:
            lane = self._lanes[routed.slot]
            lane.flying -= 1
            if not routed.node:
                lane.careful = False
            due = self._advance(routed.slot, lane)
        _do(due)

    def refused(self, routed: _Routed, error: ReplyError) -> None:
        """Find another node for it, or wait."""
        code, *rest = str(error).split(" ")
        lane = self._lanes[routed.slot]  # the same while this one is on its way
        asked = routed.node or lane.node
        routed.node, routed.error = "", error
        known = code in ("MOVED", "ASK") and len(rest) == 2
        if known:
            name = rest[1]
            if name.startswith(":"):  # the host that we have asked
                name = asked.rpartition(":")[0] + name
            if code == "ASK":
                routed.node = name
            else:
                self._slots.learn(routed.slot, name)
        else:
            self._slots.wake()
        with self._lock:
            lane.flying -= 1
            lane.refused.append(routed)
            # What follows must not be done before it: one at a time, for now.
            lane.careful = True
            if not known:
                lane.due = time.monotonic() + _LATER
            due = self._advance(routed.slot, lane)
        _do(due)

    def trouble(self) -> None:
        """A node was not reached: there may be another one in its place."""
        self._slots.wake()

    def _wake(self) -> None:
        """Have those looked for that are not known."""
        try:
            self._slots.wake()
        except (OSError, RuntimeError) as error:  # no thread: nobody will
            why = LinkError(f"cannot be asked: {error}", sent=False, silent=True)
            with self._lock:
                for lane in self._lanes.values():
                    for routed in lane.waiting:
                        routed.deadline, routed.error = 0.0, why
                due = self._advance_all()
            _do(due)

    def _go_on(self) -> None:
        """Have a look at all that waits; in the thread of the slots."""
        with self._lock:
            due = self._advance_all()
            known = self._slots.primaries()
            if known:
                for node in self._pipes.keys() - known:
                    if all(lane.node != node for lane in self._lanes.values()):
                        due.append(self._pipes.pop(node).close)
        _do(due)


class _Lane:
    """What is on its way in one slot."""

    __slots__ = ("careful", "due", "flying", "node", "refused", "waiting")

    def __init__(self) -> None:
        self.node = ""  # where to
        self.flying = 0
        self.waiting: deque[_Routed] = deque()
        self.refused: list[_Routed] = []  # in order; they go first
        self.careful = False  # one at a time
        self.due = 0.0


class _Routed(Job):
    """A job on its way; ``node``: one that is asked though the slot is not its own."""

    __slots__ = ("deadline", "error", "job", "node", "router", "slot")

    def __init__(self, router: Router, slot: int, job: Job, deadline: float) -> None:
        super().__init__(job.calls, nothing, again=job.again)
        self.router = router
        self.slot = slot
        self.job = job
        self.deadline = deadline
        self.node = ""
        self.error: ReplyError | LinkError | None = None  # why it was refused last

    def pack(self) -> bytes:
        packed = self.job.pack()
        self.replies = []
        self.count = self.job.count
        if not self.node:
            return packed
        self.count *= 2
        if self.job.count == 1:
            return _ASKING + packed
        return b"".join([_ASKING + call.whole() for call in self.job.calls])

    def settle(self, pipe: Anew, outcome: Outcome) -> Job | None:
        if isinstance(outcome, list):
            if self.node:
                outcome = outcome[1::2]
            for reply in outcome:
                elsewhere = (
                    isinstance(reply, ReplyError) and code_of(reply) in _ELSEWHERE
                )
                if elsewhere and (self.job.again or len(outcome) == 1):
                    self.router.refused(self, reply)
                    return None
        elif isinstance(outcome, LinkError):
            self.router.trouble()
        more = self.job.settle(pipe, outcome)
        if more is None:
            self.router.done(self)
            return None
        self.job = more
        return self


def _do(due: Sequence[Due]) -> None:
    for each in due:
        each()
