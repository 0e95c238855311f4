"""What is published in a cluster: a connection to each primary, for its channels."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from ...errors import BackendError
from .slots import COUNT, Slots, Start, slot_of
from .subscriber import Server, Subscriber, Timings
from .wire import Arg, LinkError, ReplyError, code_of
from .wishes import Wishes

logger = logging.getLogger("flask_wschat")


class Owner(Protocol):
    """Whose connections they are; see ``subscriber.Owner``."""

    def published(self, topic: str, payload: bytes) -> None: ...
    def lost(self, topics: Sequence[str]) -> None: ...
    def probe(self, channel: bytes) -> None: ...
    def words(self, error: Exception, where: str | None = None) -> str: ...


class Shards:
    """What is a ``Subscriber`` elsewhere: one for each primary.

    Where a channel's slot moves, so does the subscription, and its topic was lost for
    as long as that took.
    """

    def __init__(
        self,
        owner: Owner,
        at: Callable[[str], Server],
        slots: Slots,
        wishes: Wishes,
        probe: Callable[[int], bytes],
        timings: Timings,
        start: Start,
    ) -> None:
        self.timings = timings
        self._owner = owner
        self._at = at
        self._slots = slots
        self._wishes = wishes
        self._probe = probe
        self._start = start
        self._version = -1
        self._stopped = False
        self._lock = threading.Lock()
        self._shards: dict[str, _Shard] = {}

    @property
    def fault(self) -> str | None:
        """Why something cannot be had, and the remedy."""
        if self._slots.error is not None:
            return self._owner.words(self._slots.error)
        faults = [s.fault for s in list(self._shards.values()) if s.fault is not None]
        return "; ".join(faults) or None

    @property
    def deaf(self) -> bool:
        """Whether that is so as nothing comes, though Redis may answer."""
        shards = list(self._shards.values())
        return self._slots.error is None and any(shard.deaf for shard in shards)

    def fault_at(self, key: Arg | None) -> str | None:
        """Why nothing can be had where ``key`` is."""
        if self._slots.error is not None:
            return self._owner.words(self._slots.error)
        shard = None if key is None else self._shards.get(self._slots.place(key))
        return None if shard is None else shard.fault

    def subscribe(self, topics: Sequence[str]) -> None:
        """See ``Subscriber.subscribe``."""
        waiter = self._wishes.add(topics)
        if not waiter.left:
            return
        self.wake()
        channels = [self._wishes.channel(topic) for topic in topics]
        fault = next(filter(None, map(self.fault_at, channels)), None)
        if fault is None and waiter.done.wait(self.timings.answer):
            return
        self._wishes.give_up(topics, waiter)
        if waiter.left:
            raise BackendError(fault or self._owner.words(TimeoutError()))

    def unsubscribe(self, topics: Sequence[str]) -> None:
        self._wishes.drop(topics)
        self.wake()

    def wake(self) -> None:
        for shard in list(self._shards.values()):
            shard.wake()

    def prepare(self) -> None:
        """Make ready for ``run``."""

    def run(self) -> None:
        """Begin; the connections have threads of their own."""
        self._slots.heard.append(self._arrange)
        self._slots.wake()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
        self._slots.stop()
        for shard in self._shards.values():
            shard.end()
        for shard in self._shards.values():
            shard.stop()

    def _arrange(self) -> None:
        """Listen to each primary there is; in the thread of the slots."""
        version = self._slots.version
        primaries = self._slots.primaries()
        known = version == self._version and primaries == self._shards.keys()
        if known and not self._wishes.orphaned:
            return
        self._version = version
        with self._lock:
            if self._stopped:
                return
            for node in self._shards.keys() - primaries:
                self._shards.pop(node).end()
            for node in primaries - self._shards.keys():
                shard = _Shard(self._owner, self._at(node), self._slots, self)
                shard.prepare()
                self._start(shard.run)
                self._shards[node] = shard
        self._wishes.rearrange()
        self.wake()

    def probe_at(self, node: str) -> bytes:
        """Return a channel of ours at ``node``.

        :raises LinkError: it has none.
        """
        for number in range(8 * COUNT):
            channel = self._probe(number)
            if self._slots.place(channel) == node:
                return channel
        raise LinkError("has no slots any more", sent=False)


class _Shard(Subscriber):
    """The connection to one primary."""

    _letter = "S"

    def __init__(
        self, owner: Owner, server: Server, slots: Slots, shards: Shards
    ) -> None:
        super().__init__(
            _AtNode(owner, server.where, slots),
            server,
            shards._wishes,
            b"",
            shards.timings,
            server.where,
        )
        self._slots = slots
        self._shards = shards

    def end(self) -> None:
        """Let go of it, and do not wait."""
        self._stopped = True
        self.wake()

    def _choose_probe(self) -> None:
        self._probe = self._shards.probe_at(self._place)

    def _groups(self, channels: list[bytes]) -> list[list[bytes]]:
        groups: dict[int, list[bytes]] = {}
        for channel in channels:
            groups.setdefault(slot_of(channel), []).append(channel)
        return list(groups.values())

    def _refused(self, error: ReplyError) -> None:
        words = str(error).split(" ")
        if code_of(error) != "MOVED" or len(words) != 3:
            raise error
        slot, node = int(words[1]), words[2]
        if node.startswith(":"):
            node = self._place.rpartition(":")[0] + node
        of_slot = self._wishes.refused(lambda c: slot_of(c) == slot, self._place)
        self._asked_for -= of_slot
        self._slots.learn(slot, node)
        if slot_of(self._probe) == slot:
            self._probe_elsewhere()

    def _ended_there(self, channel: bytes) -> None:
        slot = slot_of(channel)
        if channel == self._probe:
            self._unknown(slot)
            self._probe_elsewhere()
        elif self._wishes.ended(channel, self._place):
            self._unknown(slot)

    def _unknown(self, slot: int) -> None:
        """Note that ``slot`` is not here any more."""
        if self._slots.node(slot) == self._place:
            self._slots.learn(slot, "")

    def _probe_elsewhere(self) -> None:
        self._choose_probe()
        self._probing, self._asked = False, None
        self._next_probe = float("inf")


class _AtNode:
    """What a connection asks of its owner."""

    def __init__(self, owner: Owner, where: str, slots: Slots) -> None:
        self._owner = owner
        self._where = where
        self._slots = slots
        self.published = owner.published
        self.lost = owner.lost
        self.probe = owner.probe

    def words(self, error: Exception) -> str:
        return self._owner.words(error, self._where)

    def reset(self) -> None:
        self._slots.wake()
