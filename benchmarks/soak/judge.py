"""Samples of a soak, and whether they say that it stayed as small as it was."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Sample = Mapping[str, float]
"""Figures by name; ``seconds`` is when they were taken."""


@dataclass(frozen=True)
class Figure:
    """One of them: its title and unit, and what it may be more than before.

    ``share``, of what it was; ``slack``, whatever it was.
    """

    name: str
    title: str
    share: float = 0.0
    slack: float = 0.0
    flat: bool = True
    """It has no trend under an even load. What follows chance is only to come back."""
    after: float = 0.0
    """Seconds of load until it has none: as much is kept then as goes."""

    def allowed(self, before: float) -> float:
        return before + max(self.share * before, self.slack)


FIGURES = [
    Figure("memory", "resident memory, MiB", 0.05, 4),
    Figure("objects", "objects of the garbage collector", 0.05, 4000),
    Figure("connections", "connections", flat=False),
    Figure("greenlets", "greenlets", slack=3, flat=False),
    Figure("descriptors", "descriptors", slack=3, flat=False),
    Figure("threads", "threads", slack=2),
    Figure("topics", "rooms and users with somebody", flat=False),
    Figure("ending", "connections that end", flat=False),
    Figure("queued", "bytes queued", flat=False),
    Figure("keys", "topics or keys of the backend", 0.1, 50, after=190),
]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between any two points (Theil and Sen).

    So single peaks count as little as they should.
    """
    slopes = [
        (b[1] - a[1]) / (b[0] - a[0])
        for a, b in itertools.combinations(points, 2)
        if b[0] > a[0]
    ]
    return statistics.median(slopes) if slopes else 0.0


def trends(samples: Sequence[Sample]) -> list[str]:
    """Return what grew from the first to the last of ``samples``, under even load."""
    found = []
    for figure in FIGURES:
        points = [
            (sample["seconds"], sample[figure.name])
            for sample in samples
            if figure.name in sample and sample["seconds"] >= figure.after
        ]
        if not figure.flat or len(points) < 5:
            continue
        middle = statistics.median(value for _, value in points)
        grown = slope(points) * (points[-1][0] - points[0][0])
        if middle + grown > figure.allowed(middle):
            found.append(f"{figure.title}: grew by {grown:.1f}, to about {middle:.1f}")
    return found


def left_over(before: Sample, after: Sample) -> list[str]:
    """Return what is more ``after`` the load than ``before``, both without any."""
    return [
        f"{figure.title}: {after[figure.name]:.1f}, before {before[figure.name]:.1f}"
        for figure in FIGURES
        if figure.name in before
        and after[figure.name] > figure.allowed(before[figure.name])
    ]
