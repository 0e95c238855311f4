"""A rolling restart: what clients, and the workers that they come back to, have of it.

    python -m benchmarks.restart [--clients 2000] [--drain 10 0] [--picture FILE.svg]

Two workers of gunicorn are reloaded (SIGHUP) under clients that come back as wschat.js
does: after a random part of half a second, twice that at each failure. Once for each
WSCHAT_DRAIN. On loopback, and over in a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from flask_wschat.codec import ClientHandshake, Closed, Connection
from flask_wschat.errors import WSChatError
from tests.servers.serving import NO_CONTROL_SOCKET
from tests.support.ports import free_port

from .soak.plot import panel, picture

FIRST, CAP = 0.5, 10.0  # seconds: see FIRST and CAP in wschat.js
SPARE = 64  # descriptors besides the clients'
BEFORE, AFTER, LONGEST = 2.0, 3.0, 60.0  # seconds
APP = "benchmarks.servers.wschat:app"


class Crowd:
    """Clients that are to be connected, and what they have seen."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.open = 0
        self.began = time.monotonic()
        self.comings: list[tuple[float, float]] = []  # when, and what the opening took
        self.ends: Counter[str] = Counter()

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    async def member(self, delay: float) -> None:
        """Be connected, again and again."""
        await asyncio.sleep(delay)
        attempt = 0
        while True:
            try:
                if await self._stay():
                    attempt = 0
            except (OSError, WSChatError, EOFError) as error:
                self.ends[f"an opening: {error}"[:60]] += 1
            await asyncio.sleep(random.random() * min(CAP, FIRST * 2**attempt))
            attempt += 1

    async def _stay(self) -> bool:
        """Return once the connection has ended."""
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            handshake = ClientHandshake(f"127.0.0.1:{self._port}", "/echo")
            writer.write(handshake.request())
            data = b""
            while (size := handshake.receive_data(data)) is None:
                data = await reader.read(65536)
                if not data:
                    raise EOFError("no answer")
            self.comings.append((self.now, time.monotonic() - began))
            self.open += 1
            try:
                self.ends[await self._until_the_end(reader, writer, data[size:])] += 1
            finally:
                self.open -= 1
            return True
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _until_the_end(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
    ) -> str:
        connection = Connection(client=True)
        while True:
            for event in connection.receive_data(data):
                if isinstance(event, Closed):
                    writer.write(connection.data_to_send())
                    return str(event.code)
            writer.write(connection.data_to_send())
            data = await reader.read(65536)
            if not data:
                return "cut off"


async def watch(
    crowd: Crowd, server: subprocess.Popen[bytes], clients: int
) -> list[tuple[float, float]]:
    """Restart the server under its clients; return how many were connected, when."""
    members = [
        asyncio.create_task(crowd.member(5 * n / clients)) for n in range(clients)
    ]
    try:
        while crowd.open < clients:
            assert crowd.now < LONGEST, f"{crowd.open} connected, {crowd.ends}"
            await asyncio.sleep(0.05)
        crowd.comings.clear()
        crowd.ends.clear()
        crowd.began = time.monotonic() + BEFORE
        seen, quiet, told = [], 0.0, False
        while crowd.now < LONGEST and quiet < AFTER:
            if crowd.now >= 0 and not told:
                told = True
                server.send_signal(signal.SIGHUP)
            seen.append((crowd.now + BEFORE, float(crowd.open)))
            last = crowd.comings[-1][0] if crowd.comings else LONGEST
            quiet = crowd.now - last if crowd.open == clients else 0.0
            await asyncio.sleep(0.05)
        return seen
    finally:
        for member in members:
            member.cancel()
        await asyncio.gather(*members, return_exceptions=True)


def told(crowd: Crowd, clients: int, seen: list[tuple[float, float]]) -> list[str]:
    """Return the figures."""
    waits = sorted(took for _, took in crowd.comings)
    seconds = Counter(int(when) for when, _ in crowd.comings)
    away = min((count for _, count in seen), default=0.0)
    lines = [
        f"ends                     {dict(crowd.ends.most_common(5))}",
        f"came back                {len(waits)}",
        f"all back after           {crowd.comings[-1][0]:.1f} s",
        f"away at the same time    {clients - away:.0f} at most",
        f"came back in a second    {max(seconds.values())} at most",
    ]
    for name, part in (("median", 0.5), ("p99", 0.99)):
        value = 1000 * waits[int(part * (len(waits) - 1))]
        lines.append(f"an opening, {name:<12} {value:.1f} ms")
    return lines


def draw(
    crowd: Crowd, seen: list[tuple[float, float]], drain: float
) -> list[list[str]]:
    """Return how many are connected, and how many come back in a second."""
    ticks = range(round(2 * seen[-1][0]))
    halves = Counter(int(2 * (when + BEFORE)) for when, _ in crowd.comings)
    back = [(tick / 2, 2.0 * halves[tick]) for tick in ticks]
    unit, name = (1, "s"), f"WSCHAT_DRAIN = {drain:g}"
    return [
        panel(f"{name}: connected", seen, unit),
        panel(f"{name}: come back, each second", back, unit),
    ]


def restart(clients: int, drain: float) -> list[list[str]]:
    """Print the figures of one restart; return its panels."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", APP, "--log-level=error"]
    command += ["-k", "flask_wschat.gunicorn.Worker", "-w", "2", "--backlog", "2048"]
    command += ["-b", f"127.0.0.1:{port}", *NO_CONTROL_SOCKET]
    environ = {**os.environ, "WSCHAT_DRAIN": str(drain)}
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environ)
    try:
        crowd = Crowd(port)
        seen = asyncio.run(watch(crowd, server, clients))
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
    print(
        "\n".join([f"WSCHAT_DRAIN             {drain:g}", *told(crowd, clients, seen)])
    )
    return draw(crowd, seen, drain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--drain", type=float, nargs="+", default=[10.0, 0.0])
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = min(options.clients, hard - SPARE)
    panels = [each for drain in options.drain for each in restart(clients, drain)]
    if options.picture:
        title = f"{clients:,} clients; two workers of gunicorn are reloaded after 2 s"
        options.picture.write_text(picture(panels, title))


if __name__ == "__main__":
    main()
