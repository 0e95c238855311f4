"""What a second worker on a second core adds, with Redis between the two."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness import Load, Server, cpu_seconds, redis_server
from benchmarks.measure import wait_until_quiet
from benchmarks.report import table

MEMBERS = 2000
WORKERS_BAR = 1.7
"""What two workers deliver, as a multiple of one."""


@dataclass(frozen=True)
class Shared:
    """One round of some workers: CPU µs per delivery of each, of Redis, of the load."""

    workers: list[float]
    redis: float
    load: float
    per_second: float

    @property
    def core_us(self) -> float:
        """Of the time of as many cores as there are workers, what a delivery takes.

        The busiest worker's, or an equal part of all that workers and Redis do.
        """
        evenly = (sum(self.workers) + self.redis) / len(self.workers)
        return self.workers[0] if len(self.workers) == 1 else max(*self.workers, evenly)


def gain_of_two(times: int) -> tuple[list[str], bool]:
    """Return what a second worker on a second core adds, and whether that is enough."""
    rounds: dict[int, list[Shared]] = {1: [], 2: []}
    with redis_server(None) as (redis, address), contextlib.ExitStack() as stack:
        servers = {}
        for count in rounds:
            command = [sys.executable, "-m", "benchmarks.servers.workers", str(count)]
            environment = {"WSCHAT_URL": address}
            server = Server(command, None, environment=environment)
            stack.enter_context(server)
            servers[count] = server, [_numbers(server) for _ in range(count)]
        for _ in range(times):
            for count, done in rounds.items():
                done.append(_shared(*servers[count], redis))
    rows = [_workers_row(count, done) for count, done in rounds.items()]
    text = (
        f"Broadcasts of 64 B to {MEMBERS:,} members, one at a time, through"
        " Redis to one gunicorn worker and to two, each worker on a core of"
        f" its own; the members go to both in turn, as from a balancer. {times} short"
        " rounds, in turn. Without a third core for redis-server and the load"
        " generator, it is the CPU time that is compared: two cores are taken for as"
        " long as the busier worker needs, or half of what both workers and"
        " redis-server need, if that is more; one core as long as its worker needs."
        " The time of the load generator, which on a user's machines is elsewhere,"
        " is not counted. To make it small, most members leave what they are sent in"
        " the kernel until the clock has stopped, then all is read and checked. So"
        " the time on the wall, with everything on these two cores, can be seen as"
        " well; it is not judged."
    )
    one, two = rounds[1], rounds[2]
    ratios = [a.core_us / b.core_us for a, b in zip(one, two, strict=True)]
    walls = [b.per_second / a.per_second for a, b in zip(one, two, strict=True)]
    ratio, wall = statistics.median(ratios), statistics.median(walls)
    low, _, high = statistics.quantiles(ratios, n=4)
    good = ratio >= WORKERS_BAR
    verdict = (
        f"Two workers deliver {ratio:.2f} times as much as one by CPU time (the middle"
        f" half of the rounds: {low:.2f} to {high:.2f}; bar {WORKERS_BAR}:"
        f" {'pass' if good else 'FAIL'}), and {wall:.2f} times on the wall."
    )
    head = ["workers", "deliveries a second, wall", "CPU µs per delivery, by worker"]
    head += ["redis-server", "load generator"]
    return [text, table(head, rows), verdict], good


def _numbers(server: Server) -> tuple[int, int]:
    """Return the process id and port of one more worker."""
    pid, port = map(int, server.read_line().split())
    return pid, port


def _shared(server: Server, numbers: Sequence[tuple[int, int]], redis: int) -> Shared:
    pids = [pid for pid, _ in numbers]
    with Load(
        *(server, None),
        scenario="fan",
        conns=MEMBERS,
        seconds=0.4,  # what the kernel keeps for each member without being read
        lazy=True,
        ports=[port for _, port in numbers],
    ) as load:
        wait_until_quiet(server)
        before = [cpu_seconds(pid) for pid in (*pids, redis)]
        result = load.run()
        used = [cpu_seconds(pid) for pid in (*pids, redis)]
    count = result["messages"]
    costs = [(b - a) / count * 1e6 for a, b in zip(before, used, strict=True)]
    rate = count / result["run_seconds"]
    return Shared(costs[:-1], costs[-1], result["cpu"] / count * 1e6, rate)


def _workers_row(count: int, rounds: Sequence[Shared]) -> list[str]:
    each = zip(*(sorted(r.workers, reverse=True) for r in rounds), strict=True)
    return [
        str(count),
        f"{statistics.median(r.per_second for r in rounds):,.0f}",
        " + ".join(f"{statistics.median(costs):.2f}" for costs in each),
        f"{statistics.median(r.redis for r in rounds):.2f}",
        f"{statistics.median(r.load for r in rounds):.2f}",
    ]
