"""Large rooms, waiting for a storage, and faults of it: do they hold the bars?

    python -m benchmarks.rooms [--quick] [--only TEXT] [--output FILE]

TEXT is a part of a part's name: faults, entering, joins, says, under way, far away,
hung, sizes, fifty, events, cursors. Prints a table for each, and ends
with 1 where a bar was not reached. Writes the section of RESULTS.md, unless --quick or
--only was given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks.harness import Failed
from benchmarks.report import run_parts

from .costs import far_away, joins, says, under_way
from .crowd import allow_descriptors
from .cursors import cursors
from .events import events
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
    "events": lambda quick: events(3 if quick else 9),
    "cursors": lambda quick: cursors(),
    "fifty": lambda quick: fifty(1000 if quick else 10_000),
}


if __name__ == "__main__":
    allow_descriptors()
    about = "Large rooms, and faults."
    try:
        sys.exit(run_parts("benchmarks.rooms", about, "Rooms", PARTS))
    except Failed as error:
        sys.exit(str(error))
