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

from ..codec import Head, is_upgrade, tokens
from ..codec.handshake import END, MAX_FIELD, MAX_HEAD, MAX_LINES, parse_head
from ..errors import HandshakeError

MAX_LINE = 8190
"""Bytes of a request's first line, without its end, as gunicorn has at most."""
MAX_EMPTY = 4
"""Empty lines that may come before a request."""
MAX_DIGITS = 18
"""Of a ``Content-Length``: what is longer has no place in 64 bits."""

_NAME = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]+\Z")  # of a token, all but "_"
_USUAL = re.compile(r"/[\x21\x22\x24\x26-\x7e]*\Z")  # no "%": nothing to decode
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{2,19}\Z")  # as all registered ones are
_VERSION = re.compile(r"HTTP/[0-9]\.[0-9]\Z")
# Not all of these may stand in a URI, but browsers send them. "#" ends one.
_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*\Z")
_PLAIN = r"[0-9A-Za-z\-._~!$&'()*+,;=]*"
_AUTHORITY = (
    rf"(?:{_PLAIN}(?:%[0-9A-Fa-f]{{2}}{_PLAIN})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{0,5}})?"
)
_HOST = re.compile(rf"{_AUTHORITY}\Z")
_ABSOLUTE = re.compile(
    rf"(?i:https?)://(?![:/?]|\Z)({_AUTHORITY})((?:[/?][\x21\x22\x24-\x7e]*)?)\Z"
)
_LENGTH = re.compile(r"[0-9]+\Z")
_SINGLE = (
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "sec-websocket-key",
    "sec-websocket-version",
)
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
    end = data.find(END)
    if not 0 <= end <= MAX_LINE or not data.startswith(b"GET /"):
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    # Without what may stand in a line, only the lines' ends are left.
    if data[:end].translate(None, _LEGAL) != b"\r\n" * len(lines):
        return None
    target = first[4:-9]
    if not first.endswith(" HTTP/1.1") or not _USUAL.match(target):
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
        or not _is_host(fields.get("HTTP_HOST", "\0"))
        or not _UNUSUAL.isdisjoint(fields)
        or not is_upgrade(
            fields.get("HTTP_UPGRADE", ""), fields.get("HTTP_CONNECTION", "")
        )
        # Refused, such a connection ends with the answer (RFC 9112 §9.6).
        or "close" in fields["HTTP_CONNECTION"].lower()
    ):
        return None
    return Opening(target, fields, data[end + 4 :])


@functools.lru_cache(64)
def _is_host(text: str) -> bool:
    return _HOST.match(text) is not None


@functools.lru_cache(256)
def _wsgi_name(name: str) -> str | None:
    """Return a field name's key in an environ; None: it is not a usual one."""
    if len(name) > 64 or not _NAME.match(name):
        return None
    return "HTTP_" + name.upper().replace("-", "_")


class Gathering:
    """A request's head, gathered from pieces of any size.

    Each byte is looked at once, however they come: what is known of the bytes so far is
    kept, and not found out again.

    ``begun``: there was more than empty lines. ``head``: it is complete, and this is
    it, to the letter of RFC 9112.
    """

    head: Head | None = None

    def __init__(self) -> None:
        self._data = bytearray()
        self._empty = 0
        self._has_line = False  # the first one is complete

    @property
    def asks(self) -> bool:
        """Whether it asks for a WebSocket, as far as can be seen."""
        head = self._data.lower()
        return b"\nupgrade:" in head and b"websocket" in head

    @property
    def begun(self) -> bool:
        return bool(self._data.strip(b"\r"))

    def add(self, piece: bytes) -> int:
        """Add the next bytes; return how many of them are the head's.

        :raises HandshakeError: what is here cannot become a head.
        """
        data = self._data
        data += piece
        while not self._has_line and data[:2] == b"\r\n":
            # RFC 9112 §2.2: one or so before a request is no fault.
            self._empty += 1
            if self._empty > MAX_EMPTY:
                raise HandshakeError(400, "too many empty lines before the request")
            del data[:2]
        new = max(0, len(data) - len(piece))
        found = data.find(END, max(0, new - len(END) + 1))
        end = len(data) if found < 0 else found + len(END)
        start = new - data.endswith(b"\r", 0, new)  # whose line feed may come now
        if data.count(b"\n", start, end) != data.count(b"\r\n", start, end):
            raise HandshakeError(400, "lines must end with CR LF (RFC 9112 §2.2)")
        if not self._has_line and end > MAX_LINE:
            if data.find(b"\r\n", 0, MAX_LINE + 2) < 0:
                raise HandshakeError(414, f"the first line is over {MAX_LINE} bytes")
            self._has_line = True
        if end > MAX_HEAD:
            raise HandshakeError(431, f"the head is over {MAX_HEAD} bytes")
        if found >= 0:
            self.head = checked(parse_head(bytes(data[:found])))
        return len(piece) - (len(data) - end)


def checked(head: Head) -> Head:
    """Return ``head`` as what it asks for: the target a path, the host the target's.

    So it reads to the letter of RFC 9112 §§3 and 6: where somebody before us may have
    read the same bytes in another way, the request is refused.

    :raises HandshakeError: with the HTTP status that answers the fault.
    """
    method, target, version = head.start
    if not _METHOD.match(method):
        raise HandshakeError(400, "the method is malformed (RFC 9112 §3.1)")
    if not _VERSION.match(version):
        raise HandshakeError(400, "the HTTP version is malformed (RFC 9112 §2.3)")
    if version[5] != "1":
        raise HandshakeError(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if version != "HTTP/1.0":
        version = "HTTP/1.1"  # RFC 9110 §2.5: a later one of its kind is as this
    sizes: dict[str, int] = {}
    for name, value in head.headers:
        sizes[name] = sizes.get(name, 0) + len(value)
    if any(size > MAX_FIELD for size in sizes.values()):
        raise HandshakeError(431, f"a header is over {MAX_FIELD} bytes")
    for name in _SINGLE:
        if len(head.get_all(name)) > 1:
            raise HandshakeError(400, f"more than one {name} header")
    hosts = head.get_all("host")
    if not hosts and version == "HTTP/1.1":
        raise HandshakeError(400, "no Host header (RFC 9112 §3.2)")
    if not all(map(_HOST.match, hosts)):
        raise HandshakeError(400, "the Host header is malformed (RFC 9110 §7.2)")
    _check_body(head, version)
    if method == "CONNECT":
        raise HandshakeError(501, "this server is no proxy")
    if _TARGET.match(target) or (target == "*" and method == "OPTIONS"):
        return Head((method, target, version), head.headers)
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise HandshakeError(400, "the request target is malformed (RFC 9112 §3.2)")
    # RFC 9112 §3.2.2: its host replaces the header's.
    others = [pair for pair in head.headers if pair[0] != "host"]
    path = absolute[2] if absolute[2].startswith("/") else f"/{absolute[2]}"
    return Head((method, path, version), [("host", absolute[1]), *others])


def _check_body(head: Head, version: str) -> None:
    """Refuse a body whose end can be seen in more than one way (RFC 9112 §6)."""
    lengths, codings = head.get_all("content-length"), head.get_all("transfer-encoding")
    if codings:
        if version == "HTTP/1.0" or lengths:
            raise HandshakeError(
                400, "Transfer-Encoding is for HTTP/1.1 without Content-Length"
            )
        if any(name.lower() != "chunked" for name in tokens(codings)):
            raise HandshakeError(501, "the only transfer coding known is chunked")
        if [name.lower() for name in codings] != ["chunked"]:
            raise HandshakeError(400, "Transfer-Encoding is malformed")
    if lengths:
        if not _LENGTH.match(lengths[0]):
            raise HandshakeError(400, "Content-Length is malformed (RFC 9112 §6.2)")
        if len(lengths[0].lstrip("0")) > MAX_DIGITS:
            raise HandshakeError(413, "nothing is as long as this Content-Length")
    for expected in head.get_all("expect"):
        if expected.lower() != "100-continue":
            raise HandshakeError(417, "only 100-continue can be expected")


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
    # Room for all of it: what is not in the buffer, nobody would know of.
    size = max(len(first), io.DEFAULT_BUFFER_SIZE)
    return io.BufferedReader(_Resumed(sock.makefile("rb", 0), first), size)


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
