"""What it costs to count: our server beside one made of the same files that does not.

    python -m benchmarks.figures [--starts N] [--rounds N] [--seconds S] [--only TEXT]

Both are copies of the package; the other one has not the lines that count messages, and
its queues have nobody to count for. Both run on one core and are loaded in turn. A
ratio is that of the CPU time per message, user and system: the median over the rounds,
and beside it that of the best measurements, which other load on the machine hits least.
In a round each is measured twice, in the order ABBA. Exits with 1 where a median is
over the bar.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import ROOT, Failed, Load, Server, cpu_seconds, two_cores
from benchmarks.measure import wait_until_quiet
from benchmarks.report import machine

BAR = 1.02
PACKAGE = "flask_wschat"

COUNTING = {
    "incoming.py": {
        "        self._hub.counts.received(count)\n": "",
        "until, counts, began = 0.0, self._hub.counts, clock()": "until = 0.0",
        "            try:\n                yield message\n"
        "            finally:  # also where it was too much for the listener\n"
        "                now = counts.handled(began)\n": (
            "            yield message\n"
        ),
        "            if now > until > 0:": "            now = clock()\n"
        "            if now > until > 0:",
        "                until, now = 0.0, clock()\n": "                until = 0.0\n",
        "until, began = until or now + _TURN, now": "until = until or now + _TURN",
    },
    "hub/audience.py": {"    if count and one is not None:": "    if False:"},
    "hub/backlog.py": {"self.posted_limit, figures.counts)": "self.posted_limit)"},
    "hub/hub.py": {"        self.counts.add(PUBLISHED)\n": ""},
}
"""By file, what counts for each message, and what would be there instead."""

SCENARIOS = (
    ("echo 64 B, 100 connections", "echo", 100),
    ("broadcast 64 B to 1000", "fan", 1000),
    ("broadcast 64 B to 3", "fan", 3),
)

START = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1));"
    " runpy.run_module('benchmarks.servers.wschat', run_name='__main__')"
)


def copied(folder: Path, changed: dict[str, dict[str, str]]) -> Path:
    """Make a copy of the package in ``folder``, with ``changed`` lines.

    :raises Failed: what is to be changed is something else by now.
    """
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE)
    for name, changes in changed.items():
        path = folder / PACKAGE / name
        text = path.read_text()
        for old, new in changes.items():
            if old not in text:
                raise Failed(f"{name} does not have what counts: {old.strip()!r}")
            text = text.replace(old, new)
        path.write_text(text)
    return folder


def cost(server: Server, scenario: str, conns: int, seconds: float) -> float:
    """Return the CPU microseconds of a message, or of a publication and its copies."""
    core = two_cores()[1]
    load = Load(server, core, scenario=scenario, conns=conns, seconds=seconds)
    with load:
        wait_until_quiet(server)
        before = cpu_seconds(server.pid)
        messages = int(load.run()["messages"])
        return (cpu_seconds(server.pid) - before) / messages * 1e6


@dataclass
class Row:
    """What was measured of a scenario, counting and not."""

    title: str
    scenario: str
    conns: int
    ratios: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=lambda: [math.inf, math.inf])

    def measure(self, ours: Server, other: Server, seconds: float) -> None:
        a, b, c, d = (
            cost(server, self.scenario, self.conns, seconds)
            for server in (ours, other, other, ours)
        )
        self.ratios.append((a + d) / (b + c))
        self.best = [min(self.best[0], a, d), min(self.best[1], b, c)]

    def line(self) -> str:
        counted, plain = self.best
        return (
            f"{self.title:28}{counted:8.2f} \u00b5s{plain:7.2f} \u00b5s"
            f"{statistics.median(self.ratios):9.3f}{counted / plain:8.3f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures")
    parser.add_argument("--starts", type=int, default=5, help="of both servers")
    parser.add_argument("--rounds", type=int, default=5, help="after each start")
    parser.add_argument("--seconds", type=float, default=0.25, help="of a measurement")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    arguments = parser.parse_args()
    rows = [Row(*each) for each in SCENARIOS if arguments.only in each[0]]
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        # Both are copies: where files are is seen in where things lie in memory.
        places = [
            copied(Path(name, "with"), {}),
            copied(Path(name, "without"), COUNTING),
        ]
        core = two_cores()[0]
        for _ in range(arguments.starts):
            # Where things lie in memory, other each time, is worth a hundredth or two.
            with contextlib.ExitStack() as stack:
                ours, other = (
                    stack.enter_context(
                        Server([sys.executable, "-c", START, place], core)
                    )
                    for place in places
                )
                for row in rows:
                    for _ in range(arguments.rounds):
                        row.measure(ours, other, arguments.seconds)
    print(f"{'':28}{'with':>10}{'without':>10}{'median':>9}{'best':>8}  bar: {BAR}")
    for row in rows:
        print(row.line())
    return 0 if all(statistics.median(row.ratios) <= BAR for row in rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(str(error))
