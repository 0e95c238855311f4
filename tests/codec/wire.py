"""Bytes as the RFC draws them, made without the code under test."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

MASK = bytes.fromhex("37fa213d")


def xor(data: bytes, mask: bytes) -> bytes:
    """Return ``data`` masked by the formula of RFC 6455 §5.3: byte i by i modulo 4.

    As one number each: 500 examples of 70,000 bytes would take minutes one by one.
    """
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    masked = int.from_bytes(data, "big") ^ int.from_bytes(key, "big")
    return masked.to_bytes(len(data), "big")


def frame(
    first: int, payload: bytes = b"", *, mask: bytes | None = MASK, form: int = 0
) -> bytes:
    """Return a frame with ``first`` as its first byte (RFC 6455 §5.2).

    ``form`` is the length's width in bytes, 1, 2 or 8; by default the least.
    """
    size = len(payload)
    form = form or (1 if size < 126 else 2 if size < 65536 else 8)
    length = {1: size, 2: 126, 8: 127}[form]
    header = bytes([first, length | (0 if mask is None else 0x80)])
    if form > 1:
        header += size.to_bytes(form, "big")
    if mask is None:
        return header + payload
    return header + mask + xor(payload, mask)


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """Return the payload of a close frame (RFC 6455 §5.5.1)."""
    return b"" if code is None else code.to_bytes(2, "big") + reason


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return ``data`` in parts; each place counts modulo its length."""
    bounds = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


splits = st.lists(st.integers(0, 1 << 20), max_size=12)
"""Places to cut a stream at."""
