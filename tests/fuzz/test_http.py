"""Heads and bodies of HTTP, with h11 as the oracle, which is as strict as we are.

What we take, it takes, and for the same; and ``read_usual`` knows only what the reader
that knows all reads in the same way. What only one refuses is no danger.
"""

from __future__ import annotations

import io
import re
from typing import Any

import h11
from hypothesis import assume, example, given
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException

from flask_wschat.codec import Head, is_upgrade
from flask_wschat.errors import HandshakeError
from flask_wschat.servers.bodies import Body, Stream
from flask_wschat.servers.heads import Gathering, read_usual
from tests.codec.wire import cut, splits

from .budget import budget

USUAL = [
    b"Host: a.example:80",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
    b"Origin: http://a.example",
]
ODD = [
    b"Host: b",
    b"Host:",
    b"Host : b",
    b"host: [::1]:80",
    b"Host: a b",
    b"Connection: keep-alive, Upgrade",
    b"Connection: close",
    b"connection: upgrade, CLOSE",
    b"Content-Length: 5",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length: 5 ",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding:\tChunked",
    b"Transfer_Encoding: chunked",
    b"Expect: 100-continue",
    b" folded: yes",
    b"\tfolded",
    b"A: b\rC: d",
    b"A: b\nC: d",
    b"A: \x00",
    b"A: \xff\x7f",
    b"A:b",
    b": b",
    b"A",
    b"",
]
tokens = st.sampled_from(
    [b"GET", b"POST", b"get", b"OPTIONS", b"CONNECT", b"G T", b"PRI", b"X-Y"]
)
targets = st.sampled_from(
    [b"/", b"/a?b=%20", b"/\xff", b"/a#b", b"*", b"http://c/d", b"//e", b"c:80", b"/ b"]
)
versions = st.sampled_from(
    [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b""]
)
lines = st.lists(
    st.sampled_from(USUAL)
    | st.sampled_from(ODD)
    | st.binary(max_size=12)
    | st.from_regex(rb"[A-Za-z-]{1,8}: ?[ -~]{0,12}", fullmatch=True),
    max_size=8,
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Draw a head in which one thing or another is not as it should be."""
    first = b" ".join([draw(tokens), draw(targets), draw(versions)])
    if draw(st.booleans()):
        first = b"GET /a?b HTTP/1.1"
    fields = draw(lines)
    if draw(st.booleans()):
        fields = [*USUAL[: draw(st.integers(0, 6))], *fields]
    if draw(st.booleans()):
        fields = draw(st.permutations(fields))
    end = draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b" \r\n"]))
    data = bytearray(end.join([first, *fields, b"", b""]))
    for place in draw(st.lists(st.integers(0, 1 << 16), max_size=1)):
        if draw(st.integers(0, 3)) == 0:
            data[place % len(data)] = draw(st.integers(0, 255))
    return bytes(data)


def ours(parts: list[bytes]) -> Head | int | None:
    """Return the head; None: it is not complete; or the status of a refusal."""
    gathering = Gathering()
    try:
        for part in parts:
            gathering.add(part)
            if gathering.head is not None:
                return gathering.head
    except HandshakeError as error:
        assert 400 <= error.status <= 505
        return error.status
    return None


def by_h11(data: bytes) -> Any:
    """Return its request; None: it is not complete; or its complaint."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        return str(error)
    return event if isinstance(event, h11.Request) else None


@budget
@given(heads(), splits)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", [])
def test_what_we_take_h11_takes_for_the_same(data: bytes, places: list[int]) -> None:
    head = ours([data])
    assert ours([bytes([byte]) for byte in data]) == head
    parts = ours(cut(data, places))
    assert isinstance(parts, int) == isinstance(head, int) or parts == head
    if not isinstance(head, Head):
        return
    theirs = by_h11(data)
    # RFC 9112 §2.3: a later version of its kind is as 1.1. h11 knows two.
    assume(not (isinstance(theirs, str) and "version" in theirs.lower()))
    assert isinstance(theirs, h11.Request), (data, theirs)
    method, target, version = head.start
    assert theirs.method == method.encode()
    if theirs.target.startswith((b"/", b"*")):
        assert theirs.target == target.encode("latin-1")
        got = [(name.encode(), value.encode("latin-1")) for name, value in head.headers]
        assert [(name, _folded(name, value)) for name, value in got] == list(
            theirs.headers
        )
    assert version == "HTTP/1." + ("0" if theirs.http_version == b"1.0" else "1")


def _folded(name: bytes, value: bytes) -> bytes:
    return value.lower() if name == b"transfer-encoding" else value


@budget
@given(heads())
def test_the_usual_is_read_as_by_the_reader_that_knows_all(data: bytes) -> None:
    opening = read_usual(data + b"behind")
    if opening is None:
        return
    head = ours([data])
    assert isinstance(head, Head)
    assert head.start == ("GET", opening.target, "HTTP/1.1")
    keys = {"HTTP_" + name.upper().replace("-", "_"): v for name, v in head.headers}
    assert keys == opening.fields
    assert is_upgrade(keys["HTTP_UPGRADE"], keys["HTTP_CONNECTION"])
    assert opening.behind == data.partition(b"\r\n\r\n")[2] + b"behind"


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """Draw a body in chunks, with faults."""
    parts = []
    for data in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4)):
        size = draw(st.sampled_from(["%x", "%X", "0%x", "%x;a=b", '%x; a="b\\""']))
        parts.append((size % len(data)).encode() + b"\r\n" + data + b"\r\n")
    trailers = draw(st.sampled_from([b"", b"A: b\r\n", b"Host: b\r\n", b"A\r\n"]))
    whole = bytearray(b"".join(parts) + b"0\r\n" + trailers + b"\r\n")
    for place in draw(st.lists(st.integers(0, 1 << 16), max_size=2)):
        whole[place % len(whole)] = draw(st.sampled_from(b"\r\n;0aF x\x00\xff"))
    return bytes(whole)


def read_body(data: bytes, length: int | None) -> tuple[bytes, bytes] | None:
    """Return a body, and what is behind it; None: it is refused."""
    source: Any = io.BufferedReader(io.BytesIO(data))
    body = Body(source, length)
    try:
        got = Stream(body).read()
    except HTTPException as error:
        assert error.code in (400, 408)
        return None
    assert body.ended
    return got, source.read()


def body_by_h11(data: bytes, header: str) -> tuple[bytes, bytes] | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    head = f"POST / HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n".encode()
    connection.receive_data(head + data)
    connection.next_event()
    got = b""
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                return None
            assert isinstance(event, h11.Data)
            got += event.data
    except h11.RemoteProtocolError:
        return None
    return got, connection.trailing_data[0]


@budget
@given(chunked(), st.binary(max_size=9))
def test_a_chunked_body_is_what_it_is_to_h11(data: bytes, behind: bytes) -> None:
    mine = read_body(data + behind, None)
    # RFC 9112 §7.1.1 lets space stand before the semicolon; h11 does not.
    if mine is not None and not re.search(rb"[ \t];", data):
        assert mine == body_by_h11(data + behind, "Transfer-Encoding: chunked")


@budget
@given(st.binary(max_size=60), st.integers(1, 60))
def test_a_body_has_the_length_that_was_told(data: bytes, length: int) -> None:
    mine = read_body(data, length)
    assert mine == body_by_h11(data, f"Content-Length: {length}")
