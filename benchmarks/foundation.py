"""The promises of the engine beside stock gevent-websocket, as ratios of one run.

    python -m benchmarks.foundation [--quick] [--only TEXT]

Both servers run pinned to one core, the load on the other one. Rounds alternate
between the two, and the ratio is the median over the rounds, so that what else the
machine does hits both alike. Time is the server's own CPU time, user and system.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.harness import Load, Server, cpu_seconds, memory_bytes, two_cores

STOCK, OURS = "gevent_websocket", "wschat"


@dataclass(frozen=True)
class Scenario:
    """One row: what is measured, and the ratio stock : ours that it must reach."""

    title: str
    kind: str
    conns: int
    bar: float | None = None
    size: int = 64
    window: int = 1
    unit: str = "µs"


ECHO = Scenario("echo 64 B, 100 connections", "echo", 100, bar=3)
BROADCAST = Scenario("broadcast 64 B to 1000", "fan", 1000, bar=1.8)
PIPELINED = Scenario(
    "broadcast 128 B to 1000, 16 under way", "fan", 1000, bar=8, size=128, window=16
)
CONNECT = Scenario("connect, upgrade, close", "connect", 50)
MEMORY = Scenario("memory per idle connection", "idle", 2000, bar=5, unit="KiB")


@dataclass
class Measured:
    """What one server cost in one round, and how idle the load generator was."""

    cost: float
    load_idle: float | None = None


def cost_of_messages(server: Server, scenario: Scenario, seconds: float) -> Measured:
    """Return the server's CPU microseconds per message delivered, or connection."""
    with Load(
        server,
        two_cores()[1],
        scenario=scenario.kind,
        conns=scenario.conns,
        size=scenario.size,
        window=scenario.window,
        seconds=seconds,
    ) as load:
        before = cpu_seconds(server.pid)
        result = load.run()
        used = cpu_seconds(server.pid) - before
    count = result["connects" if scenario.kind == "connect" else "messages"]
    return Measured(used / count * 1e6, result["idle"])


def cost_of_idling(module: str, scenario: Scenario) -> Measured:
    """Return the KiB that each of the idle connections adds to a fresh server."""
    server_core, load_core = two_cores()
    with Server(module, server_core) as server:
        # What the first connections import and allocate once is not theirs.
        with Load(server, load_core, scenario="idle", conns=50):
            pass
        before = memory_bytes(server.pid)
        with Load(server, load_core, scenario="idle", conns=scenario.conns):
            grown = memory_bytes(server.pid) - before
    return Measured(grown / scenario.conns / 1024)


def alternate(
    scenario: Scenario, servers: dict[str, Server], rounds: int, seconds: float
) -> dict[str, list[Measured]]:
    """Return the rounds of both servers, measured in turn."""
    measured: dict[str, list[Measured]] = {STOCK: [], OURS: []}
    for _ in range(1 if scenario.kind == "idle" else rounds):
        for module, results in measured.items():
            if scenario.kind == "idle":
                results.append(cost_of_idling(module, scenario))
            else:
                results.append(cost_of_messages(servers[module], scenario, seconds))
    return measured


def row(scenario: Scenario, measured: dict[str, list[Measured]]) -> tuple[str, bool]:
    """Return a line of the table, and whether its bar is reached."""
    stock = [each.cost for each in measured[STOCK]]
    ours = [each.cost for each in measured[OURS]]
    ratios = [a / b for a, b in zip(stock, ours, strict=True)]
    ratio = statistics.median(ratios)
    spread = (max(ratios) - min(ratios)) / ratio
    passed = scenario.bar is None or ratio >= scenario.bar
    idle = [each.load_idle for each in measured[OURS] if each.load_idle is not None]
    cells = [
        f"{scenario.title:<38}",
        f"{statistics.median(stock):8.2f} {scenario.unit:<3}",
        f"{statistics.median(ours):8.2f} {scenario.unit:<3}",
        f"{ratio:6.2f}",
        f"{f'± {spread / 2:.0%}' if len(ratios) > 1 else '':>6}",
        f"{f'≥ {scenario.bar:g}' if scenario.bar else '':>6}",
        f"{('pass' if passed else 'FAIL') if scenario.bar else '':<4}",
        f"{f'{min(idle):.0f} %' if idle else '':>6}",
    ]
    return "  ".join(cells), passed


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory beside stock.")
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--only", default="", help="rows whose title contains this")
    arguments = parser.parse_args()
    rounds, seconds = (1, 0.7) if arguments.quick else (3, 1.5)

    started = time.monotonic()
    server_core, load_core = two_cores()
    print(
        f"Python {platform.python_version()}, gevent {version('gevent')}, "
        f"gevent-websocket {version('gevent-websocket')}; server on core "
        f"{server_core}, load on core {load_core}; {rounds} rounds of {seconds} s",
        file=sys.stderr,
    )
    if server_core == load_core:
        print("Only one core: both share it, the load's caches too.", file=sys.stderr)
    load_before = os.getloadavg()[0]

    print(
        f"{'server CPU per message or connection':<38}  {'stock':>12}  {'ours':>12}  "
        f"{'ratio':>6}  {'':6}  {'bar':>6}  {'':4}  {'load idle':>6}"
    )
    failed = 0
    with Server(STOCK, server_core) as stock, Server(OURS, server_core) as ours:
        servers = {STOCK: stock, OURS: ours}
        for scenario in (ECHO, BROADCAST, PIPELINED, CONNECT, MEMORY):
            if arguments.only not in scenario.title:
                continue
            line, passed = row(scenario, alternate(scenario, servers, rounds, seconds))
            print(line, flush=True)
            failed += not passed

    print(f"{time.monotonic() - started:.0f} s", end="")
    # The two of us make a load of two at most; what is above it was somebody else.
    print(f", load average before: {load_before:.1f}" if load_before > 0.5 else "")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
