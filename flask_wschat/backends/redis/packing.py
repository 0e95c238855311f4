"""Messages as bytes: a header in JSON, a line feed, the data as it is.

No pickle, as whoever may write to Redis could run code here: see docs/decisions/10.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quote
from typing import Any

import msgspec

from ...errors import StreamGone, StreamStopped, TooManyStreams
from ...messages import PRESENCE, Delivery, Entry, Grown, Growth, Message, Receipt
from ..growths import ALIVE, GONE, LACKS, OTHER, STOPPED, TOO_MANY
from .wire import encode

MAX_SIZE = 16 << 20
"""Bytes of a message; a longer one is not written, and ignored where one comes."""

NUMBERS = 1 << 53
"""Lua can tell each number under this from the next."""

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
    "growth": list,
}
_header = msgspec.json.Decoder().decode
_NAMES = Message._fields[1:-1]  # without `prev`, which is for the script alone
_PLAIN = Message("")
_NONE = (None,) * 6
_NEWS = b'{"event":"%b"}\n' % PRESENCE.encode()
"""How begins what attend.lua publishes."""


def pack_message(message: Message) -> bytes:
    """Return the body that is published and kept."""
    data, key, exclude, close_code, is_json, sender, mid, event, to, plain, growth = (
        message[:-1]
    )
    others = (key, exclude, close_code, event, to, growth)
    plainly = is_json and others == _NONE and isinstance(data, str)
    if plainly and sender is not None and mid is not None:
        # What the chat says, mostly: a third of what json.dumps takes for it.
        end = ',"plain":true}\n' if plain else "}\n"
        head = f'{{"json":true,"sender":{quote(sender)},"mid":{quote(mid)}{end}'
        return f"{head}{data}".encode()  # type: ignore[str-bytes-safe]
    header: dict[str, Any] = {}
    if message[1:-1] != _PLAIN[1:-1]:
        for name, value in zip(_NAMES, message[1:-1], strict=True):
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

    What a newer version has put into the header is left out.

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
        try:
            header = _header(head)  # a tenth of what json.loads takes
        except msgspec.DecodeError:  # half a pair, say, which only that reads
            header = json.loads(head)
    except RecursionError:
        raise ValueError("a header too deep") from None
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    for name, value in header.items():
        kind = _TYPES.get(name)
        if kind is None:
            known = {n: v for n, v in header.items() if n in _TYPES}
            return unpack_message(json.dumps(known).encode() + b"\n" + data)
        if type(value) is not kind:
            raise ValueError(f"header field {name[:40]!r}")
    binary = header.pop("binary", False)
    if "growth" in header:
        header["growth"] = _growth(header["growth"])
    return Message(data if binary else data.decode(), **header)


def _growth(fields: list[Any]) -> Growth:
    """:raises ValueError: these are not the fields of one."""
    try:
        growth = Growth(*fields[: len(Growth._fields)])
    except TypeError as error:
        raise ValueError("a growth without an id") from error
    id_, n, asker, *times = growth
    fits = isinstance(id_, str) and type(n) is int and isinstance(asker, str | None)
    if not fits or not all(
        isinstance(t, int | float) and math.isfinite(t) for t in times
    ):
        raise ValueError("a growth that is none")
    return growth


def pack_mid(sender: str | None, mid: str | None) -> bytes:
    """Return what no other message of any sender has, b"" without ``mid``.

    A digest: senders like mids of any length. Redis has 16 bytes for a name of 12.
    """
    if mid is None:
        return b""
    scope = "-" if sender is None else f"{len(sender)}:{sender}"
    return hashlib.blake2b(encode(f"{scope}:{mid}"), digest_size=12).digest()


def pack_passing(at: float, body: bytes) -> bytes:
    """Return the publication of a message that is not kept."""
    return b"0 %.6f - %b" % (at, body)


class Announced:
    """What publish.lua has published, the bodies of which may come after it."""

    __slots__ = ("_at", "_before", "_bodies", "_epoch", "_lengths", "_seq", "_tag")

    def __init__(self, payload: bytes) -> None:
        """Read ``payload``.

        :raises ValueError: it is none of ours.
        """
        parts = payload.split(b" ", 6)
        if len(parts) != 7:
            raise ValueError("not a publication of ours")
        number, epoch, at, tag, before, lengths, bodies = parts
        self._seq, self._at, self._epoch = int(number), _time(at), epoch.decode()
        if not 0 < self._seq < NUMBERS:
            raise ValueError("a number that is none")
        self._tag = "" if tag == b"-" else tag.decode()
        self._before = "" if before == b"-" else before.decode()
        self._lengths = [int(length) for length in lengths.split(b",")]
        if min(self._lengths) < 0:
            raise ValueError("a length that is none")
        self._bodies: bytes | None = None
        if bodies:
            self.add(bodies)

    @property
    def whole(self) -> bool:
        """Whether the bodies are there."""
        return self._bodies is not None

    def add(self, bodies: bytes) -> None:
        """Take the bodies.

        :raises ValueError: they are not these.
        """
        if len(bodies) != sum(self._lengths):
            raise ValueError("bodies of other lengths")
        self._bodies = bodies

    def deliveries(self, topic: str) -> list[Delivery]:
        """Return what was published, once nothing is missing.

        :raises ValueError: it is none of ours.
        """
        deliveries = []
        seq, at, epoch, tag = self._seq, self._at, self._epoch, self._tag
        before, start = self._before, 0
        assert self._bodies is not None
        for length in self._lengths:
            message = unpack_message(self._bodies[start : start + length])
            start += length
            deliveries.append(Delivery(topic, message, seq, at, epoch, tag, before))
            seq, before = seq + 1, tag
        return deliveries


def _time(text: bytes) -> float:
    """Return the time that ``text`` is; JSON has neither infinity nor NaN."""
    at = float(text)
    if not math.isfinite(at):
        raise ValueError("a time that is none")
    return at


def unpack_passing(topic: str, payload: bytes) -> Delivery:
    """Return the message that is not kept, which ``payload`` tells of.

    :raises ValueError: it tells of none.
    """
    parts = payload.split(b" ", 3)
    if len(parts) != 4:
        raise ValueError("not a publication of ours")
    _, at, _, body = parts
    if body.startswith(_NEWS):  # one for each who enters a room
        message = Message(body[len(_NEWS) :].decode(), event=PRESENCE)
    else:
        message = unpack_message(body)
    return Delivery(topic, message, 0, _time(at))


def unpack_grown(fields: list[bytes]) -> Grown:
    """Return what history.lua has returned of a growing message.

    :raises ValueError: it is none that we wrote.
    """
    id_, about, text = fields
    n, at, rest = about.split(b" ", 2)
    sender, asker = json.loads(rest)
    if not (isinstance(sender, str | None) and isinstance(asker, str | None)):
        raise ValueError("people that are none")
    return Grown(id_.decode(), sender, _time(at), int(n), text.decode(), asker)


def unpack_entry(item: bytes, body: bytes) -> tuple[Entry, str]:
    """Return what history.lua has returned of a message, and the tag before it.

    :raises ValueError: it is none that we wrote.
    """
    parts = item.split(b" ")
    if len(parts) != 4:
        raise ValueError("fields that are not ours")
    number, at, word, last = parts
    tag, before = ("" if text == b"-" else text.decode() for text in (word, last))
    seq, stored = int(number), _time(at)
    if not body:
        gone = Entry(seq, "null", stored, json=True, tag=tag, deleted=True)
        return gone, before
    m = unpack_message(body)
    return Entry(seq, m.data, stored, m.sender, m.mid, m.json, m.to, tag), before


def unpack_step(reply: bytes) -> Receipt | Exception:
    """Return what became of a step, as grow.lua says."""
    at, _, word = reply.decode().partition(" ")
    refused = _REFUSED.get(word)
    return Receipt(0, float(at), "", word == "done") if refused is None else refused()


_REFUSED: dict[str, Callable[[], Exception]] = {
    "gone": lambda: StreamGone(GONE),
    "other": lambda: StreamGone(OTHER),
    "lacks": lambda: StreamGone(LACKS),
    "alive": lambda: StreamGone(ALIVE),
    "stop": lambda: StreamStopped(STOPPED),
    "many": lambda: TooManyStreams(TOO_MANY),
}
