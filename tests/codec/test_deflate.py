"""permessage-deflate (RFC 7692): the negotiation, and both directions of data."""

from __future__ import annotations

import os
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_wschat.codec import (
    ClientHandshake,
    Closed,
    Connection,
    Deflate,
    EncodedMessage,
    Event,
    Ping,
    accept_headers,
    deflate,
    negotiate,
    read_head,
    response,
)
from flask_wschat.errors import HandshakeError

from .vectors import (
    DEFLATED,
    DEFLATED_FRAGMENTS,
    DEFLATED_FRAMES,
    DEFLATED_WITH_CONTEXT,
)
from .wire import cut, frame, splits, xor

NAME = "permessage-deflate"
ALWAYS = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
BOTH = Deflate(15, 15)


def compress(payload: bytes, *, bits: int = 15, level: int = 6) -> bytes:
    """Return ``payload`` as RFC 7692 §7.2.1 says."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


def server(max_message: int = 1 << 20, bits: int = 15) -> Connection:
    return Connection(max_message=max_message, deflate=Deflate(15, bits))


def code_of(events: list[Event]) -> int:
    (event,) = events
    assert isinstance(event, Closed)
    return event.code


class TestGrammar:
    """RFC 6455 §9.1."""

    @pytest.mark.parametrize(
        ("values", "extensions"),
        [
            ([], []),
            ([""], []),
            ([" , ,"], []),
            (["a"], [("a", [])]),
            (["a, b;c", "d"], [("a", []), ("b", [("c", None)]), ("d", [])]),
            (["a;b=c;d"], [("a", [("b", "c"), ("d", None)])]),
            (["a ; b = c\t,\tb"], [("a", [("b", "c")]), ("b", [])]),
            (['a;b="c"'], [("a", [("b", "c")])]),
            ([r'a;b="\c\d"'], [("a", [("b", "cd")])]),
            (["a;b=1;b=2"], [("a", [("b", "1"), ("b", "2")])]),
        ],
    )
    def test_good(
        self,
        values: list[str],
        extensions: list[tuple[str, list[tuple[str, str | None]]]],
    ) -> None:
        assert deflate.parse_extensions(values) == extensions

    @pytest.mark.parametrize(
        "value",
        [
            *(
                "a;",
                ";a",
                "a;;b",
                "a b",
                "a=b",
                "a;b=",
                "a;=c",
                "a;b c",
                "ä",
                "a;b=c=d",
            ),
            *('a;b="', 'a;b="c', 'a;b=""', 'a;b="c d"', 'a;b="c,d"', r'a;b="\"', '"a"'),
        ],
    )
    def test_malformed(self, value: str) -> None:
        with pytest.raises(HandshakeError) as caught:
            negotiate([value])
        assert caught.value.status == 400

    @pytest.mark.parametrize(
        "part", [";a", "; ", 'a;b="\\a', ";a=", "a ", ",", "a;a=a,"]
    )
    def test_takes_linear_time(self, part: str) -> None:
        value = "a" + part * 20_000
        try:
            deflate.parse_extensions([value + '"'])
        except HandshakeError:
            return
        raise AssertionError("the quote should be an error")

    @given(st.text(alphabet='ab8;,="\\ \t', max_size=30))
    def test_any_text_is_parsed_or_refused(self, value: str) -> None:
        try:
            deflate.parse_extensions([value])
        except HandshakeError as error:
            assert error.status == 400


class TestNegotiate:
    """RFC 7692 §7.1, as a server."""

    @pytest.mark.parametrize(
        ("offer", "agreed", "answer"),
        [
            pytest.param("", BOTH, "", id="7.1-nothing-asked"),
            pytest.param("; server_no_context_takeover", BOTH, "", id="7.1.1.1"),
            pytest.param("; client_no_context_takeover", BOTH, "", id="7.1.1.2"),
            pytest.param("; client_max_window_bits", BOTH, "", id="7.1.2.2-flag"),
            *[
                pytest.param(
                    f"; server_max_window_bits={bits}",
                    Deflate(bits, 15),
                    f"; server_max_window_bits={bits}",
                    id=f"7.1.2.1-{bits}",
                )
                for bits in range(9, 16)
            ],
            *[
                pytest.param(
                    f"; client_max_window_bits={bits}",
                    Deflate(15, bits),
                    f"; client_max_window_bits={bits}",
                    id=f"7.1.2.2-{bits}",
                )
                for bits in range(8, 16)
            ],
            pytest.param(
                '; client_max_window_bits="10"; server_max_window_bits = "11"'
                "; client_no_context_takeover; server_no_context_takeover",
                Deflate(11, 10),
                "; server_max_window_bits=11; client_max_window_bits=10",
                id="all-four-and-quotes",
            ),
        ],
    )
    def test_accepts(self, offer: str, agreed: Deflate, answer: str) -> None:
        assert negotiate([NAME + offer]) == (agreed, ALWAYS + answer)

    @pytest.mark.parametrize(
        "offer",
        [
            pytest.param("", id="none"),
            pytest.param("x-webkit-deflate-frame", id="5-unknown-extension"),
            pytest.param(f"{NAME}; mux", id="5.1-unknown-parameter"),
            pytest.param(f"{NAME}; server_no_context_takeover=1", id="7.1.1.1-value"),
            pytest.param(f"{NAME}; client_no_context_takeover=1", id="7.1.1.2-value"),
            pytest.param(f"{NAME}; server_max_window_bits", id="7.1.2.1-no-value"),
            pytest.param(f"{NAME}; server_max_window_bits=7", id="7.1.2.1-7"),
            pytest.param(
                f"{NAME}; server_max_window_bits=8", id="7.1.2.1-8-not-in-zlib"
            ),
            pytest.param(f"{NAME}; server_max_window_bits=16", id="7.1.2.1-16"),
            pytest.param(
                f"{NAME}; server_max_window_bits=010", id="7.1.2.1-zero-first"
            ),
            pytest.param(f"{NAME}; server_max_window_bits=+9", id="7.1.2.1-sign"),
            pytest.param(f"{NAME}; server_max_window_bits=x", id="7.1.2.1-word"),
            pytest.param(f"{NAME}; client_max_window_bits=7", id="7.1.2.2-7"),
            pytest.param(f"{NAME}; client_max_window_bits=16", id="7.1.2.2-16"),
            pytest.param(f"{NAME}; client_max_window_bits=15a", id="7.1.2.2-word"),
            pytest.param(
                f"{NAME}; client_max_window_bits; client_max_window_bits",
                id="5.1-repeated",
            ),
        ],
    )
    def test_declines(self, offer: str) -> None:
        assert negotiate([offer]) is None
        # The next offer is tried, in this header or another (§5.1).
        assert negotiate([f"{offer}, {NAME}"]) == (BOTH, ALWAYS)
        assert negotiate([offer, NAME]) == (BOTH, ALWAYS)

    def test_the_first_good_offer_counts(self) -> None:
        offers = f"{NAME}; server_max_window_bits=10, {NAME}"
        agreed = negotiate([offers])
        assert agreed is not None
        assert agreed[0] == Deflate(10, 15)

    def test_the_answer_is_a_header_of_the_101(self) -> None:
        headers = accept_headers("key", extension=ALWAYS)
        assert headers[-1] == ("Sec-WebSocket-Extensions", ALWAYS)


class TestClientNegotiation:
    """RFC 7692 §7.1, as a client."""

    def answer(self, *extensions: str, compression: bool = True) -> ClientHandshake:
        client = ClientHandshake("h", compression=compression)
        found = read_head(client.request())
        assert found is not None
        (key,) = found[0].get_all("sec-websocket-key")
        more = [("Sec-WebSocket-Extensions", value) for value in extensions]
        answer = response(101, [*accept_headers(key), *more])
        assert client.receive_data(answer) == len(answer)
        return client

    def test_our_offer_is_one_that_we_accept(self) -> None:
        found = read_head(ClientHandshake("h", compression=True).request())
        assert found is not None
        offers = found[0].get_all("sec-websocket-extensions")
        agreed = negotiate(offers)
        assert agreed is not None
        assert self.answer(agreed[1]).deflate == BOTH

    def test_nothing_is_offered_unless_asked(self) -> None:
        assert b"Extensions" not in ClientHandshake("h").request()
        assert self.answer(compression=False).deflate is None

    def test_the_server_may_decline(self) -> None:
        assert self.answer().deflate is None

    @pytest.mark.parametrize(
        ("answer", "agreed"),
        [
            ("", BOTH),
            ("; client_no_context_takeover", BOTH),
            ("; server_max_window_bits=8", Deflate(15, 8)),
            ("; client_max_window_bits=9", Deflate(9, 15)),
            # zlib has no such window, so we send all messages as they are.
            ("; client_max_window_bits=8", Deflate(None, 15)),
        ],
    )
    def test_answers(self, answer: str, agreed: Deflate) -> None:
        client = self.answer(f"{NAME}; server_no_context_takeover{answer}")
        assert client.deflate == agreed

    @pytest.mark.parametrize(
        "answers",
        [
            pytest.param([NAME], id="7.1.1.1-not-what-we-asked-for"),
            pytest.param(["x-shout"], id="5.1-another-extension"),
            pytest.param([ALWAYS, ALWAYS], id="5.1-twice"),
            pytest.param([f"{ALWAYS}; mux"], id="5.1-unknown-parameter"),
            pytest.param([f"{ALWAYS}; server_max_window_bits"], id="7.1.2.1-no-value"),
            pytest.param([f"{ALWAYS}; client_max_window_bits"], id="7.1.2.2-no-value"),
            pytest.param([f"{ALWAYS}; client_max_window_bits=16"], id="7.1.2.2-16"),
            pytest.param([f"{ALWAYS};"], id="9.1-malformed"),
        ],
    )
    def test_wrong_answers(self, answers: list[str]) -> None:
        with pytest.raises(HandshakeError) as caught:
            self.answer(*answers)
        assert caught.value.status == 502


class TestReceiving:
    """RFC 7692 §7.2.2."""

    @pytest.mark.parametrize("vector", DEFLATED.values(), ids=list(DEFLATED))
    def test_vectors(self, vector: tuple[str, bytes]) -> None:
        payload = bytes.fromhex(vector[0])
        data = frame(0xC2, payload)
        assert server().receive_data(data) == [vector[1]]
        data = frame(0xC1, payload)
        connection = server()
        events = [e for b in data for e in connection.receive_data(bytes([b]))]
        assert events == [vector[1].decode()]
        # Nothing stays behind: the next message starts anew.
        assert connection.receive_data(data * 2) == [vector[1].decode()] * 2

    @pytest.mark.parametrize("wire", [DEFLATED_FRAMES, DEFLATED_FRAGMENTS])
    def test_frames_of_7_2_3_1(self, wire: str) -> None:
        connection = Connection(client=True, deflate=BOTH)
        assert connection.receive_data(bytes.fromhex(wire)) == ["Hello"]

    def test_no_context_is_kept(self) -> None:
        """§7.2.3.2, where it would be."""
        connection = server()
        connection.receive_data(frame(0xC1, bytes.fromhex("f248cdc9c90700")))
        data = frame(0xC1, bytes.fromhex(DEFLATED_WITH_CONTEXT))
        assert code_of(connection.receive_data(data)) == 1007

    def test_plain_messages_still_come(self) -> None:
        """§6: RSV1 tells, message by message."""
        connection = server()
        data = frame(0x81, b"plain") + frame(0xC1, compress(b"small"))
        assert connection.receive_data(data * 2) == ["plain", "small"] * 2

    def test_a_ping_between_fragments(self) -> None:
        payload = compress(b"Hello" * 100)
        data = frame(0x41, payload[:5]) + frame(0x89) + frame(0x80, payload[5:])
        assert server().receive_data(data) == [Ping(b""), "Hello" * 100]

    @pytest.mark.parametrize("bits", range(9, 16))
    def test_every_window(self, bits: int) -> None:
        text = "".join(f"{i * i} " for i in range(20_000))
        data = frame(0xC1, compress(text.encode(), bits=bits))
        assert server(bits=bits).receive_data(data) == [text]

    @pytest.mark.parametrize("level", range(10))
    def test_every_level(self, level: int) -> None:
        payload = bytes(range(256)) * 500 + os.urandom(70_000)
        data = frame(0xC2, compress(payload, level=level))
        assert server().receive_data(data) == [payload]

    @pytest.mark.parametrize("size", [*range(65_530, 65_540), 131_071, 131_072])
    def test_sizes_about_a_step(self, size: int) -> None:
        data = frame(0xC2, compress(bytes(size)))
        assert server().receive_data(data) == [bytes(size)]

    def test_blocks_after_the_last(self) -> None:
        """§7.2.1: BFINAL may be set, at the end and before."""
        block = zlib.compressobj(wbits=-15)
        last = block.compress(b"Hello") + block.flush(zlib.Z_FINISH)
        data = frame(0xC1, last * 50 + compress(b"!"))
        assert server().receive_data(data) == ["Hello" * 50 + "!"]
        fragments = frame(0x41, last) + frame(0x00, last) + frame(0x80, b"\x00")
        assert server().receive_data(fragments) == ["HelloHello"]

    def test_many_last_blocks_take_linear_time(self) -> None:
        connection = server()
        assert connection.receive_data(frame(0xC2, b"\x03\x00" * 100_000 + b"\0")) == [
            b""
        ]

    @pytest.mark.parametrize(
        "payload",
        [
            pytest.param(b"", id="7.2.1-not-even-a-header"),
            pytest.param(b"\xff\xff\xff", id="reserved-block-type"),
            pytest.param(b"Hello, this is plain", id="plain"),
            pytest.param(compress(b"Hello" * 100)[:-5], id="cut-off"),
            pytest.param(compress(b"Hello" * 100, level=0)[:-7], id="cut-off-stored"),
            pytest.param(compress(b"Hello")[:-1], id="last-byte-missing"),
            pytest.param(compress(b"Hello") + b"\x06", id="one-byte-more"),
            pytest.param(b"\xf3\x48\xcd\xc9\xc9\x07\x00", id="nothing-after-bfinal"),
        ],
    )
    def test_corrupt(self, payload: bytes) -> None:
        """Ends in 1007, in one frame or byte by byte."""
        connection = server()
        assert code_of(connection.receive_data(frame(0xC2, payload))) == 1007
        assert connection.data_to_send()[2:4] == (1007).to_bytes(2, "big")
        parts = [frame(0x00, bytes([byte])) for byte in payload]
        data = frame(0x42) + b"".join(parts) + frame(0x80)
        assert code_of(server().receive_data(data)) == 1007

    def test_what_is_not_whole_is_not_inflated(self) -> None:
        """Else a kilobyte would hold a megabyte, for as long as its sender likes."""
        connection = server()
        payload = compress(b"x" * 1_000_000)
        tracemalloc.start()
        try:
            assert connection.receive_data(frame(0x41, payload)) == []
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert held < 10_000
        assert connection.receive_data(frame(0x80)) == ["x" * 1_000_000]

    def test_text_is_checked(self) -> None:
        """RFC 6455 §8.1."""
        for text in (b"\xff", b"ok \xed\xa0\x80", b"x" * 100_000 + b"\xff"):
            data = frame(0xC1, compress(text))
            assert code_of(server().receive_data(data)) == 1007

    def test_a_close_between_ends_it(self) -> None:
        connection = server()
        connection.receive_data(frame(0x41, compress(b"x")))
        connection.close()
        assert connection.receive_data(frame(0x80)) == []

    def test_rsv1_without_the_extension(self) -> None:
        """RFC 6455 §5.2."""
        data = frame(0xC1, compress(b"Hello"))
        assert code_of(Connection().receive_data(data)) == 1002

    @pytest.mark.parametrize("first", [0xC8, 0xC9, 0xCA])
    def test_rsv1_on_a_control_frame(self, first: int) -> None:
        """§6: control frames are not compressed."""
        assert code_of(server().receive_data(frame(first))) == 1002

    def test_rsv1_on_a_continuation(self) -> None:
        """§6.1."""
        payload = compress(b"Hello")
        data = frame(0x41, payload[:3]) + frame(0xC0, payload[3:])
        assert code_of(server().receive_data(data)) == 1002

    @given(st.binary(max_size=200), splits)
    def test_any_bytes_inflate_or_close(
        self, payload: bytes, places: list[int]
    ) -> None:
        data = frame(0xC2, payload)
        whole = server().receive_data(data)
        assert isinstance(whole[0], bytes) or code_of(whole) == 1007
        connection = server()
        parts = [e for part in cut(data, places) for e in connection.receive_data(part)]
        assert parts == whole

    @given(
        st.binary(max_size=500) | st.text().map(str.encode), splits, st.integers(0, 9)
    )
    def test_any_message_comes_through(
        self, payload: bytes, places: list[int], level: int
    ) -> None:
        data = frame(0xC2, compress(payload, level=level))
        connection = server()
        events = [
            e for part in cut(data, places) for e in connection.receive_data(part)
        ]
        assert events == [payload]


class TestLimit:
    """It counts what inflates (RFC 6455 §10.4)."""

    def test_is_exact(self) -> None:
        data = frame(0xC2, compress(bytes(100_000)))
        assert server(100_000).receive_data(data) == [bytes(100_000)]
        assert code_of(server(99_999).receive_data(data)) == 1009

    @pytest.mark.parametrize("size", [1, 255, 256, 65_536, 1 << 20])
    @pytest.mark.parametrize("level", [0, 6])
    def test_what_does_not_shrink_may_grow(self, size: int, level: int) -> None:
        """Else a message of just the limit would fail for being compressed."""
        payload = random.Random(size).randbytes(size)
        data = frame(0xC2, compress(payload, bits=9, level=level))
        assert len(data) > size
        assert server(size).receive_data(data) == [payload]

    def test_is_checked_on_the_header_too(self) -> None:
        connection = server(1000)
        data = frame(0xC2, bytes(1000 + 1000 // 7 + 65))
        assert code_of(connection.receive_data(data[:4])) == 1009

    def test_the_growth_is_not_for_plain_messages(self) -> None:
        connection = server(1000)
        connection.receive_data(frame(0xC2, compress(b"Hello")))
        assert code_of(connection.receive_data(frame(0x82, bytes(1001)))) == 1009

    def test_a_bomb_costs_no_more_than_the_limit(self) -> None:
        """1 MiB that inflates to 1 GiB."""
        limit = 1 << 20
        compressor = zlib.compressobj(wbits=-15)
        block = compressor.compress(bytes(1 << 20)) + compressor.flush(
            zlib.Z_FULL_FLUSH
        )
        bomb = block * 1000
        assert len(bomb) < limit < len(bomb) * 1.1
        connection = server(limit)
        data = frame(0xC2, bomb)
        tracemalloc.start()
        try:
            for start in range(0, len(data), 1 << 16):
                events = connection.receive_data(data[start : start + (1 << 16)])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert code_of(events) == 1009
        assert peak < limit * 2.5  # what was sent, and what it became


class TestSending:
    """RFC 7692 §7.2.1."""

    TEXT = "".join(f"{i} bottles of beer on the wall, " for i in range(99))

    def test_a_long_text_shrinks(self) -> None:
        wire = server().send(self.TEXT)
        assert wire[0] == 0xC1
        assert len(wire) < len(self.TEXT) / 4
        client = Connection(client=True, deflate=BOTH)
        # The same each time: no context is kept.
        assert client.receive_data(wire + wire) == [self.TEXT] * 2
        assert wire == server().send(self.TEXT)

    def test_a_client_masks_what_is_compressed(self) -> None:
        wire = Connection(client=True, deflate=BOTH).send(self.TEXT)
        assert wire[:2] == b"\xc1\xfe"
        assert xor(wire[8:], wire[4:8]) == compress(self.TEXT.encode())
        assert server().receive_data(wire) == [self.TEXT]

    @pytest.mark.parametrize(
        "message",
        [
            pytest.param("a" * 255, id="short"),
            pytest.param(random.Random(0).randbytes(5000), id="random"),
        ],
    )
    def test_what_would_not_gain_goes_plain(self, message: str | bytes) -> None:
        plain = Connection().send(message)
        assert server().send(message) == plain
        encoded = EncodedMessage(message)
        assert encoded.frame(15) is encoded.plain
        assert encoded.plain == plain

    def test_nothing_is_compressed_unless_agreed(self) -> None:
        assert Connection().send(self.TEXT)[0] == 0x81
        assert Connection().window_bits is None
        connection = Connection(client=True, deflate=Deflate(None, 15))
        assert connection.window_bits is None
        assert connection.send(self.TEXT)[0] == 0x81
        encoded = EncodedMessage(self.TEXT)
        assert encoded.frame(None) is encoded.plain

    @pytest.mark.parametrize("message", [TEXT[:300], TEXT, TEXT.encode() * 50])
    @pytest.mark.parametrize("bits", range(9, 16))
    def test_each_window_is_compressed_once(
        self, bits: int, message: str | bytes
    ) -> None:
        encoded = EncodedMessage(message)
        wire = encoded.frame(bits)
        assert wire[0] in (0xC1, 0xC2)
        assert encoded.frame(bits) is wire
        assert encoded.frame(24 - bits) is encoded.frame(24 - bits)
        # The peer's window is just that large.
        client = Connection(client=True, deflate=Deflate(15, bits))
        assert client.receive_data(wire) == [message]
        assert Connection(deflate=Deflate(bits, 15)).send(message) == wire
