"""The shapes of Autobahn's fuzzing client against an echo on ``Connection`` alone.

The numbers are its groups: 1 framing, 2 pings, 3 reserved bits, 4 opcodes,
5 fragmentation, 6 UTF-8, 7 closing, 9 limits, 10 fragments of a large message, 12 and
13 compression. Each case is sent whole, and chopped.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from flask_wschat.codec import (
    Closed,
    Connection,
    Deflate,
    EncodedMessage,
    Event,
    Ping,
    Pong,
    negotiate,
)

from .vectors import INVALID_UTF8, VALID_UTF8
from .wire import close, frame

OK = Closed(1000, "")
DONE = (0x88, close(1000))


class Case(NamedTuple):
    """What the peer sends, and what it must hear; ``None``: the code is all."""

    id: str
    sent: list[tuple[int, bytes]]
    heard: list[Event]


def fails(code: int) -> Closed:
    return Closed(code, "")


def echoed(id: str, *sent: tuple[int, bytes], heard: list[Event]) -> Case:
    """Return a case that ends with a clean close."""
    return Case(id, [*sent, DONE], [*heard, OK])


SIZES = [0, 125, 126, 127, 128, 65535, 65536]
CASES = [
    *[echoed(f"1.1-text-{n}", (0x81, b"*" * n), heard=["*" * n]) for n in SIZES],
    *[
        echoed(f"1.2-binary-{n}", (0x82, b"\xfe" * n), heard=[b"\xfe" * n])
        for n in SIZES
    ],
    echoed("2.1-ping-empty", (0x89, b""), heard=[Pong(b"")]),
    echoed("2.2-ping-text", (0x89, b"Hello"), heard=[Pong(b"Hello")]),
    echoed("2.3-ping-binary", (0x89, b"\x00\xff\xfe"), heard=[Pong(b"\x00\xff\xfe")]),
    echoed("2.4-ping-125", (0x89, b"\xfe" * 125), heard=[Pong(b"\xfe" * 125)]),
    Case("2.5-ping-126", [(0x89, b"\xfe" * 126)], [fails(1002)]),
    echoed("2.7-pong-unasked", (0x8A, b""), heard=[]),
    echoed("2.9-pong-then-ping", (0x8A, b"a"), (0x89, b"b"), heard=[Pong(b"b")]),
    echoed(
        "2.10-ten-pings",
        *[(0x89, b"%d" % i) for i in range(10)],
        heard=[Pong(b"%d" % i) for i in range(10)],
    ),
    *[
        Case(
            f"3-rsv-{bits}",
            [(0x81, b"ok"), (0x81 | bits << 4, b"a")],
            ["ok", fails(1002)],
        )
        for bits in range(1, 8)
    ],
    Case("3.6-rsv-ping", [(0xC9, b"a")], [fails(1002)]),
    Case("3.7-rsv-close", [(0xF8, close(1000))], [fails(1002)]),
    *[
        Case(
            f"4-opcode-{code}", [(0x81, b"ok"), (0x80 | code, b"")], ["ok", fails(1002)]
        )
        for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ],
    Case("5.1-ping-in-fragments", [(0x09, b"a"), (0x80, b"b")], [fails(1002)]),
    Case("5.2-pong-in-fragments", [(0x0A, b"a"), (0x80, b"b")], [fails(1002)]),
    echoed("5.3-two", (0x01, b"a"), (0x80, b"b"), heard=["ab"]),
    echoed(
        "5.6-ping-between",
        (1, b"a"),
        (0x89, b"p"),
        (0x80, b"b"),
        heard=[Pong(b"p"), "ab"],
    ),
    Case("5.9-continuation-first", [(0x80, b"a"), (0x81, b"b")], [fails(1002)]),
    Case("5.12-unfinished-first", [(0x00, b"a"), (0x81, b"b")], [fails(1002)]),
    Case(
        "5.15-after-the-end", [(1, b"a"), (0x80, b"b"), (0, b"c")], ["ab", fails(1002)]
    ),
    Case("5.18-new-text-inside", [(0x01, b"a"), (0x81, b"b")], [fails(1002)]),
    echoed(
        "5.19-pings-and-five-parts",
        *[(0x01, b"1"), (0x00, b"2"), (0x89, b"p"), (0x00, b"3")],
        *[(0x00, b"4"), (0x89, b"q"), (0x80, b"5")],
        heard=[Pong(b"p"), Pong(b"q"), "12345"],
    ),
    echoed("6.1-all-empty", (0x01, b""), (0x00, b""), (0x80, b""), heard=[""]),
    echoed("6.1-middle-only", (0x01, b""), (0x00, b"m"), (0x80, b""), heard=["m"]),
    echoed(
        "6.2-each-byte-a-fragment",
        (0x01, b""),
        *[(0x00, bytes([byte])) for byte in "Hello-µ@ßöäüàá-UTF-8!!".encode()],
        (0x80, b""),
        heard=["Hello-µ@ßöäüàá-UTF-8!!"],
    ),
    *[
        echoed(
            f"6-{name}",
            (0x81, bytes.fromhex(text)),
            heard=[bytes.fromhex(text).decode()],
        )
        for name, text in VALID_UTF8.items()
    ],
    *[
        Case(f"6-{name}", [(0x81, bytes.fromhex(text))], [fails(1007)])
        for name, text in INVALID_UTF8.items()
    ],
    # 6.4: no byte after the bad one is sent, and yet the connection must fail.
    Case("6.4.1", [(0x01, "κόσμε".encode()), (0x00, b"\xf4\x90")], [fails(1007)]),
    Case("6.4.2", [(0x01, "κόσμε".encode() + b"\xf4"), (0x00, b"\x90")], [fails(1007)]),
    Case("7.1.1-message", [(0x81, b"Hello"), DONE], ["Hello", OK]),
    Case("7.1.2-two-closes", [DONE, DONE], [OK]),
    Case("7.1.3-ping-after", [DONE, (0x89, b"late")], [OK]),
    Case("7.1.4-text-after", [DONE, (0x81, b"late")], [OK]),
    Case("7.1.5-inside", [(0x01, b"a"), DONE, (0x80, b"b")], [OK]),
    Case("7.1.6-after-256KiB", [(0x81, b"*" * (1 << 18)), DONE], ["*" * (1 << 18), OK]),
    Case("7.3.1-empty", [(0x88, b"")], [fails(1005)]),
    Case("7.3.2-one-byte", [(0x88, b"a")], [fails(1002)]),
    Case("7.3.5-long-reason", [(0x88, close(1000, b"*" * 123))], [OK]),
    Case("7.3.6-too-long-reason", [(0x88, close(1000, b"*" * 124))], [fails(1002)]),
    Case(
        "7.5.1-bad-reason",
        [(0x88, close(1000, b"\xce\xba\xe1\xed\xa0\x80"))],
        [fails(1007)],
    ),
    *[
        Case(f"7.7-code-{code}", [(0x88, close(code))], [fails(code)])
        for code in (
            1000,
            1001,
            1002,
            1003,
            1007,
            1008,
            1009,
            1010,
            1011,
            3000,
            3999,
            4000,
            4999,
        )
    ],
    *[
        Case(f"7.9-code-{code}", [(0x88, close(code))], [fails(1002)])
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)
    ],
    *[
        echoed(f"9.1-text-{n}", (0x81, b"*" * n), heard=["*" * n])
        for n in (1 << 16, 1 << 18, 1 << 20, 1 << 22)
    ],
    *[
        echoed(
            f"9.3-fragments-of-{n}",
            (0x01, b""),
            *[(0x00, b"*" * n)] * ((1 << 18) // n),
            (0x80, b""),
            heard=["*" * (1 << 18)],
        )
        for n in (64, 256, 1 << 10, 1 << 14, 1 << 18)
    ],
]


def pieces(data: bytes, chop: int | None) -> Iterator[bytes]:
    """Yield ``data`` in parts of ``chop`` bytes.

    Where that is one, the middle of what is long comes at once: all of a payload's
    bytes are taken in the same way, but for those at its ends.
    """
    at = 0
    while at < len(data):
        size = chop or len(data)
        if size == 1 and 300 <= at < len(data) - 300:
            size = len(data) - 300 - at
        yield data[at : at + size]
        at += size


def talk(sent: list[tuple[int, bytes]], chop: int | None) -> list[Event]:
    """Return what a client hears of an echo server that gets frame after frame."""
    server = Connection(max_message=1 << 24)
    client = Connection(client=True, max_message=1 << 24)
    heard: list[Event] = []
    for first, payload in sent:
        for data in pieces(frame(first, payload), chop):
            for event in server.receive_data(data):
                if isinstance(event, str | bytes):
                    heard += client.receive_data(server.send(event))
            heard += client.receive_data(server.data_to_send())
    return heard


@pytest.mark.parametrize(
    ("case", "chop"),
    [
        pytest.param(case, chop, id=f"{case.id}-{how}")
        for case in CASES
        for chop, how in ((None, "whole"), (997, "chopped"), (1, "bytewise"))
        # More would take long and show nothing new.
        if chop != 1 or sum(len(payload) for _, payload in case.sent) < 70_000
    ],
)
def test_case(case: Case, chop: int | None) -> None:
    heard = talk(case.sent, chop)
    assert isinstance(heard[-1], Closed)
    # A failure has words of ours as its reason.
    assert [*heard[:-1], heard[-1].code] == [*case.heard[:-1], _code(case.heard[-1])]


def _code(event: Event) -> int:
    assert isinstance(event, Closed)
    return event.code


@functools.cache
def documents(size: int, count: int) -> list[bytes]:
    """Return JSON texts of ``size`` bytes, no two the same, as group 12 has them."""
    draw = random.Random(size)
    words = [f"{draw.randrange(10**6)}" for _ in range(200)]
    found = []
    for number in range(count):
        people = [
            {"id": number, "name": draw.choice(words), "tags": draw.choices(words, k=5)}
            for _ in range(size // 60 + 1)
        ]
        found.append(json.dumps(people).encode()[:size])
    return found


@pytest.mark.parametrize("size", [16, 256, 4096, 32768, 131072])
@pytest.mark.parametrize("fragment", [None, 256, 4096], ids=["whole", "256", "4096"])
@pytest.mark.parametrize(
    "offer",
    [
        pytest.param("", id="13.1"),
        pytest.param("; server_no_context_takeover", id="13.2"),
        pytest.param("; server_max_window_bits=9; client_max_window_bits", id="13.3"),
        pytest.param("; server_max_window_bits=15; client_max_window_bits", id="13.4"),
        pytest.param(
            "; server_no_context_takeover; server_max_window_bits=9"
            "; client_max_window_bits",
            id="13.5",
        ),
        pytest.param(
            "; server_no_context_takeover; server_max_window_bits=9"
            "; client_max_window_bits, permessage-deflate; server_no_context_takeover"
            ", permessage-deflate",
            id="13.7",
        ),
    ],
)
def test_compressed_echo(size: int, fragment: int | None, offer: str) -> None:
    """Groups 12 and 13: documents there and back, in whole frames and in fragments."""
    agreed = negotiate(["permessage-deflate" + offer])
    assert agreed is not None
    bits, _ = agreed[0]
    assert bits is not None
    server = Connection(deflate=agreed[0], max_message=1 << 18)
    client = Connection(client=True, deflate=Deflate(15, bits), max_message=1 << 18)
    for document in documents(size, 3):
        for message in (document, document.decode()):
            wire = EncodedMessage(message).frame(15)
            first, payload = wire[0], wire[{126: 4, 127: 10}.get(wire[1], 2) :]
            assert first & 0x40 or size < 256
            step = fragment or len(payload)
            data = b""
            for start in range(0, len(payload), step):
                last = start + step >= len(payload)
                opening = first & 0x4F if start == 0 else 0
                part = payload[start : start + step]
                data += frame(opening | (0x80 if last else 0), part) + frame(0x89)
            *pings, received = server.receive_data(data)[:-1]
            assert all(ping == Ping(b"") for ping in pings)
            assert received == message
            assert client.receive_data(server.send(message)) == [message]
