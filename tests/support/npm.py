"""What ``sh tools/node.sh`` has installed: compiler, bundlers, AsyncAPI's schemas."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .programs import missing, program

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "node_modules"


def needs_npm() -> None:
    """Skip a test without it; in CI that is an error."""
    done = MODULES / ".done"  # a copy of what it was installed by
    lock = ROOT / "package-lock.json"
    if not done.exists() or done.read_bytes() != lock.read_bytes():
        missing("needs what npm has: sh tools/node.sh")


def run(*command: object, cwd: Path = ROOT) -> str:
    """Return what ``command`` says, once it has succeeded."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"
    return done.stdout


def node() -> str:
    """Return the path of a Node that the package supports."""
    path = program("nodejs", "node")
    version = run(path, "--version").strip()
    if int(version[1:].partition(".")[0]) < 20:
        missing(f"the package needs Node 20 or newer, and {path} is {version}")
    return path


def npm(*arguments: object, cwd: Path = ROOT) -> str:
    """Return what ``npm`` says, that asks no registry."""
    quiet = ("--offline", "--no-audit", "--no-fund", "--no-update-notifier")
    return run(program("npm", "npm"), *arguments, *quiet, cwd=cwd)


def tool(name: str) -> Path:
    """Return the path of a tool that npm has installed."""
    needs_npm()
    return MODULES / ".bin" / name


def compiled(page: Path) -> str:
    """Return what the compiler has against ``page``, or the project in a folder."""
    done = subprocess.run(
        [
            *(tool("tsc"), "--strict", "--noEmit", "--target", "es2022"),
            *("--module", "nodenext", "--types", "", "--singleThreaded"),
            *(("-p", page) if page.is_dir() else (page,)),
        ],
        # It ends in a second: to look for garbage is a quarter of what that takes.
        env={**os.environ, "GOGC": "off"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 or done.stdout, done.stderr
    return done.stdout
