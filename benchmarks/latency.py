"""How long a broadcast takes while something else goes on in the same process.

    python -m benchmarks.latency [--output FILE]

Members of a room receive broadcasts at a steady rate, and one connection of its own has
its echoes timed: what holds up the loop shows there. Meanwhile a tenth of the members
read nothing, or messages of 16 MiB pass, or HTTP requests are served, or a broadcast
goes to ten thousand. Each is tried twice, and the better longest time counts: a stall
of our making is in both, one of the machine's is not. Writes its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import (
    HERE,
    Failed,
    Load,
    Process,
    Server,
    our_server,
    two_cores,
)
from benchmarks.report import machine, table, today, write_section

MEMBERS, RATE, SIZE = 500, 100, 4096
"""Who receives, broadcasts a second, and bytes of each."""
PROBES = 200
"""Timed echoes a second."""
STALLED = MEMBERS // 10
HUGE = 16 << 20
BROWSERS = 20
"""Connections that ask for pages: each waits out 40 ms of delayed acknowledgement, as
pywsgi sends head and body apart."""
MANY = 10_000
SECONDS = 4.0
TRIES = 2
STALL_BAR_MS = 50.0


@dataclass(frozen=True)
class Times:
    """Milliseconds."""

    p50: float
    p99: float
    longest: float


@dataclass(frozen=True)
class Latency:
    """Of broadcasts and of the probe, and what else was done meanwhile."""

    broadcast: Times
    probe: Times
    done: str


Meanwhile = Callable[[Server, int], AbstractContextManager[list[str]]]


@contextlib.contextmanager
def nothing(server: Server, core: int) -> Iterator[list[str]]:
    yield []


@contextlib.contextmanager
def stalled_peers(server: Server, core: int) -> Iterator[list[str]]:
    """A tenth of the members read nothing."""
    with Load(server, core, scenario="stall", conns=STALLED):
        yield []


@contextlib.contextmanager
def huge_messages(server: Server, core: int) -> Iterator[list[str]]:
    """One connection echoes messages of 16 MiB, one after the other."""
    done: list[str] = []
    with Load(
        server, core, scenario="echo", nice=10, conns=1, size=HUGE, seconds=60
    ) as load:
        load.start()
        yield done
        load.write_line("enough")
        done.append(f"{load.result()['messages']} echoed")


@contextlib.contextmanager
def http_requests(server: Server, core: int) -> Iterator[list[str]]:
    """Connections ask for a page, again and again."""
    done: list[str] = []
    command = [sys.executable, "-m", "benchmarks.http_load", str(server.port)]
    command.append(str(BROWSERS))
    with Process(command, core, nice=10) as load:
        load.read_line()
        yield done
        load.write_line("enough")
        done.append(f"{int(load.read_line()) / SECONDS:.0f} requests a second")


@contextlib.contextmanager
def large_fan_out(server: Server, core: int) -> Iterator[list[str]]:
    """Another room has ten thousand members, and a broadcast every half second."""
    done: list[str] = []
    with Load(
        *(server, core),
        scenario="fan",
        path="/fan/large",
        nice=10,
        conns=MANY,
        rate=2,
        seconds=60,
    ) as load:
        load.start()
        yield done
        load.write_line("enough")
        result = load.result()
        done.append(
            f"{result['published']} broadcasts, {result['whole_p50_us'] / 1000:.0f} ms"
            " to the last member"
        )


CONDITIONS: dict[str, Meanwhile] = {
    "nothing else": nothing,
    f"{STALLED} of {MEMBERS} members stalled": stalled_peers,
    "16 MiB messages pass": huge_messages,
    "HTTP requests are served": http_requests,
    f"broadcasts to {MANY:,} others": large_fan_out,
}


def measure(meanwhile: Meanwhile) -> Latency:
    """Return the latencies of one try, at a fresh server."""
    core = two_cores()[1]
    with our_server() as server, meanwhile(server, core) as done:
        reading = MEMBERS - (STALLED if meanwhile is stalled_peers else 0)
        with (
            Load(
                *(server, core),
                scenario="fan",
                conns=reading,
                size=SIZE,
                rate=RATE,
                seconds=SECONDS,
            ) as members,
            Load(
                *(server, core),
                scenario="echo",
                conns=1,
                window=PROBES * 10,
                rate=PROBES,
                seconds=SECONDS,
            ) as probe,
        ):
            members.start()
            probe.start()
            broadcast, echoes = members.result(), probe.result()
    return Latency(
        Times(*(broadcast[f"{name}_us"] / 1000 for name in ("p50", "p99", "max"))),
        Times(*(echoes[f"{name}_us"] / 1000 for name in ("p50", "p99", "max"))),
        ", ".join(done),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description="Latency under mixed load."
    )
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    parser.add_argument("--only", default="", help="conditions that contain this")
    arguments = parser.parse_args()
    described, started = machine(), time.monotonic()
    print(described, file=sys.stderr)
    rows, good = [], True
    for title, meanwhile in CONDITIONS.items():
        if arguments.only not in title:
            continue
        print(title, file=sys.stderr)
        try:
            tries = [measure(meanwhile) for _ in range(TRIES)]
        except Failed as error:
            rows.append([title, *["-"] * 6, str(error), "FAIL"])
            good = False
            continue
        best = min(tries, key=lambda each: each.probe.longest)
        passed = best.probe.longest < STALL_BAR_MS
        good &= passed
        numbers = (best.broadcast, best.probe)
        cells = [f"{n:.1f}" for t in numbers for n in (t.p50, t.p99, t.longest)]
        rows.append([title, *cells, best.done, "pass" if passed else "FAIL"])
    text = [
        f"{today()}. {described}. {MEMBERS} members, {RATE} broadcasts of {SIZE} B a"
        f" second for {SECONDS:.0f} s, from when each was due until it was received;"
        f" the probe is a connection of its own with {PROBES} echoes a second. Times in"
        f" ms, of the better of {TRIES} tries. The bar: no echo over"
        f" {STALL_BAR_MS:.0f} ms.",
        table(
            (
                *("meanwhile", "broadcast p50", "p99", "longest"),
                *("echo p50", "p99", "longest", "", "verdict"),
            ),
            rows,
        ),
    ]
    print("\n\n".join(text))
    print(f"{time.monotonic() - started:.0f} s")
    if not arguments.only:
        write_section(arguments.output, "Latency under mixed load", "\n\n".join(text))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
