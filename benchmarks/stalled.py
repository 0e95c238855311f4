"""What those who read notice of those who do not, and what memory these take.

    python -m benchmarks.stalled [--rounds N] [--output FILE]

A room of a thousand gets broadcasts at a steady rate; in each round once with all of
them reading and once with a tenth that reads nothing, whose sockets are full before it
begins. The ratio of the readers' 99th percentiles is the median over the rounds. Then
a thousand read nothing during 50,000 broadcasts to a hundred who do, as fast as these
have them; beside it, a thousand more who read. Writes its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from benchmarks.harness import (
    HERE,
    Failed,
    Listening,
    Load,
    memory_bytes,
    our_server,
    two_cores,
)
from benchmarks.report import machine, table, today, write_section

MEMBERS, TENTH = 1000, 100
RATE, SIZE, SECONDS = 50, 1024, 5.0
"""Broadcasts a second, bytes of each, and for how long."""
FILL = 300 * 1024
"""Bytes that fill the kernel's buffers of a peer that does not read."""
TENTH_BAR, NEVER_BAR = 1.2, 1.5
BROADCASTS = 50_000
READERS, SMALL = 100, 64
MAX_QUEUED = 256 << 20
"""The default, which memory is to stay under."""


class Served(Listening, Protocol):
    """A server, and its process."""

    pid: int


def fan(server: Listening, conns: int, **options: float) -> dict[str, float]:
    with Load(server, two_cores()[1], scenario="fan", conns=conns, **options) as load:  # type: ignore[arg-type]
        return load.run()


def steady(stalled: int) -> float:
    """Return the 99th percentile, in ms, with so many who read nothing."""
    core = two_cores()[1]
    with our_server("PING_TIMEOUT=600") as server:
        if not stalled:
            return fan(server, MEMBERS, size=SIZE, rate=RATE, seconds=SECONDS)["p99_us"]
        with Load(server, core, scenario="stall", conns=stalled):
            fan(server, 1, size=FILL, rate=2, seconds=0.9)
            result = fan(
                server, MEMBERS - stalled, size=SIZE, rate=RATE, seconds=SECONDS
            )
            return result["p99_us"]


def never(
    serve: Callable[[], AbstractContextManager[Served]], broadcasts: int = BROADCASTS
) -> tuple[float, float, int, int]:
    """Return both percentiles, the bytes of memory and how many broadcasts it were."""
    core = two_cores()[1]
    with serve() as server:
        calm = fan(server, MEMBERS + READERS, size=SMALL, seconds=SECONDS)["p99_us"]
    with serve() as server:
        fan(server, MEMBERS, size=SMALL, seconds=1)
        before = most = memory_bytes(server.pid)
        with Load(server, core, scenario="stall", conns=MEMBERS):
            fan(server, 1, size=FILL, rate=2, seconds=0.9)
            published, worst = 0, 0.0
            while published < broadcasts:
                result = fan(server, READERS, size=SMALL, seconds=2)
                published += int(result["published"])
                worst = max(worst, result["p99_us"])
                most = max(most, memory_bytes(server.pid))
    return calm, worst, most - before, published


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stalled", description="Peers that do not read."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    described, started = machine(), time.monotonic()
    print(described, file=sys.stderr)
    ratios, rows = [], []
    for _ in range(arguments.rounds):
        none, tenth = steady(0), steady(TENTH)
        ratios.append(tenth / none)
        print(f"{none / 1000:.1f} ms, {tenth / 1000:.1f} ms", file=sys.stderr)
    ratio = statistics.median(ratios)
    calm, worst, memory, published = never(our_server)
    passed = [ratio <= TENTH_BAR, worst <= NEVER_BAR * calm, memory < MAX_QUEUED]
    for title, value, bar, good in (
        (
            f"p99 of readers, {TENTH} of {MEMBERS} stalled, to none",
            f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{TENTH_BAR}",
            passed[0],
        ),
        (
            f"the worst p99 of {READERS} readers in {published:,} broadcasts,"
            f" {MEMBERS:,} others reading none of them, to all reading",
            f"{worst / calm:.2f} ({worst / 1000:.1f} ms to {calm / 1000:.1f} ms)",
            f"{NEVER_BAR}",
            passed[1],
        ),
        (
            "memory that those took at most",
            f"{memory / (1 << 20):.0f} MiB",
            f"{MAX_QUEUED >> 20} MiB",
            passed[2],
        ),
    ):
        rows.append([title, value, bar, "pass" if good else "FAIL"])
    text = [
        f"{today()}. {described}. {RATE} broadcasts of {SIZE} B a second, median of"
        f" {arguments.rounds} rounds; then {SMALL} B as fast as the readers have them.",
        table(("", "measured", "bar: at most", "verdict"), rows),
    ]
    print("\n\n".join(text))
    print(f"{time.monotonic() - started:.0f} s")
    write_section(arguments.output, "Stalled peers", "\n\n".join(text))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(str(error))
