"""The Redis protocol over one connection that all callers share; knows no redis-py.

What redis-py is needed for, opening a connection (TLS, passwords, ACL), is a callable
given at construction. Its commands are not used: callers that come at the same time
share the system calls here, a whole publish takes less than redis-py's ``evalsha``
alone, and what comes is parsed in less (``python -m benchmarks.backends --only
broadcasts`` shows what is left of that). And redis-py's buffer grows for as long as it
is never quite empty.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

Arg = bytes | str | int | float
Reply = Any
"""bytes, int, None, a list of replies, or a ReplyError."""

READ_SIZE = 64 * 1024
_BATCH_JOBS = 128
_BATCH_BYTES = 1 << 20


class ReplyError(Exception):
    """Redis refused a command, in these words; nothing of it was done."""


class LinkError(Exception):
    """The connection failed.

    ``sent``: commands may have reached Redis. ``silent``: it did not answer in time.
    """

    def __init__(self, why: str, *, sent: bool, silent: bool = False) -> None:
        super().__init__(why)
        self.sent = sent
        self.silent = silent


class Connection(Protocol):
    """What is used of redis-py's connections."""

    _sock: Any

    def connect(self) -> Any: ...
    def disconnect(self) -> Any: ...


Connect = Callable[[], Connection]
"""Open a connection, ready for commands.

:raises LinkError: it cannot be had.
:raises ReplyError: Redis is there, and refuses us.
"""


class Call:
    """A command, packed; a script's has a longer form as well."""

    def __init__(
        self,
        name: str,
        args: Sequence[Arg],
        whole: Callable[[], bytes] | None = None,
        key: Arg | None = None,
    ) -> None:
        self.packed = pack(name, *args)
        self.key = args[0] if key is None and args else key
        """The first one, which says where in a cluster it is done; None: anywhere."""
        self.whole = whole
        """Pack it for a Redis that has not seen the script yet."""


class Script:
    """A Lua script of this package; ``publish``: the command for its publications."""

    def __init__(self, name: str, publish: str = "PUBLISH") -> None:
        source = (Path(__file__).parent / f"{name}.lua").read_bytes()
        self._source = source.replace(b"'PUBLISH'", b"'%b'" % publish.encode())
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[bytes], args: Sequence[Arg]) -> Call:
        """Return the call with these ``KEYS`` and ``ARGV``."""
        given = (len(keys), *keys, *args)
        return Call(
            "EVALSHA",
            (self._sha, *given),
            lambda: pack("EVAL", self._source, *given),
            keys[0],
        )


def encode(text: str) -> bytes:
    """Return a name's bytes; a lone surrogate, which JSON can bring, has some too."""
    return text.encode("utf-8", "surrogatepass")


def decode(name: bytes) -> str:
    """Return the name whose ``encode`` is ``name``."""
    return name.decode("utf-8", "surrogatepass")


def pack(*args: Arg) -> bytes:
    """Return a command as Redis reads it."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        if not isinstance(arg, bytes):
            arg = encode(arg) if isinstance(arg, str) else b"%a" % arg
        parts.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
    return b"".join(parts)


class _Incomplete(Exception):
    def __init__(self, needed: int) -> None:
        self.needed = needed


class Replies:
    """Bytes in, replies out (RESP2)."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._needed = 1

    def feed(self, data: bytes) -> list[Reply]:
        """Return the replies that ``data`` completes."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return []  # a long one: not worth a look before its end is here
        data = b"".join(self._chunks)
        replies, pos = [], 0
        self._needed = 1
        try:
            while pos < len(data):
                reply, pos = _parse(data, pos)
                replies.append(reply)
        except _Incomplete as incomplete:
            self._needed = incomplete.needed - pos
        self._chunks = [data[pos:]]
        self._size = len(data) - pos
        return replies


def _parse(data: bytes, pos: int) -> tuple[Reply, int]:
    end = data.find(b"\r\n", pos)
    if end < 0:
        raise _Incomplete(len(data) + 1)
    kind, value = data[pos], data[pos + 1 : end]
    pos = end + 2
    if kind == 36:  # $
        size = int(value)
        if size < 0:
            return None, pos
        end = pos + size
        if len(data) < end + 2:
            raise _Incomplete(end + 2)
        return data[pos:end], end + 2
    if kind == 58:  # :
        return int(value), pos
    if kind == 42:  # *
        items: list[Reply] = []
        for _ in range(int(value)):
            item, pos = _parse(data, pos)
            items.append(item)
        return (items if value != b"-1" else None), pos
    if kind == 43:  # +
        return value, pos
    if kind == 45:  # -
        return ReplyError(value.decode("utf-8", "replace")), pos
    raise ConnectionError(f"not Redis: it answered {data[pos - 20 : pos]!r}")


class Wire:
    """One open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.sock = connection._sock
        self._replies = Replies()

    def receive(self) -> list[Reply]:
        """Return what came, at least a part of a reply.

        :raises OSError: the connection ended, or nothing came in time.
        """
        data = self.sock.recv(READ_SIZE)
        if not data:
            raise ConnectionResetError("end of file")
        replies = self._replies.feed(data)
        # What TLS has decrypted already, no poll would tell of.
        pending = getattr(self.sock, "pending", None)
        while pending is not None and pending():
            replies += self._replies.feed(self.sock.recv(READ_SIZE))
        return replies

    def is_quiet(self) -> bool:
        """Whether it is open and holds no bytes that nobody asked for."""
        timeout = self.sock.gettimeout()
        try:
            self.sock.settimeout(0)
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        finally:
            self.sock.settimeout(timeout)
        return False

    def close(self) -> None:
        self._connection.disconnect()


class _Job:
    """A caller's commands, and what became of them."""

    __slots__ = ("count", "error", "leads", "payload", "replies", "turn")

    def __init__(self, payload: bytes, count: int) -> None:
        self.payload = payload
        self.count = count
        self.replies: list[Reply] = []
        self.error: LinkError | ReplyError | None = None
        self.leads = False
        self.turn = threading.Lock()


class Pipe:
    """One connection for the commands of all threads, opened when needed.

    Who comes while another is at it waits; the next one takes the commands of all who
    wait along. One wait for the network then serves many callers. After ``idle``
    seconds without use it is looked at whether the connection is still there.
    """

    def __init__(self, connect: Connect, idle: float) -> None:
        self._connect = connect
        self._idle = idle
        self._lock = threading.Lock()
        self._jobs: list[_Job] = []
        self._led = False
        self._wire: Wire | None = None
        self._used = 0.0
        self._stale = False

    def run(self, payload: bytes, count: int) -> list[Reply]:
        """Send packed commands; return their ``count`` replies.

        :raises LinkError: they did not all come.
        :raises ReplyError: Redis let nobody in.
        """
        job = _Job(payload, count)
        with self._lock:
            self._jobs.append(job)
            if not self._led:
                self._led = job.leads = True
            else:
                job.turn.acquire()
        try:
            if not job.leads:
                job.turn.acquire()  # until it is done, or is to lead
            if job.leads:
                self._lead()
        except BaseException:  # gevent.Timeout, a killed greenlet
            self._abandon(job)
            raise
        if job.error is not None:
            raise job.error
        return job.replies

    def reset(self) -> None:
        """Use a new connection from the next command on."""
        self._stale = True

    def close(self) -> None:
        """Let go of the connection, which nobody uses any more."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _lead(self) -> None:
        with self._lock:
            batch: list[_Job] = []
            size = 0
            while self._jobs and len(batch) < _BATCH_JOBS and size < _BATCH_BYTES:
                batch.append(self._jobs.pop(0))
                size += len(batch[-1].payload)
        try:
            self._exchange(batch)
        finally:
            with self._lock:
                self._hand_on()
            for job in batch:
                if len(job.replies) < job.count and job.error is None:
                    job.error = LinkError("interrupted", sent=True)
                if not job.leads:
                    job.turn.release()

    def _hand_on(self) -> None:
        """Let the first who waits lead; with the lock."""
        self._led = bool(self._jobs)
        if self._jobs:
            self._jobs[0].leads = True
            self._jobs[0].turn.release()

    def _abandon(self, job: _Job) -> None:
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
                if job.leads:
                    self._hand_on()

    def _exchange(self, batch: list[_Job]) -> None:
        sent = False
        try:
            wire = self._open()
            sent = True
            wire.sock.sendall(b"".join([job.payload for job in batch]))
            replies: list[Reply] = []
            for job in batch:
                while len(replies) < job.count:
                    replies += wire.receive()
                job.replies, replies = replies[: job.count], replies[job.count :]
            self._used = time.monotonic()
        except (OSError, LinkError, ReplyError) as error:
            self.close()
            for job in batch:
                if len(job.replies) < job.count:
                    job.error = as_refusal(error, sent)
        except BaseException:
            self.close()  # answers would come that nobody waits for
            raise

    def _open(self) -> Wire:
        wire = self._wire
        if wire is not None:
            idle = time.monotonic() - self._used > self._idle
            if not self._stale and (not idle or wire.is_quiet()):
                return wire
            self.close()
        self._stale = False
        self._wire = Wire(self._connect())
        return self._wire


def as_refusal(error: BaseException, sent: bool) -> LinkError | ReplyError:
    """Return what a failed system call means."""
    if isinstance(error, LinkError | ReplyError):
        return error
    if isinstance(error, TimeoutError):
        return LinkError("does not answer", sent=sent, silent=True)
    return LinkError(f"closed the connection; its log may say why ({error})", sent=sent)
