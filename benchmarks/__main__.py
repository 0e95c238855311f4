"""All scenarios beside everything else one could pick, as ratios of one run.

    python -m benchmarks [--quick] [--only TEXT] [--peers a,b] [--rounds N]

The servers run pinned to one core, the load on the other one. In each round every
contender is measured in turn; a ratio is the median over the rounds, so that what else
the machine does hits all alike. Time is the server's own CPU time, user and system,
children included. A full run writes RESULTS.md and results.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.contenders import (
    BARE,
    CONNECT_YARDSTICK,
    CONTENDERS,
    OURS,
    QUICK,
    YARDSTICK,
    Contender,
)
from benchmarks.harness import HERE
from benchmarks.measure import Field, Row
from benchmarks.report import Report, machine, write_section
from benchmarks.scenarios import SCENARIOS, Scenario


def main() -> int:
    arguments = parse()
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    seconds = arguments.seconds or (0.4 if arguments.quick else 0.6)
    started = time.monotonic()
    described = machine()
    field = Field(contenders(arguments))
    print(f"{described}\n{rounds} rounds of {seconds} s", file=sys.stderr)
    report = Report(field, rounds, seconds, described)
    print(report.head(), flush=True)
    try:
        for scenario in wanted(arguments.only):
            times = rounds if scenario.kind != "idle" else 1
            row = field.measure(scenario, times, seconds, progress)
            report.rows.append(row)
            print(report.line(row), flush=True)
    finally:
        field.close()
    for line in (*field.trouble, *report.remarks()):
        print(line)
    report.took = time.monotonic() - started
    print(f"{report.took:.0f} s")
    whole = not (arguments.quick or arguments.only or arguments.peers)
    if whole or arguments.output:
        output = arguments.output or HERE / "RESULTS.md"
        plotted = report.plot(output.parent / "results.png")
        write_section(output, "Speed", report.markdown(plotted))
        print(f"written: {output}")
    return 0 if all(passed(row) for row in report.rows) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Speed and memory beside the peers."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute: fewer rounds and contenders"
    )
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--peers", default="", help="these contenders, and ours")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one measurement")
    parser.add_argument(
        "--output", type=Path, help="where results go; a full run has RESULTS.md"
    )
    arguments = parser.parse_args()
    known = {contender.key for contender in CONTENDERS}
    if unknown := set(filter(None, arguments.peers.split(","))) - known:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    if not wanted(arguments.only):
        parser.error(f"rows are {', '.join(scenario.key for scenario in SCENARIOS)}")
    return arguments


def contenders(arguments: argparse.Namespace) -> list[Contender]:
    """Return those asked for, and those that ratios and bars are about."""
    if arguments.peers:
        keys = {*arguments.peers.split(","), YARDSTICK, CONNECT_YARDSTICK, BARE, OURS}
    elif arguments.quick:
        keys = set(QUICK)
    else:
        return list(CONTENDERS)
    return [contender for contender in CONTENDERS if contender.key in keys]


def wanted(only: str) -> list[Scenario]:
    exact = [scenario for scenario in SCENARIOS if scenario.key == only]
    return exact or [
        each for each in SCENARIOS if only in each.title or only in each.key
    ]


def passed(row: Row) -> bool:
    value = row.value(OURS)
    return value is not None and row.scenario.passed(value)


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:78]}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
