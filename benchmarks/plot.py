# mypy: disable-error-code="import-not-found, import-untyped"
"""Draw what a benchmark measured: plot.py DRAWING.json PICTURE.png

A program of its own, for matplotlib is installed for the benchmarks only.
"""

import json
import math
import sys
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

OURS, OTHERS, YARDSTICK = "#d1495b", "#8d99ae", "#30323d"


def speed(drawing: dict[str, Any]) -> Any:
    """A panel of bars for each scenario; the dashed line is our bar."""
    rows, names = drawing["rows"], drawing["contenders"]
    lines = math.ceil(len(rows) / 3)
    figure, grid = pyplot.subplots(lines, 3, figsize=(15, 3.3 * lines), squeeze=False)
    places = list(grid.flat)
    for axes, row in zip(places, rows, strict=False):
        shown = [
            (name, value)
            for name, value in zip(names, row["values"], strict=True)
            if value
        ]
        shown.reverse()
        colours = [
            OURS if name == "ours" else YARDSTICK if name.startswith("C ") else OTHERS
            for name, _ in shown
        ]
        bars = axes.barh(*zip(*shown, strict=True), color=colours)
        axes.bar_label(bars, fmt="%.2g", padding=2, fontsize=7)
        axes.axvline(row["bar"], color=OURS, linestyle="--", linewidth=1)
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.set_title(row["title"], fontsize=10)
        axes.tick_params(labelsize=8)
    for axes in places[len(rows) :]:
        axes.set_visible(False)
    figure.suptitle(
        "Work per server CPU second, ratio to a C epoll server (log scale; connects: to"
        " gevent-websocket; memory: less is better). Dashed: the bar for ours.",
        fontsize=11,
    )
    return figure


def lines(drawing: dict[str, Any]) -> Any:
    """A panel for each measure, over the number of connections."""
    panels = drawing["panels"]
    figure, grid = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 3.8))
    for axes, panel in zip(grid, panels, strict=True):
        axes.plot(drawing["x"], panel["y"], marker="o", color=OURS)
        axes.set_xscale("log")
        if panel["other"]:
            axes.plot(drawing["x"], panel["other"], marker="o", color=OTHERS)
        axes.set_ylim(0, max(panel["y"] + (panel["other"] or [])) * 1.25)
        axes.set_xticks(drawing["x"], [f"{x:,}" for x in drawing["x"]])
        axes.minorticks_off()
        axes.set_xlabel("connections in one process")
        axes.set_title(panel["title"], fontsize=10)
        axes.grid(alpha=0.3)
    return figure


def main() -> None:
    with open(sys.argv[1]) as file:
        drawing = json.load(file)
    figure = {"speed": speed, "lines": lines}[drawing["kind"]](drawing)
    figure.text(0.01, 0.005, drawing["note"], fontsize=7, color="gray")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(sys.argv[2], dpi=110)


if __name__ == "__main__":
    main()
