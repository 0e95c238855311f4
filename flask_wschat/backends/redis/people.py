"""Who is in which topic, by process; and which process lives."""

from __future__ import annotations

import itertools
import json
import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from ...errors import BackendError
from .wire import Arg, Call, Reply, Script, decode, encode

logger = logging.getLogger("flask_wschat")

_CHUNK = 500  # topics in one go
_LIFE = 86_400_000  # ms that a key outlives the last process that knew of it
_TURNS = 200  # in so many refreshes all keys are renewed


class Run(Protocol):
    def __call__(self, calls: Sequence[Call], *, again: bool) -> list[Reply]: ...


class Names(Protocol):
    """How keys are called, and the scripts that use them."""

    def key(self, topic: str, suffix: str) -> bytes: ...
    def script(self, name: str) -> Script: ...


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
        self._alive_keys = [key("presence", "alive"), key("presence", "dead")]
        self._alive = names.script("alive")
        self._attend = names.script("attend")
        self._leave = names.script("leave")
        self._lock = threading.Lock()
        self._people: dict[str, set[str]] = {}
        self._noted = False
        self._buried = False  # taken for dead by others, and our host not told yet
        self.process = secrets.token_hex(8)

    def attend(
        self, changes: Sequence[tuple[str, str, int]]
    ) -> list[tuple[str, str, bool]]:
        by_topic: dict[str, dict[str, int]] = {}
        for topic, user, count in changes:
            by_topic.setdefault(topic, {})[user] = count
        topics = list(by_topic)
        changed: list[tuple[str, str, bool]] = []
        with self._lock:
            for start in range(0, len(topics), _CHUNK):
                some = {topic: by_topic[topic] for topic in topics[start:][:_CHUNK]}
                changed += self._attend_some(some)
        return changed

    def present(self, topic: str) -> dict[str, int]:
        calls = [
            Call("TIME", []),
            Call("ZRANGE", [self._alive_keys[0], 0, -1, "WITHSCORES"]),
            Call("HGETALL", [self._key(topic, "users")]),
        ]
        clock, alive, users = self._run(calls, again=True)
        now = int(clock[0]) * 1000 + int(clock[1]) // 1000
        ends = zip(alive[::2], alive[1::2], strict=True)
        living = {name.decode() for name, end in ends if float(end) > now}
        living.discard(self.process)
        present: dict[str, int] = {}
        for user, text in zip(users[::2], users[1::2], strict=True):
            counts: dict[str, Any] = json.loads(text)
            total = sum(int(counts[p]) for p in living & counts.keys())
            if total:
                present[decode(user)] = total
        return present

    def refresh(self) -> tuple[list[tuple[str, str]], bool]:
        with self._lock:
            known, *dead = self._run([self._note(1), *self._renew()], again=True)[0]
            self._noted_as(known)
            buried, self._buried = self._buried, False
            gone: list[tuple[str, str]] = []
            for process in dead:
                try:
                    gone += self._bury(process.decode())
                except BackendError as error:
                    logger.warning("a dead process's users stay for now: %s", error)
                    break
        return gone, buried

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
        args = (self.process, self._ttl, take_over, self._life)
        return self._alive.call(self._alive_keys, args)

    def _renew(self) -> list[Call]:
        """Return what gives some of the keys that have our people a new life."""
        some = list(itertools.islice(self._renewing, len(self._people) // _TURNS + 1))
        if not some:
            self._renewing = iter(list(self._people))
        keys = [self._key(topic, "users") for topic in some if topic in self._people]
        keys.append(self._topics_key(self.process))
        return [Call("PEXPIRE", [key, self._life]) for key in keys]

    def _noted_as(self, known: int) -> None:
        """Begin anew if we were noted before and are not any more."""
        if self._noted and not known:
            # Under a new name: somebody may still be at work to take out the old one,
            # which he would otherwise do to people that are put in now.
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

    def _attend_some(
        self, changes: dict[str, dict[str, int]]
    ) -> list[tuple[str, str, bool]]:
        entered: list[Arg] = []
        left: list[Arg] = []
        people: dict[str, set[str]] = {}
        scripts = []
        for topic, counts in changes.items():
            here = {user for user, count in counts.items() if count > 0}
            people[topic] = (self._people.get(topic, set()) - counts.keys()) | here
            if here:
                entered.append(encode(topic))
            elif not people[topic]:
                left.append(encode(topic))
            args: list[Arg] = [self.process, self._life]
            for user, count in counts.items():
                args += [user, count]
            scripts.append(self._attend.call([self._key(topic, "users")], args))
        # A topic is noted before it has people, and until it has none: whoever takes
        # over finds all.
        topics_key = self._topics_key(self.process)
        calls = [self._note(0)]
        if entered:
            calls.append(Call("SADD", [topics_key, *entered]))
            calls.append(Call("PEXPIRE", [topics_key, self._life]))
        first = len(calls)
        calls += scripts
        if left:
            calls.append(Call("SREM", [topics_key, *left]))
        # Once: a second time it would be no change, of which nobody would hear.
        replies = self._run(calls, again=False)
        for topic, users in people.items():
            if users:
                self._people[topic] = users
            else:
                self._people.pop(topic, None)
        self._noted_as(replies[0][0])
        return [
            (topic, decode(user), bool(joined))
            for topic, reply in zip(changes, replies[first:], strict=False)
            for user, joined in zip(reply[::2], reply[1::2], strict=True)
        ]

    def _bury(
        self, process: str, topics: list[bytes] | None = None
    ) -> list[tuple[str, str]]:
        """Take out ``process`` and its people; return those who are in no other."""
        topics_key = self._topics_key(process)
        if topics is None:
            topics = self._run([Call("SMEMBERS", [topics_key])], again=True)[0]
        gone = []
        for start in range(0, len(topics), _CHUNK):
            some = [decode(topic) for topic in topics[start : start + _CHUNK]]
            calls = [self._leave.call([self._key(t, "users")], [process]) for t in some]
            for topic, users in zip(some, self._run(calls, again=True), strict=True):
                gone += [(topic, decode(user)) for user in users]
        calls = [Call("DEL", [topics_key])]
        calls += [Call("ZREM", [key, process]) for key in self._alive_keys]
        self._run(calls, again=True)
        return gone
