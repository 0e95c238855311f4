"""Request heads, gathered from pieces and read to the letter."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_wschat.codec import Head, is_upgrade, negotiate
from flask_wschat.errors import HandshakeError
from flask_wschat.servers.heads import MAX_EMPTY, Gathering

REQUEST = b"GET /a?b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"
BEHIND = b"\n\r\n\r\nof somebody else"


def gather(*pieces: bytes) -> tuple[Head, int]:
    """Return the head, and how many bytes behind it were left alone."""
    gathering = Gathering()
    for number, piece in enumerate(pieces):
        taken = gathering.add(piece)
        if gathering.head is not None:
            left = len(piece) - taken + sum(map(len, pieces[number + 1 :]))
            return gathering.head, left
        assert taken == len(piece)
    raise AssertionError("not complete")


@given(st.sets(st.integers(1, 60)), st.integers(0, MAX_EMPTY))
def test_a_head_is_the_same_in_any_pieces(cuts: set[int], empty: int) -> None:
    data = b"\r\n" * empty + REQUEST + BEHIND
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    head, left = gather(*pieces)
    assert head == Head(("GET", "/a?b", "HTTP/1.1"), [("host", "x"), ("a", "b")])
    assert left == len(BEHIND)


@pytest.mark.parametrize(
    ("begin", "again", "status"),
    [
        (b"", b"\r\n", 400),
        (b"", b"\n", 400),
        (b"GET /", b"a", 414),
        (b"GET / HTTP/1.1\r\nA: ", b"a", 431),
        (b"GET / HTTP/1.1\r\n", b"\r", 431),
        (b"GET / HTTP/1.1\r\n", b"A:\r\n", 431),
    ],
)
def test_what_never_ends_is_refused_in_single_bytes(
    begin: bytes, again: bytes, status: int
) -> None:
    """It would take minutes if what is known of the bytes was found out again."""
    gathering = Gathering()
    with pytest.raises(HandshakeError) as caught:
        gathering.add(begin)
        for _ in range(70_000):
            for byte in again:
                gathering.add(bytes([byte]))
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        ("http://b", "b", "/"),
        ("HTTPS://b:80/c?d", "b:80", "/c?d"),
        ("http://[::1]:80?d", "[::1]:80", "/?d"),
        ("/http://b", "x", "/http://b"),
    ],
)
def test_the_host_is_the_targets(target: str, host: str, path: str) -> None:
    head, _ = gather(REQUEST.replace(b"/a?b", target.encode()))
    assert head.start == ("GET", path, "HTTP/1.1")
    assert head.get_all("host") == [host]


@pytest.mark.parametrize(
    "target",
    ["http://", "http:///a", "http://a@b/", "ftp://b/", "b:80", "a", "*", "/#"],
)
def test_targets_of_no_form_are_refused(target: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        gather(REQUEST.replace(b"/a?b", target.encode()))
    assert caught.value.status == 400


@pytest.mark.parametrize("lines", [1, 5])
def test_a_field_is_bounded_in_all_of_its_lines(lines: int) -> None:
    """To take 60,000 commas apart, in five places, held everybody up for 60 ms."""
    line = b"Connection: " + b"," * (10_000 // lines) + b"\r\n"
    with pytest.raises(HandshakeError) as caught:
        gather(REQUEST.replace(b"A: b\r\n", line * lines))
    assert caught.value.status == 431


def test_what_is_too_long_asks_for_no_websocket() -> None:
    """Some servers let a megabyte of one field pass."""
    assert is_upgrade("websocket", "a, upgrade")
    assert not is_upgrade("websocket", "," * 20_000 + "upgrade")
    with pytest.raises(HandshakeError):
        negotiate(["permessage-deflate", ";a" * 3000])
