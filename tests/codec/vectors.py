"""Examples from the RFCs, as data; bytes in hex as the RFCs print them."""

from __future__ import annotations

from typing import NamedTuple


class FrameVector(NamedTuple):
    """One frame of RFC 6455 §5.7: its wire form and what it says."""

    id: str
    wire: str
    opcode: int
    payload: bytes
    fin: bool = True
    mask: str | None = None


_HELLO_MASK = "37fa213d"

# The two long ones are given by the RFC as headers "then ... bytes of binary data".
FRAMES = [
    FrameVector("text", "810548656c6c6f", 1, b"Hello"),
    FrameVector("masked-text", "818537fa213d7f9f4d5158", 1, b"Hello", mask=_HELLO_MASK),
    FrameVector("fragment-1", "010348656c", 1, b"Hel", fin=False),
    FrameVector("fragment-2", "80026c6f", 0, b"lo"),
    FrameVector("ping", "890548656c6c6f", 9, b"Hello"),
    FrameVector(
        "masked-pong", "8a8537fa213d7f9f4d5158", 10, b"Hello", mask=_HELLO_MASK
    ),
    FrameVector("binary-256", "827e0100" + "2a" * 256, 2, b"*" * 256),
    FrameVector("binary-64KiB", "827f0000000000010000" + "2a" * 65536, 2, b"*" * 65536),
]
"""RFC 6455 §5.7."""

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455 §1.3: a client's key and the answer to it."""

REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Origin: http://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
"""RFC 6455 §1.2: the opening handshake of a client."""

RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n"
    b"\r\n"
)
"""RFC 6455 §1.2: the answer of a server."""

INVALID_UTF8 = {
    "continuation-first": "80",
    "two-continuations": "80bf",
    "truncated-2": "c2",
    "truncated-3": "e282",
    "truncated-4": "f09f98",
    "overlong-2": "c080",
    "overlong-2-max": "c1bf",
    "overlong-3": "e08080",
    "overlong-3-max": "e09fbf",
    "overlong-4": "f0808080",
    "overlong-4-max": "f08fbfbf",
    "surrogate-first": "eda080",
    "surrogate-last": "edbfbf",
    "surrogate-pair": "eda0bdedb880",
    "above-10ffff": "f4908080",
    "f5": "f5808080",
    "five-bytes": "f888808080",
    "six-bytes": "fc8480808080",
    "fe": "fe",
    "ff": "ff",
    "ascii-after-lead": "c341",
    "bad-in-the-middle": "cebae1bdb9cf83ceb5eda080656469746564",
}
"""Byte sequences that no UTF-8 text contains (RFC 3629 §3 and §4)."""

VALID_UTF8 = {
    "empty": "",
    "ascii": "48656c6c6f2d",
    "two": "c2b5c39fc3b6",
    "kosme": "cebae1bdb9cf83cebcceb5",
    "first-of-2": "c280",
    "first-of-3": "e0a080",
    "first-of-4": "f0908080",
    "last-of-1": "7f",
    "last-of-2": "dfbf",
    "last-of-3": "efbfbf",
    "last-of-all": "f48fbfbf",
    "before-surrogates": "ed9fbf",
    "after-surrogates": "ee8080",
    "noncharacter": "efbfbe",
    "nul": "00",
}
"""Texts at the edges of each length (RFC 3629 §4)."""

DEFLATED = {
    "7.2.3.1-one-block": ("f248cdc9c90700", b"Hello"),
    "7.2.3.3-no-compression": ("000500faff48656c6c6f00", b"Hello"),
    "7.2.3.4-bfinal": ("f348cdc9c9070000", b"Hello"),
    "7.2.3.5-two-blocks": ("f24805000000ffffcac9c90700", b"Hello"),
    "7.2.3.6-empty": ("00", b""),
}
"""RFC 7692 §7.2.3: payloads, compressed and not."""

DEFLATED_FRAMES = "c107f248cdc9c90700"
DEFLATED_FRAGMENTS = "4103f248cd8004c9c90700"
"""RFC 7692 §7.2.3.1: "Hello" in one frame, and in two."""

DEFLATED_WITH_CONTEXT = "f200110000"
"""RFC 7692 §7.2.3.2: "Hello" again, for one who kept the window."""
