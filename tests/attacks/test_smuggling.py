"""Requests whose end is in doubt: none may be read as another server would not.

A second request follows each one on the same connection. What is between us and the
client may have seen it as a part of the first one's body, or the other way round.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from tests.attacks.raw import converse, statuses

from ..servers.serving import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


def corpus() -> Iterator[tuple[str, bytes]]:
    """Yield requests with a name, whose end is in doubt or which are malformed."""
    post, five = b"POST /said/1 HTTP/1.1\r\nHost: a\r\n", b"Content-Length: 5\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n"
    lengths = [
        "",
        "+5",
        "-5",
        "0_5",
        "5 ",
        "5,5",
        "5, 5",
        "0x5",
        "5.0",
        "5e0",
        "5;",
        '"5"',
    ]
    lengths += [
        "00005",
        "\t5",
        "5\x0b",
        "\x0c5",
        "²",
        "5\xa0",
        "9" * 20,
        "9" * 18,
        "9" * 5000,
    ]
    for value in lengths:
        line = f"Content-Length: {value}\r\n".encode("latin-1")
        yield f"length {value[:20]!r}", post + line + b"\r\nhello"
        yield f"length {value[:20]!r} too", post + five + line + b"\r\nhello"
        yield f"length {value[:20]!r} first", post + line + five + b"\r\nhello"
    codings = ["chunked", "Chunked", "CHUNKED", "xchunked", "chunked,", ",chunked", ""]
    codings += [
        "chunked, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        "gzip",
    ]
    codings += [
        "identity, chunked",
        "chunked;q=1",
        "chunked\x0b",
        "\x0bchunked",
        "chunke",
    ]
    codings += [
        '"chunked"',
        "chunked x",
        "x chunked",
        "\tchunked\t",
        "chunked\xa0",
        "deflate",
    ]
    body = b"5\r\nhello\r\n0\r\n\r\n"
    for value in codings:
        line = f"Transfer-Encoding: {value}\r\n".encode("latin-1")
        yield f"coding {value!r}", post + line + b"\r\n" + body
        yield f"coding {value!r} and length", post + line + five + b"\r\n" + body
        yield f"length and coding {value!r}", post + five + line + b"\r\n" + body
        yield f"coding {value!r} twice", post + line + chunked + b"\r\n" + body
        yield f"coding {value!r} second", post + chunked + line + b"\r\n" + body
        one = b"POST /said/1 HTTP/1.0\r\nConnection: keep-alive\r\n"
        yield f"coding {value!r} in 1.0", one + line + b"\r\n" + body
    sizes = [
        "5",
        "05",
        "0005",
        "+5",
        "-5",
        "0x5",
        " 5",
        "5 ",
        "5\t",
        "5;a",
        "5;a=b",
        "5 ;a",
    ]
    sizes += [
        "5;",
        "5;;",
        "5; a = b",
        '5;a="b"',
        '5;a="b',
        "5;a\x00",
        "5;a\rb",
        "5\n",
        "5\r",
    ]
    sizes += [
        "",
        "g",
        "5g",
        "0_5",
        "5,5",
        "F" * 16,
        "F" * 17,
        "0" * 16 + "5",
        "5;" + "a" * 9000,
    ]
    for size in sizes:
        data = size.encode("latin-1") + b"\r\nhello\r\n0\r\n\r\n"
        yield f"chunk {size[:20]!r}", post + chunked + b"\r\n" + data
    for name, data in {
        "no end": b"5\r\nhello0\r\n\r\n",
        "LF": b"5\nhello\n0\n\n",
        "CR": b"5\r\nhello\r0\r\n\r\n",
        "LF end": b"5\r\nhello\n0\r\n\r\n",
        "long": b"5\r\nhello!\r\n0\r\n\r\n",
        "short": b"5\r\nhell\r\n0\r\n\r\n",
        "two ends": b"5\r\nhello\r\n0\r\n\r\n0\r\n\r\n",
        "trailer": b"5\r\nhello\r\n0\r\nA: b\r\n\r\n",
        "trailer length": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
        "trailer coding": b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "trailer space": b"5\r\nhello\r\n0\r\nA : b\r\n\r\n",
        "trailer fold": b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
        "trailer LF": b"5\r\nhello\r\n0\r\nA: b\n\r\n\r\n",
        "trailer NUL": b"5\r\nhello\r\n0\r\nA: \x00\r\n\r\n",
        "trailer request": b"5\r\nhello\r\n0\r\nGET /said/2 HTTP/1.1\r\nA: a\r\n\r\n",
        "trailers": b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        "zeros": b"5\r\nhello\r\n0000000000\r\n\r\n",
    }.items():
        yield f"chunks {name}", post + chunked + b"\r\n" + data
    fields = [
        " A: b",
        "A : b",
        "A\t: b",
        ": b",
        "A",
        "A:\x00",
        "A: b\rc",
        "A: b\nc",
        "A: b\n c",
    ]
    fields += [
        "A: b\r\n c",
        "A: b\r\n\tc",
        "A(: b",
        "A\xe9: b",
        "A\x00: b",
        "A: \x7f",
        "A: \x01",
    ]
    fields += [
        "Host: a",
        "Host: b",
        "host : a",
        "Content-Length : 5",
        "Content-Length\x00: 5",
    ]
    fields += [
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Transfer-Encoding\t: chunked",
    ]
    fields += [
        "X: y\r\n Content-Length: 5",
        "A: \xe9",
        "Connection: close",
        "Expect: x",
    ]
    fields += [
        "Content-Type: a\r\nContent-Type: b",
        "\x0bA: b",
        "A: b\x0b",
        "A:\tb\t",
        "A:",
    ]
    for field in fields:
        line = field.encode("latin-1") + b"\r\n"
        yield f"field {field!r}", post + line + b"Content-Length: 5\r\n\r\nhello"
        yield f"field {field!r} alone", post + line + b"\r\n"
        first = post.replace(b"Host: a\r\n", line + b"Host: a\r\n")
        yield f"field {field!r} first", first + b"Content-Length: 5\r\n\r\nhello"
    methods = [
        "get",
        "Get",
        "G",
        "GE",
        "GET#",
        "G T",
        "GET\t",
        "GE\x00T",
        "POST ",
        " GET",
        "",
    ]
    methods += [
        "A" * 21,
        "GÉT",
        "M-SEARCH",
        "GET/",
        "CONNECT",
        "OPTIONS",
        "PRI",
        "QUERY",
    ]
    for method in methods:
        start = f"{method} /said/1 HTTP/1.1\r\nHost: a\r\n\r\n"
        yield f"method {method!r}", start.encode("latin-1")
    targets = [
        "",
        "said/1",
        "*",
        "a:80",
        "//a/b",
        "/said/1#f",
        "/said/\x00",
        "/said/\xe9",
        "/said/1 2",
    ]
    targets += [
        "http://b/said/1",
        "http:///said/1",
        "http://u@b/said/1",
        "http://b",
        "\\said",
    ]
    targets += [
        "/said/%2e%2e",
        "/said/%",
        "/said/\x7f",
        "/said/\t1",
        "ftp://b/said/1",
        "?a",
        "http:/a",
    ]
    targets += [
        "http://b:x/",
        "http://[::1]/said/1",
        "http://b/said/1#f",
        "/said/" + "a" * 8100,
    ]
    targets += ["/said/" + "a" * 8200, "/said/{1}|2", "HTTP://B/said/1?a=b"]
    for target in targets:
        for method in ("GET", "OPTIONS", "CONNECT"):
            start = f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"
            yield f"{method} {target[:20]!r}", start.encode("latin-1")
    versions = [
        "HTTP/1.0",
        "HTTP/1.1",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/0.9",
        "HTTP/1.10",
        "HTTP/11",
    ]
    versions += [
        "http/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1\t",
        " HTTP/1.1",
        "HTTP/1,1",
        "HTTP/01.1",
        "",
    ]
    versions += [
        "HTTP/1.1\rX",
        "HTTP/1.1\x00",
        "HTTP/\xd9\xa1.1",
        "HTTPS/1.1",
    ]
    for version in versions:
        start = f"GET /said/1 {version}\r\nHost: a\r\n\r\n"
        yield f"version {version!r}", start.encode("latin-1")
    get = b"GET /said/1 HTTP/1.1\r\nHost: a\r\n"
    yield "no fields", b"GET /said/1 HTTP/1.1\r\n\r\n"
    yield "0.9", b"GET /said/1\r\n"
    yield "LF", b"GET /said/1 HTTP/1.1\nHost: a\n\n"
    yield "LF first", b"GET /said/1 HTTP/1.1\nHost: a\r\n\r\n"
    yield "LF last", get + b"\n"
    yield "CR", b"GET /said/1 HTTP/1.1\rHost: a\r\r"
    yield "CR LF CR", get[:-2] + b"\r\r\n\r\n"
    yield "get with a body", get + b"Content-Length: 5\r\n\r\nhello"
    yield "get with chunks", get + chunked + b"\r\n" + body
    yield "upgrade with a body", post + b"Connection: upgrade\r\n" + five + b"\r\nhello"
    yield (
        "websocket with a body",
        post + b"Upgrade: websocket\r\n" + five + b"\r\nhello",
    )
    yield (
        "upgrade with chunks",
        post + b"Connection: upgrade\r\n" + chunked + b"\r\n" + body,
    )
    yield "unread", post.replace(b"/said/1", b"/page") + five + b"\r\nhello"


HIDDEN = b"GET /said/2 HTTP/1.1\r\nHost: a\r\n\r\n"
"""What is smuggled, where two disagree on where the request before it ends."""


LEGAL = {
    "length '00005'",
    "coding 'Chunked'",
    "chunk '5;a=b'",
    "chunks trailer",
    "field 'A:\\tb\\t'",
    "method 'M-SEARCH'",
    "GET 'http://b/said/1'",
    "OPTIONS 'HTTP://B/said/1?a=b'",
    "version 'HTTP/1.2'",
    "get with chunks",
    "upgrade with a body",
    "websocket with a body",
    "upgrade with chunks",
}
"""What is nobody's fault, so that all of it is read."""


def read_by_gunicorn(data: bytes) -> list[tuple[str, str, str]]:
    """Return the requests that gunicorn's own parser finds: method, path and body."""
    found = []
    config = Config()
    config.set("limit_request_line", 8190)
    with contextlib.suppress(Exception):  # it refuses the rest
        for request in RequestParser(config, iter([data]), ("127.0.0.1", 1)):
            body = request.body.read().decode("latin-1")
            found.append((request.method, unquote(request.path), body))
    return found


def test_no_request_is_found_where_gunicorn_finds_none(way: Server) -> None:
    wrong, whole = {}, set()
    for name, request in corpus():
        answer = converse(way, request + HIDDEN)
        lines = [line for line in answer.splitlines() if line.startswith(b'["')]
        found = [tuple(json.loads(line)) for line in lines]
        read = read_by_gunicorn(request + HIDDEN)
        expected = [each for each in read if each[1].startswith("/said/")]
        crashed = {code for code in statuses(answer) if code >= 500} - {501, 505}
        if found != expected[: len(found)] or crashed:
            wrong[name] = answer, expected
        elif len(found) == len(expected) == 2:
            whole.add(name)
    assert wrong == {}
    assert whole >= LEGAL
