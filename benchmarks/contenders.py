"""The servers in the table: how each is installed, started and spoken to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.harness import BUILD, HERE, Failed, compiled

ENVIRONMENTS = BUILD / "bench"


@dataclass(frozen=True)
class Contender:
    """One column of the table.

    ``command`` returns what starts it, installed or compiled first, and raises
    ``Failed`` where that cannot be. ``of``: whose process it shares, else its own.
    ``only``: the kinds of scenarios it takes part in.
    """

    key: str
    title: str
    command: Callable[[], Sequence[str | Path]]
    version: Callable[[], str]
    of: str = ""
    echo_path: str = "/echo"
    connect_path: str = "/echo"
    socketio: bool = False
    only: frozenset[str] = field(
        default_factory=lambda: frozenset({"echo", "fan", "connect", "idle"})
    )

    @property
    def server(self) -> str:
        return self.of or self.key

    def path(self, kind: str) -> str:
        if self.socketio:
            return "/socket.io/?EIO=4&transport=websocket"
        if kind == "connect":
            return self.connect_path
        return "/fan" if kind == "fan" else self.echo_path


def _c(*arguments: str) -> Callable[[], Sequence[str | Path]]:
    return lambda: [compiled(HERE / "peers" / "epoll.c"), *arguments]


def _compiler() -> str:
    return _run(os.environ.get("CC", "cc"), "--version").splitlines()[0]


def _here(module: str) -> Callable[[], Sequence[str | Path]]:
    return lambda: [sys.executable, "-m", f"benchmarks.servers.{module}"]


def _from_pip(
    key: str, title: str, *packages: str, socketio: bool = False
) -> Contender:
    """Return a contender with an environment of its own."""
    module = key.replace("-", "_") + "_server"

    def command() -> Sequence[str | Path]:
        return [python_with(key, *packages), "-m", f"benchmarks.peers.{module}"]

    def ask_version() -> str:
        code = (
            "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
        )
        told = _run(python_with(key, *packages), "-c", code, *packages)
        pairs = zip(packages, told.split(), strict=True)
        return ", ".join(" ".join(pair) for pair in pairs)

    return Contender(key, title, command, ask_version, socketio=socketio)


def python_with(name: str, *packages: str) -> Path:
    """Return the Python of an environment of this name that has ``packages``.

    :raises Failed: it could not be made.
    """
    place = ENVIRONMENTS / name
    python, stamp = place / "bin" / "python", place / "installed"
    if not stamp.exists() or stamp.read_text() != " ".join(packages):
        print(f"installing {', '.join(packages)}", file=sys.stderr)
        venv.create(place, clear=True, symlinks=True)
        _run(
            *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
            *("--disable-pip-version-check", *packages),
        )
        stamp.write_text(" ".join(packages))
    return python


def _npm(name: str) -> Path:
    """Return the directory of an installed npm package.

    :raises Failed: it could not be installed.
    """
    place = ENVIRONMENTS / f"npm-{name}"
    package = place / "node_modules" / name
    stamp = place / "installed"
    if not stamp.exists():
        print(f"installing {name} (npm)", file=sys.stderr)
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}')
        # No scripts: what would be fetched from elsewhere is not to be had this way.
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        _run("npm", "install", "--prefix", place, *options, name)
        stamp.touch()
    return package


def _npm_version(name: str) -> str:
    found: str = json.loads((_npm(name) / "package.json").read_text())["version"]
    return f"{name} {found}"


def _run(*command: str | Path) -> str:
    """Return what ``command`` printed.

    :raises Failed: it could not be run, or failed.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Failed(lines[-1] if lines else f"{command[0]} failed")
    return done.stdout


def _node() -> Sequence[str | Path]:
    return ["node", HERE / "peers" / "ws.js", _npm("ws")]


def _node_version() -> str:
    return f"{_npm_version('ws')}, node {_run('node', '--version').strip()[1:]}"


def _bun() -> Sequence[str | Path]:
    place = _npm("bun").parent / "@oven"
    # One of the packages it depends on holds the program for this kind of machine.
    for program in sorted(place.glob("bun-*/bin/bun"), key=lambda p: len(str(p))):
        with contextlib.suppress(Failed):
            _run(program, "--version")
            return [program, HERE / "peers" / "bun.js"]
    raise Failed("no program for this machine in its npm packages")


def _versions_here(*packages: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in packages)


def _ours_version() -> str:
    twin = "with" if find_spec("flask_wschat.codec._speedups") else "without"
    return f"{_versions_here('flask-wschat', 'Flask', 'gevent')}, {twin} the C twin"


YARDSTICK = "c"
CONNECT_YARDSTICK = "gevent-websocket"
OURS, BARE = "ours", "ours-bare"

CONTENDERS = (
    Contender("c", "C epoll", _c(), _compiler),
    Contender("c-cork", "C corking", _c("cork"), _compiler),
    Contender("bun", "Bun", _bun, lambda: _npm_version("bun")),
    _from_pip("picows", "picows", "picows", "uvloop"),
    Contender("ws", "ws", _node, _node_version),
    _from_pip("aiohttp", "aiohttp", "aiohttp", "uvloop"),
    _from_pip("websockets", "websockets", "websockets", "uvloop"),
    _from_pip("tornado", "Tornado", "tornado"),
    _from_pip("flask-sock", "Flask-Sock", "flask-sock", "simple-websocket"),
    Contender(
        CONNECT_YARDSTICK,
        "gevent-websocket",
        _here("gevent_websocket"),
        lambda: _versions_here("gevent-websocket", "gevent"),
    ),
    _from_pip(
        *("flask-socketio", "Flask-SocketIO"),
        *("flask-socketio", "gevent", "gevent-websocket"),
        socketio=True,
    ),
    Contender(
        BARE,
        "ours, no app context",
        _here("wschat"),
        _ours_version,
        of=OURS,
        echo_path="/bare",
        only=frozenset({"echo"}),
    ),
    Contender(OURS, "ours", _here("wschat"), _ours_version, connect_path="/private"),
)
QUICK = ("c", "c-cork", CONNECT_YARDSTICK, BARE, OURS)
