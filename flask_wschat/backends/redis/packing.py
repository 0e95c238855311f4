"""Messages as bytes: a header in JSON, a line feed, the data as it is.

No pickle, as whoever may write to Redis could run code here: see docs/decisions/10.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...messages import Delivery, Entry, Message
from .wire import Reply

MAX_SIZE = 16 << 20
"""Bytes of a message; a longer one is not written, and ignored where one comes."""

MADE = "made"
"""The event by which the scripts tell that a topic begins anew; see publish.lua."""

_TYPES: dict[str, type] = {
    "key": str,
    "exclude": str,
    "close_code": int,
    "json": bool,
    "sender": str,
    "mid": str,
    "event": str,
    "to": str,
    "plain": bool,
    "binary": bool,
}
_PLAIN = Message("")


def pack_message(message: Message) -> bytes:
    """Return the body that is published and kept."""
    data = message.data
    header: dict[str, Any] = {}
    if message[1:] != _PLAIN[1:]:
        for name, value in zip(message._fields[1:], message[1:], strict=True):
            if value is not None and value is not False:
                header[name] = value
    if isinstance(data, str):
        data = data.encode()
    else:
        header["binary"] = True
    text = json.dumps(header, separators=(",", ":")) if header else "{}"
    return b"%b\n%b" % (text.encode("ascii"), data)


def unpack_message(body: bytes) -> Message:
    """Return the message whose body it is.

    :raises ValueError: it is no message's.
    """
    if len(body) > MAX_SIZE:
        raise ValueError(f"{len(body)} bytes")
    head, newline, data = body.partition(b"\n")
    if not newline:
        raise ValueError("no header")
    if head == b"{}":
        return Message(data.decode())
    try:
        header = json.loads(head)
    except RecursionError:
        raise ValueError("a header too deep") from None
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    for name, value in header.items():
        if type(value) is not _TYPES.get(name):
            raise ValueError(f"header field {name[:40]!r}")
    binary = header.pop("binary", False)
    return Message(data if binary else data.decode(), **header)


def pack_passing(at: float, body: bytes) -> bytes:
    """Return the publication of a message that is not kept."""
    return b"0 %.6f - %b" % (at, body)


def unpack_publication(topic: str, payload: bytes) -> Delivery:
    """Return what publish.lua, or ``pack_passing``, has published.

    :raises ValueError: it was neither.
    """
    if len(payload) > MAX_SIZE + 100:
        raise ValueError(f"{len(payload)} bytes")
    parts = payload.split(b" ", 3)
    if len(parts) != 4:
        raise ValueError("not a publication of ours")
    number, at, epoch, body = parts
    seq = int(number)
    message = unpack_message(body)
    return Delivery(topic, message, seq, float(at), epoch.decode() if seq else "")


def unpack_entry(item: Sequence[Reply]) -> Entry:
    """Return an entry of a topic's stream.

    :raises ValueError: it is none that we wrote.
    """
    number, fields = item
    if len(fields) != 4 or fields[0] != b"at" or fields[2] != b"body":
        raise ValueError("fields that are not ours")
    m = unpack_message(fields[3])
    seq, at = int(number.split(b"-")[0]), float(fields[1])
    return Entry(seq, m.data, at, m.sender, m.mid, m.json, m.to)
