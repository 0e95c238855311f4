"""Compressed messages that are none, and both twins of the codec side by side."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_wschat.codec import Closed, Connection, Deflate, connection
from tests.codec.twins import TWINS
from tests.codec.wire import cut, frame, splits

from .budget import budget

LIMIT = 500


def deflated(payload: bytes, level: int, bits: int) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


payloads = st.one_of(
    st.binary(max_size=60),
    st.builds(
        deflated,
        st.text(max_size=30).map(str.encode)
        | st.integers(0, 3 * LIMIT).map(lambda size: b"ab" * size),
        st.integers(0, 9),
        st.integers(9, 15),
    ),
    st.just(deflated(bytes(1 << 20), 9, 15)),  # a bomb
)
frames = st.lists(
    st.builds(
        frame,
        st.sampled_from([0xC1, 0xC2, 0x41, 0x42, 0x80, 0x00, 0x81, 0x89, 0xC9, 0xC0]),
        payloads.map(lambda payload: payload[:1200]),
    ),
    max_size=6,
)


def told(
    twin: Any, parts: list[bytes], bits: int, limit: int
) -> tuple[list[Any], bytes, Any]:
    """Return the events of a server that is given ``parts``, and its answers."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FrameParser", "encode_frame", "encode_message"):
            patch.setattr(connection, name, getattr(twin, name))
        server = Connection(max_message=LIMIT, deflate=Deflate(bits, bits))
        events: list[Any] = []
        answers = b""
        for part in parts:
            # In turns of few bytes, as the engine does it.
            events += server.receive_data(part, limit)
            while server.has_more:
                events += server.more(limit)
            answers += server.data_to_send()
        events += server.receive_eof()
        return events, answers, server.state


@budget
@given(frames, splits, st.integers(9, 15), st.sampled_from([1, 100, 1 << 17]))
def test_anything_compressed_gives_the_same_from_both_twins(
    sent: list[bytes], places: list[int], bits: int, limit: int
) -> None:
    data = b"".join(sent)
    first, *others = [
        told(twin, parts, bits, limit)
        for twin in TWINS.values()
        for parts in (cut(data, places), [data])
    ]
    events = first[0]
    assert [type(event) for event in events].count(Closed) == 1
    assert isinstance(events[-1], Closed)
    assert events[-1].code in (1002, 1006, 1007, 1009)
    for event in events:
        if isinstance(event, str | bytes):
            size = len(event.encode() if isinstance(event, str) else event)
            assert size <= LIMIT
    for other in others:
        assert other == first
