"""Frames: headers, masks, lengths, and what a header alone already gives away."""

from __future__ import annotations

from typing import Any

import pytest

from flask_wschat.codec import Frame, Opcode
from flask_wschat.errors import MessageTooBig, ProtocolError

from .vectors import FRAMES, FrameVector
from .wire import MASK, frame, xor

LIMIT = 1 << 20


@pytest.mark.parametrize("vector", FRAMES, ids=lambda v: f"5.7-{v.id}")
class TestVectors:
    def test_encode(self, twin: Any, vector: FrameVector) -> None:
        mask = bytes.fromhex(vector.mask) if vector.mask else None
        wire = twin.encode_frame(
            vector.opcode, vector.payload, fin=vector.fin, mask=mask
        )
        assert wire.hex() == vector.wire

    def test_parse(self, twin: Any, vector: FrameVector) -> None:
        parser = twin.FrameParser(masked=vector.mask is not None, max_message=LIMIT)
        if vector.opcode == Opcode.CONTINUATION:
            parser.feed(frame(0x01, b"", mask=None))
        expected = Frame(vector.opcode, vector.payload, vector.fin, False)
        assert parser.feed(bytes.fromhex(vector.wire)) == [expected]
        assert parser.fault is None

    def test_parse_byte_by_byte(self, twin: Any, vector: FrameVector) -> None:
        """A data frame may come in pieces, the later ones as continuations."""
        parser = twin.FrameParser(masked=vector.mask is not None, max_message=LIMIT)
        if vector.opcode == Opcode.CONTINUATION:
            parser.feed(frame(0x01, b"", mask=None))
        pieces = [
            piece
            for byte in bytes.fromhex(vector.wire)
            for piece in parser.feed(bytes([byte]))
        ]
        assert b"".join(piece.payload for piece in pieces) == vector.payload
        assert [piece.opcode for piece in pieces] == [vector.opcode] + [0] * (
            len(pieces) - 1
        )
        assert [piece.fin for piece in pieces] == [False] * (len(pieces) - 1) + [
            vector.fin
        ]


class TestApplyMask:
    @pytest.mark.parametrize("size", [*range(0, 70), 899, 900, 901, 902, 903, 5000])
    def test_is_the_formula_of_5_3(self, twin: Any, size: int) -> None:
        data = bytes(i * 7 & 0xFF for i in range(size))
        assert twin.apply_mask(data, MASK) == xor(data, MASK)

    @pytest.mark.parametrize("mask", ["00000000", "ffffffff", "000000ff", "01020304"])
    def test_undoes_itself(self, twin: Any, mask: str) -> None:
        key = bytes.fromhex(mask)
        data = bytes(range(256)) * 5
        assert twin.apply_mask(twin.apply_mask(data, key), key) == data


class TestEncode:
    @pytest.mark.parametrize(
        ("size", "header"),
        [
            pytest.param(0, "8200", id="5.2-empty"),
            pytest.param(125, "827d", id="5.2-longest-in-7-bits"),
            pytest.param(126, "827e007e", id="5.2-shortest-in-16-bits"),
            pytest.param(65535, "827effff", id="5.2-longest-in-16-bits"),
            pytest.param(65536, "827f0000000000010000", id="5.2-shortest-in-64-bits"),
        ],
    )
    def test_length_takes_the_fewest_bytes(
        self, twin: Any, size: int, header: str
    ) -> None:
        payload = bytes(size)
        wire = twin.encode_frame(Opcode.BINARY, payload)
        assert wire == bytes.fromhex(header) + payload
        masked = twin.encode_frame(Opcode.BINARY, payload, mask=MASK)
        assert masked == frame(0x82, payload)

    def test_bits(self, twin: Any) -> None:
        assert twin.encode_frame(Opcode.TEXT, b"a", rsv1=True).hex() == "c10161"
        assert twin.encode_frame(Opcode.TEXT, b"a", fin=False).hex() == "010161"

    @pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
    def test_control_frames_are_small_and_whole(
        self, twin: Any, opcode: Opcode
    ) -> None:
        """RFC 6455 §5.5."""
        assert len(twin.encode_frame(opcode, bytes(125))) == 127
        with pytest.raises(ValueError, match="bad control frame: 126 bytes"):
            twin.encode_frame(opcode, bytes(126))
        with pytest.raises(ValueError, match="fin=False"):
            twin.encode_frame(opcode, b"", fin=False)


# What a server must refuse; each is legal up to the last byte given.
VIOLATIONS = [
    pytest.param("8100", "must mask", id="5.1-unmasked"),
    pytest.param("c180", "reserved bit", id="5.2-rsv1"),
    pytest.param("a180", "reserved bit", id="5.2-rsv2"),
    pytest.param("9180", "reserved bit", id="5.2-rsv3"),
    pytest.param("f180", "reserved bit", id="5.2-rsv123"),
    pytest.param("c980", "reserved bit", id="5.2-rsv1-ping"),
    *[
        pytest.param(f"8{opcode:x}80", "reserved opcode", id=f"5.2-opcode-{opcode}")
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ],
    pytest.param("82fe007d", "fewest bytes", id="5.2-125-in-16-bits"),
    pytest.param("82fe0000", "fewest bytes", id="5.2-0-in-16-bits"),
    pytest.param("82ff000000000000ffff", "fewest bytes", id="5.2-65535-in-64-bits"),
    pytest.param("82ff0000000000000000", "fewest bytes", id="5.2-0-in-64-bits"),
    pytest.param("82ff8000000000000000", "63 bits", id="5.2-64-bit-length"),
    pytest.param("82ffffffffffffffffff", "63 bits", id="5.2-all-bits-length"),
    pytest.param("0880", "control frame", id="5.5-fragmented-close"),
    pytest.param("0980", "control frame", id="5.5-fragmented-ping"),
    pytest.param("0a80", "control frame", id="5.5-fragmented-pong"),
    pytest.param("88fe", "control frame", id="5.5-long-close"),
    pytest.param("89fe", "control frame", id="5.5-long-ping"),
    pytest.param("8aff", "control frame", id="5.5-very-long-pong"),
    pytest.param("8080", "continuation", id="5.4-continuation-first"),
    pytest.param("0080", "continuation", id="5.4-unfinished-continuation-first"),
]


class TestViolations:
    @pytest.mark.parametrize(("wire", "fault"), VIOLATIONS)
    def test_is_found_on_the_last_header_byte(
        self, twin: Any, wire: str, fault: str
    ) -> None:
        parser = twin.FrameParser(masked=True, max_message=LIMIT)
        data = bytes.fromhex(wire)
        assert parser.feed(data[:-1]) == []
        assert not parser.fault
        assert parser.feed(data[-1:]) == []
        assert type(parser.fault) is ProtocolError
        assert fault in str(parser.fault)

    def test_masked_by_a_server(self, twin: Any) -> None:
        """RFC 6455 §5.1."""
        parser = twin.FrameParser(masked=False, max_message=LIMIT)
        assert parser.feed(frame(0x81, b"Hello")) == []
        assert "must not mask" in str(parser.fault)

    @pytest.mark.parametrize("first", [0x01, 0x81, 0x02, 0x82])
    def test_new_message_inside_a_fragmented_one(self, twin: Any, first: int) -> None:
        """RFC 6455 §5.4."""
        parser = twin.FrameParser(masked=True, max_message=LIMIT)
        frames = parser.feed(frame(0x01, b"a") + frame(first, b"b"))
        assert frames == [Frame(1, b"a", False)]
        assert "inside a fragmented one" in str(parser.fault)

    def test_frames_before_the_fault_count_and_none_after(self, twin: Any) -> None:
        parser = twin.FrameParser(masked=True, max_message=LIMIT)
        good = frame(0x81, b"good")
        assert parser.feed(good + frame(0x83) + good) == [Frame(1, b"good")]
        fault = parser.fault
        assert parser.feed(good) == []
        assert str(parser.fault) == str(fault)

    @pytest.mark.parametrize("first", [0x41, 0x42])
    def test_rsv1_opens_a_message_where_an_extension_uses_it(
        self, twin: Any, first: int
    ) -> None:
        """RFC 7692 §6: on the first frame, whatever follows."""
        parser = twin.FrameParser(masked=True, max_message=LIMIT, rsv1=True)
        data = frame(first, b"a") + frame(0x89) + frame(0x80, b"b")
        opcode = first & 0x0F
        assert parser.feed(data) == [
            Frame(opcode, b"a", False, True),
            Frame(9, b""),
            Frame(0, b"b"),
        ]
        assert parser.feed(frame(first | 0x80, b"c")) == [
            Frame(opcode, b"c", True, True)
        ]

    @pytest.mark.parametrize(
        ("before", "first"),
        [
            pytest.param(b"", 0xC9, id="6-ping"),
            pytest.param(b"", 0xCA, id="6-pong"),
            pytest.param(b"", 0xC8, id="6-close"),
            pytest.param(frame(0x41, b"a"), 0xC0, id="6.1-continuation"),
            pytest.param(b"", 0xE1, id="6-rsv2-too"),
            pytest.param(b"", 0xA1, id="6-rsv2"),
            pytest.param(b"", 0x91, id="6-rsv3"),
        ],
    )
    def test_rsv1_elsewhere(self, twin: Any, before: bytes, first: int) -> None:
        """RFC 7692 §6."""
        parser = twin.FrameParser(masked=True, max_message=LIMIT, rsv1=True)
        parser.feed(before)
        assert parser.feed(frame(first)) == []
        assert "reserved bit" in str(parser.fault)


class TestLimit:
    """RFC 6455 §10.4: sizes are checked before the payload is there."""

    @pytest.mark.parametrize(
        ("limit", "header"),
        [
            pytest.param(4, "8285", id="7-bits"),
            pytest.param(125, "82fe007e", id="16-bits"),
            pytest.param(65535, "82ff0000000000010000", id="64-bits"),
            pytest.param(1 << 30, "82ff7fffffffffffffff", id="63-bits"),
        ],
    )
    def test_on_the_header(self, twin: Any, limit: int, header: str) -> None:
        parser = twin.FrameParser(masked=True, max_message=limit)
        data = bytes.fromhex(header)
        assert parser.feed(data[:-1]) == []
        assert not parser.fault
        assert parser.feed(data[-1:]) == []
        assert type(parser.fault) is MessageTooBig

    @pytest.mark.parametrize("limit", [0, 1, 125, 126, 65535, 65536])
    def test_is_inclusive(self, twin: Any, limit: int) -> None:
        parser = twin.FrameParser(masked=True, max_message=limit)
        assert parser.feed(frame(0x82, bytes(limit))) == [Frame(2, bytes(limit))]
        assert parser.feed(frame(0x82, bytes(limit + 1))) == []
        assert f"at least {limit + 1} bytes" in str(parser.fault)

    def test_counts_all_fragments(self, twin: Any) -> None:
        parser = twin.FrameParser(masked=True, max_message=10)
        data = frame(0x02, bytes(4)) + frame(0x00, bytes(4)) + frame(0x00, b"")
        assert len(parser.feed(data)) == 3
        # A control frame between them is no part of the message.
        assert len(parser.feed(frame(0x89, bytes(100)))) == 1
        assert parser.feed(frame(0x80, bytes(3))) == []
        assert type(parser.fault) is MessageTooBig

    def test_starts_anew_with_each_message(self, twin: Any) -> None:
        parser = twin.FrameParser(masked=True, max_message=4)
        message = frame(0x02, b"ab") + frame(0x80, b"cd")
        assert len(parser.feed(message * 3 + frame(0x82, b"abcd"))) == 7
        assert parser.fault is None


def test_empty_frames(twin: Any) -> None:
    parser = twin.FrameParser(masked=True, max_message=0)
    data = frame(0x01) + frame(0x00) + frame(0x80) + frame(0x82)
    assert parser.feed(b"") == []
    assert parser.feed(data[:-1]) == [
        Frame(1, b"", False),
        Frame(0, b"", False),
        Frame(0, b""),
    ]
    assert parser.feed(b"") == []
    assert parser.feed(data[-1:]) == [Frame(2, b"")]


def test_control_frame_waits_for_its_last_byte(twin: Any) -> None:
    parser = twin.FrameParser(masked=True, max_message=LIMIT)
    data = frame(0x89, bytes(range(125)))
    for byte in data[:-1]:
        assert parser.feed(bytes([byte])) == []
    assert parser.feed(data[-1:]) == [Frame(9, bytes(range(125)))]


def test_pieces_are_unmasked_at_their_place(twin: Any) -> None:
    """The key goes on where the piece before ended (RFC 6455 §5.3)."""
    payload = bytes(range(256)) * 300
    data = frame(0x82, payload)
    for step in (1, 2, 3, 5, 1021, 4096):
        parser = twin.FrameParser(masked=True, max_message=LIMIT)
        received = b"".join(
            piece.payload
            for start in range(0, len(data), step)
            for piece in parser.feed(data[start : start + step])
        )
        assert received == payload


def test_there_is_no_place_but_for_a_large_message(twin: Any) -> None:
    parser = twin.FrameParser(masked=True, max_message=LIMIT)
    assert parser.place() is None
    with pytest.raises(ValueError, match="no place"):
        parser.placed(1)
