"""What the backends cost: broadcasts, acknowledged messages, two workers, many rooms.

    python -m benchmarks.backends [--quick] [--only TEXT] [--output FILE]

TEXT is one of the parts' names: broadcasts, says, workers, rooms. Writes its section of
RESULTS.md, unless --quick or --only was given.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.backends.rooms import joined_and_filled
from benchmarks.backends.sharing import gain_of_two
from benchmarks.harness import (
    ROOT,
    Failed,
    Load,
    Server,
    cpu_seconds,
    redis_server,
    two_cores,
)
from benchmarks.measure import wait_until_quiet
from benchmarks.report import run_parts, table

MEMORY, SQLITE, REDIS = "memory://", "sqlite://", "redis://"
BACKENDS = (MEMORY, SQLITE, REDIS)

MEMBERS = 1000
REDIS_BAR = 0.8
"""Deliveries per CPU second through Redis, as a share of those in memory."""
SAY_RATIO, SAY_REDIS = 1.7, 10.0
"""A `say` through Redis: the server's CPU as a multiple of that in memory, and µs of
redis-server, both at most."""
SAYS_BAR = 3000
"""Messages per second that SQLite has on the disk and acknowledged."""


@dataclass(frozen=True)
class Options:
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Part:
    """A part of the section: its paragraphs, and whether it reached its bars."""

    texts: list[str]
    good: bool


@dataclass(frozen=True)
class Cost:
    """CPU µs per message of the server and of Redis; and how the load went."""

    server: float
    redis: float
    load: dict[str, Any]

    @property
    def per_second(self) -> float:
        rate: float = self.load["messages"] / self.load["run_seconds"]
        return rate

    @property
    def busy(self) -> float:
        """Percent of the time in which the server used its core."""
        used: float = self.server * self.load["messages"] / 1e4 / self.load["seconds"]
        return used


class Backends:
    """A server for each backend, on one core; Redis is on the other one."""

    def __init__(self, servers: dict[str, Server], redis: int) -> None:
        self.servers = servers
        self._redis = redis

    def cost(self, name: str, seconds: float, **load: Any) -> Cost:
        """Return what one load costs."""
        server = self.servers[name]
        with Load(server, two_cores()[1], seconds=seconds, **load) as running:
            wait_until_quiet(server)
            before = cpu_seconds(server.pid), cpu_seconds(self._redis)
            result = running.run()
            used = cpu_seconds(server.pid), cpu_seconds(self._redis)
        mine, redis = (
            (b - a) / result["messages"] * 1e6
            for a, b in zip(before, used, strict=True)
        )
        return Cost(mine, redis if name == REDIS else 0.0, result)

    def alternate(self, options: Options, **load: Any) -> dict[str, list[Cost]]:
        """Return the rounds of each, measured in turn."""
        costs: dict[str, list[Cost]] = {name: [] for name in self.servers}
        for _ in range(options.rounds):
            for name, rounds in costs.items():
                rounds.append(self.cost(name, options.seconds, **load))
        return costs


@contextlib.contextmanager
def running() -> Iterator[Backends]:
    """Yield a server for each backend.

    The file is where the project is, as a temporary directory may be memory.
    """
    core = two_cores()[0]
    with (
        redis_server(two_cores()[1]) as (redis, address),
        tempfile.TemporaryDirectory(dir=ROOT / "build") as folder,
        contextlib.ExitStack() as stack,
    ):
        urls = {MEMORY: MEMORY, SQLITE: f"sqlite:///{folder}/chat.db", REDIS: address}
        servers = {
            name: stack.enter_context(
                Server("wschat", core, environment={"WSCHAT_URL": url})
            )
            for name, url in urls.items()
        }
        yield Backends(servers, redis)


def median(costs: Sequence[Cost], of: Callable[[Cost], float]) -> float:
    return statistics.median(map(of, costs))


# -- broadcasts


def broadcasts(options: Options) -> Part:
    """What a delivery costs, beside that of one process alone."""
    rows, good = [], True
    with running() as backends:
        for title, chat in (("plain listeners", 0), ("the ready-made chat", MEMBERS)):
            costs = backends.alternate(
                options, scenario="fan", conns=MEMBERS, chat=chat
            )
            ratios = [
                memory.server / redis.server
                for memory, redis in zip(costs[MEMORY], costs[REDIS], strict=True)
            ]
            ratio = statistics.median(ratios)
            spread = (max(ratios) - min(ratios)) / 2 / ratio
            good &= ratio >= REDIS_BAR
            rows.append(
                [
                    title,
                    *(f"{median(costs[b], lambda c: c.server):.2f}" for b in BACKENDS),
                    f"{median(costs[REDIS], lambda c: c.redis):.2f}",
                    f"{ratio:.2f}",
                    f"{spread:.0%}",
                    f"{REDIS_BAR}",
                    "pass" if ratio >= REDIS_BAR else "FAIL",
                ]
            )
    text = (
        f"A broadcast of 64 B to {MEMBERS:,} members of a room on one worker, one at a"
        f" time, kept in the room's history; {options.rounds} rounds of"
        f" {options.seconds} s, the backends in turn. The server's CPU µs (user and"
        " system) per delivery, and beside it what redis-server itself took. *Ratio*:"
        " deliveries per CPU second of the server through Redis to those in memory,"
        " the median over the rounds. In the chat the first member says it, which is"
        " acknowledged, and each gets it as `message`."
    )
    head = ["members of", *(f"{name}" for name in BACKENDS), "redis-server"]
    head += ["ratio", "spread", "bar", "verdict"]
    return Part([text, table(head, rows)], good)


# -- acknowledged messages

TALKS = (
    ("1 client, alone", 1, 1),
    ("100 clients, 10 rooms of 10", 100, 10),
    ("100 clients, one room", 100, 100),
    ("1000 clients, 100 rooms of 10", 1000, 10),
)
JUDGED = "100 clients, 10 rooms of 10"


def says(options: Options) -> Part:
    """How many messages a second are stored and acknowledged."""
    rows, good, verdict = [], True, ""
    with running() as backends:
        for title, conns, chat in TALKS:
            costs = backends.alternate(options, scenario="echo", conns=conns, chat=chat)
            if title == JUDGED:
                verdict, cheap = _redis_verdict(costs)
                good &= cheap
            for name, rounds in costs.items():
                rate = median(rounds, lambda c: c.per_second)
                bar = SAYS_BAR if (title, name) == (JUDGED, SQLITE) else None
                good &= bar is None or rate >= bar
                rows.append(_says_row(title, name, rounds, bar))
    text = (
        "`say`s per second that one worker stores and acknowledges to clients of"
        " `ChatListener`, each with one under way and 64 B of data; each is"
        " delivered to its room meanwhile. SQLite has it on the disk, synced, before"
        " the reply. *Busy / idle*: percent of the time in which the server used"
        " CPU, and in which the load generator, on the other core, had nothing to"
        " do: it was not what limits."
    )
    head = ["", "backend", "says a second", "server CPU, µs", "redis-server, µs"]
    head += ["p50, ms", "p99, ms", "busy / idle", "bar", "verdict"]
    return Part([text, table(head, rows), verdict], good)


def _redis_verdict(costs: dict[str, list[Cost]]) -> tuple[str, bool]:
    """Return what a `say` costs through Redis, beside memory's; True: little enough."""
    ratio = statistics.median(
        redis.server / memory.server
        for memory, redis in zip(costs[MEMORY], costs[REDIS], strict=True)
    )
    redis = median(costs[REDIS], lambda c: c.redis)
    good = ratio <= SAY_RATIO and redis <= SAY_REDIS
    return (
        f"{JUDGED}: a `say` through Redis costs the server {ratio:.2f} times what it"
        f" costs in memory (bar {SAY_RATIO}), and redis-server {redis:.1f} µs (bar"
        f" {SAY_REDIS:g}): {'pass' if good else 'FAIL'}."
    ), good


def _says_row(
    title: str, name: str, rounds: Sequence[Cost], bar: int | None
) -> list[str]:
    rate = median(rounds, lambda c: c.per_second)
    redis = median(rounds, lambda c: c.redis)
    return [
        title,
        name,
        f"{rate:,.0f}",
        f"{median(rounds, lambda c: c.server):.1f}",
        f"{redis:.1f}" if redis else "",
        f"{median(rounds, lambda c: c.load['p50_us']) / 1000:.2f}",
        f"{median(rounds, lambda c: c.load['p99_us']) / 1000:.2f}",
        f"{median(rounds, lambda c: c.busy):.0f}"
        f" / {median(rounds, lambda c: c.load['idle']):.0f}",
        "" if bar is None else f"{bar:,}",
        "" if bar is None else "pass" if rate >= bar else "FAIL",
    ]


def workers(options: Options) -> Part:
    """What a second worker on a second core adds."""
    return Part(*gain_of_two(4 * options.rounds))


# -- rooms


def rooms(options: Options) -> Part:
    """What a hundred thousand rooms cost, and ten thousand joins."""
    rows, good = [], True
    for name in BACKENDS:
        row, flat = joined_and_filled(name)
        rows.append(row)
        good &= flat
    return Part([*_ROOMS_TEXT, table(_ROOMS_HEAD, rows)], good)


_ROOMS_TEXT = [
    "One message in each of 100,000 rooms by one process, a hundred under way; then"
    " 100 clients of the chat join 10,000 of them, 100 each, one after another, and"
    " get its page. CPU of the server and of redis-server per room or join, of the"
    " first and the last three tenths, their medians (flat: at most 1.5 times: the"
    " pass of Python's collector over all there is falls into one tenth, which then"
    " takes 200 instead of 135 in memory); memory of the server, and"
    " what the backend keeps elsewhere (redis-server's memory, SQLite's files), per"
    " room or join. A join here is a subscription, an entry in the presence and a"
    " page of the history."
]
_ROOMS_HEAD = [
    *("backend", "rooms: CPU µs, first", "last", "KiB each", "KiB elsewhere"),
    *("joins: CPU µs, first", "last", "ms on the wall", "KiB each", "flat"),
]


def _with_rounds(part: Callable[[Options], Part]) -> Callable[[bool], Part]:
    return lambda quick: part(Options(2, 0.5) if quick else Options(5, 0.8))


PARTS = {
    part.__name__: _with_rounds(part) for part in (broadcasts, says, workers, rooms)
}


if __name__ == "__main__":
    about = "What the backends cost."
    try:
        sys.exit(run_parts("benchmarks.backends", about, "Backends", PARTS))
    except Failed as error:
        sys.exit(str(error))
