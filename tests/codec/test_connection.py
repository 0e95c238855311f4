"""Connections: messages, control frames, the closing handshake, and every fault."""

from __future__ import annotations

import itertools
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_wschat.codec import (
    Closed,
    Connection,
    Deflate,
    EncodedMessage,
    Event,
    Ping,
    Pong,
    State,
    is_sendable,
)
from flask_wschat.codec.connection import FRAME_WORK
from flask_wschat.errors import ConnectionClosed

from .vectors import INVALID_UTF8, VALID_UTF8
from .wire import close, cut, frame, splits, xor

LEGAL_CODES = [
    *range(1000, 1004),
    *range(1007, 1015),
    *(3000, 3001, 3999, 4000, 4001, 4999),
]
ILLEGAL_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


def server(max_message: int = 1 << 20) -> Connection:
    return Connection(client=False, max_message=max_message)


def closed_with(events: list[Event]) -> int:
    """Return the code of the one ``Closed``, which comes last."""
    *others, last = events
    assert isinstance(last, Closed)
    assert not any(isinstance(event, Closed) for event in others)
    return last.code


def sent_close(connection: Connection) -> tuple[int, str]:
    """Return code and reason of the one close frame a server waits to send."""
    data = connection.data_to_send()
    assert data[0] == 0x88
    assert data[1] == len(data) - 2
    return int.from_bytes(data[2:4], "big"), data[4:].decode()


class TestMessages:
    def test_a_server_hears_masked_frames(self) -> None:
        connection = server()
        data = frame(0x81, b"Hello") + frame(0x82, b"\x00\xff")
        assert connection.receive_data(data) == ["Hello", b"\x00\xff"]
        assert connection.data_to_send() == b""
        assert connection.state is State.OPEN

    def test_a_client_hears_unmasked_frames(self) -> None:
        connection = Connection(client=True)
        data = frame(0x81, b"Hello", mask=None) + frame(0x82, b"\x00", mask=None)
        assert connection.receive_data(data) == ["Hello", b"\x00"]

    def test_a_server_sends_unmasked_frames(self) -> None:
        """RFC 6455 §5.1."""
        assert server().send("Hello") == bytes.fromhex("810548656c6c6f")
        assert server().send(b"\x00\xff") == bytes.fromhex("820200ff")
        assert server().ping(b"p") == bytes.fromhex("890170")

    def test_a_client_masks_each_frame_anew(self) -> None:
        """RFC 6455 §5.3: a fresh key that nobody can foresee."""
        connection = Connection(client=True)
        wires = [connection.send("Hello") for _ in range(20)]
        for wire in wires:
            assert wire[:2] == bytes.fromhex("8185")
            assert xor(wire[6:], wire[2:6]) == b"Hello"
        assert len({wire[2:6] for wire in wires}) > 15
        assert connection.close(1000)[1] == 0x82
        assert Connection(client=True).ping(b"p")[1] == 0x81

    @pytest.mark.parametrize("text", ["", "a", "ß", "€", "😀", "a" * 126, "😀" * 20000])
    def test_text_is_utf8(self, text: str) -> None:
        """RFC 6455 §5.6."""
        data = frame(0x81, text.encode())
        assert server().receive_data(data) == [text]
        assert server().send(text) == frame(0x81, text.encode(), mask=None)

    def test_a_lone_surrogate_cannot_be_sent(self) -> None:
        connection = server()
        with pytest.raises(UnicodeEncodeError):
            connection.send("\ud800")
        assert connection.state is State.OPEN

    def test_encoded_message(self) -> None:
        assert EncodedMessage("Hello").plain == server().send("Hello")
        assert EncodedMessage(b"Hello").plain == server().send(b"Hello")


class TestFragments:
    """RFC 6455 §5.4."""

    def test_are_joined(self) -> None:
        data = frame(0x01, b"Hel") + frame(0x00, b"") + frame(0x80, b"lo")
        assert server().receive_data(data) == ["Hello"]
        data = frame(0x02, b"\x00") + frame(0x00, b"\x01") + frame(0x80, b"\x02")
        assert server().receive_data(data) == [b"\x00\x01\x02"]

    @pytest.mark.parametrize("first", [0x01, 0x02])
    def test_may_all_be_empty(self, first: int) -> None:
        data = frame(first) + frame(0x00) * 3 + frame(0x80)
        assert server().receive_data(data) == ["" if first == 1 else b""]

    def test_control_frames_come_between(self) -> None:
        connection = server()
        data = frame(0x01, b"a") + frame(0x89, b"?") + frame(0x8A) + frame(0x80, b"b")
        assert connection.receive_data(data) == [Ping(b"?"), Pong(b""), "ab"]
        assert connection.data_to_send() == frame(0x8A, b"?", mask=None)

    def test_a_close_between_ends_it(self) -> None:
        connection = server()
        data = frame(0x01, b"a") + frame(0x88, close(1000)) + frame(0x80, b"b")
        assert connection.receive_data(data) == [Closed(1000, "")]

    def test_a_character_may_be_cut(self) -> None:
        text = "κόσμε😀".encode()
        data = frame(0x01, text[:1])
        data += b"".join(frame(0x00, text[i : i + 1]) for i in range(1, len(text)))
        assert server().receive_data(data + frame(0x80)) == ["κόσμε😀"]

    @pytest.mark.parametrize("size", [0, 1, 2])
    def test_memory_is_flat(self, size: int) -> None:
        """However many there are; a list of them would hold 40 bytes for each."""
        connection = server(max_message=60_000)
        many = frame(0x00, b"x" * size) * 1000
        connection.receive_data(frame(0x02))
        tracemalloc.start()
        try:
            for _ in range(30):
                assert connection.receive_data(many) == []
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert connection.receive_data(frame(0x80)) == [b"x" * (size * 30_000)]
        assert peak < 300_000

    @pytest.mark.slow
    @pytest.mark.timeout(60)  # for the sake of coverage, which is ten times slower
    @pytest.mark.parametrize("first", [0x01, 0x02])
    def test_a_quarter_of_a_million(self, first: int) -> None:
        connection = server()
        data = frame(0x00, b"x") * 1000
        connection.receive_data(frame(first))
        for _ in range(250):
            assert connection.receive_data(data) == []
        whole = "x" * 250_000
        expected = whole if first == 1 else whole.encode()
        assert connection.receive_data(frame(0x80)) == [expected]

    def test_one_big_read_is_parsed_in_steps(self) -> None:
        """Else the frames it holds would take ten times its size."""
        connection = server()
        data = frame(0x01) + frame(0x00, b"x") * (1 << 16) + frame(0x80)
        tracemalloc.start()
        try:
            assert connection.receive_data(data) == ["x" * (1 << 16)]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1_500_000

    def test_a_big_message_in_reads_of_64_kib(self) -> None:
        payload = bytes(range(256)) * (1 << 16)
        data = b"\x82\xff" + len(payload).to_bytes(8, "big") + bytes(4) + payload
        connection = server(max_message=len(payload))
        events: list[Event] = []
        tracemalloc.start()
        try:
            for start in range(0, len(data), 1 << 16):
                events += connection.receive_data(data[start : start + (1 << 16)])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert events == [payload]
        assert peak < len(payload) * 1.2 + (1 << 20)


class TestLargeMessages:
    """Those that the C twin gives a place to; the other one never asks for it."""

    @staticmethod
    def deliver(connection: Connection, stream: bytes) -> list[Event]:
        """Receive ``stream``, into the places that there are."""
        events, view = [], memoryview(stream)
        while view:
            place = connection.place()
            if place is None:
                size = min(len(view), 1000)
                events += connection.receive_data(bytes(view[:size]))
            else:
                size = min(len(view), len(place))
                place[:size] = view[:size]
                events += connection.placed(size)
            view = view[size:]
        return events

    def test_arrive_whole(self) -> None:
        server = Connection(max_message=1 << 20)
        text, data = "aé" * 40_000, bytes(range(256)) * 1024
        stream = frame(0x81, text.encode()) + frame(0x82, data) + frame(0x81, b"end")
        assert self.deliver(server, stream) == [text, data, "end"]

    def test_text_is_checked(self) -> None:
        server = Connection()
        stream = frame(0x81, b"x" * 70_000 + b"\xff") + frame(0x81, b"later")
        (end,) = self.deliver(server, stream)
        assert isinstance(end, Closed)
        assert end.code == 1007
        assert server.place() is None

    def test_are_not_for_those_who_said_goodbye(self) -> None:
        server = Connection()
        server.close()
        assert self.deliver(server, frame(0x82, b"x" * 70_000)) == []

    def test_messages_alone_need_one_look(self) -> None:
        server = Connection()
        stream = frame(0x81, b"a") + frame(0x82, b"b")
        assert server.messages(stream) in (["a", b"b"], None)
        assert server.receive_data(stream) == ["a", b"b"]
        server.receive_data(frame(0x88))
        assert server.messages(stream) is None


class TestUtf8:
    """RFC 6455 §8.1: text that is not UTF-8 ends in 1007, at the first bad byte."""

    @pytest.mark.parametrize("text", VALID_UTF8.values(), ids=list(VALID_UTF8))
    def test_valid(self, text: str) -> None:
        payload = bytes.fromhex(text)
        assert server().receive_data(frame(0x81, payload)) == [payload.decode()]
        fragments = frame(0x01) + b"".join(frame(0, bytes([b])) for b in payload)
        events = server().receive_data(fragments + frame(0x80))
        assert events == [payload.decode()]

    @pytest.mark.parametrize("text", INVALID_UTF8.values(), ids=list(INVALID_UTF8))
    @pytest.mark.parametrize("before", [b"", b"Hello", "€😀".encode()])
    def test_invalid(self, text: str, before: bytes) -> None:
        payload = before + bytes.fromhex(text)
        connection = server()
        assert closed_with(connection.receive_data(frame(0x81, payload))) == 1007
        assert sent_close(connection)[0] == 1007
        connection = server()
        fragments = frame(0x01) + b"".join(frame(0, bytes([b])) for b in payload)
        assert closed_with(connection.receive_data(fragments + frame(0x80))) == 1007

    @pytest.mark.parametrize("text", INVALID_UTF8.values(), ids=list(INVALID_UTF8))
    @pytest.mark.parametrize("how", ["fragments", "in-one-frame"])
    def test_fails_at_the_first_bad_byte(self, text: str, how: str) -> None:
        payload = b"ok" + bytes.fromhex(text)
        connection = server()
        if how == "fragments":
            connection.receive_data(frame(0x01))
            parts = [frame(0x00, bytes([byte])) for byte in payload]
        else:
            whole = frame(0x81, payload + b"more to come")
            assert connection.receive_data(whole[:6]) == []
            parts = [bytes([byte]) for byte in whole[6 : 6 + len(payload)]]
        for count, part in enumerate(parts, 1):
            can_go_on = any(
                _is_utf8(payload[:count] + rest) for rest in _continuations()
            )
            events = connection.receive_data(part)
            if not can_go_on:
                assert closed_with(events) == 1007
                return
            assert events == []
        # A sequence that is merely cut off may yet go on.
        assert "truncated" in next(k for k, v in INVALID_UTF8.items() if v == text)

    def test_every_prefix_of_two_bytes(self) -> None:
        """Fail fast agrees with the table of RFC 3629 §4 on each pair of bytes."""
        for first in range(256):
            for second in range(256):
                pair = bytes([first, second])
                connection = server()
                events = connection.receive_data(frame(0x01, pair))
                may_go_on = any(_is_utf8(pair + rest) for rest in _continuations())
                assert events == [] if may_go_on else closed_with(events) == 1007

    def test_binary_is_not_checked(self) -> None:
        assert server().receive_data(frame(0x82, b"\xff")) == [b"\xff"]
        data = frame(0x02, b"\xff") + frame(0x80, b"\xfe")
        assert server().receive_data(data) == [b"\xff\xfe"]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _continuations() -> list[bytes]:
    """Return the ends that complete any prefix of a character (RFC 3629 §4)."""
    ends = [b""]
    for second in (b"\x80", b"\x90", b"\xa0"):
        ends += [second, second + b"\x80", second + b"\x80\x80"]
    return ends


class TestPing:
    @pytest.mark.parametrize("payload", [b"", b"Hello", bytes(range(125))])
    def test_is_answered_with_its_payload(self, payload: bytes) -> None:
        """RFC 6455 §5.5.3."""
        connection = server()
        assert connection.receive_data(frame(0x89, payload)) == [Ping(payload)]
        assert connection.data_to_send() == frame(0x8A, payload, mask=None)
        assert connection.data_to_send() == b""

    def test_each_is_answered_in_order(self) -> None:
        connection = server()
        connection.receive_data(b"".join(frame(0x89, bytes([i])) for i in range(10)))
        expected = b"".join(frame(0x8A, bytes([i]), mask=None) for i in range(10))
        assert connection.data_to_send() == expected

    def test_a_client_masks_the_answer(self) -> None:
        connection = Connection(client=True)
        connection.receive_data(frame(0x89, b"Hello", mask=None))
        pong = connection.data_to_send()
        assert pong[:2] == bytes.fromhex("8a85")
        assert xor(pong[6:], pong[2:6]) == b"Hello"

    def test_is_answered_after_our_close_too(self) -> None:
        """RFC 6455 §5.5.2: until a close frame was received."""
        connection = server()
        connection.close()
        assert connection.receive_data(frame(0x89, b"?")) == [Ping(b"?")]
        assert connection.data_to_send() == frame(0x8A, b"?", mask=None)

    def test_is_not_answered_after_the_peers_close(self) -> None:
        connection = server()
        data = frame(0x88, close(1000)) + frame(0x89, b"?")
        assert connection.receive_data(data) == [Closed(1000, "")]
        assert sent_close(connection) == (1000, "")

    def test_an_unasked_pong_is_fine(self) -> None:
        """RFC 6455 §5.5.3."""
        connection = server()
        assert connection.receive_data(frame(0x8A, b"beat")) == [Pong(b"beat")]
        assert connection.data_to_send() == b""

    def test_a_long_one_cannot_be_sent(self) -> None:
        with pytest.raises(ValueError, match="126 bytes"):
            server().ping(bytes(126))


class TestClosing:
    """RFC 6455 §7."""

    @pytest.mark.parametrize("code", LEGAL_CODES)
    def test_the_peers_code_is_echoed(self, code: int) -> None:
        """§5.5.1."""
        connection = server()
        data = frame(0x88, close(code, "bye €".encode()))
        assert connection.receive_data(data) == [Closed(code, "bye €")]
        assert sent_close(connection) == (code, "")
        assert connection.state is State.CLOSED

    def test_no_code_is_answered_with_none(self) -> None:
        """§7.1.5: 1005 stands for it, and never goes out."""
        connection = server()
        assert connection.receive_data(frame(0x88)) == [Closed(1005, "")]
        assert connection.data_to_send() == bytes.fromhex("8800")

    @pytest.mark.parametrize("code", ILLEGAL_CODES)
    def test_illegal_codes(self, code: int) -> None:
        """§7.4."""
        connection = server()
        events = connection.receive_data(frame(0x88, close(code)))
        assert closed_with(events) == 1002
        assert sent_close(connection)[0] == 1002

    def test_half_a_code(self) -> None:
        """§5.5.1: the first two bytes must be there, if any is."""
        connection = server()
        assert closed_with(connection.receive_data(frame(0x88, b"\x03"))) == 1002
        assert sent_close(connection)[0] == 1002

    def test_a_reason_that_is_not_utf8(self) -> None:
        """§5.5.1 and §8.1."""
        connection = server()
        data = frame(0x88, close(1000, b"\xed\xa0\x80"))
        assert closed_with(connection.receive_data(data)) == 1007
        assert sent_close(connection)[0] == 1007

    def test_a_reason_of_123_bytes(self) -> None:
        data = frame(0x88, close(1000, b"x" * 123))
        assert server().receive_data(data) == [Closed(1000, "x" * 123)]

    def test_what_follows_a_close_is_discarded(self) -> None:
        """§1.4, even if it is nonsense."""
        connection = server()
        junk = frame(0x81, b"late") + b"\xff" * 100
        data = frame(0x81, b"Hi") + frame(0x88, close(1001)) + junk
        assert connection.receive_data(data) == ["Hi", Closed(1001, "")]
        assert connection.receive_data(junk) == []
        assert connection.receive_eof() == []
        assert sent_close(connection) == (1001, "")

    @pytest.mark.parametrize("code", LEGAL_CODES)
    def test_ours_comes_first(self, code: int) -> None:
        connection = server()
        expected = frame(0x88, close(code, b"bye"), mask=None)
        assert connection.close(code, "bye") == expected
        assert connection.state.value == "closing"
        assert connection.receive_data(frame(0x88, close(code))) == [Closed(code, "")]
        # §5.5.1: one close frame each, no answer to an answer.
        assert connection.data_to_send() == b""
        assert connection.state.value == "closed"

    def test_messages_are_not_read_after_ours(self) -> None:
        connection = server()
        connection.receive_data(frame(0x01, b"begun"))
        connection.close()
        data = frame(0x80, b"late") + frame(0x82, b"later") + frame(0x8A, b"p")
        assert connection.receive_data(data) == [Pong(b"p")]
        assert connection.receive_data(frame(0x88)) == [Closed(1005, "")]

    def test_a_fault_after_ours_sends_nothing_more(self) -> None:
        connection = server()
        connection.close(4000)
        assert closed_with(connection.receive_data(frame(0x83))) == 1002
        assert connection.data_to_send() == b""
        assert connection.receive_eof() == []

    def test_a_second_one_is_empty(self) -> None:
        connection = server()
        assert connection.close(1000)
        assert connection.close(1001) == b""
        connection.receive_data(frame(0x88))
        assert connection.close(1001) == b""

    @pytest.mark.parametrize("code", [*ILLEGAL_CODES, -1, 70000])
    def test_an_illegal_code_cannot_be_sent(self, code: int) -> None:
        connection = server()
        assert not is_sendable(code)
        with pytest.raises(ValueError, match=str(code)):
            connection.close(code)
        assert connection.state is State.OPEN

    @pytest.mark.parametrize(
        ("reason", "sent"),
        [
            pytest.param("x" * 123, "x" * 123, id="fits"),
            pytest.param("x" * 124, "x" * 123, id="cut"),
            pytest.param("€" * 50, "€" * 41, id="cut-between-characters"),
            pytest.param("x" + "€" * 50, "x" + "€" * 40, id="cut-inside-a-character"),
            pytest.param("a\ud800b", "a?b", id="lone-surrogate"),
        ],
    )
    def test_the_reason_is_made_to_fit(self, reason: str, sent: str) -> None:
        """§5.5: a control frame has at most 125 bytes."""
        assert server().close(1000, reason)[4:] == sent.encode()

    @pytest.mark.parametrize("end", ["our-close", "peers-close", "eof", "fault"])
    def test_nothing_can_be_sent_after_the_end(self, end: str) -> None:
        connection = server()
        if end == "our-close":
            connection.close()
        elif end == "peers-close":
            connection.receive_data(frame(0x88))
        elif end == "eof":
            connection.receive_eof()
        else:
            connection.receive_data(frame(0x83))
        with pytest.raises(ConnectionClosed):
            connection.send("late")
        with pytest.raises(ConnectionClosed):
            connection.ping()

    def test_eof(self) -> None:
        """§7.1.5: 1006 stands for a connection that broke."""
        connection = server()
        assert closed_with(connection.receive_eof()) == 1006
        assert connection.state is State.CLOSED
        assert connection.receive_eof() == []
        assert connection.receive_data(frame(0x81, b"late")) == []
        connection = server()
        connection.close()
        assert closed_with(connection.receive_eof()) == 1006


class TestFaults:
    """What the header tells; ``test_frames`` has all of them."""

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            pytest.param(frame(0x81, b"a", mask=None), 1002, id="5.1-unmasked"),
            pytest.param(frame(0xC1, b"a"), 1002, id="5.2-rsv1"),
            pytest.param(frame(0x83, b"a"), 1002, id="5.2-opcode-3"),
            pytest.param(frame(0x82, b"a", form=2), 1002, id="5.2-length"),
            pytest.param(frame(0x80, b"a"), 1002, id="5.4-continuation"),
            pytest.param(frame(0x82, b"a" * 101), 1009, id="10.4-limit"),
        ],
    )
    def test_end_the_connection_after_what_came_before(
        self, data: bytes, code: int
    ) -> None:
        connection = server(max_message=100)
        events = connection.receive_data(frame(0x81, b"ok") + frame(0x89) + data + data)
        assert events[:2] == ["ok", Ping(b"")]
        assert len(events) == 3
        assert closed_with(events) == code
        pong = frame(0x8A, mask=None)
        answer = connection.data_to_send()
        assert answer.startswith(pong + b"\x88")
        assert answer[len(pong) + 2 :][:2] == code.to_bytes(2, "big")
        assert connection.receive_data(data) == []
        assert connection.receive_eof() == []
        assert connection.data_to_send() == b""

    def test_a_client_refuses_masked_frames(self) -> None:
        """§5.1."""
        connection = Connection(client=True)
        assert closed_with(connection.receive_data(frame(0x81, b"a"))) == 1002
        answer = connection.data_to_send()
        assert answer[1] & 0x80
        assert xor(answer[6:], answer[2:6])[:2] == (1002).to_bytes(2, "big")

    def test_the_reason_names_the_section(self) -> None:
        connection = server()
        connection.receive_data(frame(0x83))
        assert sent_close(connection) == (1002, "reserved opcode 0x3 (RFC 6455 §5.2)")


def _compressed(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(0xC2, data[:-4])


def _flood(kind: str) -> bytes:
    """Return much work in few bytes."""
    if kind == "bombs":
        return _compressed(bytes((1 << 20) - 1)) * 62
    if kind == "last-blocks":  # an inflater each
        return frame(0xC2, b"\x03\x00" * 30_000 + b"\0")
    if kind == "pings":
        return frame(0x89) * 10_000
    if kind == "fragments":
        return frame(0x02) + frame(0x00) * 10_000
    return frame(0x82) * 10_000


class TestWorkInParts:
    """``receive_data(most=)`` and ``more``: no read takes long, whatever it holds."""

    MOST = 1 << 16

    @staticmethod
    def finish(connection: Connection, most: int) -> list[Event]:
        events: list[Event] = []
        while connection.has_more:
            events += connection.more(most)
        return events

    @pytest.mark.parametrize(
        "kind", ["bombs", "last-blocks", "pings", "fragments", "messages"]
    )
    def test_each_call_does_little(self, kind: str) -> None:
        connection = Connection(deflate=Deflate(15, 15))
        data = _flood(kind)
        assert len(data) < 1 << 17
        tracemalloc.start()
        try:
            events = connection.receive_data(data, self.MOST)
            calls = 0
            while connection.has_more and calls < 20:
                events = connection.more(self.MOST)
                assert len(events) <= self.MOST // FRAME_WORK
                calls += 1
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert connection.has_more, "it was all done in 20 calls"
        assert connection.messages(frame(0x81)) is None
        assert connection.place() is None
        # Twice a message, and what one call may make.
        assert peak < len(data) + 3 * (1 << 20)

    def test_bombs_arrive_one_by_one(self) -> None:
        connection = Connection(deflate=Deflate(15, 15))
        events = connection.receive_data(_flood("bombs"), self.MOST)
        assert events == []
        sizes = []
        while connection.has_more:
            events = connection.more(self.MOST)
            assert len(events) <= 1
            sizes += [len(event) for event in events if isinstance(event, bytes)]
        assert sizes == [(1 << 20) - 1] * 62
        assert connection.messages is not None
        assert connection.receive_data(frame(0x81, b"next")) == ["next"]

    def test_what_comes_meanwhile_comes_after(self) -> None:
        connection = server()
        data = [frame(0x81, str(number).encode()) for number in range(1000)]
        events = connection.receive_data(b"".join(data[:400]), FRAME_WORK * 10)
        assert events == [str(number) for number in range(10)]
        events += connection.receive_data(b"".join(data[400:]), FRAME_WORK * 5)
        assert events == [str(number) for number in range(15)]
        events += self.finish(connection, FRAME_WORK * 100)
        assert events == [str(number) for number in range(1000)]

    def test_nothing_is_left_of_the_usual_read(self) -> None:
        connection = server()
        data = frame(0x81, b"a") + frame(0x89) + frame(0x82, bytes(60_000))
        assert len(connection.receive_data(data, self.MOST)) == 3
        assert not connection.has_more

    def test_a_fault_comes_when_its_turn_does(self) -> None:
        connection = server()
        events = connection.receive_data(frame(0x81) * 300 + frame(0x83), FRAME_WORK)
        assert events == [""]
        events += self.finish(connection, FRAME_WORK * 10)
        assert events[:-1] == [""] * 300
        assert closed_with(events[-1:]) == 1002
        assert connection.more() == []

    def test_our_close_leaves_only_the_answer(self) -> None:
        connection = server()
        data = frame(0x81) * 300 + frame(0x88, close(1000))
        connection.receive_data(data, FRAME_WORK)
        connection.close(1001)
        assert self.finish(connection, FRAME_WORK * 10) == [Closed(1000, "")]

    def test_our_close_before_the_answer_came(self) -> None:
        connection = server()
        connection.receive_data(frame(0x81) * 300, FRAME_WORK)
        connection.close(1001)
        assert self.finish(connection, FRAME_WORK * 10) == []
        assert connection.messages(frame(0x81)) is None
        assert connection.receive_data(frame(0x88)) == [Closed(1005, "")]

    def test_our_close_ends_what_inflates(self) -> None:
        connection = Connection(deflate=Deflate(15, 15))
        data = _flood("bombs") + frame(0x88, close(1000))
        connection.receive_data(data, self.MOST)
        connection.close(1001)
        assert connection.more(FRAME_WORK * 100) == [Closed(1000, "")]

    def test_the_end_of_tcp_is_the_end(self) -> None:
        connection = server()
        connection.receive_data(frame(0x81) * 300, FRAME_WORK)
        assert closed_with(connection.receive_eof()) == 1006
        assert not connection.has_more
        assert connection.more() == []

    @given(
        st.lists(
            st.sampled_from(
                [
                    frame(0x81, b"text"),
                    frame(0x82, b"x" * 70_000),
                    frame(0xC1, bytes.fromhex("f248cdc9c90700")),
                    _compressed(bytes(200_000)),
                    frame(0x01, b"be") + frame(0x89, b"?") + frame(0x80, b"gun"),
                    frame(0x42, b"\xf2\x48\xcd") + frame(0x80, b"\xc9\xc9\x07\0"),
                    frame(0x8A),
                    frame(0x88, close(1000)),
                    frame(0x83),
                ]
            ),
            max_size=30,
        ).map(b"".join),
        splits,
        st.lists(st.integers(1, 1 << 17), min_size=1, max_size=5),
    )
    def test_the_parts_are_the_whole(
        self, data: bytes, places: list[int], mosts: list[int]
    ) -> None:
        whole = Connection(deflate=Deflate(15, 15)).receive_data(data)
        connection = Connection(deflate=Deflate(15, 15))
        most = itertools.cycle(mosts)
        events = []
        for part in cut(data, places):
            events += connection.receive_data(part, next(most))
            if len(part) % 2:
                while connection.has_more:
                    events += connection.more(next(most))
        while connection.has_more:
            events += connection.more(next(most))
        assert events == whole


class TestManyPings:
    """RFC 6455 §5.5.3: the answer to the most recent one will do."""

    def test_a_few_are_all_answered(self) -> None:
        connection = server()
        connection.receive_data(b"".join(frame(0x89, bytes([i])) for i in range(32)))
        answers = Connection(client=True).receive_data(connection.data_to_send())
        assert answers == [Pong(bytes([i])) for i in range(32)]

    def test_of_more_the_last_one(self) -> None:
        connection = server()
        events = connection.receive_data(
            b"".join(frame(0x89, bytes([i])) for i in range(200))
        )
        assert len(events) == 200
        answers = Connection(client=True).receive_data(connection.data_to_send())
        assert answers == [Pong(bytes([i])) for i in [*range(31), 199]]
        connection.receive_data(frame(0x89, b"next"))
        assert connection.data_to_send() == frame(0x8A, b"next", mask=None)
