"""Pictures as SVG of our own: a panel for each figure, over time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from html import escape

from .judge import FIGURES, Sample

SHOWN = ("memory", "objects", "connections", "descriptors", "greenlets", "keys")
WIDTH, HEIGHT, LEFT, TOP = 360, 170, 52, 30
COLUMNS = 2
LINE, GRID, TEXT = "#d1495b", "#dddddd", "#30323d"


def draw(samples: Sequence[Sample], title: str) -> str:
    """Return the picture of a soak, over minutes."""
    figures = {figure.name: figure for figure in FIGURES}
    panels = []
    for name in SHOWN:
        points = [(s["seconds"], s[name]) for s in samples if name in s]
        if points:
            panels.append(panel(figures[name].title, points))
    return picture(panels, title)


def picture(panels: Sequence[list[str]], title: str) -> str:
    """Return ``panels``, two in a row, below the title."""
    rows = math.ceil(len(panels) / COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-size="13" fill="{TEXT}">{escape(title)}</text>',
    ]
    for number, each in enumerate(panels):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT + 34
        parts += [f'<g transform="translate({x} {y})">', *each, "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def panel(
    title: str,
    points: Sequence[tuple[float, float]],
    unit: tuple[int, str] = (60, "min"),
) -> list[str]:
    """Return a line through ``points``, seconds and values, on axes in ``unit``."""
    length, name = unit
    highest, most_x = max(value for _, value in points) or 1, points[-1][0] or 1
    step_y, step_x = nice(highest), nice(most_x / length)
    most_y = step_y * math.ceil(highest / step_y)
    wide, high = WIDTH - LEFT - 14, HEIGHT - TOP - 24

    def place(seconds: float, value: float) -> tuple[float, float]:
        return LEFT + wide * seconds / most_x, TOP + high * (1 - value / most_y)

    parts = [f'<text x="{LEFT}" y="20" fill="{TEXT}">{escape(title)}</text>']
    for number in range(round(most_y / step_y) + 1):
        x, y = place(0, number * step_y)
        parts.append(f'<path d="M{x:.1f} {y:.1f}h{wide}" stroke="{GRID}"/>')
        parts.append(
            f'<text x="{x - 5:.1f}" y="{y + 4:.1f}" fill="{TEXT}" text-anchor="end">'
            f"{number * step_y:,g}</text>"
        )
    for number in range(math.floor(most_x / length / step_x) + 1):
        x, y = place(number * step_x * length, 0)
        parts.append(
            f'<text x="{x:.1f}" y="{y + 16:.1f}" fill="{TEXT}" text-anchor="middle">'
            f"{number * step_x:g}{f' {name}' if number == 0 else ''}</text>"
        )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in itertools.starmap(place, points))
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'
    )
    return parts


def nice(most: float) -> float:
    """Return a round step, of which three to six make ``most``."""
    power = 10.0 ** math.floor(math.log10(most / 3))
    return next(power * n for n in (1, 2, 5, 10) if most / (power * n) <= 6)
