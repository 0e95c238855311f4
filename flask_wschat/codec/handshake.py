"""The opening handshake of RFC 6455 §4, for both roles, without I/O.

A server that already parsed HTTP calls ``check_request`` with its headers, names in
lower case; one that has only a socket calls ``read_head`` first. Then ``response(101,
accept_headers(key))`` is the answer, or ``response(error.status, error.headers)``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from ..errors import HandshakeError
from .deflate import OFFER, Deflate, confirm

MAX_HEAD = 64 * 1024
"""Bytes a request or response head may have."""
MAX_FIELD = 8190
"""Bytes of a field's value, all of its lines together, as gunicorn has for one."""
END = b"\r\n\r\n"
"""What a head ends with."""
MAX_LINES = 100
"""Header lines a head may have."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_STATUS = re.compile(r"[1-9][0-9][0-9]\Z")
_USUAL_KEY = re.compile(r"[A-Za-z0-9+/]{22}==\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

HeaderList = list[tuple[str, str]]


def accept_key(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` value for ``key`` (RFC 6455 §4.2.2)."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


@dataclass(frozen=True, slots=True)
class Head:
    """A parsed HTTP/1.x head: its first line's three parts and its headers.

    ``start``: method, target and version, or version, status and phrase. ``headers``
    has names in lower case, in order, repeated ones apart.
    """

    start: tuple[str, str, str]
    headers: HeaderList = field(default_factory=list)

    def get_all(self, name: str) -> list[str]:
        """Return every value of the header ``name`` (in lower case)."""
        return [value for key, value in self.headers if key == name]


def read_head(data: bytes, searched: int = 0) -> tuple[Head, int] | None:
    """Return the head that ``data`` begins with and its size in bytes.

    None: it is not complete yet. In the first ``searched`` bytes its end is known not
    to be, as it was looked for before more came.

    :raises HandshakeError: it is malformed (400) or too large (431).
    """
    end = data.find(END, max(0, searched - len(END) + 1))
    if end > MAX_HEAD or (end < 0 and len(data) > MAX_HEAD):
        raise HandshakeError(431, f"the head is over {MAX_HEAD} bytes")
    if end < 0:
        return None
    return parse_head(data[:end]), end + len(END)


def parse_head(data: bytes) -> Head:
    """Return the head that ``data`` is, given without the empty line at its end.

    :raises HandshakeError: it is malformed (400) or has too many lines (431).
    """
    first, *lines = data.decode("latin-1").split("\r\n")
    if len(lines) > MAX_LINES:
        raise HandshakeError(431, f"the head is over {MAX_LINES} lines")
    start = first.split(" ", 2)
    if len(start) != 3:
        raise HandshakeError(400, "the first line is malformed")
    return Head((start[0], start[1], start[2]), [*map(parse_field, lines)])


def parse_field(line: str) -> tuple[str, str]:
    """Return the name, in lower case, and the value of a header line (RFC 9112 §5).

    :raises HandshakeError: 400, it is malformed, or continues another one.
    """
    name, colon, value = line.partition(":")
    if not colon or not _TOKEN.match(name) or not _VALUE.match(value):
        raise HandshakeError(400, "a header line is malformed")
    return name.lower(), value.strip(" \t")


def tokens(values: Iterable[str]) -> list[str]:
    """Return the comma-separated parts of a header's values, trimmed, none empty."""
    parts = (part.strip(" \t") for value in values for part in value.split(","))
    return [part for part in parts if part]


def is_upgrade(upgrade: str, connection: str) -> bool:
    """Whether these two headers ask for a WebSocket (RFC 6455 §4.2.1, 3 and 4)."""
    if upgrade == "websocket" and connection in ("Upgrade", "keep-alive, Upgrade"):
        return True  # as browsers say it
    if len(upgrade) + len(connection) > 2 * MAX_FIELD:
        return False  # to take a megabyte of commas apart takes half a second
    return "websocket" in map(str.lower, tokens([upgrade])) and "upgrade" in map(
        str.lower, tokens([connection])
    )


def check_request(method: str, version: str, headers: HeaderList) -> str:
    """Return the key of a client's opening handshake (RFC 6455 §4.2.1).

    ``version`` is the HTTP version as on the wire, "HTTP/1.1"; ``headers`` have their
    names in lower case.

    :raises HandshakeError: with the HTTP status that answers the fault.
    """
    given: dict[str, list[str]] = {}
    for name, value in headers:
        given.setdefault(name, []).append(value)
    if method != "GET":
        raise HandshakeError(405, "a WebSocket opens with GET", [("Allow", "GET")])
    if version != "HTTP/1.1":
        raise HandshakeError(400, "a WebSocket needs HTTP/1.1")
    if len(given.get("host", ())) != 1:
        raise HandshakeError(400, "exactly one Host is needed")
    if not is_upgrade(
        ",".join(given.get("upgrade", ())), ",".join(given.get("connection", ()))
    ):
        raise HandshakeError(
            426,
            "this is a WebSocket address: connect with a WebSocket client,"
            " for example new WebSocket(url) in a browser",
            [("Upgrade", "websocket"), ("Connection", "Upgrade")],
        )
    versions = given.get("sec-websocket-version", [])
    if len(versions) != 1 or "," in versions[0]:
        raise HandshakeError(400, "exactly one Sec-WebSocket-Version is needed")
    if versions[0] != "13":
        raise HandshakeError(
            426,
            "only version 13 of the protocol is spoken here",
            [
                ("Sec-WebSocket-Version", "13"),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
            ],
        )
    keys = given.get("sec-websocket-key", [])
    if len(keys) != 1 or not _is_key(keys[0]):
        raise HandshakeError(
            400, "Sec-WebSocket-Key must be one header of 16 bytes in base64"
        )
    return keys[0]


def is_usual_key(key: str) -> bool:
    """Whether ``key`` is 16 bytes in base64, written as everybody does."""
    return _USUAL_KEY.match(key) is not None


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def choose_subprotocol(offered: Iterable[str], ours: Sequence[str]) -> str | None:
    """Return the first of ``ours``, in our order, that the client offered (§4.2.2)."""
    wanted = set(offered)
    return next((name for name in ours if name in wanted), None)


def accept_headers(
    key: str, *, subprotocol: str | None = None, extension: str | None = None
) -> HeaderList:
    """Return the headers of the 101 that accepts the client's ``key`` (§4.2.2).

    ``extension`` is the answer to its offers, from ``negotiate``.
    """
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(key)),
    ]
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    if extension is not None:
        headers.append(("Sec-WebSocket-Extensions", extension))
    return headers


def accept_response(
    key: str, *, subprotocol: str | None = None, extension: str | None = None
) -> bytes:
    """Return ``response(101, accept_headers(...))``, in one piece where it is short."""
    if subprotocol is not None or extension is not None:
        headers = accept_headers(key, subprotocol=subprotocol, extension=extension)
        return response(101, headers)
    return (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key).encode()
    )


def response(status: int, headers: HeaderList, body: str = "") -> bytes:
    """Return an HTTP/1.1 response; a ``body`` adds its type and length."""
    content = body.encode()
    if status != 101:
        headers = [
            *headers,
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(content))),
        ]
    lines = [f"HTTP/1.1 {status} {_PHRASES[status]}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


class ClientHandshake:
    """The client's half (RFC 6455 §4.1): a request out, a response in.

    ``host`` is what the ``Host`` header says, port included where it is not the
    scheme's own; ``target`` the path with its query, percent-encoded. ``compression``
    offers permessage-deflate. After the response, ``subprotocol`` and ``deflate`` are
    what the server chose.

    :raises ValueError: one of these cannot stand in a request.
    """

    def __init__(
        self,
        host: str,
        target: str = "/",
        *,
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        compression: bool = False,
    ) -> None:
        if len(set(subprotocols)) < len(subprotocols) or not all(
            map(_TOKEN.match, subprotocols)
        ):
            raise ValueError(f"subprotocols must be unique tokens: {subprotocols!r}")
        self._key = base64.b64encode(os.urandom(16)).decode()
        self._subprotocols = tuple(subprotocols)
        self._compression = compression
        self.subprotocol: str | None = None
        self.deflate: Deflate | None = None
        self._searched = 0  # bytes of the response known not to hold its end
        lines = [
            ("Host", host),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self._key),
            ("Sec-WebSocket-Version", "13"),
        ]
        if subprotocols:
            lines.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
        if compression:
            lines.append(("Sec-WebSocket-Extensions", OFFER))
        self._lines = [*lines, *headers]
        for name, value in self._lines:
            if not _TOKEN.match(name) or not _VALUE.match(value):
                raise ValueError(f"not a legal header: {name!r}: {value!r}")
        if not target.startswith("/") or re.search(r"[^\x21-\x7e]", target):
            raise ValueError(f"not a legal request target: {target!r}")
        self._target = target

    def request(self) -> bytes:
        """Return the opening request."""
        lines = [f"GET {self._target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self._lines]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def receive_data(self, data: bytes) -> int | None:
        """Return the size in bytes of the accepted response; None: not complete.

        ``data`` is all that was received so far; what follows the response is frames.

        :raises HandshakeError: the server refused, or answered wrongly (§4.1).
        """
        try:
            found = read_head(data, self._searched)
        except HandshakeError as error:
            # Its status is a server's; the fault is the server's here.
            raise HandshakeError(502, f"the response is malformed: {error}") from None
        if found is None:
            self._searched = len(data)
            return None
        head, size = found
        version, status, phrase = head.start
        if version != "HTTP/1.1" or not _STATUS.match(status):
            raise HandshakeError(502, f"not an HTTP/1.1 response: {version}")
        if status != "101":
            raise HandshakeError(
                int(status), f"the server refused: {status} {phrase}", head.headers
            )
        if not is_upgrade(
            ",".join(head.get_all("upgrade")), ",".join(head.get_all("connection"))
        ):
            raise HandshakeError(502, "the 101 does not upgrade to a WebSocket")
        if head.get_all("sec-websocket-accept") != [accept_key(self._key)]:
            raise HandshakeError(502, "Sec-WebSocket-Accept does not match the key")
        chosen = head.get_all("sec-websocket-protocol")
        if len(chosen) > 1 or not set(chosen) <= set(self._subprotocols):
            raise HandshakeError(502, f"a subprotocol was not offered: {chosen}")
        extensions = head.get_all("sec-websocket-extensions")
        if extensions and not self._compression:
            raise HandshakeError(502, "an extension was not offered")
        self.deflate = confirm(extensions)
        self.subprotocol = chosen[0] if chosen else None
        return size
