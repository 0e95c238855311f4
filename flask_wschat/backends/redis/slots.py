"""Which node of a cluster has which keys, as far as we know."""

from __future__ import annotations

import binascii
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ...transports import Event
from ...transports.patched import allocate_lock
from .wire import Arg, Connection, LinkError, Reply, ReplyError, as_refusal, encode

logger = logging.getLogger("flask_wschat")

COUNT = 16384
_PAUSE = 0.05  # seconds in which what is wanted of us comes together
_OFTEN = 0.2  # between two questions
_SELDOM = 30.0  # while all is well

Start = Callable[[Callable[[], None]], None]


def slot_of(key: Arg) -> int:
    """Return the slot of ``key``: of what is in its first braces, if anything is."""
    name = key if isinstance(key, bytes) else encode(str(key))
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return binascii.crc_hqx(name, 0) % COUNT


class Nodes(Protocol):
    """How nodes are reached; see ``ClusterAddress``."""

    seeds: list[str]

    def dial(self, node: str) -> Connection: ...
    def ask(self, connection: Connection, *words: str) -> Reply: ...


class Slots:
    """The map, and a thread that keeps it right."""

    def __init__(self, nodes: Nodes, start: Start, event: Callable[[], Event]) -> None:
        self._nodes = nodes
        self._start = start
        self._event = event
        self._lock = allocate_lock()
        self._map = [""] * COUNT
        self._wanted = False
        self._bell: Event | None = None  # of the thread's own
        self._begun = self._stopped = False
        self._pid = os.getpid()
        self._asked = 0.0
        self._turn = 0
        self.version = 0
        """Grows with each change."""
        self.error: LinkError | ReplyError | None = None
        """Why nothing is known."""
        self.heard: list[Callable[[], None]] = []
        """Called in the thread after each question."""

    def node(self, slot: int) -> str:
        """Return the primary for ``slot``; "": it is not known."""
        return self._map[slot]

    def place(self, key: Arg) -> str:
        """Return the primary for ``key``; "": it is not known."""
        return self._map[slot_of(key)]

    def primaries(self) -> set[str]:
        return set(self._map) - {""}

    def learn(self, slot: int, node: str) -> None:
        """Note what a node has said, and ask for the rest."""
        if self._map[slot] != node:
            self._map[slot] = node
            self.version += 1
        self.wake()

    def wake(self) -> None:
        """Ask soon. Does not wait.

        :raises OSError: there is no thread for it.
        """
        if not self._begun:
            with self._lock:
                begin, self._begun = not self._begun, True
            if begin:
                try:
                    self._start(self._run)
                except BaseException:
                    self._begun = False
                    raise
        self._ring()

    def stop(self) -> None:
        self._stopped = True
        self._ring()

    def _ring(self) -> None:
        self._wanted = True
        if self._bell is not None:
            self._bell.set()

    # -- its thread

    def _run(self) -> None:
        pause = threading.Event()
        bell = self._bell = self._event()
        while not self._stopped:
            if not self._wanted:
                bell.wait(1.0)
            bell.clear()  # before a look at what is wanted, not after
            if os.getpid() != self._pid:
                return  # the copy of a greenlet in a fork
            since = time.monotonic() - self._asked
            if not (self._wanted or since > _SELDOM):
                continue
            if self._asked:
                pause.wait(_PAUSE)
            self._wanted = False
            if since >= _OFTEN or not self._asked:
                self._ask()
            else:
                self._wanted = True
            for call in list(self.heard):
                try:
                    call()
                except Exception:
                    logger.exception("error in what is done about the cluster")

    def _ask(self) -> None:
        """Ask one node after another until one answers."""
        self._turn += 1
        known = sorted(self.primaries())
        known = known[self._turn % len(known) :] + known if known else []
        first: LinkError | ReplyError | None = None
        for node in dict.fromkeys([*known, *self._nodes.seeds]):
            try:
                connection = self._nodes.dial(node)
                try:
                    reply = self._nodes.ask(connection, "CLUSTER", "SLOTS")
                finally:
                    connection.disconnect()
                found = _parsed(reply, node)
            except (LinkError, ReplyError, OSError) as error:
                refusal = as_refusal(error, sent=False)
                if first is None or isinstance(refusal, ReplyError):
                    first = refusal
                continue
            if any(found):
                self._take(found)
                return
            first = first or ReplyError("CLUSTERDOWN it has no slots")
        self._asked = time.monotonic()
        self.error = first
        self._wanted = True

    def _take(self, found: list[str]) -> None:
        self._asked = time.monotonic()
        self.error = None
        if found != self._map:
            before, now = self.primaries(), set(found) - {""}
            self._map = found
            self.version += 1
            if before and before != now:
                names = ", ".join(sorted(now))
                logger.warning("the primaries of the cluster are now %s", names)


def _parsed(reply: Any, asked: str) -> list[str]:
    """Return the primary of each slot.

    :raises ReplyError: it cannot be understood.
    """
    found = [""] * COUNT
    try:
        for first, last, (host, port, *_), *_ in reply:
            # Without a name it is where we have asked.
            name = host.decode() if host else asked.rpartition(":")[0]
            found[first : last + 1] = [f"{name}:{port}"] * (last + 1 - first)
    except (TypeError, ValueError, AttributeError):
        raise ReplyError("an answer to CLUSTER SLOTS that is none") from None
    return found
