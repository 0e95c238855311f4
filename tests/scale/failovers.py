"""Messages under failovers of Redis: what was acknowledged is there, or it is told.

    python -m tests.scale.failovers [--seeds 10] [--wait 0 1] [--storage pair cluster]

A primary and a replica, between whom the test moves the address that the workers know;
people who talk and repeat what is not acknowledged; and troubles, by the seed: the
primary is killed, or cut off with what only it has; others publish, and nobody is left
who saw what is lost; connections are cut or swallowed; workers and clients are cut. A
table, and status 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rooms.crowd import Crowd, Member, allow_descriptors
from benchmarks.rooms.relay import RelayProcess
from flask_wschat.backends.redis.slots import slot_of
from tests.processes.cluster import Cluster
from tests.support.processes import ROOT
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import LONG, eventually

ROOMS, PER_ROOM = 3, 4
SIZE = 100_000
"""Messages that a room keeps: all of them."""
LONGEST = 60.0
"""Seconds for all of it, and then for everybody to be back."""


class Pair:
    """A primary and its replica, who change places, and the way to the primary."""

    kinds = (
        *("killed", "behind", "both", "cut", "deaf", "hole", "clients", "strangers"),
    )
    first = ("behind", "killed", "strangers")

    def __init__(self) -> None:
        options = ("repl-diskless-sync-delay 0", "repl-timeout 5")
        self._servers = [RedisServer(*options), RedisServer(*options)]
        self._stack = contextlib.ExitStack()
        self.failovers = 0

    def __enter__(self) -> Pair:
        for server in self._servers:
            self._stack.enter_context(server)
        self._follow()
        self.relay = self._stack.enter_context(RelayProcess(self.primary.port))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.relay.port}/0"

    @property
    def primary(self) -> RedisServer:
        return self._servers[0]

    @property
    def replica(self) -> RedisServer:
        return self._servers[1]

    def _follow(self) -> None:
        """Have the second one follow the first, and wait until it has all."""
        with self.replica.client() as client:
            client.replicaof("127.0.0.1", str(self.primary.port))

            def follows() -> bool:
                return bool(client.info("replication")["master_link_status"] == "up")

            eventually(follows, "the replica follows", LONG)

    def promote(
        self,
        *,
        behind: float = 0.0,
        alive: bool = False,
        then: Callable[[str], object] = str,
    ) -> None:
        """Let the replica take over; it lacks the last ``behind`` seconds.

        ``alive``: the old primary goes on meanwhile, and is not killed. ``then`` is
        done with the new one's URL before the others reach it.
        """
        self.failovers += 1
        if behind:
            self.replica.pause()
            with self.primary.client() as client:
                client.client_kill_filter(_type="replica", skipme=True)
            time.sleep(behind)
        if not alive:
            self.primary.kill()
        self.replica.resume()
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")
        self._servers.reverse()
        if alive:
            time.sleep(0.1)
        then(self.primary.url)
        self.relay.tell(f"target {self.primary.port}")
        if not alive:
            self.replica.start()
        self._follow()

    def troubles(
        self, amount: float, cluster: Cluster
    ) -> dict[str, Callable[[], object]]:
        """Return what makes each of them."""

        def hole() -> None:
            self.relay.tell("hole")
            time.sleep(5 * amount)
            self.relay.tell("pass")

        def strange(url: str) -> None:
            """Have a task publish more than was lost, and none left who saw that."""
            rooms = [f"room {number}" for number in range(ROOMS)]
            calls = [
                ("broadcast", [f"{url} {amount} {number}"], {"room": room})
                for number in range(150)
                for room in rooms
            ]
            command = [sys.executable, "-m", "tests.processes.task", json.dumps(calls)]
            given = {"TEST_WSCHAT_URL": url, "TEST_WSCHAT_HISTORY_SIZE": str(SIZE)}
            subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **given},
                check=True,
                stdout=subprocess.DEVNULL,
            )
            for pid in cluster.pids():
                cluster.kill(pid)

        def strangers() -> None:
            self.promote(behind=amount / 4, then=strange)
            eventually(cluster.is_whole, "new workers serve", LONG)

        return {
            "killed": self.promote,
            "behind": lambda: self.promote(behind=amount),
            "both": lambda: self.promote(alive=True),
            "strangers": strangers,
            "cut": lambda: self.relay.tell(f"cut {amount}"),
            "deaf": lambda: self.relay.tell(f"cut-subscribed {amount}"),
            "hole": hole,
        }


@dataclass
class Said:
    """What the talk of one room came to."""

    acknowledged: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By mid: the number, and when that was."""
    kept: list[dict[str, Any]] = field(default_factory=list)
    """The history at the end, from the first."""
    epoch: str = ""


@dataclass
class Outcome:
    seed: int
    wait: int
    messages: int = 0
    lost: int = 0
    unseen: int = 0
    """Of the lost, times members who never had it, and heard of nothing after it."""
    troubles: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        what = Counter(name.split()[0] for name in self.troubles)
        names = ", ".join(f"{count} {name}" for name, count in sorted(what.items()))
        keys = ("gaps", "not recovered", "jumps", "time-outs", "unavailable")
        counts = ", ".join(f"{self.counts[key]} {key}" for key in keys)
        return (
            f"wait {self.wait} seed {self.seed:2}: {self.messages} acknowledged,"
            f" {self.lost} lost ({self.unseen} not heard of), in {self.seconds:.0f} s;"
            f" {names}; {counts}; {'; '.join(self.problems[:4]) or 'holds'}"
        )


class Talk:
    """``count`` messages of the members of all rooms, each after the one before."""

    def __init__(self, crowd: Crowd, count: int) -> None:
        self._crowd = crowd
        self._left = count
        self.said = {member.room: Said() for member in crowd.members}
        self.done = 0
        self.open = 0

    def start(self) -> None:
        for member in self._crowd.members:
            self.open += 1
            self._next(member, itertools.count())

    def _next(self, member: Member, numbers: itertools.count[int]) -> None:
        if self._left <= 0:
            self.open -= 1
            return
        self._left -= 1
        number = next(numbers)
        mid = f"{member.user}-{number}"

        def acknowledged(reply: dict[str, Any]) -> None:
            known = self.said[member.room].acknowledged
            known[mid] = reply["seq"], time.monotonic()
            self.done += 1
            self._crowd.later(0.01, lambda _: self._next(member, numbers), None)

        member.say([member.user, number], mid, acknowledged)

    def has(self, count: int) -> bool:
        """Whether so many are acknowledged."""
        return self.done >= count


class Work(threading.Thread):
    """Something that is done while the clients live on."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._fault: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._fault = error

    def is_over(self) -> bool:
        return not self.is_alive()

    def end(self) -> None:
        """Wait for it.

        :raises BaseException: what it ended with.
        """
        self.join(LONGEST)
        if self._fault is not None:
            raise self._fault


class Nodes:
    """A cluster of three primaries and their replicas, who change places."""

    kinds = ("killed", "moved", "clients")
    first = ("killed", "moved")

    def __init__(self) -> None:
        self._cluster = RedisCluster()
        self._slots = itertools.cycle(
            slot_of(f"{{room:room {number}}}") for number in range(ROOMS)
        )

    def __enter__(self) -> Nodes:
        self._cluster.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._cluster.stop()

    @property
    def url(self) -> str:
        return self._cluster.url

    def troubles(
        self, amount: float, cluster: Cluster
    ) -> dict[str, Callable[[], object]]:
        """Return what makes each of them."""
        return {"killed": self._kill, "moved": self._move}

    def _kill(self) -> None:
        """Kill a room's primary; start it again when another has taken over."""
        slot = next(self._slots)
        killed = self._cluster.primary_of(slot)
        killed.kill()
        eventually(
            lambda: self._cluster.primary_of(slot) is not killed, "a failover", LONG
        )
        killed.start()
        eventually(lambda: _follows(killed), "it is a replica again", LONG)

    def _move(self) -> None:
        """Give a room's slot to another primary."""
        slot = next(self._slots)
        source = self._cluster.primary_of(slot)
        others = [one for one in self._cluster.primaries() if one is not source]
        self._cluster.move_one(slot, source, others[0])


def _follows(server: RedisServer) -> bool:
    with server.client() as client:
        found = client.info("replication")
        return bool(found["role"] == "slave" and found["master_link_status"] == "up")


STORAGES: dict[str, type[Pair] | type[Nodes]] = {"pair": Pair, "cluster": Nodes}


def troubles_of(
    chance: random.Random,
    count: int,
    storage: Pair | Nodes,
    *,
    workers: bool,
) -> list[tuple[str, float]]:
    """Return the names of ``count`` troubles and a number for each."""
    kinds = [*storage.kinds, *["worker"] * workers]
    first = list(storage.first)
    chosen = first + [chance.choice(kinds) for _ in range(count - len(first))]
    chance.shuffle(chosen)
    return [(name, chance.uniform(0.05, 0.4)) for name in chosen]


def other(name: str, cluster: Cluster) -> None:
    """Make a trouble that is not the storage's."""
    if name == "worker":
        cluster.kill()
        eventually(cluster.is_whole, "a new worker serves", LONG)


def run(
    seed: int,
    wait: int,
    messages: int,
    *,
    storage: str = "pair",
    workers: int = 3,
    troubles: int = 8,
) -> Outcome:
    """Return what one talk came to."""
    chance = random.Random(seed)
    outcome = Outcome(seed, wait)
    began = time.monotonic()
    settings: dict[str, Any] = {"HISTORY_SIZE": SIZE, "PING_INTERVAL": 5}
    if wait:
        settings["REDIS_WAIT"] = wait
    with (
        tempfile.TemporaryDirectory(prefix="wschat-failovers-") as folder,
        STORAGES[storage]() as redis,
        Cluster(redis.url, Path(folder), workers, **settings) as cluster,
        contextlib.closing(Crowd(hears=True)) as crowd,
    ):
        port = int(cluster.address.split(":")[2].split("/")[0])
        for number in range(ROOMS * PER_ROOM):
            crowd.add(1, [port], f"room {number % ROOMS}")
        everybody = len(crowd.members)
        assert crowd.run(lambda: crowd.joined == everybody, LONGEST), crowd.count
        talk = Talk(crowd, messages)
        talk.start()
        todo = troubles_of(chance, troubles, redis, workers=workers > 1)
        step = messages // (len(todo) + 1)
        for index, (name, amount) in enumerate(todo, 1):
            crowd.run(functools.partial(talk.has, index * step), LONGEST)
            outcome.troubles.append(f"{name} {amount:.2f}")
            if name == "clients":
                for member in chance.sample(crowd.members, everybody // 3):
                    member.cut()
            makers = redis.troubles(amount, cluster)
            work = Work(makers.get(name) or functools.partial(other, name, cluster))
            work.start()
            crowd.run(work.is_over, LONGEST)
            work.end()
        if crowd.run(lambda: not talk.open, LONGEST) is None:
            outcome.problems.append(f"{talk.done} of {messages} acknowledged in time")
        _end(crowd, talk, outcome)
        outcome.messages = talk.done
        outcome.counts = crowd.count
        if "Traceback" in cluster.log:
            outcome.problems.append("a traceback: " + cluster.log[-2000:])
    for room, said in talk.said.items():
        members = [each for each in crowd.members if each.room == room]
        check(room, said, members, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


def _end(crowd: Crowd, talk: Talk, outcome: Outcome) -> None:
    """Say a last thing in each room, and have somebody new read all that is kept."""
    last: dict[str, int] = {}
    firsts = {member.room: member for member in reversed(crowd.members)}
    for room, member in firsts.items():

        def said(reply: dict[str, Any], room: str = room) -> None:
            last[room] = reply["seq"]
            mid = f"last of {room}"
            talk.said[room].acknowledged[mid] = reply["seq"], time.monotonic()

        member.say([member.user, 1 << 30], f"last of {room}", said)

    def all_have() -> bool:
        return len(last) == len(firsts) and all(
            member.joined and member.seq >= last[member.room]
            for member in crowd.members
        )

    if crowd.run(all_have, LONGEST) is None:
        late = [
            f"{m.user} in {m.room} at {m.seq} of {last.get(m.room)}"
            for m in crowd.members
            if not m.joined or m.seq < last.get(m.room, 1 << 60)
        ]
        outcome.problems.append(f"not back in time: {late}")
    crowd.rest(0.3)
    for room, member in firsts.items():
        _read_all(crowd, member, talk.said[room])


def _read_all(crowd: Crowd, member: Member, said: Said) -> None:
    """Read the room's history, page by page from its end."""
    before: int | None = None
    while before is None or before > 1:
        pages: list[dict[str, Any]] = []
        fields = {} if before is None else {"before": before}
        member.insist("history", pages.append, room=member.room, **fields)
        if crowd.run(lambda: pages, LONGEST) is None:  # noqa: B023
            raise AssertionError(f"the history of {member.room} cannot be read")
        said.epoch = pages[0]["epoch"]
        messages = pages[0]["messages"]
        if not messages:
            break
        said.kept[:0] = messages
        before = messages[0]["seq"]


def named(message: dict[str, Any]) -> str:
    """Return what tells a message from all others: the task's have no mid."""
    return str(message["mid"] or message["data"])


def check(room: str, said: Said, members: list[Member], outcome: Outcome) -> None:
    """Note what does not hold in one room."""
    problem = outcome.problems.append
    kept = {named(message): message["seq"] for message in said.kept}
    if len(kept) != len(said.kept):
        problem(f"{room}: a message is kept twice")
    latest: Counter[str] = Counter()
    for message in said.kept:
        if message["mid"] is None:
            continue
        user, number = message["data"]
        if number < latest[user]:
            problem(f"{room}: {user}'s {number} is behind {latest[user] - 1}")
        latest[user] = number + 1
    lost = {mid: at for mid, (_, at) in said.acknowledged.items() if mid not in kept}
    moved = [
        mid
        for mid, (seq, _) in said.acknowledged.items()
        if mid in kept and kept[mid] != seq
    ]
    outcome.lost += len(lost)
    if outcome.wait and (lost or moved):
        problem(f"{room}: lost {sorted(lost)[:3]}, numbered anew {moved[:3]}")
    for member in members:
        if not member.views:
            problem(f"{member.user} has seen nothing of {room}")
            continue
        for view in member.views:
            mids = [named(message) for message in view.messages]
            if len(set(mids)) != len(mids):
                problem(f"{member.user} has a message of {room} twice")
        last = member.views[-1]
        shown = [(m["seq"], named(m)) for m in last.messages]
        should = [(m["seq"], named(m)) for m in said.kept if m["seq"] > last.first]
        if shown != should:
            wrong = sorted(set(shown) ^ set(should))[:3]
            problem(
                f"{member.user} was not told: shows {len(shown)} of {room} after"
                f" {last.first}, {len(should)} are kept; the difference: {wrong}"
            )
        told = max((at for view in member.views for at in view.told), default=0.0)
        outcome.unseen += sum(told < at for at in lost.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Messages under failovers.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--wait", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--messages", type=int, default=1200)
    parser.add_argument("--storage", nargs="+", default=["pair"], choices=STORAGES)
    options = parser.parse_args()
    allow_descriptors()
    good = True
    seeds = range(options.first, options.first + options.seeds)
    for storage, wait, seed in itertools.product(options.storage, options.wait, seeds):
        outcome = run(seed, wait, options.messages, storage=storage)
        good &= not outcome.problems
        print(f"{storage} {outcome.line()}", flush=True)
    print("all hold" if good else "something does not hold")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
