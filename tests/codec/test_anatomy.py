"""Frames taken apart for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_wschat.codec import explain

from .vectors import FRAMES, FrameVector
from .wire import frame


@pytest.fixture(scope="module", autouse=True)
def twin() -> None:
    """There is but one of this."""


@pytest.mark.parametrize("vector", FRAMES, ids=lambda v: f"5.7-{v.id}")
def test_vectors(vector: FrameVector) -> None:
    wire = bytes.fromhex(vector.wire)
    found = explain(wire)
    assert found.wire == wire
    assert found.size == len(wire)
    assert (found.opcode, found.payload) == (vector.opcode, vector.payload)
    assert (found.fin, found.rsv) == (vector.fin, (False, False, False))
    assert found.masked is (vector.mask is not None)
    assert found.key.hex() == (vector.mask or "")
    assert found.length == len(vector.payload)
    assert found.missing == 0


def test_every_byte_has_its_place() -> None:
    found = explain(bytes.fromhex("818537fa213d7f9f4d5158"))
    assert [field[:3] for field in found.fields] == [
        ("fin", 0, 1),
        ("rsv1-3", 0, 1),
        ("opcode", 0, 1),
        ("mask", 1, 2),
        ("length", 1, 2),
        ("masking key", 2, 6),
        ("payload", 6, 11),
    ]
    assert found.raw.hex() == "7f9f4d5158"
    assert found.payload == b"Hello"


@pytest.mark.parametrize(
    ("size", "bits", "place"),
    [(125, 7, (1, 2)), (126, 16, (2, 4)), (65536, 64, (2, 10))],
)
def test_length_forms(size: int, bits: int, place: tuple[int, int]) -> None:
    found = explain(frame(0x02, bytes(size)))
    assert (found.length, found.length_bits) == (size, bits)
    (field,) = (field for field in found.fields if field.name == "length")
    assert (field.start, field.stop) == place
    assert found.fields[-1].stop == found.size


def test_str_is_a_table() -> None:
    assert str(explain(bytes.fromhex("c18537fa213d7f9f4d5158"))).splitlines() == [
        "        0  fin          1: the last frame",
        "           c1",
        "        0  rsv1-3       100",
        "           c1",
        "        0  opcode       0x1: text",
        "           c1",
        "        1  mask         1: from a client",
        "           85",
        "        1  length       5 in 7 bits",
        "           85",
        "      2-5  masking key  ",
        "           37 fa 21 3d",
        "     6-10  payload      'Hello'",
        "           7f 9f 4d 51 58",
    ]


def test_long_fields_are_cut() -> None:
    text = str(explain(frame(0x82, b"x" * 200, mask=None)))
    assert text.endswith("'xxxxxxxxxxxxxxxx' …\n" + " " * 11 + "78 " * 16 + "…")


def test_a_payload_may_be_incomplete() -> None:
    wire = frame(0x81, b"Hello", mask=None)
    found = explain(wire[:4])
    assert (found.payload, found.missing, found.size) == (b"He", 3, 4)
    assert explain(wire[:2]).missing == 5
    assert explain(wire + wire).wire == wire


def test_illegal_frames_can_be_looked_at() -> None:
    found = explain(bytes.fromhex("737e0001ff"))
    assert found.rsv == (True, True, True)
    assert "0x3: reserved" in str(found)
    assert "0: more follow" in str(found)
    assert "1 in 16 bits" in str(found)


@pytest.mark.parametrize("wire", ["", "81", "8185", "81857fa213", "817e00", "81ff00"])
def test_half_a_header(wire: str) -> None:
    with pytest.raises(ValueError, match="the header has"):
        explain(bytes.fromhex(wire))


@given(st.binary(max_size=40))
def test_any_bytes(data: bytes) -> None:
    try:
        found = explain(data)
    except ValueError:
        return
    assert data.startswith(found.wire)
    assert str(found)
