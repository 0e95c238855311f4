"""Soak a server: ``python -m benchmarks.soak``, fifteen minutes unless told otherwise.

    --seconds 900        of load, after a warm-up
    --warm-up 30         seconds
    --server run         chat.run, or gunicorn with two workers
    --backend memory     or sqlite, redis
    --many 20            well-behaved clients of each kind
    --seed 1             of all that is left to chance
    --picture FILE.svg   the figures over time

A process of its own takes all kinds of load and faults at once. Before and after there
is none: then memory, objects, descriptors, threads, greenlets, rooms and the backend's
keys have to be back; memory, objects, threads and keys may not grow on the way either.
With redis, that is paused and killed, too. It ends with 1 where one of these is not so,
a client got what it must not get, or the server logged a traceback.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import argparse
import contextlib
import http.client
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import gevent

from benchmarks.harness import cpu_seconds, family
from flask_wschat.backends.contract import EMPTY
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.redis_server import RedisServer

from .clients import PATIENCE, Load
from .judge import FIGURES, Sample, left_over, trends
from .plot import draw

WORKERS = 2  # of gunicorn
TTL = 10
"""Seconds that the server keeps messages: rooms that nobody is in any more go."""
SETTLING = EMPTY + 20
"""Seconds until all has to be back; who was in a room is known for a while after."""
SETTINGS = {
    # Few, so that what is remembered of each room, four ids for a message that is
    # kept, is soon as much as it gets.
    "HISTORY_SIZE": 20,
    "HISTORY_TTL": TTL,
    "MAX_QUEUE": 256 * 1024,
    "RATE_LIMIT": [100, 200],
    "PING_INTERVAL": 4,
    "PING_TIMEOUT": 4,
    "HANDSHAKE_TIMEOUT": 3,
    "CLOSE_TIMEOUT": 2,
}


class Soak:
    """A server under a load, and what was measured of it."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.samples: list[Sample] = []
        self.troubles = 0
        self._redis: RedisServer | None = None
        self._file = folder / "soak.db"
        self._port = free_port()
        self._begun = time.monotonic()
        holes = options.backend == "redis"
        self.load = Load(self._port, options.many, options.seed, holes=holes)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have the server, and what it needs, for the block."""
        with contextlib.ExitStack() as stack:
            url = "memory://"
            if self.options.backend == "sqlite":
                url = f"sqlite:///{self._file}"
            elif self.options.backend == "redis":
                # It keeps what was said over a kill, as far as it has written it.
                self._redis = stack.enter_context(RedisServer("appendonly yes"))
                url = self._redis.url
            self.server = Process(self._command(), self.folder / "log", self._env(url))
            self.server.start()
            stack.callback(self.server.stop)
            self.server.await_port(self._port)
            yield

    def _command(self) -> list[str]:
        if self.options.server == "run":
            return [sys.executable, "-m", "benchmarks.soak.app", str(self._port)]
        command = ["-m", "gunicorn", "benchmarks.soak.app:app", "--log-level=warning"]
        command += ["-k", "flask_wschat.gunicorn.Worker", "-w", str(WORKERS)]
        command += ["-b", f"127.0.0.1:{self._port}", "--no-control-socket"]
        return [sys.executable, *command]

    def _env(self, url: str) -> dict[str, str]:
        settings = {"URL": url, **SETTINGS}
        return {f"SOAK_WSCHAT_{key}": json.dumps(settings[key]) for key in settings}

    # -- the course of it

    def run(self) -> list[str]:
        """Return what is wrong with the server; nothing is better."""
        seconds = self.options.seconds
        self._under_load(self.options.warm_up, sample=False)
        before = self._settled(None)
        print("before", _told(before), flush=True)
        self._begun = time.monotonic()
        self._under_load(seconds, sample=True)
        after = self._settled(before)
        print("after ", _told(after), flush=True)
        steady = [s for s in self.samples if s["seconds"] >= seconds / 10]
        self.samples.append(after)
        wrong = trends(steady) + left_over(before, after) + self.load.faults[:20]
        log = self.server.log
        if "Traceback" in log:
            wrong.append("the server's log: " + log[log.index("Traceback") :][:2000])
        return wrong

    def _under_load(self, seconds: float, *, sample: bool) -> None:
        self.load.start()
        until = time.monotonic() + seconds
        every = min(max(seconds / 60, 1.0), 10.0)
        next_sample, next_word = time.monotonic() + every, time.monotonic() + 10
        next_trouble = time.monotonic() + 15
        while (now := time.monotonic()) < until:
            if now >= next_trouble and self._redis is not None:
                self._trouble(self._redis)
                next_trouble = time.monotonic() + 30
            if sample and now >= next_sample:
                next_sample = now + every
                if (taken := self._sample()) is not None:
                    self.samples.append(taken)
            if now >= next_word:
                next_word += 10
                self._say()
            gevent.sleep(0.1)
        self.load.stop()

    def _trouble(self, redis: RedisServer) -> None:
        self.troubles += 1
        if self.troubles % 2:
            redis.pause()
            gevent.sleep(3)
            redis.resume()
        else:
            redis.kill()
            gevent.sleep(2)
            redis.start()

    def _settled(self, before: Sample | None) -> Sample:
        """Return what is left when nobody is there any more, and nothing goes on."""
        until, seen = time.monotonic() + SETTLING, 0
        told = time.monotonic()
        while True:
            gevent.sleep(1)
            with contextlib.suppress(OSError, http.client.HTTPException):
                # It is read on, too: what is too old goes when somebody comes.
                self.load.probe()
            sample = self._sample()
            if sample is None:
                raise SystemExit(f"the server does not answer:\n{self.server.log}")
            if before is None:
                quiet = not (sample["connections"] or sample["ending"])
                seen = seen + 1 if quiet else 0
                done = seen > TTL
            else:
                left = left_over(before, sample)
                done = not left
                if left and time.monotonic() > told + 10:
                    told = time.monotonic()
                    print("not back yet:", "; ".join(left), flush=True)
            if done or time.monotonic() > until:
                return sample

    # -- what is measured

    def _sample(self) -> Sample | None:
        """Return the sums over the processes; None: not all of them answer."""
        states = self._states()
        if states is None:
            return None
        figures: dict[str, float] = {"seconds": time.monotonic() - self._begun}
        for state in states:
            for name, value in state.items():
                if name != "pid":
                    figures[name] = figures.get(name, 0) + value
        for pid in family(self.server.id):
            status = Path(f"/proc/{pid}/status").read_text()
            resident = int(status.partition("VmRSS:")[2].split()[0])
            threads = int(status.partition("Threads:")[2].split()[0])
            figures["memory"] = figures.get("memory", 0) + resident / 1024
            figures["threads"] = figures.get("threads", 0) + threads
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            figures["descriptors"] = figures.get("descriptors", 0) + descriptors
        with contextlib.suppress(OSError, sqlite3.Error):
            if self._redis is not None:
                with self._redis.client() as client:
                    figures["keys"] = float(client.dbsize())
            elif self._file.exists():
                figures["keys"] = float(_rows(self._file))
        return figures

    def _states(self) -> list[dict[str, int]] | None:
        """Return what each serving process says of itself."""
        count = 1 if self.options.server == "run" else WORKERS
        found: dict[int, dict[str, int]] = {}
        for _ in range(50):
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=PATIENCE
            )
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/state", headers={"Connection": "close"})
                state = json.loads(connection.getresponse().read())
                found[state["pid"]] = state
            connection.close()
            if len(found) == count:
                return list(found.values())
        return None

    def _say(self) -> None:
        counts = self.load.counts
        seconds = time.monotonic() - self._begun
        told = _told(self.samples[-1]) if self.samples else ""
        print(
            f"{seconds:5.0f} s  {told}  connections so far {counts['connections']},"
            f" echoes {counts['echoes']}, broadcasts {counts['broadcasts heard']},"
            f" chat {counts['chat messages read']}, faults {len(self.load.faults)}",
            flush=True,
        )


def _rows(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        tables = ("log", "topics", "mids", "holders", "presence", "polls", "votes")
        count = "+".join(f"(SELECT count(*) FROM {table})" for table in tables)
        rows: int = db.execute(f"SELECT {count}").fetchone()[0]
        return rows


def _told(sample: Sample) -> str:
    names = [figure.name for figure in FIGURES if figure.name in sample]
    return ", ".join(f"{name} {sample[name]:.0f}" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description="Soak a server.")
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--warm-up", type=float, default=30)
    parser.add_argument("--server", choices=["run", "gunicorn"], default="run")
    backends = ["memory", "sqlite", "redis"]
    parser.add_argument("--backend", choices=backends, default="memory")
    parser.add_argument("--many", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.server == "gunicorn" and options.backend == "memory":
        parser.error("two workers share nothing by memory: --backend sqlite or redis")
    with tempfile.TemporaryDirectory(prefix="wschat-soak-") as folder:
        soak = Soak(options, Path(folder))
        with soak.running():
            wrong = soak.run()
            busy = cpu_seconds(soak.server.id)
    if options.picture is not None:
        what = f"load and faults, {options.server} on {options.backend}, then none"
        title = f"{options.seconds / 60:.2g} minutes of {what}"
        options.picture.write_text(draw(soak.samples, title))
    for name, count in sorted(soak.load.counts.items()):
        print(f"{count:10,}  {name}")
    print(f"{busy:10.0f}  seconds of the server's processors")
    for line in wrong:
        print(f"WRONG: {line}")
    print("failed" if wrong else "passed")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
