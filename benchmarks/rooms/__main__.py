"""Large rooms, waiting for a storage, and faults of it: do they hold the bars?

    python -m benchmarks.rooms [--quick] [--only TEXT] [--output FILE]

TEXT is a part of a part's name: faults, entering, joins, says, under way, far away,
hung, sizes, fifty. Prints a table for each, and ends
with 1 where a bar was not reached. Writes the section of RESULTS.md, unless --quick or
--only was given.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import HERE, Failed
from benchmarks.report import machine, today, write_section

from .costs import far_away, joins, says, under_way
from .crowd import allow_descriptors
from .hung import hung
from .large import entering, faults
from .sizes import fifty, sizes
from .verdicts import Part

PARTS: dict[str, Callable[[bool], Part]] = {
    "faults": lambda quick: faults(500 if quick else 5000),
    "entering": lambda quick: entering(1000 if quick else 10_000),
    "joins": lambda quick: joins(2 if quick else 5),
    "says": lambda quick: says(2 if quick else 5),
    "under way": lambda quick: under_way(2 if quick else 5),
    "far away": lambda quick: far_away(1 if quick else 3),
    "hung": lambda quick: hung(1 if quick else 2),
    "sizes": lambda quick: sizes(),
    "fifty": lambda quick: fifty(1000 if quick else 10_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rooms", description="Large rooms, and faults."
    )
    parser.add_argument("--quick", action="store_true", help="small rooms, short runs")
    parser.add_argument("--only", default="", help="parts whose name contains this")
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    allow_descriptors()
    described, started = machine(), time.monotonic()
    print(described, file=sys.stderr)
    texts, good = [], True
    for name, run in PARTS.items():
        if arguments.only not in name:
            continue
        print(name, file=sys.stderr)
        part = run(arguments.quick)
        good &= part.good
        texts += [f"### {name}", *part.texts()]
        print("\n\n".join([f"### {name}", *part.texts()]), end="\n\n", flush=True)
    took = time.monotonic() - started
    print(f"{took:.0f} s")
    if not arguments.only and not arguments.quick:
        texts.insert(0, f"{today()}. {described}; {took / 60:.0f} minutes.")
        write_section(arguments.output, "Rooms", "\n\n".join(texts))
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(str(error))
