"""One frame taken apart for people: what each of its bytes says (RFC 6455 §5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .accelerated import apply_mask
from .frames import Opcode

_SHOWN = 16  # bytes of a field in hex, before an ellipsis


class Field(NamedTuple):
    """Bytes ``start`` to ``stop`` (not included) of the frame, and what they say."""

    name: str
    start: int
    stop: int
    meaning: str


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What ``explain`` found. ``str()`` of it is a table, a field on each line."""

    fin: bool
    rsv: tuple[bool, bool, bool]
    opcode: int
    masked: bool
    length: int
    """Payload bytes that the header announces."""
    length_bits: int
    """The form of the length: 7, 16 or 64 bits."""
    key: bytes
    """The masking key, 4 bytes or none."""
    raw: bytes
    """The payload as it is on the wire."""
    payload: bytes
    """The payload unmasked; an extension may have compressed it."""
    missing: int
    """Payload bytes that are still to come."""
    size: int
    """Bytes of the frame that are there; the next one starts behind them."""
    fields: tuple[Field, ...]
    wire: bytes
    """The frame itself, as far as it is there."""

    def __str__(self) -> str:
        lines = []
        for name, start, stop, meaning in self.fields:
            place = f"{start}" if stop - start == 1 else f"{start}-{stop - 1}"
            hexed = self.wire[start : min(stop, start + _SHOWN)].hex(" ")
            more = " …" if stop - start > _SHOWN else ""
            lines.append(f"{place:>9}  {name:<11}  {meaning}\n{'':11}{hexed}{more}")
        return "\n".join(lines)


def explain(data: bytes) -> Anatomy:
    """Return what the frame that ``data`` begins with says, byte by byte.

    Nothing is checked: illegal frames can be looked at as well. The payload may be
    incomplete, and other frames may follow.

    :raises ValueError: not even the header is whole.
    """
    length = data[1] & 0x7F if len(data) > 1 else 0
    width = {126: 2, 127: 8}.get(length, 0)
    masked = len(data) > 1 and data[1] >= 0x80
    head = 2 + width + (4 if masked else 0)
    if len(data) < head:
        raise ValueError(f"the header has {head} bytes or more, here are {len(data)}")
    first = data[0]
    opcode = first & 0x0F
    if width:
        length = int.from_bytes(data[2 : 2 + width], "big")
    key = data[head - 4 : head] if masked else b""
    raw = data[head : head + length]
    payload = apply_mask(raw, key) if masked else raw
    size = head + len(raw)
    return Anatomy(
        fin=first >= 0x80,
        rsv=(first & 0x40 != 0, first & 0x20 != 0, first & 0x10 != 0),
        opcode=opcode,
        masked=masked,
        length=length,
        length_bits=8 * width or 7,
        key=key,
        raw=raw,
        payload=payload,
        missing=length - len(raw),
        size=size,
        fields=tuple(_fields(data, length, width, masked, payload)),
        wire=data[:size],
    )


def _fields(
    data: bytes, length: int, width: int, masked: bool, payload: bytes
) -> list[Field]:
    first, opcode = data[0], data[0] & 0x0F
    fields = [
        Field("fin", 0, 1, "1: the last frame" if first >= 0x80 else "0: more follow"),
        Field("rsv1-3", 0, 1, f"{first >> 4 & 7:03b}"),
        Field("opcode", 0, 1, f"{opcode:#x}: {_name(opcode)}"),
        Field("mask", 1, 2, f"{masked:d}: from a {'client' if masked else 'server'}"),
        Field(
            "length",
            *((2, 2 + width) if width else (1, 2)),
            f"{length} in {8 * width or 7} bits",
        ),
    ]
    start = 2 + width
    if masked:
        fields.append(Field("masking key", start, start + 4, ""))
        start += 4
    if payload:
        text = repr(payload[:_SHOWN])[1:] + (" …" if len(payload) > _SHOWN else "")
        fields.append(Field("payload", start, start + len(payload), text))
    return fields


def _name(opcode: int) -> str:
    try:
        return Opcode(opcode).name.lower()
    except ValueError:
        return "reserved"
