"""Opening handshakes, from both ends: websockets' own is the oracle of a server's."""

from __future__ import annotations

import re
from typing import Any

import pytest
import websockets.exceptions
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from flask_wschat.codec import (
    ClientHandshake,
    Deflate,
    Head,
    accept_headers,
    check_request,
    negotiate,
    read_head,
    response,
)
from flask_wschat.codec.deflate import confirm
from flask_wschat.errors import HandshakeError
from tests.codec.wire import cut, splits

from .budget import budget

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
RIGHT = [
    ("host", "a"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", KEY),
    ("sec-websocket-version", "13"),
]
ODD = [
    ("upgrade", "h2c, WebSocket"),
    ("upgrade", "web socket"),
    ("connection", "keep-alive"),
    ("connection", "UPGRADE,"),
    ("sec-websocket-key", KEY[:-1]),
    ("sec-websocket-key", KEY + " "),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZR=="),
    ("sec-websocket-version", "8, 13"),
    ("sec-websocket-version", "013"),
    ("host", "b"),
    ("", ""),
]
fields = st.lists(
    st.sampled_from(RIGHT * 3 + ODD)
    | st.tuples(
        st.sampled_from([name for name, _ in RIGHT]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    ),
    max_size=5,
)
extensions = st.lists(
    st.lists(
        st.sampled_from(
            [
                "permessage-deflate",
                "; server_no_context_takeover",
                "; client_no_context_takeover",
                "; server_max_window_bits=10",
                "; client_max_window_bits",
                '; client_max_window_bits="9"',
                "; server_max_window_bits=8",
                "; server_max_window_bits=16",
                "; x",
                "permessage-foo",
                ",",
                " ",
                '="',
                "\\",
            ]
        )
        | st.text(st.characters(codec="latin-1"), max_size=4),
        max_size=6,
    ).map("".join),
    max_size=3,
)


def checked(method: str, version: str, headers: Any) -> int:
    """Return the status of the answer, 101 if it is accepted."""
    try:
        assert (
            check_request(method, version, headers)
            == dict(headers)["sec-websocket-key"]
        )
    except HandshakeError as error:
        assert response(error.status, error.headers).startswith(b"HTTP/1.1 4")
        return error.status
    return 101


_TOKEN = r"\s*[\w!#$%&'*+.^`|~-]+\s*"
_TOKENS = re.compile(f"{_TOKEN}(,{_TOKEN})*", re.A).fullmatch


@budget
@given(
    drawn=fields,
    left_out=st.sampled_from([None, *RIGHT]),
    order=st.randoms(use_true_random=False),
)
def test_what_we_accept_websockets_accepts(
    drawn: list[tuple[str, str]], left_out: Any, order: Any
) -> None:
    headers = [pair for pair in RIGHT if pair != left_out] + drawn
    # RFC 9110 §7.8: it is a list, and websockets takes no more than the one word, in
    # one line or in several.
    upgrades = [pair for pair in headers if pair[0] == "upgrade"]
    words = [pair for pair in upgrades if "," not in pair[1]]
    headers = [pair for pair in headers if pair not in upgrades] + words[:1]
    # RFC 9110 §5.6.1: empty parts of a list are to be ignored; it does so in one line.
    # And what is no token beside the word that counts does us no harm.
    headers = [pair for pair in headers if pair[0] != "connection" or _TOKENS(pair[1])]
    order.shuffle(headers)
    status = checked("GET", "HTTP/1.1", headers)
    try:
        ServerProtocol().process_request(Request("/", Headers(headers)))
    except websockets.exceptions.InvalidHandshake:
        assert status != 101, headers


@budget
@given(extensions)
def test_extensions_are_agreed_on_declined_or_refused(values: list[str]) -> None:
    try:
        agreed = negotiate(values)
    except HandshakeError as error:
        assert error.status == 400
        return
    if agreed is not None:
        ours, answer = agreed
        # Their end of it, from our answer.
        theirs = confirm([answer])
        assert theirs is not None
        assert theirs.receive_bits == (ours.send_bits or 15)
        assert theirs.send_bits is None or theirs.send_bits <= ours.receive_bits
        assert isinstance(ours, Deflate)


@budget
@given(st.data())
def test_a_client_takes_the_right_answer_and_no_other(data: st.DataObject) -> None:
    handshake = ClientHandshake(
        "a", subprotocols=["x"], compression=data.draw(st.booleans())
    )
    found = read_head(handshake.request())
    assert found is not None
    key = check_request("GET", "HTTP/1.1", found[0].headers)
    right = response(101, accept_headers(key, subprotocol="x"))
    wire = bytearray(right + b"frames")
    turned = data.draw(st.lists(st.integers(0, len(right) * 8 - 1), max_size=2))
    for place in turned:
        wire[place // 8] ^= 1 << place % 8
    places = data.draw(splits)
    answer: bytes = b""
    size = None
    try:
        for part in cut(bytes(wire), places):
            answer += part
            if size is None:
                size = handshake.receive_data(answer)
    except HandshakeError as error:
        assert turned
        assert error.status == 502 or 100 <= error.status <= 999
        return
    if size is not None:
        head = read_head(bytes(wire))
        assert head is not None and head[1] == size
        assert head[0].start[:2] == ("HTTP/1.1", "101")
        assert head[0].get_all("sec-websocket-accept") == [
            dict(accept_headers(key))["Sec-WebSocket-Accept"]
        ]
        assert handshake.subprotocol in (None, "x")
    else:
        assert turned


@budget
@given(
    st.one_of(
        st.binary(max_size=80),
        st.lists(
            st.sampled_from([b"GET / HTTP/1.1", b"\r\n", b"A: b", b"\n", b":", b" "])
            | st.binary(max_size=4),
            max_size=12,
        ).map(b"".join),
    ),
    splits,
)
def test_a_head_is_the_same_in_any_pieces(data: bytes, places: list[int]) -> None:
    def by_parts(parts: list[bytes]) -> tuple[Head, int] | int | None:
        got, searched = b"", 0
        try:
            for part in parts:
                got += part
                if (found := read_head(got, searched)) is not None:
                    return found
                searched = len(got)
        except HandshakeError as error:
            return error.status
        return None

    assert by_parts(cut(data, places)) == by_parts([data])


@pytest.mark.parametrize("key", [KEY[:-1], KEY + "A", "A" * 24, ""])
def test_websockets_is_as_strict_about_keys(key: str) -> None:
    headers = [(name, key if "key" in name else value) for name, value in RIGHT]
    with pytest.raises(websockets.exceptions.InvalidHandshake):
        ServerProtocol().process_request(Request("/", Headers(headers)))
    assert checked("GET", "HTTP/1.1", headers) == 400
