"""What is measured, and what ours must reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """One row of the table.

    ``kind`` is the load generator's. ``bar`` and ``goal`` are ratios, for ``idle`` KiB
    per connection; ``bare_bar`` is the bar without an app context.
    """

    key: str
    title: str
    kind: str
    conns: int
    bar: float
    goal: float
    bare_bar: float | None = None
    size: int = 64
    window: int = 1

    @property
    def lower_is_better(self) -> bool:
        return self.kind == "idle"

    def passed(self, value: float, bar: float | None = None) -> bool:
        """Return whether ``value`` reaches ``bar``, by default the scenario's."""
        bar = self.bar if bar is None else bar
        return value <= bar if self.lower_is_better else value >= bar


SCENARIOS = (
    Scenario("echo", "echo 64 B, 100 conns", "echo", 100, 0.45, 0.75, bare_bar=0.55),
    Scenario("echo-16", "echo 64 B, 16 under way each", "echo", 100, 1.8, 4, window=16),
    Scenario(
        *("echo-64k", "echo 64 KiB, 20 conns, 2 under way", "echo", 20, 0.38, 0.75),
        size=64 << 10,
        window=2,
    ),
    Scenario("echo-1m", "echo 1 MiB, 4 conns", "echo", 4, 0.4, 0.95, size=1 << 20),
    Scenario("fan", "broadcast 64 B to 1000", "fan", 1000, 0.85, 1.0),
    Scenario(
        *("fan-16", "broadcast 128 B to 1000, 16 under way", "fan", 1000, 9, 14),
        size=128,
        window=16,
    ),
    Scenario(
        *("fan-4k", "broadcast 4 KiB to 500, 4 under way", "fan", 500, 2.0, 3),
        size=4096,
        window=4,
    ),
    Scenario("connect", "connects, to gevent-websocket", "connect", 50, 1.0, 2),
    Scenario("idle", "idle memory, KiB per connection", "idle", 2000, 4, 1.9),
)
