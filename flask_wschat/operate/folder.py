"""``Folder``: where the workers of one server on one machine find each other's files.

It has to be found without configuration, and only by them: its name says which master
they have. In a folder that everybody may write to, as the temporary one, it is this
user's alone, and held open, so that nobody can put another in its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import stat
import tempfile
from collections.abc import Iterator

GIVEN = "PROMETHEUS_MULTIPROC_DIR"
"""Where the environment says where: all processes with the same are one server."""
_OURS = re.compile(r"wschat-(\d+)-(\d+)-(\w+)")  # of a user's master; born when


class Folder:
    """A folder of this user alone, and what is done to its files.

    :raises OSError: it cannot be had, or others may write to it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            found = os.fstat(self._fd)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise PermissionError(f"{path} is not this user's alone")
            # systemd-tmpfiles, which after ten days deletes what it finds, passes by.
            fcntl.flock(self._fd, fcntl.LOCK_SH)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    def names(self) -> list[str]:
        return os.listdir(self._fd)

    def open(self, name: str, flags: int) -> int:
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self._fd)

    def read(self, name: str) -> bytes:
        """Return what is in a file; none if there is no such one."""
        try:
            fd = self.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return b""
        with os.fdopen(fd, "rb") as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Let a file have ``data``, all of it or, whatever happens, none."""
        new = f"{name}.new"
        with os.fdopen(
            self.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), "wb"
        ) as file:
            file.write(data)
        os.rename(new, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def has(self, name: str, fd: int) -> bool:
        """Whether ``name`` is the file that ``fd`` has open."""
        try:
            found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(fd))

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Be the only one, of threads and processes, who changes what others left.

        False: another one does; whoever waited for it could wait for one that hangs.
        """
        fd = self.open("lock", os.O_CREAT | os.O_RDWR)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield self.has("lock", fd)
        finally:
            os.close(fd)


def is_dead(fd: int) -> bool:
    """Whether nobody has locked an open file for himself, as its owner does.

    A record lock: the kernel frees it when its process ends, however that is, and no
    child inherits it. The process itself must not ask: to close any descriptor of the
    file would free it as well.
    """
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as many as like to, at once
    except OSError:
        return False
    return True


# ---- whose it is ---------------------------------------------------------------------


def shared_by_server() -> str | None:
    """Return the path of this process's server's folder; None: it has no others."""
    given = os.environ.get(GIVEN)
    if given:
        return os.path.join(given, "wschat")
    if not is_gunicorns():
        return None
    return os.path.join(tempfile.gettempdir(), _name(os.getppid()))


def is_gunicorns() -> bool:
    """Whether this process is gunicorn's worker, or has just become one by a fork."""
    # Whose methods handle signals: the worker's, or still those of its master. A child
    # of a worker has these as well, and is none.
    held = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    master = getattr(held, "ppid", getattr(held, "pid", None))
    return hasattr(held, "cfg") and master == os.getppid()


@contextlib.contextmanager
def as_its_user() -> Iterator[None]:
    """Be the user, in a worker that was just forked, whom gunicorn soon makes of it."""
    held = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    now = os.geteuid()
    soon = getattr(getattr(held, "cfg", None), "uid", now)
    if soon == now:
        yield
        return
    os.seteuid(soon)
    try:
        yield
    finally:
        os.seteuid(now)


def _name(pid: int) -> str:
    """Return a name for the process ``pid`` that no other one will have.

    Numbers are used again: by later processes, after a restart of the machine, and by
    containers that share a folder. Without /proc it is the number alone.
    """
    told = []
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            told.append(file.read().rpartition(b")")[2].split()[19])  # its start
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            told.append(file.read())
        told.append(b"%d" % os.stat("/proc/self/ns/pid").st_ino)
    born = hashlib.sha256(b" ".join(told)).hexdigest()[:16]
    return f"wschat-{os.geteuid()}-{pid}-{born}"


def sweep(beside: str) -> None:
    """Remove the folders that masters of this user have left beside that one."""
    parent = os.path.dirname(beside)
    for name in os.listdir(parent):
        found = _OURS.fullmatch(name)
        if found is None or int(found[1]) != os.geteuid():
            continue
        if name != _name(int(found[2])):  # else that master runs
            with contextlib.suppress(OSError):
                _remove(os.path.join(parent, name))


def _remove(path: str) -> None:
    """Remove a folder and its files, unless one of them is somebody's who lives."""
    folder = Folder(path)
    try:
        with folder.locked() as alone:
            if not alone:
                return
            names = folder.names()
            for name in names:
                fd = folder.open(name, os.O_RDONLY)
                try:
                    if not is_dead(fd):
                        return
                finally:
                    os.close(fd)
            for name in names:
                folder.remove(name)
            os.rmdir(path)
    finally:
        folder.close()
