"""The table of a run: on the terminal, and as sections of a Markdown file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.contenders import BARE, OURS, python_with
from benchmarks.harness import HERE, Failed
from benchmarks.measure import Field, Row

TITLE = "# Results"
KEPT = "What did not pay"
ORDER = (
    "Speed",
    "Scale",
    "Latency under mixed load",
    "Backends",
    "Rooms",
    "What paid",
    KEPT,
)


def machine() -> str:
    """Return one line about this machine, and how busy it was."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    cores = len(os.sched_getaffinity(0))
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{model}, {cores} cores, {gib:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()},"
        f" load average before: {os.getloadavg()[0]:.2f}"
    )


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


class Part(Protocol):
    """A part of a section: its paragraphs, and whether it reached its bars."""

    @property
    def texts(self) -> list[str]: ...
    @property
    def good(self) -> bool: ...


def run_parts(
    program: str, about: str, section: str, parts: Mapping[str, Callable[[bool], Part]]
) -> int:
    """Be the program that runs ``parts``, each told whether a look will do.

    Their ``section`` of RESULTS.md is written where none was left out or shortened.
    Return the exit code: 1 where a bar was not reached.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--only", default="", help="parts whose name contains this")
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    described, started = machine(), time.monotonic()
    print(described, file=sys.stderr)
    texts, good = [], True
    for name, run in parts.items():
        if arguments.only not in name:
            continue
        print(name, file=sys.stderr)
        part = run(arguments.quick)
        good &= part.good
        paragraphs = [f"### {name}", *part.texts]
        texts += paragraphs
        print("\n\n".join(paragraphs), end="\n\n", flush=True)
    took = time.monotonic() - started
    print(f"{took:.0f} s")
    if not arguments.only and not arguments.quick:
        texts.insert(0, f"{today()}. {described}; {took / 60:.0f} minutes.")
        write_section(arguments.output, section, "\n\n".join(texts))
    return 0 if good else 1


class Report:
    """The rows of one run, as text."""

    def __init__(
        self, field: Field, rounds: int, seconds: float, described: str
    ) -> None:
        self.field = field
        self.rounds = rounds
        self.seconds = seconds
        self.machine = described
        self.rows: list[Row] = []
        self.took = 0.0

    # -- on the terminal

    def head(self) -> str:
        """Return the columns' names, for lines as long as the terminal of a log."""
        titles = [f"{_short(each.title):>9}" for each in self.field.contenders]
        tail = f"{'bar':>6}{'goal':>6}  {'':6}{'spread':>7}{'busy/idle':>11}"
        return f"{'ratio to C epoll':<38}" + "".join(titles) + tail

    def line(self, row: Row) -> str:
        """Return a row; a star is behind what a busy load generator measured."""
        text = f"{row.scenario.title:<38}"
        for contender in self.field.contenders:
            value = row.value(contender.key)
            star = "*" if row.load_limits(contender.key) else " "
            text += f"{_number(value):>8}{star}"
        spread = row.spread(OURS)
        return (
            f"{text}{row.scenario.bar:>6g}{row.scenario.goal:>6g}  {verdict(row):6}"
            f"{'' if spread is None else f'±{spread:.0%}':>7}"
            f"{_busy_and_idle(row, OURS):>11}"
        )

    def remarks(self) -> list[str]:
        """Return what a reader of the numbers should know."""
        lines = []
        if any(
            row.load_limits(c.key) for row in self.rows for c in self.field.contenders
        ):
            lines.append(
                "* The load generator was idle for under 10 % of the time, the server"
                " busy for under 95 %: it may have waited, and gathered more per turn."
            )
        for row in self.rows:
            bare, bar = row.value(BARE), row.scenario.bare_bar
            if bare is not None and bar is not None:
                good = "pass" if row.scenario.passed(bare, bar) else "FAIL"
                lines.append(
                    f"{row.scenario.title}, ours without app context: {bare:.2f},"
                    f" bar {bar}: {good}"
                )
        return lines

    # -- in the file

    def markdown(self, plotted: bool) -> str:
        """Return the section's text."""
        contenders = self.field.contenders
        titles = [each.title for each in contenders]
        parts = [
            f"{today()}. {self.machine}. Server on core {self.field.server_core}, load"
            f" on core {self.field.load_core}; {self.rounds} rounds of {self.seconds} s"
            f" in {self.took / 60:.0f} minutes, contenders in turn.",
            "Work per server CPU second (user, system, children), as the ratio to a"
            " minimal C epoll server that does one `send` per delivery; connects as the"
            " ratio to gevent-websocket. Medians over the rounds; more is better, but"
            " for memory less. Ours pays for an authenticate function that reads the"
            " signed session cookie and for the Origin check on each connect, the"
            " others let everybody in. *Spread* is ours, half of best to worst round.",
            table(
                ["scenario", *titles, "bar", "goal", "verdict", "spread"],
                [
                    [
                        row.scenario.title,
                        *(
                            _number(row.value(each.key))
                            + ("\\*" if row.load_limits(each.key) else "")
                            for each in contenders
                        ),
                        f"{row.scenario.bar:g}",
                        f"{row.scenario.goal:g}",
                        verdict(row),
                        _percent(row.spread(OURS)),
                    ]
                    for row in self.rows
                ],
            ),
            *(line.replace("* ", "\\* ", 1) for line in self.remarks()),
            "![The ratios as bars](results.png)" if plotted else "",
            "What it costs: server CPU, µs per message or connection.",
            self._other_table(lambda row, key: _number(row.cost(key))),
            "Who was the bottleneck: how busy the server's core was and, behind the"
            " stroke, how idle the load generator, in percent of the time.",
            self._other_table(_busy_and_idle),
            "Versions: " + "; ".join(dict.fromkeys(self.field.versions.values())) + ".",
            *(f"Without {name}: {why}" for name, why in self.field.missing.items()),
            *(f"Trouble: {line}" for line in self.field.trouble),
        ]
        return "\n\n".join(part for part in parts if part)

    def _other_table(self, cell: Any) -> str:
        contenders = self.field.contenders
        return table(
            ["scenario", *(each.title for each in contenders)],
            [
                [row.scenario.title, *(cell(row, each.key) for each in contenders)]
                for row in self.rows
                if row.scenario.kind != "idle"
            ],
        )

    def plot(self, path: Path) -> bool:
        """Draw the ratios; False: what it takes could not be installed."""
        contenders = [each for each in self.field.contenders if each.key != BARE]
        drawing = {
            "kind": "speed",
            "contenders": [each.title for each in contenders],
            "rows": [
                {
                    "title": row.scenario.title,
                    "values": [row.value(each.key) for each in contenders],
                    "bar": row.scenario.bar,
                    "goal": row.scenario.goal,
                }
                for row in self.rows
            ],
            "note": f"{today()}, {self.machine}",
        }
        return draw(drawing, path)


def draw(drawing: dict[str, Any], path: Path) -> bool:
    """Have ``plot.py`` draw in its own environment; False: that is not to be had."""
    try:
        python = python_with("plot", "matplotlib")
    except Failed as error:
        print(f"no plot: {error}", file=sys.stderr)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(drawing, file)
        file.flush()
        return not subprocess.run(
            [python, HERE / "plot.py", file.name, path]
        ).returncode


def write_section(path: Path, title: str, text: str) -> None:
    """Put ``text`` under the heading ``title``; what is under others stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sections: dict[str, str] = {}
    if path.exists():
        parts = re.split(r"^## (.+)\n", path.read_text(), flags=re.MULTILINE)
        pairs = zip(parts[1::2], parts[2::2], strict=True)
        sections = {name: body.strip() for name, body in pairs}
    sections[title] = text
    sections.setdefault(KEPT, "Kept by hand: `python -m benchmarks` leaves it alone.")
    names = [name for name in ORDER if name in sections]
    names += [name for name in sections if name not in ORDER]
    bodies = (f"## {name}\n\n{sections[name]}\n" for name in names)
    path.write_text("\n".join((f"{TITLE}\n", *bodies)))


def verdict(row: Row) -> str:
    """Return how ours did against the bar and the goal."""
    value = row.value(OURS)
    if value is None:
        return "-"
    if not row.scenario.passed(value):
        return "FAIL"
    return "goal" if row.scenario.passed(value, row.scenario.goal) else "pass"


def _short(title: str) -> str:
    return {
        "gevent-websocket": "gevent-ws",
        "Flask-Sock": "fl-sock",
        "Flask-SocketIO": "fl-sockio",
        "ours, no app context": "ours bare",
        "websockets": "websocks",
        "C corking": "C cork",
    }.get(title, title)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _busy_and_idle(row: Row, key: str) -> str:
    busy, idle = row.server_busy(key), row.load_idle(key)
    return "-" if busy is None or idle is None else f"{busy:.0f} / {idle:.0f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
