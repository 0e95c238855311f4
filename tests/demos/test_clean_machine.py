"""The first commands of the pages, where there is nothing but what they install."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.processes import ROOT
from tests.support.programs import program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DEADLINE = 120.0
"""Seconds for an installation."""

DEPLOY = (ROOT / "docs" / "deploy" / "README.md").read_text()
APP = """
from flask import Flask
from flask_wschat import WSChat

app = Flask(__name__)
chat = WSChat(app)

@app.get("/")
def index():
    return "here"
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as others get it: nothing built, nothing installed."""
    folder = tmp_path_factory.mktemp("machine") / "checkout"
    made = (".*", "*.so", "*.egg-info", "__pycache__", "build", "node_modules")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*made))
    return folder


@contextlib.contextmanager
def running(
    command: Sequence[str], folder: Path, **env: str
) -> Iterator[subprocess.Popen[str]]:
    """Run ``command`` in ``folder``; its environment knows of no other Python."""
    known = ("HOME", "PATH", "LANG")
    kept = {name: os.environ[name] for name in known if name in os.environ}
    kept |= {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_"))}
    kept["PIP_COMPILE"] = "0"  # what is run is compiled then: less than is installed
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=kept | env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def said(folder: Path) -> str:
    return (folder / "log").read_text()


def run(command: Sequence[str], folder: Path) -> None:
    with running(command, folder) as process:
        process.wait(DEADLINE)
    skip_offline(folder)
    assert process.returncode == 0, said(folder)


def skip_offline(folder: Path) -> None:
    if "No matching distribution" in said(folder) and not os.environ.get("CI"):
        pytest.skip("no package index can be reached")


def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def answers(
    process: subprocess.Popen[str], folder: Path, port: int, path: str = "/"
) -> None:
    """Return once a page comes from ``port``."""

    until, pause = time.monotonic() + DEADLINE, threading.Event()
    while not listens(port):
        if process.poll() is not None:
            skip_offline(folder)
        assert process.poll() is None and time.monotonic() < until, said(folder)
        pause.wait(0.05)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        assert answer.status == 200


def make_demo(machine: Path, *how: str) -> None:
    port = free_port()
    command = ["make", "demo", f"PORT={port}", f"PYTHON={sys.executable}", *how]
    with running(command, machine, APT="no") as process:
        answers(process, machine, port)
        answers(process, machine, port, "/qr.svg")
        assert "Traceback" not in said(machine)


def test_the_demos_start_with_workers(machine: Path) -> None:
    make_demo(machine, "WORKERS=2")


def test_the_demos_start_with_redis(machine: Path) -> None:
    program("redis-server", "redis-server", "valkey-server")
    make_demo(machine, "REDIS=1")


def test_the_deploy_pages_first_commands_start(machine: Path, tmp_path: Path) -> None:
    # Its pip is ours, as an environment's own is four seconds of the processor's time.
    run([sys.executable, "-m", "venv", "--without-pip", "venv"], tmp_path)
    pip = [sys.executable, "-m", "pip", "--python", "venv/bin/python"]
    (tmp_path / "app.py").write_text(APP)
    [install, start] = re.findall(r"^    (pip .*)\n    (gunicorn .*)$", DEPLOY, re.M)[0]
    words = shlex.split(install.replace("flask-wschat", str(machine)))
    assert words[0] == "pip"
    run([*pip, *words[1:]], tmp_path)
    port = free_port()
    words = shlex.split(start.replace(":8000", f":{port}"))
    with running([f"venv/bin/{words[0]}", *words[1:]], tmp_path) as process:
        answers(process, tmp_path, port)
