"""The opening handshake, both halves (RFC 6455 §4)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_wschat.codec import (
    ClientHandshake,
    Head,
    accept_headers,
    accept_key,
    accept_response,
    check_request,
    choose_subprotocol,
    is_upgrade,
    is_usual_key,
    read_head,
    response,
    tokens,
)
from flask_wschat.codec import handshake as module
from flask_wschat.errors import HandshakeError

from .vectors import ACCEPT, KEY, REQUEST, RESPONSE

HEADERS = {
    "host": "server.example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


@pytest.fixture(scope="module", autouse=True)
def twin() -> None:
    """There is but one of this."""


@pytest.mark.parametrize(
    "options",
    [{}, {"subprotocol": "chat"}, {"extension": "permessage-deflate"}],
    ids=str,
)
def test_accept_response(options: dict[str, str]) -> None:
    answer = accept_response(KEY, **options)
    assert answer == response(101, accept_headers(KEY, **options))


@given(st.binary(min_size=14, max_size=18))
def test_a_usual_key_is_a_good_one(data: bytes) -> None:
    key = base64.b64encode(data).decode()
    assert is_usual_key(key) == (len(data) == 16)
    assert not is_usual_key(key[1:]) and not is_usual_key(key + "\n")
    headers = list((HEADERS | {"sec-websocket-key": key}).items())
    if is_usual_key(key):
        assert check_request("GET", "HTTP/1.1", headers) == key


def test_accept_key() -> None:
    """RFC 6455 §1.3."""
    assert accept_key(KEY) == ACCEPT


class TestHead:
    def test_reads_the_request_of_1_2(self) -> None:
        found = read_head(REQUEST + b"\x81")
        assert found is not None
        head, size = found
        assert size == len(REQUEST)
        assert head.start == ("GET", "/chat", "HTTP/1.1")
        assert head.get_all("host") == ["server.example.com"]
        assert head.get_all("sec-websocket-protocol") == ["chat, superchat"]
        assert head.get_all("cookie") == []

    def test_waits_for_the_empty_line(self) -> None:
        for size in range(len(REQUEST)):
            assert read_head(REQUEST[:size]) is None

    def test_keeps_repeated_headers_apart_and_trims(self) -> None:
        found = read_head(b"GET / HTTP/1.1\r\nA: 1 \r\nB:\t2\r\na:\r\n\r\n")
        assert found == (
            Head(("GET", "/", "HTTP/1.1"), [("a", "1"), ("b", "2"), ("a", "")]),
            35,
        )

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"\r\n\r\n", id="empty"),
            pytest.param(b"GET /\r\n\r\n", id="two-words"),
            pytest.param(b"GET / HTTP/1.1\r\nno colon\r\n\r\n", id="no-colon"),
            pytest.param(b"GET / HTTP/1.1\r\n: value\r\n\r\n", id="no-name"),
            pytest.param(b"GET / HTTP/1.1\r\nA : b\r\n\r\n", id="space-before-colon"),
            pytest.param(b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", id="folded"),
            pytest.param(b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", id="bare-lf"),
            pytest.param(b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n", id="nul"),
        ],
    )
    def test_malformed(self, data: bytes) -> None:
        with pytest.raises(HandshakeError) as caught:
            read_head(data)
        assert caught.value.status == 400

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"a" * (module.MAX_HEAD + 1), id="unfinished"),
            pytest.param(b"a" * (module.MAX_HEAD + 1) + b"\r\n\r\n", id="whole"),
            pytest.param(
                b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (module.MAX_LINES + 1) + b"\r\n",
                id="lines",
            ),
        ],
    )
    def test_too_large(self, data: bytes) -> None:
        with pytest.raises(HandshakeError) as caught:
            read_head(data)
        assert caught.value.status == 431

    @given(st.binary(max_size=200).map(lambda data: data + b"\r\n\r\n"))
    def test_any_bytes_give_a_head_or_the_error(self, data: bytes) -> None:
        try:
            found = read_head(data)
        except HandshakeError:
            return
        assert found is not None


def test_tokens() -> None:
    assert tokens(["a, b", "", ",c\t,, "]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("upgrade", "connection", "answer"),
    [
        ("websocket", "Upgrade", True),
        ("WebSocket", "keep-alive, upgrade", True),
        ("h2c, websocket", "upgrade", True),
        ("websocket", "keep-alive", False),
        ("websockets", "upgrade", False),
        ("", "", False),
        ("websocket", "upgrade," * 9000, False),  # longer than any field may be
    ],
)
def test_is_upgrade(upgrade: str, connection: str, answer: bool) -> None:
    assert is_upgrade(upgrade, connection) is answer


class TestRequest:
    """RFC 6455 §4.2.1."""

    def check(
        self,
        changes: dict[str, str | None],
        *,
        method: str = "GET",
        version: str = "HTTP/1.1",
        also: tuple[tuple[str, str], ...] = (),
    ) -> str:
        headers = HEADERS | changes
        given = [(name, value) for name, value in headers.items() if value is not None]
        return check_request(method, version, [*given, *also])

    def test_good(self) -> None:
        assert self.check({}) == KEY
        found = read_head(REQUEST)
        assert found is not None
        method, _, version = found[0].start
        assert check_request(method, version, found[0].headers) == KEY

    def test_headers_may_come_in_parts(self) -> None:
        also = (("connection", "upgrade"), ("upgrade", "websocket"))
        changes = {"connection": "keep-alive", "upgrade": "h2c"}
        assert self.check({**changes}, also=also) == KEY

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            pytest.param({"host": None}, 400, id="4.2.1-2-no-host"),
            pytest.param({"upgrade": None}, 426, id="4.2.1-3-no-upgrade"),
            pytest.param({"upgrade": "h2c"}, 426, id="4.2.1-3-other-upgrade"),
            pytest.param({"connection": None}, 426, id="4.2.1-4-no-connection"),
            pytest.param({"connection": "close"}, 426, id="4.2.1-4-close"),
            pytest.param({"sec-websocket-key": None}, 400, id="4.2.1-5-no-key"),
            pytest.param({"sec-websocket-key": ""}, 400, id="4.2.1-5-empty-key"),
            pytest.param({"sec-websocket-key": KEY[:-4]}, 400, id="4.2.1-5-short-key"),
            pytest.param(
                {"sec-websocket-key": base64.b64encode(bytes(17)).decode()},
                400,
                id="4.2.1-5-17-bytes",
            ),
            pytest.param({"sec-websocket-key": "!" + KEY}, 400, id="4.2.1-5-junk"),
            pytest.param({"sec-websocket-key": "é" * 24}, 400, id="4.2.1-5-not-ascii"),
            pytest.param({"sec-websocket-version": None}, 400, id="4.2.1-6-none"),
            pytest.param({"sec-websocket-version": "8"}, 426, id="4.2.1-6-old"),
            pytest.param({"sec-websocket-version": "13, 8"}, 400, id="4.2.1-6-two"),
        ],
    )
    def test_refused(self, changes: dict[str, str | None], status: int) -> None:
        with pytest.raises(HandshakeError) as caught:
            self.check(changes)
        assert caught.value.status == status

    @pytest.mark.parametrize(
        "name", ["host", "sec-websocket-key", "sec-websocket-version"]
    )
    def test_repeated(self, name: str) -> None:
        """RFC 6455 §11.3: once in a request."""
        with pytest.raises(HandshakeError) as caught:
            self.check({}, also=((name, HEADERS[name]),))
        assert caught.value.status == 400

    def test_another_method(self) -> None:
        with pytest.raises(HandshakeError) as caught:
            self.check({}, method="POST")
        assert caught.value.status == 405
        assert caught.value.headers == [("Allow", "GET")]

    @pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9", "b HTTP/1.1"])
    def test_another_http(self, version: str) -> None:
        with pytest.raises(HandshakeError) as caught:
            self.check({}, version=version)
        assert caught.value.status == 400

    def test_refusals_say_what_would_do(self) -> None:
        """RFC 6455 §4.4 and RFC 9110 §15.5.22."""
        with pytest.raises(HandshakeError) as caught:
            self.check({"sec-websocket-version": "8"})
        assert ("Sec-WebSocket-Version", "13") in caught.value.headers
        with pytest.raises(HandshakeError) as caught:
            self.check({"upgrade": None})
        assert ("Upgrade", "websocket") in caught.value.headers


class TestResponse:
    """RFC 6455 §4.2.2."""

    def test_is_that_of_1_2(self) -> None:
        assert response(101, accept_headers(KEY, subprotocol="chat")) == RESPONSE

    def test_without_a_subprotocol(self) -> None:
        assert accept_headers(KEY) == [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", ACCEPT),
        ]

    def test_a_refusal_has_a_body(self) -> None:
        assert response(403, [("A", "b")], "nö\n") == (
            b"HTTP/1.1 403 Forbidden\r\nA: b\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\n\r\n"
            b"n\xc3\xb6\n"
        )

    @pytest.mark.parametrize(
        ("offered", "ours", "chosen"),
        [
            (["chat", "superchat"], ["superchat", "chat"], "superchat"),
            (["chat"], ["Chat"], None),
            ([], ["chat"], None),
            (["chat"], [], None),
        ],
    )
    def test_subprotocol(
        self, offered: list[str], ours: list[str], chosen: str | None
    ) -> None:
        assert choose_subprotocol(offered, ours) == chosen


class TestClient:
    """RFC 6455 §4.1."""

    def answer(self, client: ClientHandshake, *more: tuple[str, str]) -> bytes:
        """Return what a server answers to the client's request."""
        found = read_head(client.request())
        assert found is not None
        head = found[0]
        key = check_request(head.start[0], head.start[2], head.headers)
        return response(101, [*accept_headers(key), *more])

    def test_request(self) -> None:
        client = ClientHandshake(
            "server.example.com",
            "/chat",
            headers=[("Origin", "http://example.com")],
            subprotocols=["chat", "superchat"],
        )
        found = read_head(client.request())
        assert found is not None
        head, size = found
        assert size == len(client.request())
        assert head.start == ("GET", "/chat", "HTTP/1.1")
        (key,) = head.get_all("sec-websocket-key")
        assert len(base64.b64decode(key)) == 16
        expected = read_head(REQUEST.replace(KEY.encode(), key.encode()))
        assert expected is not None
        assert sorted(head.headers) == sorted(expected[0].headers)

    def test_the_key_is_new_each_time(self) -> None:
        requests = {ClientHandshake("h").request() for _ in range(10)}
        assert len(requests) == 10

    def test_accepted(self) -> None:
        client = ClientHandshake("h", subprotocols=["chat"])
        answer = self.answer(client, ("Sec-WebSocket-Protocol", "chat"))
        for size in range(len(answer)):
            assert client.receive_data(answer[:size]) is None
        assert client.receive_data(answer + b"\x81\x00") == len(answer)
        assert client.subprotocol == "chat"

    def test_no_subprotocol_is_fine(self) -> None:
        client = ClientHandshake("h", subprotocols=["chat"])
        answer = self.answer(client)
        assert client.receive_data(answer) == len(answer)
        assert client.subprotocol is None

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            pytest.param("HTTP/1.1 101", "HTTP/1.0 101", id="http-1.0"),
            pytest.param("HTTP/1.1 101", "HTTP/1.1 ²01", id="status-not-a-number"),
            pytest.param("HTTP/1.1 101", "HTTP/1.1 1011", id="status-of-4-digits"),
            pytest.param("Upgrade: websocket", "Upgrade: h2c", id="4.1-2-upgrade"),
            pytest.param("Connection: Upgrade", "Connection: close", id="4.1-3"),
            pytest.param("Sec-WebSocket-Accept: ", "X: ", id="4.1-4-no-accept"),
            pytest.param(
                "Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x", id="4.1-4-accept"
            ),
            pytest.param(
                "\r\n\r\n",
                "\r\nSec-WebSocket-Extensions: x-shout\r\n\r\n",
                id="4.1-5-extension",
            ),
            pytest.param(
                "\r\n\r\n", "\r\nSec-WebSocket-Protocol: other\r\n\r\n", id="4.1-6"
            ),
            pytest.param(
                "\r\n\r\n",
                "\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat"
                "\r\n\r\n",
                id="4.1-6-twice",
            ),
        ],
    )
    def test_wrong_answers(self, before: str, after: str) -> None:
        client = ClientHandshake("h", subprotocols=["chat"])
        answer = self.answer(client).decode("latin-1")
        assert before in answer
        with pytest.raises(HandshakeError) as caught:
            client.receive_data(answer.replace(before, after, 1).encode("latin-1"))
        assert caught.value.status == 502

    def test_a_refusal_carries_the_servers_words(self) -> None:
        client = ClientHandshake("h")
        refusal = response(401, [("WWW-Authenticate", "Basic")], "who are you?")
        with pytest.raises(HandshakeError, match="401 Unauthorized") as caught:
            client.receive_data(refusal)
        assert caught.value.status == 401
        assert ("www-authenticate", "Basic") in caught.value.headers

    @pytest.mark.parametrize(
        "header", [("A", "b\r\nC: d"), ("A b", "c"), ("", "c"), ("A", "\x00")]
    )
    def test_headers_cannot_be_smuggled_in(self, header: tuple[str, str]) -> None:
        with pytest.raises(ValueError, match="not a legal header"):
            ClientHandshake("h", headers=[header])

    @pytest.mark.parametrize("host", ["h\r\nA: b", "h\n"])
    def test_nor_by_the_host(self, host: str) -> None:
        with pytest.raises(ValueError, match="not a legal header"):
            ClientHandshake(host)

    @pytest.mark.parametrize("target", ["", "chat", "/a b", "/a\r\n", "/\x7f", "/ä"])
    def test_an_illegal_target(self, target: str) -> None:
        with pytest.raises(ValueError, match="not a legal request target"):
            ClientHandshake("h", target)

    @pytest.mark.parametrize(
        "names", [["a", "a"], [""], ["a b"], ["a,b"], ["ä"], ["a\r\nb"]]
    )
    def test_illegal_subprotocols(self, names: list[str]) -> None:
        """§4.1, 10: unique, and tokens."""
        with pytest.raises(ValueError, match="subprotocols"):
            ClientHandshake("h", subprotocols=names)


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(b"HTTP/1.1 101 x\r\nno colon\r\n\r\n", id="malformed"),
        pytest.param(b"HTTP/1.1 101 x\r\nA: " + b"b" * 70_000, id="too large"),
    ],
)
def test_a_malformed_response_is_the_servers_fault(response: bytes) -> None:
    """Not the 400 or 431 that a server would answer such a head with."""
    with pytest.raises(HandshakeError, match="malformed") as caught:
        ClientHandshake("example.org").receive_data(response)
    assert caught.value.status == 502
