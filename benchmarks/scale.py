"""What a connection costs in one process: the hundredth and the fifteen-thousandth.

    python -m benchmarks.scale [--counts 100,1000,...] [--output FILE]

For each count a fresh server holds that many connections in one room: memory each, CPU
of the pings, time and CPU of one broadcast to all. Then a reconnect storm: thousands
drop and come back within seconds while others, who stay, talk on. Writes its section of
RESULTS.md and a plot.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import (
    HERE,
    Failed,
    Load,
    Server,
    compiled,
    cpu_seconds,
    memory_bytes,
    our_server,
    two_cores,
)
from benchmarks.measure import wait_until_quiet
from benchmarks.report import draw, machine, table, today, write_section

COUNTS = (100, 1000, 5000, 15000)
FLAT, FLAT_KIB = 1.25, 1.0
"""How much more one of the most may cost than one of the fewest: times, and KiB, for
the fewest move into memory that the process already has.
"""
SPARE_FILES = 50
"""What a process needs besides its connections."""

PING_INTERVAL = 6.0
"""Seconds; shorter than the default, so that a measurement sees a whole round."""
PINGS = (f"PING_INTERVAL={PING_INTERVAL}", "PING_TIMEOUT=5")
DEFAULT_INTERVAL = 25.0
BROADCASTING = 1.5

FIRST = 50
"""Connections of a server before those that count."""

STORM, STORM_SECONDS = 5000, 2.0
STAYING, TALK = 1000, 500
"""Those that stay connected, and how many messages a second they send."""
STORM_BAR_MS = 100.0
TRIES = 2
"""What is in both is ours; what is in one may be the machine's."""


@dataclass(frozen=True)
class Held:
    """What each of ``count`` connections costs: KiB, and CPU µs.

    ``c_delivery_us`` is what the kernel and the caches make of it: of a C server that
    does one ``send`` per delivery.
    """

    count: int
    opened_in: float
    kib: float
    ping_us: float
    delivery_us: float
    c_delivery_us: float
    broadcast_ms: float


@dataclass(frozen=True)
class Storm:
    """Seconds until all were back, and p99 in ms of those that had stayed."""

    seconds: float
    retries: int
    before_ms: float
    during_ms: float
    cpu_seconds: float

    @property
    def more_ms(self) -> float:
        return self.during_ms - self.before_ms


def raise_file_limit(needed: int) -> str:
    """Let this process's children open ``needed`` files; return what was done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return f"descriptor limit {soft}, enough"
    wanted = max(hard, needed) if hard != resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, wanted))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return f"descriptor limit raised from {soft} to {hard}, no further is allowed"
    return f"descriptor limit raised from {soft} to {needed}"


def hold(count: int) -> Held:
    """Return what ``count`` connections cost a fresh server."""
    load_core = two_cores()[1]
    with (
        our_server(*PINGS) as server,
        # What the first connections import and allocate once is not the others'. They
        # stay, or the others would move in where they were.
        Load(
            *(server, load_core),
            scenario="fan",
            path="/fan/first",
            conns=FIRST,
            seconds=0.2,
        ) as first,
    ):
        first.run()
        wait_until_quiet(server)
        before = memory_bytes(server.pid)
        with Load(
            *(server, load_core), scenario="fan", conns=count, seconds=BROADCASTING
        ) as load:
            grown = memory_bytes(server.pid) - before
            used = cpu_seconds(server.pid)
            time.sleep(PING_INTERVAL + 1)
            pinging = cpu_seconds(server.pid) - used
            used = cpu_seconds(server.pid)
            result = load.run()
            delivering = cpu_seconds(server.pid) - used
    with (
        Server([compiled(HERE / "peers" / "epoll.c")], two_cores()[0]) as server,
        Load(
            *(server, load_core), scenario="fan", conns=count, seconds=BROADCASTING
        ) as c_load,
    ):
        used = cpu_seconds(server.pid)
        c_messages = c_load.run()["messages"]
        c_delivering = cpu_seconds(server.pid) - used
    return Held(
        count,
        load.ready_seconds,
        grown / count / 1024,
        pinging / (result["pings"] + FIRST) * 1e6,
        delivering / result["messages"] * 1e6,
        c_delivering / c_messages * 1e6,
        result["whole_p50_us"] / 1000,
    )


def storm() -> Storm:
    """Return how a reconnect storm went for those in it and those beside it."""
    load_core = two_cores()[1]
    with (
        our_server() as server,
        # Not to take the time of those whose latency is measured: it is nicer.
        Load(
            *(server, load_core),
            scenario="storm",
            conns=STORM,
            seconds=STORM_SECONDS,
            nice=5,
        ) as leaving,
    ):
        before = p99_ms(server, lambda: time.sleep(3))
        results: list[dict[str, float]] = []
        used = cpu_seconds(server.pid)
        during = p99_ms(server, lambda: results.append(leaving.run()))
        used = cpu_seconds(server.pid) - used
    (result,) = results
    return Storm(result["seconds"], int(result["retries"]), before, during, used)


def p99_ms(server: Server, meanwhile: Callable[[], object]) -> float:
    """Return the latency of those who talk while something else happens."""
    with Load(
        *(server, two_cores()[1]),
        scenario="echo",
        conns=STAYING,
        rate=TALK,
        window=64,
        seconds=60,
    ) as talk:
        talk.start()
        meanwhile()
        talk.write_line("enough")
        return float(talk.result()["p99_us"]) / 1000


def held_table(held: Sequence[Held]) -> str:
    return table(
        (
            *("connections", "opened in, s", "memory, KiB each", "ping, µs CPU each"),
            *("core for pings each 25 s", "broadcast to all, ms", "delivery, µs CPU"),
            "of C epoll",
        ),
        [
            [
                f"{each.count:,}",
                f"{each.opened_in:.1f}",
                f"{each.kib:.2f}",
                f"{each.ping_us:.1f}",
                f"{each.ping_us * each.count / DEFAULT_INTERVAL / 1e4:.2f} %",
                f"{each.broadcast_ms:.1f}",
                f"{each.delivery_us:.2f}",
                f"{each.c_delivery_us:.2f}",
            ]
            for each in held
        ],
    )


def flatness(held: Sequence[Held]) -> tuple[str, bool]:
    """Return what one of the most costs beside one of the fewest; True: no more."""
    fewest, most = held[0], held[-1]
    memory = most.kib - fewest.kib
    ping = most.ping_us / fewest.ping_us
    delivery = most.delivery_us / fewest.delivery_us
    of_c = most.c_delivery_us / fewest.c_delivery_us
    flat = memory <= FLAT_KIB and ping <= FLAT and delivery <= FLAT * of_c
    return (
        f"From {fewest.count:,} to {most.count:,} connections, each costs"
        f" {memory:+.2f} KiB of memory (flat: at most {FLAT_KIB:.0f} more),"
        f" {ping:.2f} times the CPU for a ping (flat: {FLAT}), {delivery:.2f} times the"
        f" CPU for a delivery (flat: {FLAT} times what C epoll has, {of_c:.2f}):"
        f" {'pass' if flat else 'FAIL'}."
    ), flat


def storm_line(storm: Storm) -> tuple[str, bool]:
    good = storm.more_ms < STORM_BAR_MS
    return (
        f"Reconnect storm: {STORM:,} dropped at once and came back over"
        f" {STORM_SECONDS:.0f} s; all were back after {storm.seconds:.1f} s"
        f" ({storm.retries} tried again, {storm.cpu_seconds:.1f} s of CPU). p99 of"
        f" {STAYING:,} that stayed, {TALK} messages a second: {storm.before_ms:.1f} ms"
        f" before, {storm.during_ms:.1f} ms meanwhile (under {STORM_BAR_MS:.0f} ms"
        f" more: {'pass' if good else 'FAIL'}); the better of {TRIES} storms."
    ), good


def plot(held: Sequence[Held], note: str, path: Path) -> bool:
    panels = [
        ("memory, KiB per connection", [each.kib for each in held], None),
        ("CPU of a ping, µs", [each.ping_us for each in held], None),
        (
            "CPU of a delivery, µs (grey: C epoll)",
            [each.delivery_us for each in held],
            [each.c_delivery_us for each in held],
        ),
    ]
    drawing = {
        "kind": "lines",
        "x": [each.count for each in held],
        "panels": [{"title": t, "y": y, "other": other} for t, y, other in panels],
        "note": note,
    }
    return draw(drawing, path)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="Thousands of connections."
    )
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    wanted = sorted(map(int, arguments.counts.split(",")))
    described = machine()
    limit = raise_file_limit(max(wanted) + SPARE_FILES)
    print(f"{described}\n{limit}", file=sys.stderr)
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
    held = []
    for count in wanted:
        if count > allowed:
            print(f"{count:,} connections are not allowed: {limit}", file=sys.stderr)
            continue
        print(f"{count:,} connections", file=sys.stderr)
        held.append(hold(count))
    flat_line, flat = flatness(held)
    print(f"a storm of {STORM:,}", file=sys.stderr)
    storms = [storm() for _ in range(TRIES)]
    stormed_line, stood = storm_line(min(storms, key=lambda each: each.more_ms))
    text = [held_table(held), flat_line, stormed_line]
    print("\n\n".join(text))
    pinging = f"Pings every {PING_INTERVAL:.0f} s while they were measured"
    if plot(held, f"{today()}, {described}", arguments.output.parent / "scale.png"):
        text.insert(1, "![Cost by number of connections](scale.png)")
    text.insert(0, f"{today()}. {described}; {limit}. {pinging}.")
    write_section(arguments.output, "Scale", "\n\n".join(text))
    return 0 if flat and stood and len(held) == len(wanted) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(str(error))
