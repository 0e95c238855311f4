"""What healthy clients notice of attacks, and what memory these take.

    python -m benchmarks.attacks [--quick] [--rounds N] [--only KIND...] [--output FILE]

Each way to serve the application of ``tests/servers`` has a core. On the other one is a
healthy load, so little that it never waits for itself, and a process that attacks and
leaves the core to that load whenever it is wanted. In each round the load's 99th
percentiles are taken with nobody else there, under each attack, and with nobody else
once more; the ratios are medians over the rounds. Then a thousand subscribers read
nothing during 50,000 broadcasts. Writes its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import HERE, Failed, Load, Process, cpu_seconds, two_cores
from benchmarks.report import machine, table, today, write_section
from benchmarks.stalled import BROADCASTS, MAX_QUEUED, MEMBERS, NEVER_BAR, never
from tests.servers.serving import KINDS, Server, with_settings

from .attacker import ATTACKS

TRIED = ("run", "plain", "stock", "our-worker", "flask", "gthread")
QUICK = ("run", "flask", "gthread")
BAR = 1.5
"""Times that the p99 of before may be."""
ECHOES = {"scenario": "echo", "path": "/listen", "conns": 50, "rate": 500}
ROOM = {"scenario": "fan", "path": "/fan", "conns": 500, "rate": 60}
"""The healthy load: what is answered, and a room."""
HEAD = ("server", "attack", "echo", "ratio", "broadcast", "ratio", "busy", "MiB", "")
SETTLED = 20.0
"""Seconds after which a server may still be busy with an attack."""


@dataclass
class Outcome:
    """What one server's clients had of one attack."""

    calm: list[tuple[float, float]] = field(default_factory=list)
    """Of each round the p99 of an echo and of a broadcast, in ms."""
    under: list[tuple[float, float]] = field(default_factory=list)
    busy: float = 0.0
    """The share of its core that the server used."""
    memory: int = 0

    def row(self, kind: str, attack: str) -> list[str]:
        cells = []
        for index in (0, 1):
            calm = statistics.median(each[index] for each in self.calm)
            under = statistics.median(each[index] for each in self.under)
            cells.append(f"{calm:.1f} to {under:.1f}")
            cells.append(f"{self.ratio(index):.2f}")
        verdict = "pass" if self.good else "FAIL"
        size = f"{self.memory / (1 << 20):.0f}"
        return [kind, attack, *cells, f"{self.busy:.0%}", size, verdict]

    def ratio(self, index: int) -> float:
        pairs = zip(self.under, self.calm, strict=True)
        return statistics.median(a[index] / b[index] for a, b in pairs)

    @property
    def good(self) -> bool:
        return max(self.ratio(0), self.ratio(1)) <= BAR and self.memory < MAX_QUEUED


@contextlib.contextmanager
def serving(name: str) -> Iterator[Server]:
    """Have the application served on a core of its own, before all others if we may."""
    kind = with_settings(name, MAX_MESSAGE=1 << 20)
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="wschat-attacks-") as folder:
        server = Server(kind, Path(folder), (Path(folder), Path(folder)))
        os.sched_setaffinity(0, {two_cores()[0]})
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -15)
        try:
            server.ensure()
        finally:
            os.sched_setaffinity(0, cores)
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        try:
            yield server
        finally:
            server.stop()


def settle(server: Server) -> None:
    """Wait until the server has nothing to do any more.

    :raises Failed: it always has.
    """
    until = time.monotonic() + SETTLED
    while time.monotonic() < until:
        before = cpu_seconds(server.pid)
        time.sleep(0.1)
        if cpu_seconds(server.pid) - before < 0.005:
            return
    raise Failed(f"the server is busy {SETTLED:.0f} s after an attack")


def percentiles(
    server: Server, seconds: float, attacker: Process | None = None, attack: str = ""
) -> tuple[float, float]:
    """Return the healthy load's p99, in ms, of an echo and of a broadcast.

    :raises Failed: it was not served.
    """
    core = two_cores()[1]
    options = {"window": 1000, "seconds": seconds}
    with (
        Load(server, core, **ECHOES, **options) as echoes,  # type: ignore[arg-type]
        Load(server, core, **ROOM, **options) as room,  # type: ignore[arg-type]
    ):
        for load in (echoes, room):
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(load.pid, os.SCHED_RR, os.sched_param(1))
        if attacker is not None:
            attacker.write_line(attack)
            attacker.read_line()
        try:
            echoes.start()
            room.start()
            return echoes.result()["p99_us"] / 1000, room.result()["p99_us"] / 1000
        finally:
            if attacker is not None:
                attacker.write_line("enough")
                attacker.read_line()


def attacked(name: str, rounds: int, seconds: float) -> tuple[dict[str, Outcome], int]:
    """Return what comes of each attack, and the tracebacks that we are in."""
    outcomes: dict[str, Outcome] = defaultdict(Outcome)
    command = [sys.executable, "-m", "benchmarks.attacks.attacker"]
    with (
        serving(name) as server,
        Process([*command, str(server.port)], two_cores()[1]) as attacker,
    ):
        percentiles(server, seconds)  # whatever is done only once
        for number in range(rounds):
            settle(server)
            calm = [percentiles(server, seconds)]
            for attack in ATTACKS:
                print(f"{name}: {number + 1}/{rounds} {attack}", file=sys.stderr)
                settle(server)
                outcome = outcomes[attack]
                size, cpu, began = server.memory(), _cpu(server), time.monotonic()
                outcome.under.append(percentiles(server, seconds, attacker, attack))
                took = time.monotonic() - began
                outcome.busy = max(outcome.busy, (_cpu(server) - cpu) / took)
                outcome.memory = max(outcome.memory, server.most_memory() - size)
            settle(server)
            calm.append(percentiles(server, seconds))
            echo, broadcast = map(statistics.mean, zip(*calm, strict=True))
            for outcome in outcomes.values():
                outcome.calm.append((echo, broadcast))
        return outcomes, server.log.count("/flask_wschat/")


def _cpu(server: Server) -> float:
    return cpu_seconds(server.pid)


def main() -> int:
    names = [kind.name for kind in KINDS if not (kind.tls or kind.unix)]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attacks", description="Attacks and the healthy."
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=0.8)
    parser.add_argument("--only", nargs="+", choices=names)
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    described, started = machine(), time.monotonic()
    rows, unread, good = [], [], True
    for name in options.only or (QUICK if options.quick else TRIED):
        outcomes, tracebacks = attacked(name, rounds, options.seconds)
        rows += [outcome.row(name, attack) for attack, outcome in outcomes.items()]
        good = good and all(each.good for each in outcomes.values()) and not tracebacks
        if tracebacks:
            rows.append([name, f"{tracebacks} lines of tracebacks", *[""] * 6, "FAIL"])
        print(f"{name}: never reading", file=sys.stderr)
        count = BROADCASTS // 5 if options.quick else BROADCASTS
        calm, worst, memory, published = never(functools.partial(serving, name), count)
        held = worst <= NEVER_BAR * calm and memory < MAX_QUEUED
        good = good and held
        unread.append(
            [
                *(name, f"{published:,}", f"{calm / 1000:.1f} to {worst / 1000:.1f}"),
                *(f"{worst / calm:.2f}", f"{memory / (1 << 20):.0f}"),
                "pass" if held else "FAIL",
            ]
        )
    text = [
        f"{today()}. {described}. p99 in ms before an attack and under it, of echoes"
        f" ({ECHOES['rate']} a second by {ECHOES['conns']} clients) and of broadcasts"
        f" ({ROOM['rate']} a second to {ROOM['conns']}); medians of {rounds} rounds,"
        f" bar {BAR} times. *Busy*: the server's core, at most. MiB: of memory, at"
        f" most; bar {MAX_QUEUED >> 20}. A line of ours in a traceback would be told.",
        table(HEAD, rows),
        f"{MEMBERS:,} subscribers read nothing of so many broadcasts: the worst p99 of"
        " 100 who read, and that where all do.",
        table(("server", "broadcasts", "p99, ms", "ratio", "MiB", ""), unread),
    ]
    print("\n\n".join(text))
    print(f"{time.monotonic() - started:.0f} s")
    write_section(options.output, "Attacks", "\n\n".join(text))
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(str(error))
