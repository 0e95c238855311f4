"""Serve the demos, alone or with several workers and what these share.

    python -m tools.demo check    say what is in the way, before anything is installed
    python -m tools.demo          serve until Ctrl-C

The environment says how: PORT; HOST, 0.0.0.0 for phones and others; WORKERS,
gunicorn's; REDIS=1, a redis-server that ends with the demos. ``check`` works in any
Python 3.10 with the standard library only.
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from tools.free_port import complaint

ROOT = Path(__file__).parents[1]
DEADLINE = 20.0
"""Seconds that anything may take to begin, or to end."""

REST = 10.0
"""Seconds for which the demos may have Redis stopped."""

MOST_WORKERS = 64
NO_REDIS = """\
REDIS=1 needs the program redis-server (or valkey-server), which is not here.
  Debian and Ubuntu: apt-get install redis-server
  Fedora: dnf install valkey        macOS: brew install redis
Without it: make demo WORKERS=4 (the workers then share a file)."""


class Options:
    """What the environment asks for.

    :raises ValueError: it cannot be done; the message says why.
    """

    def __init__(self) -> None:
        environ = os.environ
        self.host = environ.get("HOST") or "127.0.0.1"
        self.port = environ.get("PORT") or "5000"
        self.redis = environ.get("REDIS", "").lower() not in ("", "0", "no", "false")
        self.url = environ.get("WSCHAT_URL", "")
        workers = environ.get("WORKERS") or "1"
        if not workers.isdecimal() or not 0 < int(workers) <= MOST_WORKERS:
            raise ValueError(
                f"WORKERS={workers} is not a number from 1 to {MOST_WORKERS}."
            )
        self.workers = int(workers)


def redis_program() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


def check(options: Options) -> str:
    """Return what keeps the demos from running; "" if nothing does."""
    if fault := complaint(options.port, options.host):
        return fault
    if options.redis and redis_program() is None:
        script = f'. "{ROOT}/tools/apt.sh"; apt_install redis-server'
        subprocess.run(["/bin/sh", "-c", script], check=False)
        if redis_program() is None:
            return NO_REDIS
    return ""


@contextlib.contextmanager
def running(
    command: Sequence[str], output: IO[bytes] | None = None, **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command``; end it, and whatever it has started, at the end."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=output,
        # A terminal's Ctrl-C is for this process alone, which ends them in order.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def addresses(options: Options) -> list[str]:
    """Return the names that browsers can use: this machine's first, then others'."""
    try:
        ip = ipaddress.ip_address(options.host)
    except ValueError:
        return [options.host]
    if not ip.is_unspecified:
        return [f"[{ip}]" if ip.version == 6 else str(ip)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but chooses an address
            return ["127.0.0.1", probe.getsockname()[0]]
        except OSError:
            return ["127.0.0.1"]


def wait_for(
    process: subprocess.Popen[bytes], port: int, host: str = "127.0.0.1"
) -> None:
    """Return when ``process`` listens on ``port``; exit if it never will."""
    until = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), 1).close()
            return
        time.sleep(0.05)
    sys.exit("It does not start; what it said is above.")


class Redis:
    """A redis-server on a free port, which forgets all with ``folder``."""

    def __init__(self, folder: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        settings = {"bind": "127.0.0.1", "port": str(self.port), "dir": folder}
        # It may be stopped, and is to know all when it is back.
        settings |= {"appendonly": "yes", "save": "", "loglevel": "warning"}
        self._command = [redis_program() or "redis-server"]
        for name, value in settings.items():
            self._command += ["--" + name, value]
        self._running = contextlib.ExitStack()
        self.shall_rest = False

    def __enter__(self) -> Redis:
        log = self._running.enter_context(tempfile.TemporaryFile())
        self._process = self._running.enter_context(running(self._command, log))
        try:
            wait_for(self._process, self.port)
        except SystemExit:
            log.seek(0)
            sys.stderr.write(log.read().decode())
            self._running.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._running.close()

    def serves(self) -> bool:
        return self._process.poll() is None

    def rest(self) -> None:
        """Stop, as one of the demos has asked for it, and be there again."""
        self._running.close()
        time.sleep(REST)
        self.shall_rest = False
        self.__enter__()


def gunicorn(options: Options) -> list[str]:
    host = f"[{options.host}]" if ":" in options.host else options.host
    address, workers = f"{host}:{options.port}", str(options.workers)
    command = [sys.executable, "-m", "gunicorn", "example_app:app"]
    command += ["-k", "flask_wschat.gunicorn.GeventWebSocketWorker", "-w", workers]
    command += ["--bind", address, "--graceful-timeout", "3", "--log-level", "warning"]
    # As of 26: one for all processes of this user.
    if (
        "control_socket_disable"
        in importlib.import_module("gunicorn.config").make_settings()
    ):
        command.append("--no-control-socket")
    return command


def serve(options: Options) -> None:
    """Serve with workers until one of the processes ends, or this one shall."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wschat-demo-"))
        url = options.url or f"sqlite:///{folder}/demo.db"
        env = {"DEMO_WORKERS": str(options.workers)}  # gunicorn replaces one that ends
        redis = None
        if options.redis:
            redis = stack.enter_context(Redis(folder))
            url = redis.url
            env["DEMO_REDIS"] = str(os.getpid())  # whom to tell that it is to stop
            signal.signal(signal.SIGUSR1, lambda *_: setattr(redis, "shall_rest", True))
        env["WSCHAT_URL"] = url
        process = stack.enter_context(running(gunicorn(options), None, **env))
        names = addresses(options)
        wait_for(process, int(options.port), names[0].strip("[]"))
        from flask_wschat.logs import redacted  # `check` comes before it is installed

        workers = (
            "1 worker uses"
            if options.workers == 1
            else f"{options.workers} workers share"
        )
        print(f"{workers} {redacted(url)}")
        print(
            f"The demos are on http://{names[0]}:{options.port}/ (Ctrl-C ends it all)"
        )
        sys.stdout.flush()
        while process.poll() is None and (redis is None or redis.serves()):
            time.sleep(0.2)
            if redis is not None and redis.shall_rest:
                redis.rest()
        sys.exit("A process has ended by itself, so the demos end.")


def end(number: int, frame: FrameType | None) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # ending is under way
    sys.exit(0)


def main(arguments: Sequence[str]) -> None:
    try:
        options = Options()
    except ValueError as error:
        sys.exit(str(error))
    if arguments == ["check"]:
        sys.exit(check(options) or None)
    for other in addresses(options)[1:]:
        print(f"Others in this network: http://{other}:{options.port}/", flush=True)
    if options.workers == 1 and not options.redis:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "example_app.py"])
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, end)
    serve(options)


if __name__ == "__main__":
    main(sys.argv[1:])
