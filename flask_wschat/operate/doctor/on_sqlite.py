"""An SQLite file that processes share."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from ...backends.sqlite import system
from .finding import Finding, Kind, Setup

NO_FOLDER = Kind(
    "sqlite-folder-missing",
    "error",
    "the folder of {path} does not exist",
    "Nothing can be stored: openings get 503.",
    "{remedy}",
)
NOT_WRITABLE = Kind(
    "sqlite-not-writable",
    "error",
    "this user may not write {path}",
    "Nothing can be stored: openings get 503. SQLite makes files beside it as well.",
    "chown {user} {folder} {path}*   # as root; the server's user, who runs this, too",
)
NO_FILE = Kind(
    "sqlite-no-file",
    "error",
    "{path} is no SQLite database",
    "Nothing can be stored: openings get 503.",
    "FLASK_WSCHAT_URL=sqlite:////var/lib/chat/chat.db   # a file of its own",
)
NETWORK = Kind(
    "sqlite-network-disk",
    "error",
    "{path} is on a network disk ({disk})",
    "Its processes would not see each other's writes: the file is refused.",
    "FLASK_WSCHAT_URL=sqlite:////var/lib/chat/chat.db   # a local disk; or redis://…",
)
TEMPORARY = Kind(
    "sqlite-temporary",
    "warning",
    "{path} is in a folder for what may go at any time",
    "History, votes and inboxes are lost with the next start of the machine, or"
    " earlier.",
    "FLASK_WSCHAT_URL=sqlite:////var/lib/chat/chat.db",
    early="note",
)
NO_WAL = Kind(
    "sqlite-no-wal",
    "warning",
    "{path} has no write-ahead log ({mode})",
    "Readers and writers wait for each other. Servers change that when they open it,"
    " unless another program holds it open.",
    "sqlite3 {path} 'PRAGMA journal_mode = WAL'",
)
READABLE = Kind(
    "sqlite-readable",
    "warning",
    "every user of this host may read {path}",
    "All that is said is in it.",
    "chmod o= {path}*",
)
LARGE_LOG = Kind(
    "sqlite-log-large",
    "warning",
    "{path}-wal has {size} MB",
    "A program reads an old state of the file{who}: the log grows with all that is"
    " written, until the disk is full.",
    "fuser {path}   # and end the shell, backup or transaction that has it open",
)
FULL_DISK = Kind(
    "sqlite-disk-full",
    "error",
    "the disk of {path} has {free} MB free",
    "Writes are refused soon, or are already: with a large log from 256 MB on.",
    "df -h {folder}   # free space there",
)
LOW_DISK = Kind(
    "sqlite-disk-low",
    "warning",
    "the disk of {path} has {free} MB free",
    "With a large log beside the file, writes are refused from 256 MB on.",
    "df -h {folder}   # free space there",
)
_MB = 1 << 20
_HEAD = b"SQLite format 3\0"


def file(setup: Setup) -> Iterator[Finding]:
    """Look at the file, its folder and its disk, and open none of them for writing."""
    if setup.storage != "sqlite" or setup.hub is None:
        return
    given = Path(unquote(str(setup.settings.URL).partition(":///")[2]))
    path = given.absolute()
    folder = path.parent
    said = {"path": path, "folder": folder}
    if not folder.is_dir():
        remedy = f"install -d -m 700 -o {_user()} {folder}   # as root"
        if not given.is_absolute() and Path("/", given.parts[0]).is_dir():
            remedy = (
                f"FLASK_WSCHAT_URL=sqlite:////{given}   # four slashes: from the root"
            )
        yield NO_FOLDER(remedy=remedy, **said)
        return
    if disk := system.network_disk(folder):
        yield NETWORK(disk=disk, **said)
    if _is_temporary(path):
        yield TEMPORARY(**said)
    if not os.access(folder, os.W_OK | os.X_OK) or (
        path.exists() and not os.access(path, os.R_OK | os.W_OK)
    ):
        yield NOT_WRITABLE(user=_user(), **said)
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free // _MB
        if free < 256:
            yield FULL_DISK(free=free, **said)
        elif free < 1024:
            yield LOW_DISK(free=free, **said)
    if path.exists():
        yield from _existing(path, said)


def _existing(path: Path, said: dict[str, Path]) -> Iterator[Finding]:
    try:
        with path.open("rb") as opened:
            head = opened.read(20)
        mode = path.stat().st_mode
    except OSError:
        return  # not writable either
    if head and not head.startswith(_HEAD):
        yield NO_FILE(**said)
        return
    if len(head) == 20 and head[18:20] != b"\2\2":  # §1.3 of SQLite's file format
        yield NO_WAL(mode="journal_mode is not wal", **said)
    if mode & stat.S_IROTH and path.parent.stat().st_mode & stat.S_IXOTH:
        yield READABLE(**said)
    with contextlib.suppress(OSError):
        size = os.stat(f"{path}-wal").st_size // _MB
        if size > 64:
            who = ", ".join(system.readers(path))
            yield LARGE_LOG(size=size, who=who and f" in process {who}", **said)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # a number without a name
        return "chat"


def _is_temporary(path: Path) -> bool:
    folders = {tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm", "/run"}  # nosec B108
    real = str(path.resolve())
    return any(real.startswith(os.path.realpath(f) + os.sep) for f in folders)
