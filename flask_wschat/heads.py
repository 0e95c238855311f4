"""Request heads as pywsgi asks for them, checked to the letter.

``read_usual`` knows only what nearly every opening handshake looks like, in one look at
its bytes. Whatever it does not know, right or wrong, is for the reader that knows all.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .codec import Head, is_upgrade, read_head
from .codec.handshake import MAX_LINES
from .errors import HandshakeError

_NAME = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]+\Z")  # of a token, all but "_"
_TARGET = re.compile(r"/[\x21-\x24\x26-\x7e]*\Z")  # no "%": nothing to decode
_LEGAL = bytes({9, *range(0x20, 0x7F), *range(0x80, 0x100)})
_UNUSUAL = {
    "HTTP_CONTENT_LENGTH",
    "HTTP_CONTENT_TYPE",
    "HTTP_EXPECT",
    "HTTP_TRANSFER_ENCODING",
}


class Opening(NamedTuple):
    """An opening handshake: its target, its fields by WSGI names, what came behind."""

    target: str
    fields: dict[str, str]
    behind: bytes


def read_usual(data: bytes) -> Opening | None:
    """Return the opening handshake that ``data`` begins with.

    None: it is not complete, not one, malformed, or one in which anything is unusual:
    ``read_head`` and pywsgi decide. So this does not need to know what is wrong.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or not data.startswith(b"GET /"):
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    # Without what may stand in a line, only the lines' ends are left.
    if data[:end].translate(None, _LEGAL) != b"\r\n" * len(lines):
        return None
    target = first[4:-9]
    if not first.endswith(" HTTP/1.1") or not _TARGET.match(target):
        return None
    fields = {}
    for line in lines:
        name, colon, value = line.partition(":")
        key = _wsgi_name(name)
        if not colon or key is None:
            return None
        fields[key] = value.strip()
    if (
        len(fields) < len(lines)  # one of them twice
        or len(lines) > MAX_LINES
        or "HTTP_HOST" not in fields
        or not _UNUSUAL.isdisjoint(fields)
        or not is_upgrade(
            fields.get("HTTP_UPGRADE", ""), fields.get("HTTP_CONNECTION", "")
        )
    ):
        return None
    return Opening(target, fields, data[end + 4 :])


@functools.lru_cache(256)
def _wsgi_name(name: str) -> str | None:
    """Return a field name's key in an environ; None: it is not a usual one."""
    if len(name) > 64 or not _NAME.match(name):
        return None
    return "HTTP_" + name.upper().replace("-", "_")


def checked(data: bytes) -> Head | None:
    """Return the head that ``data`` is, None if it is not complete.

    :raises HandshakeError: it is malformed, or lacks or repeats a field.
    """
    # RFC 9112 §2.2: empty lines before it are no fault.
    found = read_head(data.lstrip(b"\r\n"))
    if found is None:
        return None
    head = found[0]
    for name in ("host", "sec-websocket-key", "sec-websocket-version"):
        if len(head.get_all(name)) > 1:
            raise HandshakeError(400, f"more than one {name} header")
    if head.start[2] == "HTTP/1.1" and not head.get_all("host"):
        raise HandshakeError(400, "no Host header (RFC 9112 §3.2)")
    return head


class Fields:
    """A head's fields as pywsgi asks for them, without the e-mail parser's cost."""

    status = ""

    def __init__(self, head: Head) -> None:
        self._pairs = head.headers

    @property
    def headers(self) -> Iterator[str]:
        return (f"{name}: {value}" for name, value in self._pairs)

    @property
    def typeheader(self) -> str | None:
        return self.get("content-type")

    def get(self, name: str, default: str | None = None) -> str | None:
        name = name.lower()
        return next((value for key, value in self._pairs if key == name), default)

    getheader = get

    def items(self) -> list[tuple[str, str]]:
        return self._pairs

    def __delitem__(self, name: str) -> None:
        self._pairs = [pair for pair in self._pairs if pair[0] != name]


def reader(sock: Any, first: bytes) -> io.BufferedReader:
    """Return what reads from a socket, beginning with what was read from it already."""
    if not first:
        made: io.BufferedReader = sock.makefile("rb", -1)
        return made
    return io.BufferedReader(_Resumed(sock.makefile("rb", 0), first))


class _Resumed(io.RawIOBase):
    """A raw stream put behind bytes that were read from it before."""

    def __init__(self, raw: io.RawIOBase, first: bytes) -> None:
        self._raw = raw
        self._sock = raw._sock  # type: ignore[attr-defined]  # as `SocketIO` has it
        self._first = first

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not self._first:
            return self._raw.readinto(buffer)
        size = min(len(self._first), len(buffer))
        buffer[:size] = self._first[:size]
        self._first = self._first[size:]
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()
