"""What the system gives a server: files, memory, disks, ports, the time."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .finding import Finding, Kind, Setup

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

FEW_FILES = Kind(
    "files-few",
    "warning",
    "a process may have {soft} open files (ulimit -n)",
    "Each connection is one: over it nobody gets in, and a gthread worker ends with all"
    " that it holds.",
    "ulimit -n 65536   # systemd: LimitNOFILE=65536, Docker: --ulimit nofile=65536",
    early="",
)
HARDLY_ANY_FILES = Kind(
    "files-hardly-any",
    "error",
    "a process may have {soft} open files (ulimit -n)",
    "Each connection is one, and a server needs some dozens itself: soon nobody gets"
    " in.",
    "ulimit -n 65536   # systemd: LimitNOFILE=65536, Docker: --ulimit nofile=65536",
)
FEWER_FILES = Kind(
    "files-fewer-than-connections",
    "error",
    "WSCHAT_MAX_CONNECTIONS is {most}, and a process may have {soft} open files",
    "It runs out of files before it refuses anybody with 503.",
    "ulimit -n {enough}   # systemd: LimitNOFILE={enough}",
)
HARD_FILES = Kind(
    "files-hard-limit",
    "warning",
    "the hard limit of open files is {hard}",
    "No server here can raise its own limit over that.",
    "LimitNOFILE=65536   # systemd; /etc/security/limits.conf: * hard nofile 65536",
    early="",
)
FEW_PROCESSES = Kind(
    "processes-few",
    "warning",
    "a user may have {soft} processes and threads (ulimit -u)",
    "Workers and threads count, all of this user's: then openings get 503.",
    "ulimit -u 4096   # systemd: TasksMax=4096",
)
SHORT_BACKLOG = Kind(
    "somaxconn-low",
    "warning",
    "net.core.somaxconn is {value}",
    "Where all clients come back at once, as after a restart, the system drops those"
    " over it before a server sees them.",
    "sysctl -w net.core.somaxconn=4096",
    early="",
)
FEW_PORTS = Kind(
    "ports-few",
    "warning",
    "there are {count} ports for outgoing connections (ip_local_port_range)",
    "A proxy on this host takes one for each WebSocket that it passes on by TCP.",
    'sysctl -w net.ipv4.ip_local_port_range="10240 65535"   # or a Unix socket',
    early="",
)
LITTLE_MEMORY = Kind(
    "memory-limit",
    "warning",
    "this container may have {limit} MB of memory, and {workers} workers may queue"
    " {queued} MB (WSCHAT_MAX_QUEUED)",
    "Slow clients can fill it, and the system kills workers then.",
    'app.config["WSCHAT_MAX_QUEUED"] = {enough} << 20   # or a larger limit',
)
NO_TEMP = Kind(
    "temp-dir",
    "error",
    "no file can be made in {folder} ({why})",
    "gunicorn's workers and the figures that they share need one.",
    "chmod 1777 {folder}   # or free space there, or set TMPDIR",
)
FULL_TEMP = Kind(
    "temp-dir-full",
    "warning",
    "{folder} has {free} MB free",
    "gunicorn's workers and the figures that they share need some.",
    "df -h {folder}   # free space there, or set TMPDIR",
)
NO_FIGURES = Kind(
    "figures-folder",
    "warning",
    "PROMETHEUS_MULTIPROC_DIR is {folder}, where nothing can be written",
    "Workers cannot put their figures together there: each tells only of itself.",
    "install -d -m 700 -o chat {folder}   # or unset PROMETHEUS_MULTIPROC_DIR",
)
WRONG_CLOCK = Kind(
    "clock-wrong",
    "error",
    "the clock says {now}",
    "This version of Flask-WSChat is younger. Sessions, tickets and certificates count"
    " by the clock.",
    "timedatectl set-ntp true   # or chronyd -q",
)
_ENOUGH_FILES = 4096
_HARDLY_ANY = 512
_OWN_FILES = 64
_BORN = 1_767_225_600  # the first second of 2026
_MB = 1 << 20
_TIME_ERROR = 5
CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc/sys")


def files(setup: Setup) -> Iterator[Finding]:
    """Look at the limits of open files, processes and threads."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    most = setup.settings.MAX_CONNECTIONS
    if soft != infinite and soft < _HARDLY_ANY:
        yield HARDLY_ANY_FILES(soft=soft)
    elif soft != infinite and most and most + _OWN_FILES > soft:
        enough = max(65536, 2 * most)
        yield FEWER_FILES(most=most, soft=soft, enough=enough)
    elif soft != infinite and soft < _ENOUGH_FILES:
        yield FEW_FILES(soft=soft)
    if hard != infinite and hard < _ENOUGH_FILES:
        yield HARD_FILES(hard=hard)
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    threads = int(setup.gunicorn["threads"]) * setup.workers if setup.gunicorn else 0
    if soft != infinite and soft < max(256, threads + 64):
        yield FEW_PROCESSES(soft=soft)


def network(setup: Setup) -> Iterator[Finding]:
    """Look at the kernel's limits of connections."""
    backlog = _numbers(PROC / "net/core/somaxconn")
    if backlog and backlog[0] < 256:
        yield SHORT_BACKLOG(value=backlog[0])
    ports = _numbers(PROC / "net/ipv4/ip_local_port_range")
    if len(ports) == 2 and ports[1] - ports[0] < 10_000:
        yield FEW_PORTS(count=max(ports[1] - ports[0] + 1, 0))


def memory(setup: Setup) -> Iterator[Finding]:
    """Compare the container's memory with what may wait in queues."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _numbers(CGROUP / name)
        queued = setup.workers * setup.settings.MAX_QUEUED
        if limit and limit[0] < queued:
            yield LITTLE_MEMORY(
                limit=limit[0] // _MB,
                workers=setup.workers,
                queued=queued // _MB,
                enough=max(limit[0] // _MB // 4 // setup.workers, 1),
            )
            return


def temporary(setup: Setup) -> Iterator[Finding]:
    """Look whether files can be made where programs put those of a moment."""
    folder = ""
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        folder = folder or os.environ.get("TMPDIR", "/tmp")  # nosec B108  # only named
        yield NO_TEMP(folder=folder, why=error.strerror or error)
        return
    shared = setup.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if shared and not (os.path.isdir(shared) and os.access(shared, os.W_OK)):
        yield NO_FIGURES(folder=shared)
    if free < 64 * _MB:
        yield FULL_TEMP(folder=folder, free=free // _MB)


def clock(setup: Setup) -> Iterator[Finding]:
    """Look whether the clock is far off; others compare it with Redis and the proxy."""
    now = time.time()
    if not _BORN <= now < _BORN + 100 * 365 * 86400:
        said = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
        yield WRONG_CLOCK(now=said)
    if _is_adrift():
        # A host may well keep the time of its guests; so this is no finding.
        setup.unseen.append("whether the clock is right: this kernel is told by nobody")


def _is_adrift() -> bool:
    """Whether the kernel knows of nothing that keeps its clock (adjtimex(2))."""
    try:
        said = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
        return bool(said == _TIME_ERROR)
    except (AttributeError, OSError, TypeError):  # not Linux
        return False


def _numbers(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []
