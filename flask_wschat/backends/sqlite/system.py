"""What the system knows: how long the host runs; of a file the kind of its disk, and
who reads it.

Of files only Linux says so. Elsewhere nothing is known and nobody named.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
LOCKS = Path("/proc/locks")
BOOT = Path("/proc/sys/kernel/random/boot_id")

# It goes on while the host is asleep, for all processes the same, and nobody sets it.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone"),
}
# SQLite's own: of the file beside the database, byte 123 and the four that follow are
# held by who reads an old state of it.
_READING = range(123, 128)


def uptime() -> float:
    """Return for how many seconds the host runs."""
    return time.clock_gettime(_CLOCK)


@functools.cache
def boot() -> str:
    """Return a word that is another one each time the host starts; "": none is known.

    Then who compares ``uptime`` with an earlier one has to go by that alone.
    """
    try:
        return BOOT.read_text().strip()
    except (OSError, ValueError):
        return ""


def network_disk(path: Path) -> str | None:
    """Return the kind of network disk that ``path`` is on; None: of no known one."""
    try:
        device = os.stat(path).st_dev
        lines = MOUNTS.read_text().splitlines()
    except (OSError, ValueError):
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        mount, _, of = line.partition(" - ")
        if mount.split()[2:3] == [number]:
            kind = of.split(" ", 1)[0]
            return kind if kind in _NETWORK else None
    return None


def readers(path: Path) -> list[str]:
    """Return which processes read an old state of the database at ``path``."""
    try:
        found = os.stat(f"{path}-shm")
        lines = LOCKS.read_text().splitlines()
    except (OSError, ValueError):
        return []
    device = found.st_dev
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{found.st_ino}"
    pids = set()
    for line in lines:
        # 1: POSIX  ADVISORY  READ 4711 fe:00:5335303 123 123
        fields = line.split()
        if fields[1:2] == ["POSIX"] and fields[5:6] == [place]:
            first, last = fields[6], fields[7]
            if first.isdecimal() and last.isdecimal() and fields[3] == "READ":
                held = range(int(first), int(last) + 1)
                if any(byte in _READING for byte in held):
                    pids.add(int(fields[4]))
    return [_described(pid) for pid in sorted(pids)]


def _described(pid: int) -> str:
    if pid == os.getpid():
        return f"this one, {pid}"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return str(pid)
    line = b" ".join(words).decode(errors="replace").strip()
    line = "".join(c if c.isprintable() else "?" for c in line)
    return f"{pid} ({line[:80]})" if line else str(pid)
