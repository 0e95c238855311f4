"""What a join and a say cost through a storage, beside those in memory."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import ROOT, Load, Server, cpu_seconds, two_cores
from benchmarks.measure import wait_until_quiet
from tests.support.redis_server import RedisServer

from .crowd import Crowd
from .relay import RelayProcess
from .verdicts import Part

MEMORY, SQLITE, REDIS = "memory://", "sqlite://", "redis://"

JOIN_RATIO, SAY_RATIO, SAY_REDIS, UNDER_WAY = 1.3, 1.7, 10.0, 0.5
RATE = 4000.0
"""Acknowledged says in a second, where a way to Redis and back takes 5 ms."""
TODAY = 0.636
"""What a join in memory cost before, as so many openings of connections."""
JOIN_GAIN = 0.8 * TODAY

ROOMS, PER_ROOM, KEPT = 100, 20, 50


@dataclass
class Served:
    """A server with a backend, and its redis-server, if it has one."""

    server: Server
    redis: RedisServer | None

    def cpu(self) -> tuple[float, float]:
        """Return the seconds of the server, and of Redis."""
        redis = 0.0 if self.redis is None else cpu_seconds(self.redis.pid)
        return cpu_seconds(self.server.pid), redis


@contextlib.contextmanager
def served(*backends: str) -> Iterator[dict[str, Served]]:
    """Yield a fresh server for each backend, on one core."""
    with (
        tempfile.TemporaryDirectory(dir=ROOT / "build") as folder,
        contextlib.ExitStack() as stack,
    ):
        found = {}
        for backend in backends:
            redis, url = None, backend
            if backend == REDIS:
                redis = stack.enter_context(RedisServer())
                url = redis.url
            elif backend == SQLITE:
                url = f"sqlite:///{folder}/chat.db"
            server = Server("wschat", two_cores()[0], environment={"WSCHAT_URL": url})
            found[backend] = Served(stack.enter_context(server), redis)
        yield found


@dataclass(frozen=True)
class Cost:
    """CPU µs for each message, of the server and of Redis."""

    server: float
    redis: float
    per_second: float


def _cost(here: Served, **load: Any) -> Cost:
    with Load(here.server, two_cores()[1], **load) as running:
        wait_until_quiet(here.server)
        before = here.cpu()
        result = running.run()
        after = here.cpu()
    count = result["messages"]
    server, redis = ((b - a) / count * 1e6 for a, b in zip(before, after, strict=True))
    return Cost(server, redis, count / result["run_seconds"])


def _joins(here: Served, turn: int) -> tuple[float, float]:
    """Return the server's µs for an opening, and for a join."""
    crowd = Crowd()
    crowd.joins = False
    members = ROOMS * PER_ROOM
    rooms = itertools.cycle(f"room {turn}-{n}" for n in range(ROOMS))
    with contextlib.closing(crowd):
        before = here.cpu()[0]
        for _ in range(members):
            crowd.add(1, [here.server.port], next(rooms))
        assert crowd.run(lambda: all(m.open for m in crowd.members), 60), crowd.count
        wait_until_quiet(here.server)
        opening = (here.cpu()[0] - before) / members * 1e6
        # One in each room says what the others find there.
        said: list[object] = []
        for member in crowd.members[:ROOMS]:
            member.join()
        assert crowd.run(lambda: crowd.joined == ROOMS, 60), crowd.count
        for member in crowd.members[:ROOMS]:
            for number in range(KEPT):
                member.say("x" * 64, f"{member.user}-{number}", said.append)
        assert crowd.run(lambda: len(said) == ROOMS * KEPT, 60), crowd.count
        wait_until_quiet(here.server)
        rest = iter(crowd.members[ROOMS:])
        before = here.cpu()[0]
        entered = ROOMS

        def more() -> bool:
            """Keep fifty of them about to join."""
            nonlocal entered
            for member in itertools.islice(rest, 50 - (entered - crowd.joined)):
                member.join()
                entered += 1
            return crowd.joined == members

        assert crowd.run(more, 60), (crowd.joined, crowd.count)
        wait_until_quiet(here.server)
        assert not crowd.count["time-outs"], crowd.count
        joining = (here.cpu()[0] - before) / (members - ROOMS) * 1e6
        return opening, joining


def joins(rounds: int) -> Part:
    part = Part(
        f"{ROOMS * PER_ROOM:,} connected users join {ROOMS} rooms, {PER_ROOM} each, in"
        f" which {KEPT} messages of 64 B are kept: they get them, and are told to those"
        f" who are there; 50 at a time. The server's CPU, the median of {rounds} rounds"
        " in turn. What it takes to open the connections, in the same run, is the"
        " measure for what a join in memory cost before."
    )
    found: dict[str, list[tuple[float, float]]] = {MEMORY: [], REDIS: []}
    with served(MEMORY, REDIS) as servers:
        for turn in range(rounds):
            for name, costs in found.items():
                costs.append(_joins(servers[name], turn))
    memory, redis = (
        statistics.median(joining for _, joining in costs) for costs in found.values()
    )
    in_openings = statistics.median(join / opening for opening, join in found[MEMORY])
    opening = statistics.median(opening for opening, _ in found[MEMORY])
    part.add("a connection's opening", opening, None, "µs")
    part.add("a join in memory", memory, None, "µs")
    part.add("a join through Redis", redis, None, "µs")
    part.add("through Redis, of that in memory", redis / memory, JOIN_RATIO)
    part.add("in memory, in openings", in_openings, JOIN_GAIN)
    part.notes.append(f"In openings, a join in memory was {TODAY:g} before.")
    return part


def says(rounds: int) -> Part:
    part = Part(
        "100 clients in 10 rooms, each with one `say` of 64 B under way, stored,"
        f" acknowledged and delivered to the room; the median of {rounds} rounds in"
        " turn. The server's CPU, and that of redis-server."
    )
    costs: dict[str, list[Cost]] = {MEMORY: [], REDIS: [], SQLITE: []}
    with served(*costs) as servers:
        for _ in range(rounds):
            for name, done in costs.items():
                cost = _cost(
                    servers[name], scenario="echo", conns=100, chat=10, seconds=0.8
                )
                done.append(cost)
    us = {
        name: statistics.median(cost.server for cost in done)
        for name, done in costs.items()
    }
    for name, cost_us in us.items():
        part.add(f"a say, {name}", cost_us, None, "µs")
    part.add("through Redis, of that in memory", us[REDIS] / us[MEMORY], SAY_RATIO)
    redis = statistics.median(cost.redis for cost in costs[REDIS])
    part.add("redis-server, each say", redis, SAY_REDIS, "µs")
    return part


def under_way(rounds: int) -> Part:
    part = Part(
        "One member of a room of 1,000 has 16 messages of 64 B under way, each is kept"
        " and delivered to all: as `say`s of the ready-made chat, and by `broadcast` in"
        " a listener of one's own, which waits for each. Deliveries for each CPU second"
        f" of the server, as a share of those in memory; the median of {rounds} rounds"
        " in turn."
    )
    with served(MEMORY, REDIS, SQLITE) as servers:
        for title, chat in (("says", 1000), ("broadcasts", 0)):
            costs: dict[str, list[Cost]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, done in costs.items():
                    cost = _cost(
                        servers[name],
                        scenario="fan",
                        conns=1000,
                        chat=chat,
                        window=16,
                        seconds=0.8,
                    )
                    done.append(cost)
            _delivered(part, title, costs, UNDER_WAY if chat else None)
    return part


def _delivered(
    part: Part, title: str, costs: dict[str, list[Cost]], bar: float | None
) -> None:
    for name, done in costs.items():
        cost_us = statistics.median(cost.server for cost in done)
        rate = statistics.median(cost.per_second for cost in done)
        part.add(f"{title}, {name}, a delivery", cost_us, None, "µs")
        part.add(f"{title}, {name}, deliveries a second", rate)
    for name in (REDIS, SQLITE):
        ratios = [
            a.server / b.server for a, b in zip(costs[MEMORY], costs[name], strict=True)
        ]
        share = statistics.median(ratios)
        part.add(f"{title}, {name}, of memory's", share, bar, least=True)


WAY = 0.005


def far_away(rounds: int) -> Part:
    part = Part(
        f"Redis is {WAY * 1000:g} ms there and back away, by a relay. `say`s of 64 B in"
        " a second that one process acknowledges to 200 clients in 20 rooms, each with"
        f" one under way; the best of {rounds} rounds. *Patched*: by `gevent.monkey`."
    )
    program = "benchmarks.servers.wschat"
    ways = {
        "unpatched": [sys.executable, "-m", program],
        "patched": [sys.executable, "-m", "gevent.monkey", "--module", program],
    }
    for name, command in ways.items():
        with (
            RedisServer() as redis,
            RelayProcess(redis.port, WAY / 2) as relay,
            Server(
                *(command, two_cores()[0]),
                environment={"WSCHAT_URL": f"redis://127.0.0.1:{relay.port}/0"},
            ) as server,
        ):
            found = [
                _cost(
                    Served(server, redis),
                    scenario="echo",
                    conns=200,
                    chat=10,
                    seconds=1.0,
                )
                for _ in range(rounds)
            ]
        best = max(cost.per_second for cost in found)
        part.add(f"{name}: says a second", best, RATE, least=True)
        part.add(f"{name}: server CPU", found[-1].server, None, "µs")
    return part
