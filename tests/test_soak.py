"""``make soak`` fails where a server grows, and passes where it does not."""

from __future__ import annotations

import random
import re
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from benchmarks.soak.judge import FIGURES, Figure, Sample, left_over, slope, trends
from benchmarks.soak.plot import draw
from tests.support.processes import Process


def sampled(**growth: float) -> list[Sample]:
    """Return a quarter of an hour of even load; ``growth``, in a second, of figures."""
    chance = random.Random(1)
    return [
        {
            "seconds": float(seconds),
            **{
                figure.name: 50 + growth.get(figure.name, 0) * seconds + chance.random()
                for figure in FIGURES
            },
        }
        for seconds in range(10, 900, 10)
    ]


def test_what_is_flat_but_for_chance_passes() -> None:
    samples = sampled()
    assert trends(samples) == []
    samples[40] = {**samples[40], "memory": 500.0}  # a peak
    assert trends(samples) == []


@pytest.mark.parametrize(
    ("name", "growth"),
    [("memory", 0.02), ("objects", 10), ("threads", 0.01), ("keys", 0.2)],
)
def test_what_grows_is_found(name: str, growth: float) -> None:
    title = next(figure.title for figure in FIGURES if figure.name == name)
    (found,) = trends(sampled(**{name: growth}))
    assert found.startswith(title)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_what_does_not_come_back_is_found(figure: Figure) -> None:
    before = {figure.name: 10.0}
    assert left_over(before, before) == []
    allowed = figure.allowed(10.0)
    assert left_over(before, {figure.name: allowed}) == []
    assert len(left_over(before, {figure.name: allowed + 1})) == 1


def test_the_slope_is_of_most_points() -> None:
    assert slope([(x, 3 * x + (100 if x == 7 else 0)) for x in range(20)]) == 3
    assert slope([(1, 1)]) == 0


def test_the_picture_is_svg_with_a_line_for_each_figure() -> None:
    picture = xml.fromstring(draw(sampled(), 'A <b> & "soak"'))
    lines = picture.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 6
    assert all(len(line.get("points", "").split()) == 89 for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_short_soak(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--seconds=8", "--warm-up=3"]
    picture = tmp_path / "soak.svg"
    soak = Process([*command, f"--picture={picture}"], tmp_path / "log")
    soak.start()
    assert soak.wait(170) == 0, soak.log
    assert re.search(r"^ *[0-9,]+  chat messages read$", soak.log, re.MULTILINE)
    assert picture.read_text().startswith("<svg")
