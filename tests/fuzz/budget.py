"""How much is tried: some with each run of the tests, very much with `make fuzz`."""

from __future__ import annotations

from hypothesis import settings

MANY = 5_000
"""Examples of the profile `fuzz`."""
FEW = 40
"""Of any other: what these tests draw is large, and takes Hypothesis its time."""

_default = settings.default
assert _default is not None
long = _default.max_examples >= MANY
budget = settings(max_examples=MANY if long else FEW, derandomize=not long)
"""For each test here.

Those of each run are the same: what `make fuzz` finds is not to stop somebody who has
changed something else.
"""
