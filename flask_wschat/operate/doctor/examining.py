"""All that is looked for, in order, each within its time."""

from __future__ import annotations

import contextvars
import json
import subprocess  # nosec B404  # this Python, with our own program
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...transports.patched import allocate_lock, start_new_thread
from . import (
    build,
    configured,
    on_redis,
    on_sqlite,
    online,
    origins,
    patching,
    program,
    running,
    secrecy,
    serving,
    system,
    versions,
)
from .finding import SEVERITIES, Finding, Kind, Look, Setup

SECONDS = 20.0
"""For one look."""
IMPORT_SECONDS = 30.0

LOOKS: tuple[Look, ...] = (
    versions.packages,
    versions.python,
    build.twins,
    build.shortcuts,
    patching.patches,
    program.routes,
    program.neighbours,
    program.health,
    program.dashboards,
    configured.keys,
    configured.times,
    configured.sizes,
    secrecy.key,
    secrecy.cookies,
    origins.origins,
    origins.names,
    origins.proxy,
    serving.gunicorn,
    serving.limits,
    system.files,
    system.network,
    system.memory,
    system.temporary,
    system.clock,
    on_sqlite.file,
    on_redis.redis,
    running.running,
    online.online,
)

TOO_LONG = Kind(
    "look-too-long",
    "error",
    "to look at {name} took over {seconds} s",
    "Something there does not answer, and holds up the app as well.",
    "flask wschat doctor --verbose   # what was looked at before",
)
FAILED = Kind(
    "look-failed",
    "warning",
    "to look at {name} failed: {why}",
    "It could not be looked at; that is a fault of Flask-WSChat, unless the words say"
    " otherwise.",
    "flask wschat doctor --json   # send it to the project, please",
)


def examine(setup: Setup, looks: Sequence[Look] = LOOKS) -> list[Finding]:
    """Return all that is wrong with ``setup``, the worst first."""
    found: list[Finding] = []
    for look in looks:
        found += _within(SECONDS, look, setup)
    if setup.is_early:
        found = [_early(each) for each in found if each.early is not None]
    return sorted(dict.fromkeys(found), key=lambda f: SEVERITIES.index(f.severity))


def name_of(look: Look) -> str:
    """Return what a look is called."""
    return f"{look.__module__.rpartition('.')[2]}.{look.__name__}"


def _early(finding: Finding) -> Finding:
    assert finding.early is not None
    said = (finding.name, finding.what, finding.means, finding.remedy)
    return Finding(finding.early, *said, finding.early)


def _within(seconds: float, look: Look, setup: Setup) -> list[Finding]:
    """Look in a thread of the system's, as what hangs can be left alone there."""
    found: list[Finding] = []
    done = allocate_lock()
    done.acquire()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            found.extend(look(setup))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__}: {error} ({place.name})"
            found.append(FAILED(name=name_of(look), why=why))
        finally:
            done.release()

    start_new_thread(context.run, (work,))
    if not done.acquire(True, seconds):
        return [*found, TOO_LONG(name=name_of(look), seconds=f"{seconds:g}")]
    return found


def read_gunicorn(arguments: Sequence[str]) -> dict[str, Any] | Finding:
    """Return gunicorn's settings, or what is wrong with them."""
    found = _asked("gunicorn", *arguments)
    if found is None:
        return serving.UNREADABLE(why="to read them took too long")
    if found.get("missing"):
        return serving.MISSING()
    if "error" in found:
        return serving.UNREADABLE(why=found["error"])
    return found


def import_apart(target: str, *, patched: bool) -> dict[str, Any] | Finding:
    """Return what a fresh process saw when it imported the app, or what went wrong."""
    found = _asked("app", target, "patched" if patched else "plain")
    if found is None:
        return program.SLOW(seconds=f"{IMPORT_SECONDS:g}")
    if "error" not in found:
        return found
    name = target.partition(":")[0]
    if found["error"].get("missing") == name:
        return program.NO_APP(why=f"no module {name} can be imported from here")
    return program.broken(found["error"], target)


def _asked(*arguments: str) -> dict[str, Any] | None:
    """Return what ``probe.py`` says; None: nothing in time."""
    probe = str(Path(__file__).with_name("probe.py"))
    # A file, as what the program leaves running would hold a pipe open.
    with tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(  # nosec B603  # no shell
                [sys.executable, probe, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=IMPORT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    of_gunicorn = arguments[0] == "gunicorn"
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        text = last[0] if last else f"it ended with code {done.returncode}"
        return {"error": text if of_gunicorn else {"text": text}}
    if "error" in found and of_gunicorn and last:
        found["error"] = last[0]
    return found
