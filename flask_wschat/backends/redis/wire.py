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
import re
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

Arg = bytes | str | int | float
Reply = Any
"""bytes, int, None, a list of replies, or a ReplyError."""

READ_SIZE = 64 * 1024


class ReplyError(Exception):
    """Redis refused a command, in these words; nothing of it was done."""


class LinkError(Exception):
    """The connection failed.

    ``sent``: commands may have reached Redis. ``silent``: it did not answer in time.
    ``alone``: it did, but for its replicas.
    """

    def __init__(
        self, why: str, *, sent: bool, silent: bool = False, alone: bool = False
    ) -> None:
        super().__init__(why)
        self.sent = sent
        self.silent = silent
        self.alone = alone


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
    """A command, packed."""

    __slots__ = ("key", "packed")

    scripted = False
    """Whether Redis may not know the script that it calls."""

    def __init__(self, name: str, args: Sequence[Arg], key: Arg | None = None) -> None:
        self.packed = pack(name, *args)
        self.key = args[0] if key is None and args else key
        """The first one, which says where in a cluster it is done; None: anywhere."""

    def whole(self) -> bytes:
        """Return it packed for a Redis that has not seen the script yet."""
        return self.packed


class Script:
    """A Lua script of this package; ``publish``: the command for its publications.

    ``limits`` are put in the place of its LIMITS.
    """

    def __init__(
        self, name: str, publish: str = "PUBLISH", limits: Sequence[int] = ()
    ) -> None:
        source = (Path(__file__).parent / f"{name}.lua").read_bytes()
        source = source.replace(b"'PUBLISH'", b"'%b'" % publish.encode())
        numbers = ", ".join(map(str, limits))
        self.source = source.replace(b"= LIMITS", b"= %b" % numbers.encode())
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()
        self.evalsha = pack_args("EVALSHA", self.sha)
        """How its call begins."""

    def call(self, keys: Sequence[bytes], args: Sequence[Arg]) -> Call:
        """Return the call with these ``KEYS`` and ``ARGV``."""
        return _Run(self, keys, args)


class _Run(Call):
    """A call of a script."""

    __slots__ = ("_script",)

    scripted = True

    def __init__(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Arg]
    ) -> None:
        count = 3 + len(keys) + len(args)
        given = pack_args(len(keys), *keys, *args)
        self.packed = b"*%d\r\n%b%b" % (count, script.evalsha, given)
        self.key = keys[0]
        self._script = script

    def whole(self) -> bytes:
        source = pack_args("EVAL", self._script.source)
        return self.packed.replace(self._script.evalsha, source, 1)


def encode(text: str) -> bytes:
    """Return a name's bytes; a lone surrogate, which JSON can bring, has some too."""
    return text.encode("utf-8", "surrogatepass")


def decode(name: bytes) -> str:
    """Return the name whose ``encode`` is ``name``."""
    return name.decode("utf-8", "surrogatepass")


def pack(*args: Arg) -> bytes:
    """Return a command as Redis reads it."""
    return b"*%d\r\n%b" % (len(args), pack_args(*args))


def pack_args(*args: Arg) -> bytes:
    """Return a part of a command."""
    parts: list[Arg] = []
    for arg in args:
        if not isinstance(arg, bytes):
            arg = encode(arg) if isinstance(arg, str) else b"%a" % arg
        parts += (len(arg), arg)
    return b"$%d\r\n%b\r\n" * len(args) % tuple(parts)


class Replies:
    """Bytes in, replies out (RESP2).

    What came is looked at once: an array of which a part is missing stays open.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._missing = 0  # bytes until the value that has begun can be read
        self._open: list[tuple[list[Reply] | None, int]] = []  # around the innermost
        self._items: list[Reply] | None = None  # the innermost array, and
        self._left = 0  # how many are still to come in it

    def feed(self, data: bytes) -> list[Reply]:
        """Return the replies that ``data`` completes.

        :raises ConnectionError: it is not Redis that sends this.
        """
        if self._rest:
            self._rest.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []  # a long one: not worth a look before its end is here
            data = b"".join(self._rest)
            self._rest = []
        replies: list[Reply] = []
        items, left = self._items, self._left
        pos, size = 0, len(data)
        while pos < size:
            end = data.find(b"\r\n", pos)
            if end < 0:
                self._missing = 1
                if size - pos > READ_SIZE:
                    raise ConnectionError("not Redis: its lines do not end")
                break
            kind = data[pos]
            value: Reply = data[pos + 1 : end]
            if kind == 36:  # $
                length = int(value)
                if length < 0:
                    value = None
                    pos = end + 2
                else:
                    stop = end + 2 + length
                    if stop + 2 > size:
                        self._missing = stop + 2 - size
                        break
                    value = data[end + 2 : stop]
                    pos = stop + 2
            else:
                start, pos = pos, end + 2
                if kind == 58:  # :
                    value = int(value)
                elif kind == 42:  # *
                    length = int(value)
                    if length > 0:
                        self._open.append((items, left))
                        items, left = [], length
                        continue
                    value = None if length else []
                elif kind == 45:  # -
                    value = ReplyError(value.decode("utf-8", "replace"))
                elif kind != 43:  # +
                    raise ConnectionError(
                        f"not Redis: it answered {data[start : start + 20]!r}"
                    )
            while items is not None:
                items.append(value)
                left -= 1
                if left:
                    break
                value = items
                items, left = self._open.pop()
            else:
                replies.append(value)
        if pos < size:
            self._rest = [data[pos:] if pos else data]
        self._items, self._left = items, left
        return replies


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
        try:
            replies = self._replies.feed(data)
            # What TLS has decrypted already, no poll would tell of.
            pending = getattr(self.sock, "pending", None)
            while pending is not None and pending():
                replies += self._replies.feed(self.sock.recv(READ_SIZE))
        except ValueError:
            raise ConnectionError("not Redis: a number that is none") from None
        return replies

    def send(self, data: memoryview) -> int:
        """Return how many bytes of ``data`` were taken, of a socket that never waits.

        :raises OSError: the connection ended.
        """
        try:
            return int(self.sock.send(data))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def close(self) -> None:
        self._connection.disconnect()


def as_refusal(error: BaseException, sent: bool) -> LinkError | ReplyError:
    """Return what a failed system call means."""
    if isinstance(error, LinkError | ReplyError):
        return error
    if isinstance(error, TimeoutError):
        return LinkError("does not answer", sent=sent, silent=True)
    return LinkError(f"closed the connection; its log may say why ({error})", sent=sent)


_NAMELESS = {
    "ERR No such master": "NOMASTER",
    "ERR This instance has cluster support disabled": "NOCLUSTER",
}
"""Codes of our own, for what Redis gives none."""


def code_of(reply: Any) -> str | None:
    """Return the word that an error of Redis's begins with, None if it is no error.

    Redis 6.2 puts the error of a command in a script behind words of its own. Where a
    script may not do something, each version has words of its own for that.
    """
    if not isinstance(reply, ReplyError):
        return None
    text = str(reply)
    if "user executing the script can" in text or "ACL failure in script" in text:
        return "NOPERM"
    for words, code in _NAMELESS.items():
        if text.startswith(words):
            return code
    within = re.search(r"script: \d+: -([A-Z]+) ", text)
    return within[1] if within else text.split(" ", 1)[0]
