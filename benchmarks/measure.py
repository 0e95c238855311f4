"""Measure contenders in turn: what one message, connection or idle socket costs."""

from __future__ import annotations

import http.client
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contenders import CONNECT_YARDSTICK, ENVIRONMENTS, YARDSTICK, Contender
from benchmarks.harness import (
    Failed,
    Load,
    Server,
    cpu_seconds,
    memory_bytes,
    two_cores,
)
from benchmarks.scenarios import Scenario
from benchmarks.servers.wschat import signed_cookie


@dataclass(frozen=True)
class Measured:
    """One contender in one round.

    ``cost``: CPU microseconds per message or connection, or KiB per idle connection.
    ``server_busy``, ``load_idle``: percent of the time that the server used its core
    for, and in which the load generator had nothing to do.
    """

    cost: float
    server_busy: float | None = None
    load_idle: float | None = None


@dataclass
class Row:
    """One scenario's rounds by contender; None where it failed."""

    scenario: Scenario
    rounds: dict[str, list[Measured | None]] = field(default_factory=dict)

    def ratios(self, key: str) -> list[float]:
        """Return the contender's value of each round: more is faster; idle: KiB."""
        mine = self.rounds.get(key, [])
        if self.scenario.kind == "idle":
            return [each.cost for each in mine if each]
        other = CONNECT_YARDSTICK if self.scenario.kind == "connect" else YARDSTICK
        pairs = zip(self.rounds.get(other, []), mine, strict=False)
        return [a.cost / b.cost for a, b in pairs if a and b]

    def value(self, key: str) -> float | None:
        ratios = self.ratios(key)
        return statistics.median(ratios) if ratios else None

    def spread(self, key: str) -> float | None:
        """Return half of the distance between best and worst round, as a share."""
        ratios = self.ratios(key)
        if len(ratios) < 2:
            return None
        return (max(ratios) - min(ratios)) / 2 / statistics.median(ratios)

    def cost(self, key: str) -> float | None:
        costs = [each.cost for each in self.rounds.get(key, []) if each]
        return statistics.median(costs) if costs else None

    def server_busy(self, key: str) -> float | None:
        return _median(each.server_busy for each in self.rounds.get(key, []) if each)

    def load_idle(self, key: str) -> float | None:
        return _median(each.load_idle for each in self.rounds.get(key, []) if each)

    def load_limits(self, key: str) -> bool:
        """Return whether the server may have waited for the load generator."""
        busy, idle = self.server_busy(key), self.load_idle(key)
        return busy is not None and idle is not None and busy < 95 and idle < 10


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


class Field:
    """The contenders that can be started, and their running servers.

    ``missing`` says of the others why not, ``trouble`` what went wrong on the way.
    """

    def __init__(self, contenders: Iterable[Contender]) -> None:
        self.contenders: list[Contender] = []
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.trouble: list[str] = []
        self._commands: dict[str, Sequence[str | Path]] = {}
        self._running: dict[str, Server] = {}
        self.server_core, self.load_core = two_cores()
        for contender in contenders:
            try:
                self._commands[contender.server] = contender.command()
                self.versions[contender.title] = contender.version()
            except Failed as error:
                self.missing[contender.title] = str(error)
                print(f"without {contender.title}: {error}", file=sys.stderr)
                continue
            self.contenders.append(contender)

    def close(self) -> None:
        for server in self._running.values():
            server.close()
        self._running.clear()

    def measure(
        self,
        scenario: Scenario,
        rounds: int,
        seconds: float,
        progress: Callable[[str], None],
    ) -> Row:
        """Return the scenario's row: in each round, each contender once."""
        row = Row(scenario)
        taking_part = [each for each in self.contenders if scenario.kind in each.only]
        for number in range(rounds):
            for contender in taking_part:
                progress(f"{scenario.title}: {number + 1}/{rounds} {contender.title}")
                results = row.rounds.setdefault(contender.key, [])
                if results and not any(results):
                    results.append(None)  # what failed once is not tried again
                    continue
                try:
                    results.append(self._once(contender, scenario, seconds))
                except Failed as error:
                    self.trouble.append(f"{contender.title}, {scenario.title}: {error}")
                    results.append(None)
                    self._stop(contender.server)
        progress("")
        return row

    def _once(
        self, contender: Contender, scenario: Scenario, seconds: float
    ) -> Measured:
        if scenario.kind == "idle":
            return self._memory(contender, scenario)
        server = self._server(contender)
        headers: tuple[str, ...] = ()
        if scenario.kind == "connect":
            headers = browser_headers(server.port)
            if contender.connect_path == "/private":
                check_refusals(server.port, headers)
        with self._load(contender, server, scenario, headers, seconds) as load:
            wait_until_quiet(server)
            before = cpu_seconds(server.pid)
            result = load.run()
            used = cpu_seconds(server.pid) - before
        count = result["connects" if scenario.kind == "connect" else "messages"]
        if not count:
            raise Failed("nothing came back in time")
        busy = used / result["seconds"] * 100
        return Measured(used / count * 1e6, busy, result["idle"])

    def _memory(self, contender: Contender, scenario: Scenario) -> Measured:
        command, log = self._commands[contender.server], _log_of(contender.server)
        with Server(command, self.server_core, log=log) as server:
            # What the first connections import and allocate once is not theirs.
            few = Scenario("", "", "idle", 50, 0, 0)
            with self._load(contender, server, few, (), 1):
                pass
            before = memory_bytes(server.pid)
            with self._load(contender, server, scenario, (), 1):
                grown = memory_bytes(server.pid) - before
        return Measured(grown / scenario.conns / 1024)

    def _load(
        self,
        contender: Contender,
        server: Server,
        scenario: Scenario,
        headers: Sequence[str],
        seconds: float,
    ) -> Load:
        return Load(
            server,
            self.load_core,
            scenario=scenario.kind,
            path=contender.path(scenario.kind),
            headers=headers,
            socketio=contender.socketio,
            conns=scenario.conns,
            size=scenario.size,
            window=scenario.window,
            seconds=seconds,
        )

    def _server(self, contender: Contender) -> Server:
        name = contender.server
        if name in self._running and not self._running[name].is_running():
            self._stop(name)
        if name not in self._running:
            self._running[name] = Server(
                self._commands[name], self.server_core, log=_log_of(name)
            )
        return self._running[name]

    def _stop(self, name: str) -> None:
        server = self._running.pop(name, None)
        if server is not None:
            server.close()


def wait_until_quiet(server: Server) -> None:
    """Wait, two seconds at most, until ``server`` is done with what came before.

    Thousands of connections that have just ended keep some busy for a while.
    """
    until, used = time.monotonic() + 2, cpu_seconds(server.pid)
    while time.monotonic() < until:
        time.sleep(0.03)
        before, used = used, cpu_seconds(server.pid)
        if used - before < 0.001:
            return


def _log_of(server: str) -> Path:
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    return ENVIRONMENTS / f"{server}.log"


def browser_headers(port: int) -> tuple[str, ...]:
    """Return what a browser adds for a logged-in user on a page of that server."""
    return (f"Origin: http://127.0.0.1:{port}", f"Cookie: {signed_cookie('ann')}")


def check_refusals(port: int, headers: Sequence[str]) -> None:
    """Prove that our server asks who comes, and from which page.

    :raises Failed: it let one in that it should not.
    """
    good = dict(header.split(": ", 1) for header in headers)
    for status, change in (
        (401, {"Cookie": "session=forged"}),
        (403, {"Origin": "http://elsewhere.example"}),
    ):
        request = good | change | {"Upgrade": "websocket", "Connection": "Upgrade"}
        request |= {"Sec-WebSocket-Version": "13"}
        request |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/private", headers=request)
            got = connection.getresponse().status
        except OSError as error:
            raise Failed(f"no refusal: {error}") from None
        finally:
            connection.close()
        if got != status:
            raise Failed(f"{got} instead of {status} with {change}")
