"""The processes that serve now: whether they are alike, and how they are."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

from ...errors import BackendError
from ..reports import REPORTS, Answer, Reports
from .facts import QUESTION, SHARED, digest
from .finding import Finding, Kind, Setup

VERSIONS = Kind(
    "running-versions",
    "error",
    "processes of different versions share the storage: {versions}",
    "What one stores or sends, the other may not understand.",
    "systemctl restart chat   # on each host; or ?prefix= for those of one version",
)
SETTINGS = Kind(
    "running-settings",
    "error",
    "processes that share the storage have different WSCHAT_{name}: {values}",
    "Which of them counts for a room is chance: who is served by which.",
    "FLASK_WSCHAT_{name}=…   # the same for all; then systemctl restart chat",
)
KEYS = Kind(
    "running-keys",
    "error",
    "processes that share the storage have different SECRET_KEYs: {workers}",
    "What one signs, another one refuses: logins and tickets fail by chance.",
    "FLASK_SECRET_KEY=…   # the same for all; then systemctl restart chat",
)
OTHER = Kind(
    "running-otherwise",
    "warning",
    "the processes that serve have another {what} than this one",
    "They have another environment, or were not restarted: what is said here of the"
    " configuration is not about them.",
    "systemctl restart chat   # or run this with the server's environment",
)
FILES = Kind(
    "running-files",
    "warning",
    "process {worker} has {used} files open, and may have {soft}",
    "Over it nobody gets in, and a gthread worker ends with all that it holds.",
    "LimitNOFILE=65536   # systemd; Docker: --ulimit nofile=65536; else ulimit -n",
)
PURE = Kind(
    "running-without-c",
    "warning",
    "process {worker} runs without the C parts",
    "It handles a fraction of the messages per second.",
    "flask wschat doctor   # in its environment: it says why",
)
FAULT = Kind(
    "running-patched-partly",
    "error",
    "in process {worker}, {fault}",
    "What is left out stops all connections of the process while it waits.",
    "from gevent import monkey; monkey.patch_all()   # the program's first line",
)
DEBUG = Kind(
    "running-debug",
    "error",
    "process {worker} serves with debug mode on, and others share its storage",
    "Errors show the program's inside to visitors, and may let them run code.",
    "unset FLASK_DEBUG   # and no app.debug = True; then systemctl restart chat",
    early="",
)
LAG = Kind(
    "running-blocked",
    "warning",
    "the loop of process {worker} stood still for {seconds} s in the last ten",
    "All its connections waited: a view computes, or waits for something that gevent"
    " has not patched, or the host has no processor for it.",
    "flask wschat top   # and py-spy dump --pid {pid}: where it stands",
)
CLOCK = Kind(
    "clock-running",
    "warning",
    "the clock of process {worker} is {seconds} s {way} ours",
    "Times in histories, tickets and what expires count by different clocks.",
    "timedatectl set-ntp true   # on both hosts",
)
WAIT = 1.0
"""Seconds for answers."""
_SKEW = 5.0
_LAG = 2.0  # less may be a host that is busy for a moment
_FEW = 4096


def running(setup: Setup) -> Iterator[Finding]:
    """Ask all processes that share the Redis how they are."""
    # A file of SQLite is brought along by who opens it: that is no look.
    if setup.app is None or setup.hub is None or setup.storage != "redis":
        return
    reports: Reports = setup.app.extensions[REPORTS]
    nonce = secrets.token_hex()
    try:
        found = reports.ask(QUESTION, WAIT, nonce=nonce)
    except BackendError as error:
        setup.unseen.append(f"the processes that serve: {error}")
        return
    finally:
        setup.hub.backend.stop()
    answers = [a for a in found if isinstance(a.value, dict) and "now" in a.value]
    if not answers:
        setup.unseen.append("the processes that serve: none answers")
        return
    yield from _alike(setup, answers, digest(setup.app, nonce))
    for answer in answers:
        yield from _well(answer)


def _alike(setup: Setup, answers: list[Answer], key: str) -> Iterator[Finding]:
    versions = _various(answers, "version")
    if len(versions) > 1:
        yield VERSIONS(versions=_told(versions))
    keys = _various(answers, "key")
    if len(keys) > 1:
        yield KEYS(workers=" / ".join(workers[0] for workers in keys.values()))
    elif key not in keys:
        yield OTHER(what="SECRET_KEY")
    for name in SHARED:
        values = _various(answers, "settings", name)
        if len(values) > 1:
            yield SETTINGS(name=name, values=_told(values))
        elif str(getattr(setup.settings, name)) not in values:
            yield OTHER(what=f"WSCHAT_{name}")


def _well(answer: Answer) -> Iterator[Finding]:
    value, worker = answer.value, {"worker": answer.worker}
    if len(files := value["files"]) == 2:
        used, soft = files
        if 0 < soft < _FEW or used > 0.9 * soft > 0:
            yield FILES(used=used, soft=soft, **worker)
    if not value["accelerated"]:
        yield PURE(**worker)
    if fault := value["fault"]:
        yield FAULT(fault=str(fault).partition(": make")[0], **worker)
    if value["debug"]:
        yield DEBUG(**worker)
    if float(value["lag"] or 0) > _LAG:
        pid = answer.worker.rpartition(":")[2]
        yield LAG(seconds=f"{value['lag']:.1f}", pid=pid, **worker)
    skew = float(value["now"]) - time.time()  # it answered within a second
    if not -_SKEW - WAIT < skew < _SKEW:
        way = "ahead of" if skew > 0 else "behind"
        yield CLOCK(seconds=f"{abs(skew):.0f}", way=way, **worker)


def _various(answers: list[Answer], *keys: str) -> dict[str, list[str]]:
    """Return the different values of something, each with who has it."""
    found: dict[str, list[str]] = {}
    for answer in answers:
        value = answer.value
        for key in keys:
            value = value[key]
        found.setdefault(str(value), []).append(answer.worker)
    return found


def _told(values: dict[str, list[str]]) -> str:
    return ", ".join(f"{value} in {workers[0]}" for value, workers in values.items())
