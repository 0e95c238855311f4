"""One room with thousands of members, on two workers over Redis."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import Server, cpu_seconds
from tests.support.redis_server import RedisServer

from .crowd import Crowd, Member
from .relay import RelayProcess
from .verdicts import Part

BACK, BACK_CPU, ENTER_CPU = 10.0, 10.0, 20.0
"""The bars, in seconds."""
LONGEST = 60.0
"""Seconds after which nobody waits any more."""
PAGE = 60
"""Messages that the room has before anybody comes: a join gets 50 of them."""
SETTLES = 2.0
"""Seconds after the last one is back, in which the CPU still counts."""
TALK = 0.5
"""Seconds between two messages, all the time."""


class Place:
    """Two workers, their Redis, and what stands between."""

    def __init__(self, redis: RedisServer, relay: RelayProcess, server: Server) -> None:
        self.redis = redis
        self.relay = relay
        self.workers = [tuple(map(int, server.read_line().split())) for _ in "12"]
        self.ports = [port for _, port in self.workers]

    def cpu(self) -> dict[str, float]:
        """Return the seconds of each process."""
        used = {f"worker {pid}": cpu_seconds(pid) for pid, _ in self.workers}
        return {**used, f"redis {self.redis.pid}": cpu_seconds(self.redis.pid)}


@contextlib.contextmanager
def place() -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        relay = stack.enter_context(RelayProcess(redis.port))
        command = [sys.executable, "-m", "benchmarks.servers.workers", "2"]
        url = f"redis://127.0.0.1:{relay.port}/0"
        environment = {"WSCHAT_URL": url, "WSCHAT_DRAIN": "0"}
        server = Server(command, None, environment=environment)
        stack.enter_context(server)
        yield Place(redis, relay, server)


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return the CPU seconds; a process that is new began with none."""
    return {name: used - before.get(name, 0.0) for name, used in after.items()}


class Talk:
    """The first member says something all the time, and knows what is acknowledged."""

    def __init__(self, crowd: Crowd, member: Member) -> None:
        self._crowd = crowd
        self._member = member
        self.seq = 0
        self.old: str | None = None
        """The epoch that has to be over."""
        self.acknowledged = 0
        self.first_at = 0.0
        """When the first one was acknowledged since ``new``."""
        self.on = True
        self._mids = itertools.count()
        self._say(None)

    def _say(self, _: object) -> None:
        if self.on:
            mid = f"talk-{next(self._mids)}"
            self._member.say("x" * 64, mid, self._done)

    def _done(self, reply: dict[str, Any]) -> None:
        self.seq = reply["seq"]
        self.first_at = self.first_at or time.monotonic()
        self.acknowledged += 1
        self._crowd.later(TALK, self._say, None)

    def new(self, *, emptied: bool) -> None:
        """Wait for something that is acknowledged from now on.

        ``emptied``: nothing of before is kept, so the numbers begin anew.
        """
        self.seq, self.acknowledged, self.first_at = 0, 0, 0.0
        self.old = self._member.epoch if emptied else None

    def all_back(self) -> bool:
        """Whether all are in the room, and have what was acknowledged since ``new``."""
        if not self.acknowledged or self._crowd.joined < len(self._crowd.members):
            return False
        epoch = self._member.epoch
        return epoch != self.old and all(
            m.epoch == epoch and m.seq >= self.seq for m in self._crowd.members
        )


def prepared(here: Place, crowd: Crowd) -> None:
    """Have one member in the room, who has said a page of messages."""
    crowd.add(1, here.ports)
    assert crowd.run(lambda: crowd.joined == 1, LONGEST), crowd.count
    first = crowd.members[0]
    done: list[Any] = []

    def say(_: object = None) -> None:
        if len(done) < PAGE:
            first.say("x" * 64, f"before-{len(done)}", said)

    def said(reply: dict[str, Any]) -> None:
        done.append(reply)
        say()

    say()
    assert crowd.run(lambda: first.seq >= PAGE, LONGEST), (len(done), crowd.count)


def faults(members: int) -> Part:
    """How a room comes back from a cut and from a restart of Redis."""
    part = Part(
        f"{members:,} members in one room on two gunicorn workers, users of their own"
        " with presence, and somebody who talks twice a second. The connections on"
        " which the workers have subscribed are cut, and new ones refused for 0.1 s;"
        " then Redis is killed and started again, with nothing in it. Until everybody"
        " is in the room again and has a message acknowledged after the fault; CPU of"
        f" both workers and of Redis, to {SETTLES:g} s after that. A client gives a"
        " request up after 10 s."
    )
    with place() as here, contextlib.closing(Crowd()) as crowd:
        prepared(here, crowd)
        crowd.add(members - 1, here.ports)
        entered = crowd.run(lambda: crowd.joined == members, LONGEST)
        part.add("all are in, s", entered)
        crowd.rest(SETTLES)
        talk = Talk(crowd, crowd.members[0])
        crowd.rest(1)
        total = 0.0
        for name in ("cut of 0.1 s", "restart of Redis"):
            print(f"  {name}", file=sys.stderr)
            crowd.count = Counter()
            crowd.comings.clear()
            before = here.cpu()
            began = time.monotonic()
            if name.startswith("cut"):
                here.relay.tell("cut-subscribed 0.1")
                crowd.rest(0.15)
                talk.new(emptied=False)
            else:
                talk.new(emptied=True)
                here.redis.restart()
            done = crowd.run(talk.all_back, LONGEST)
            back = None if done is None else time.monotonic() - began
            there = crowd.joined
            crowd.rest(SETTLES)
            used = spent(before, here.cpu())
            total += sum(used.values())
            part.add(f"{name}: all back", back, BACK, "s")
            part.add(f"{name}: time-outs of requests", crowd.count["time-outs"], 0)
            part.add(f"{name}: CPU in all", sum(used.values()), None, "s")
            part.add(f"{name}: gaps seen", crowd.count["gaps"])
            seen = {k: v for k, v in sorted(crowd.count.items()) if v}
            each = ", ".join(f"{who.split()[0]} {cpu:.2f}" for who, cpu in used.items())
            acknowledged = max(talk.first_at - began, 0.0)
            part.notes.append(
                f"{name}: {_when(crowd, began)}a message is acknowledged after"
                f" {acknowledged:.1f} s; {there:,} of {members:,} back; {seen};"
                f" CPU s: {each}"
            )
        part.add("CPU of both faults", total, BACK_CPU, "s")
        talk.on = False
    return part


def _when(crowd: Crowd, began: float) -> str:
    """Return when those came back who had to."""
    times = sorted(at - began for at in crowd.comings)
    if not times:
        return ""
    parts = {"half": 0.5, "99 %": 0.99, "the last": 1.0}
    when = [
        f"{name} back after {times[int(part * (len(times) - 1))]:.1f} s"
        for name, part in parts.items()
    ]
    return ", ".join(when) + "; "


def entering(members: int) -> Part:
    """What it takes that all come into one room."""
    part = Part(
        f"{members:,} users connect to two gunicorn workers, and enter one room, as"
        " fast as they are let in; 256 at a time are about to connect. CPU of both"
        f" workers and of Redis, to {SETTLES:g} s after the last one is in, connecting"
        " included."
    )
    with place() as here, contextlib.closing(Crowd()) as crowd:
        prepared(here, crowd)
        before = here.cpu()
        crowd.add(members, here.ports)
        entered = crowd.run(lambda: crowd.joined == members + 1, 2 * LONGEST)
        crowd.rest(SETTLES)
        used = spent(before, here.cpu())
        part.add("all are in", entered, None, "s")
        part.add("time-outs of requests", crowd.count["time-outs"], 0)
        part.add("CPU in all", sum(used.values()), ENTER_CPU, "s")
        part.add("CPU each", sum(used.values()) / members * 1e6, None, "µs")
        part.add("presence events sent", crowd.presence)
        each = ", ".join(f"{who.split()[0]} {cpu:.2f}" for who, cpu in used.items())
        part.notes.append(f"CPU s: {each}; {dict(crowd.count)}")
    return part
