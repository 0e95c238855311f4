"""permessage-deflate: compressed messages (RFC 7692), for both roles, without I/O.

This file knows the negotiation and what stands in a compressed payload. It knows no
frames and no text; where the bytes go is ``connection``'s.

Neither end keeps its compression context from one message to the next. Then a frame
fits every receiver, a broadcast is compressed once, and an idle connection holds no
zlib object, which would take many times what all the rest of it does (by zlib's own
zconf.h 39 KiB to inflate and 256 to deflate). See docs/decisions/05.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import HandshakeError, InvalidPayload, MessageTooBig

NAME = "permessage-deflate"

MIN_SIZE = 256
"""Bytes under which a message goes as it is: it would hardly shrink."""

MAX_OFFERS = 4096
"""Characters of ``Sec-WebSocket-Extensions``; browsers send about 50."""

OFFER = (
    f"{NAME}; server_no_context_takeover; client_no_context_takeover;"
    " client_max_window_bits"
)
"""What a client of ours says in ``Sec-WebSocket-Extensions`` (§7.1)."""

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(
    rf"[ \t]*;[ \t]*({_TOKEN})"
    rf'(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?'
)
_EXTENSION = re.compile(rf"[ \t]*({_TOKEN})((?:{_PARAMETER.pattern})*)[ \t]*(?:,|\Z)")
_EMPTY = re.compile(r"[ \t]*(?:,|\Z)")
_BITS = re.compile(r"[89]|1[0-5]")

# §7.2.1 takes these four bytes from the end of each message, §7.2.2 puts them back.
_TAIL = b"\x00\x00\xff\xff"
# One more block, empty and marked as the last: only whole data lets it be understood.
_LAST = b"\x01\x00\x00\xff\xff"
_STEP = 1 << 16
_SIP = 1 << 12

Parameters = list[tuple[str, str | None]]


class Deflate(NamedTuple):
    """What both ends agreed on, as one of them sees it (§7.1.2)."""

    send_bits: int | None
    """The window we deflate with, as a power of two; None: we send nothing so."""
    receive_bits: int
    """The window that the peer deflates with."""


def parse_extensions(values: Iterable[str]) -> list[tuple[str, Parameters]]:
    """Return the names and parameters in ``Sec-WebSocket-Extensions`` headers.

    A parameter without a value has None.

    :raises HandshakeError: 400, they are not to the grammar (RFC 6455 §9.1), or longer
        than anything that makes sense.
    """
    found = []
    values = list(values)
    if sum(map(len, values)) > MAX_OFFERS:
        raise HandshakeError(400, "Sec-WebSocket-Extensions is too long")
    for value in values:
        position = 0
        while position < len(value):
            if empty := _EMPTY.match(value, position):
                position = empty.end()
                continue
            extension = _EXTENSION.match(value, position)
            if extension is None:
                raise HandshakeError(400, "Sec-WebSocket-Extensions is malformed")
            position = extension.end()
            found.append((extension[1], _parameters(extension[2])))
    return found


def _parameters(text: str) -> Parameters:
    parameters: Parameters = []
    for match in _PARAMETER.finditer(text):
        name, value, quoted = match.groups()
        if quoted is not None:
            value = re.sub(r"\\(.)", r"\1", quoted)
            if not re.fullmatch(_TOKEN, value):  # §9.1: also within the quotes
                raise HandshakeError(400, "Sec-WebSocket-Extensions is malformed")
        parameters.append((name, value))
    return parameters


def negotiate(values: Iterable[str]) -> tuple[Deflate, str] | None:
    """Return what a server agrees to, and its ``Sec-WebSocket-Extensions`` (§5.1).

    ``values`` are the client's headers of that name; its first offer that we can keep
    counts. None: there is none, messages go uncompressed.

    :raises HandshakeError: 400, the headers are not to the grammar (RFC 6455 §9.1).
    """
    for name, parameters in parse_extensions(values):
        agreed = _accept(parameters) if name == NAME else None
        if agreed is not None:
            return agreed
    return None


def _accept(parameters: Parameters) -> tuple[Deflate, str] | None:
    """Return our answer to one offer, None to decline it (§7.1)."""
    offer = _known(parameters)
    if offer is None:
        return None
    # We keep no context, asked or not, and forbid the client to (§7.1.1.2).
    answer = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
    ours = offer.get("server_max_window_bits", "15")
    if ours is None or ours == "8":
        # It needs a value (§7.1.2.1), and zlib deflates with no window below 9.
        return None
    if "server_max_window_bits" in offer:
        answer += f"; server_max_window_bits={ours}"
    theirs = offer.get("client_max_window_bits")
    if theirs is not None:
        # §7.1.2.2: a hint that the client uses no more; the answer binds it.
        answer += f"; client_max_window_bits={theirs}"
    return Deflate(int(ours), int(theirs or 15)), answer


def confirm(values: Iterable[str]) -> Deflate | None:
    """Return what a server made of our ``OFFER``; None: no compression (§5.1).

    ``values`` are its ``Sec-WebSocket-Extensions`` headers.

    :raises HandshakeError: 502, it answers something that was not offered (§7.1).
    """
    try:
        answers = parse_extensions(values)
    except HandshakeError as error:
        raise HandshakeError(502, str(error)) from None
    if not answers:
        return None
    if len(answers) > 1 or answers[0][0] != NAME:
        raise HandshakeError(502, "an extension was not offered")
    answer = _known(answers[0][1])
    # §7.1.1.1: we asked for it. §7.1.2: both windows have a value in an answer.
    if answer is None or "server_no_context_takeover" not in answer:
        raise HandshakeError(502, "the answer to permessage-deflate does not fit")
    ours = answer.get("client_max_window_bits", "15")
    theirs = answer.get("server_max_window_bits", "15")
    if ours is None or theirs is None:
        raise HandshakeError(502, "the answer to permessage-deflate does not fit")
    # zlib deflates with no window below 9; to compress nothing is legal (§6).
    return Deflate(None if ours == "8" else int(ours), int(theirs))


def _known(parameters: Parameters) -> dict[str, str | None] | None:
    """Return the parameters by name; None: one is unknown, wrong or repeated."""
    given = dict(parameters)
    if len(given) < len(parameters):
        return None
    for name, value in given.items():
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value is not None and not _BITS.fullmatch(value):
                return None
        else:
            return None
    return given


def deflate(payload: bytes, bits: int) -> bytes | None:
    """Return ``payload`` compressed (§7.2.1); None: it does not get smaller.

    ``bits`` is the window as a power of two, 9 to 15.
    """
    if len(payload) < MIN_SIZE:
        return None
    compressor = zlib.compressobj(wbits=-bits)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data[: -len(_TAIL)] if len(data) < len(payload) else None


def inflate(data: bytes, bits: int, limit: int) -> Iterator[bytes]:
    """Yield what the payload of a whole message inflates to (§7.2.2), in pieces.

    Each takes little time and has 64 KiB at most; it may be empty.

    :raises InvalidPayload: it is corrupt or not whole.
    :raises MessageTooBig: the message gets longer than ``limit`` bytes.
    """
    inflater = zlib.decompressobj(-bits)
    # What zlib leaves over of its input is copied: so it gets little at a time.
    for start in range(0, len(data) + 1, _SIP):
        rest = data[start : start + _SIP]
        if len(rest) < _SIP:
            rest += _TAIL + _LAST
        piece = b""
        while rest or len(piece) == _STEP:
            try:
                piece = inflater.decompress(rest, _STEP)
            except zlib.error:
                fault = "data does not inflate (RFC 7692 §7.2.2)"
                raise InvalidPayload(fault) from None
            limit -= len(piece)
            if limit < 0:
                raise MessageTooBig("a message exceeds the limit when inflated")
            yield piece
            rest = inflater.unconsumed_tail
            if inflater.unused_data:
                # A block was marked as the last, yet others follow (§7.2.3.4).
                rest = inflater.unused_data
                inflater = zlib.decompressobj(-bits)
    if not inflater.eof:
        raise InvalidPayload("compressed data is cut off (RFC 7692 §7.2.2)")
