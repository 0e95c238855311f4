"""A bar, what was measured, and whether that is enough."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.report import table


@dataclass(frozen=True)
class Figure:
    """One line of a table: ``value`` has to be at most ``bar``, or at least."""

    name: str
    value: float | None
    """None: it did not come to an end in the time it had."""
    bar: float | None = None
    unit: str = ""
    least: bool = False

    @property
    def good(self) -> bool:
        if self.bar is None:
            return True
        if self.value is None:
            return False
        return self.value >= self.bar if self.least else self.value <= self.bar

    def row(self) -> list[str]:
        bar = ""
        if self.bar is not None:
            bar = f"{'at least' if self.least else 'at most'} {self.bar:,g}"
        value = "never" if self.value is None else f"{self.value:,.4g}"
        verdict = "" if self.bar is None else "pass" if self.good else "FAIL"
        return [self.name, f"{value} {self.unit}".strip(), bar, verdict]


@dataclass
class Part:
    """What one part of the run found."""

    text: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: float | None,
        bar: float | None = None,
        unit: str = "",
        *,
        least: bool = False,
    ) -> None:
        self.figures.append(Figure(name, value, bar, unit, least))

    @property
    def good(self) -> bool:
        return all(figure.good for figure in self.figures)

    @property
    def texts(self) -> list[str]:
        rows = [figure.row() for figure in self.figures]
        return [self.text, table(["", "measured", "bar", "verdict"], rows), *self.notes]
