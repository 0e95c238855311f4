"""Who is in which topic, by process; and which process lives."""

from __future__ import annotations

import itertools
import json
import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from ...errors import BackendError
from ...logs import SparingLog, printable
from ...messages import Attendance, room_of
from ..contract import EMPTY
from .wire import Arg, Call, Reply, Script, decode, encode

logger = logging.getLogger("flask_wschat")

_CHUNK = 500  # topics in one go
_LIFE = 86_400_000  # ms that a key outlives the last process that knew of it
_TURNS = 200  # in so many refreshes all keys are renewed
_NOBODY: frozenset[str] = frozenset()
_VERSION = b"\0"  # the field beside the users, none of whom is called so


class Run(Protocol):
    def __call__(self, calls: Sequence[Call], *, again: bool) -> list[Reply]: ...


class Names(Protocol):
    """How keys are called, and the scripts that use them."""

    def key(self, topic: str, suffix: str) -> bytes: ...
    def channel(self, topic: str) -> bytes: ...
    def script(self, name: str, limits: Sequence[int] = ()) -> Script: ...


class People:
    """This process's people, and those whom dead processes have left.

    One call at a time, each in one round trip for each 500 topics; ``refresh`` in one
    for all of them, unless a process has died.
    """

    def __init__(self, run: Run, names: Names, ttl: float) -> None:
        self._run = run
        self._key = key = names.key
        self._ttl = round(ttl * 1000)
        # A refresh comes a few times in each `ttl`, so a life is a few rounds of them.
        self._life = max(_LIFE, _TURNS * self._ttl)
        self._renewing: Iterator[str] = iter(())
        self._channel = names.channel
        self._living, self._dying, self._clock = (
            key("presence", suffix) for suffix in ("living", "dying", "clock")
        )
        self._alive = names.script("alive")
        self._attend = names.script("attend", [self._life, round(EMPTY * 1000)])
        self._lock = threading.Lock()
        self._log = SparingLog(logger)
        self._people: dict[str, set[str]] = {}
        self._noted = False
        self._former: list[tuple[str, list[bytes]]] = []  # our names until then, topics
        self._buried = False  # taken for dead by others, and our host not told yet
        self.process = secrets.token_hex(8)

    def attend(self, changes: Sequence[tuple[str, str, int]]) -> None:
        by_topic: dict[str, dict[str, int]] = {}
        for topic, user, count in changes:
            by_topic.setdefault(topic, {})[user] = count
        topics = list(by_topic)
        with self._lock:
            for start in range(0, len(topics), _CHUNK):
                self._attend_some({t: by_topic[t] for t in topics[start:][:_CHUNK]})

    def present(self, topic: str, heard: bool) -> Attendance:
        calls = [Call("HGETALL", [self._key(topic, "people")])]
        if heard:
            calls += [
                Call("TIME", [], key=self._clock),
                Call("HMGET", [self._clock, "last", "beat"]),
                Call("ZRANGE", [self._living, 0, -1, "WITHSCORES"]),
            ]
        fields, *alive = self._run(calls, again=True)
        try:
            among = _living(*alive) if heard else None
        except ValueError as error:
            raise BackendError(
                f"what is kept of presence is not ours: {error}"
            ) from None
        version, users, here = 0, {}, {}
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            try:
                if name == _VERSION:
                    version = int(value)
                    continue
                user, counts = decode(name), _counts(value)
            except ValueError as error:
                words = printable(topic), printable(error)
                self._log.warning("entry", "ignored a strange entry in %s: %s", *words)
                continue
            if self.process in counts:
                here[user] = counts[self.process]
            total = sum(
                count
                for process, count in counts.items()
                if among is None or process in among
            )
            if total:
                users[user] = total
        return Attendance(version, users, here)

    def refresh(self) -> bool:
        with self._lock:
            known, *dead = self._run([self._note(1), *self._renew()], again=True)[0]
            self._noted_as(known)
            buried, self._buried = self._buried, False
            try:
                for name in dead:
                    self._bury_noted(name)
                while self._former and not buried:
                    # By now all are noted under the new name: nobody leaves.
                    self._bury(*self._former[-1])
                    self._former.pop()
            except BackendError as error:
                logger.warning("a dead process's users stay for now: %s", error)
        return buried

    def leave(self) -> None:
        """Take out this process and its people."""
        with self._lock:
            try:
                if self._noted:
                    self._bury(self.process, list(map(encode, self._people)))
            except BackendError as error:
                logger.warning("this process's users stay for now: %s", error)
            self._forget()

    def _note(self, take_over: int) -> Call:
        args = (self.process, self._ttl, take_over, int(self._noted), self._life)
        return self._alive.call([self._living, self._dying, self._clock], args)

    def _renew(self) -> list[Call]:
        """Return what gives some of the keys that have our people a new life."""
        some = list(itertools.islice(self._renewing, len(self._people) // _TURNS + 1))
        if not some:
            self._renewing = iter(list(self._people))
        keys = [self._key(topic, "people") for topic in some if topic in self._people]
        keys.append(self._topics_key(self.process))
        return [Call("PEXPIRE", [key, self._life]) for key in keys]

    def _noted_as(self, known: int) -> None:
        """Begin anew if we were noted before and are not any more."""
        if self._noted and not known:
            # Under a new name: somebody may still be at work to take out the old one,
            # which he would otherwise do to people that are put in now. What was put
            # in under the old one after he was there is taken out by ourselves.
            self._former.append((self.process, list(map(encode, self._people))))
            self._forget()
            self._buried = True
        else:
            self._noted = True

    def _forget(self) -> None:
        self.process = secrets.token_hex(8)
        self._noted = False
        self._people.clear()

    def _topics_key(self, process: str) -> bytes:
        return self._key(f"process:{process}", "topics")

    def _attend_some(self, changes: dict[str, dict[str, int]]) -> None:
        entered: list[Arg] = []
        left: list[Arg] = []
        scripts = []
        for topic, counts in changes.items():
            if any(count > 0 for count in counts.values()):
                entered.append(encode(topic))
            elif self._people.get(topic, _NOBODY) <= counts.keys():
                left.append(encode(topic))
            scripts.append(self._change(topic, self.process, counts))
        # A topic is noted before it has people, and until it has none: whoever takes
        # over finds all.
        topics_key = self._topics_key(self.process)
        calls = [self._note(0)]
        if entered:
            calls.append(Call("SADD", [topics_key, *entered]))
            calls.append(Call("PEXPIRE", [topics_key, self._life]))
        calls += scripts
        if left:
            calls.append(Call("SREM", [topics_key, *left]))
        replies = self._run(calls, again=True)
        for topic, counts in changes.items():
            users = self._people.setdefault(topic, set())
            for user, count in counts.items():
                (users.add if count > 0 else users.discard)(user)
            if not users:
                del self._people[topic]
        self._noted_as(replies[0][0])

    def _change(self, topic: str, process: str, counts: dict[str, int]) -> Call:
        """Return what notes these ``counts``; none at all: ``process`` has nobody."""
        channel = b"" if room_of(topic) is None else self._channel(topic)
        args: list[Arg] = [process, channel]
        for user, count in counts.items():
            args += [user, count]
        return self._attend.call([self._key(topic, "people")], args)

    def _bury_noted(self, name: bytes) -> None:
        try:
            self._bury(decode(name))
        except UnicodeDecodeError:  # no name of ours
            self._run([Call("ZREM", [self._dying, name])], again=True)

    def _bury(self, process: str, topics: list[bytes] | None = None) -> None:
        """Take out ``process`` and its people."""
        topics_key = self._topics_key(process)
        if topics is None:
            topics = self._run([Call("SMEMBERS", [topics_key])], again=True)[0]
        for start in range(0, len(topics), _CHUNK):
            some = [decode(topic) for topic in topics[start : start + _CHUNK]]
            self._run([self._change(t, process, {}) for t in some], again=True)
        calls = [Call("DEL", [topics_key])]
        calls += [Call("ZREM", [key, process]) for key in (self._living, self._dying)]
        self._run(calls, again=True)


def _counts(text: bytes) -> dict[str, int]:
    """Return how many connections a user has in each process.

    :raises ValueError: that is not what attend.lua writes.
    """
    counts = json.loads(text)
    if not isinstance(counts, dict):
        raise ValueError("no object")
    try:
        return {process: int(count) for process, count in counts.items()}
    except (TypeError, OverflowError):
        raise ValueError("counts that are none") from None


def _living(clock: Reply, beat: Reply, ends: Reply) -> set[str]:
    """Return the processes that were heard of; see alive.lua."""
    if beat[0] is None:
        return set()
    now = int(clock[0]) * 1000 + int(clock[1]) // 1000
    beats = int(beat[1]) + max(now - int(beat[0]), 0)
    pairs = zip(ends[::2], ends[1::2], strict=True)
    return {decode(name) for name, end in pairs if float(end) > beats}
