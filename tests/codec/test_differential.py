"""Foreign implementations as oracles: ``wsproto`` and ``websockets`` without I/O.

On any stream of frames, cut anywhere, ours and theirs must tell the same events and
the same close code. Where they don't, the RFC decides: ``DECIDED`` says where.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import websockets.exceptions
import websockets.frames
import websockets.protocol
import wsproto.connection
import wsproto.events
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions import permessage_deflate
from wsproto.extensions import PerMessageDeflate

from flask_wschat.codec import (
    Closed,
    Connection,
    Deflate,
    Event,
    Ping,
    Pong,
    is_sendable,
)

from .vectors import DEFLATED, INVALID_UTF8
from .wire import close, cut, frame, splits, xor

Told = tuple[list[Event], int | None]
"""Events without the end, and the close code if there was an end."""

CODES = st.one_of(
    st.sampled_from([999, 1000, 1004, 1005, 1006, 1011, 1014, 1015, 2999, 3000, 4999]),
    st.integers(0, 5100),
)
BOTH = Deflate(15, 15)


def ours(parts: list[bytes], *, client: bool = False, deflate: bool = False) -> Told:
    connection = Connection(
        client=client, max_message=1 << 24, deflate=BOTH if deflate else None
    )
    events = [event for part in parts for event in connection.receive_data(part)]
    if events and isinstance(events[-1], Closed):
        return events[:-1], events[-1].code
    return events, None


def by_wsproto(
    parts: list[bytes], *, client: bool = False, deflate: bool = False
) -> Told:
    role = wsproto.connection.ConnectionType
    extension = PerMessageDeflate(True, 15, True, 15)
    extension.finalize("permessage-deflate")
    connection = wsproto.connection.Connection(
        role.CLIENT if client else role.SERVER, [extension] if deflate else []
    )
    events: list[Event] = []
    begun: list[Any] = []
    for part in parts:
        connection.receive_data(part)
        for event in connection.events():
            if isinstance(event, wsproto.events.CloseConnection):
                return events, int(event.code)
            if isinstance(event, wsproto.events.Ping):
                events.append(Ping(bytes(event.payload)))
            elif isinstance(event, wsproto.events.Pong):
                events.append(Pong(bytes(event.payload)))
            elif isinstance(event, wsproto.events.Message):
                begun.append(event.data)
                if event.message_finished:
                    text = isinstance(event, wsproto.events.TextMessage)
                    events.append("".join(begun) if text else b"".join(begun))
                    begun = []
    return events, None


def by_websockets(
    parts: list[bytes], *, client: bool = False, deflate: bool = False
) -> Told:
    side = websockets.protocol.Side
    protocol = websockets.protocol.Protocol(
        side.CLIENT if client else side.SERVER,
        state=websockets.protocol.State.OPEN,
        max_size=None,
    )
    if deflate:
        extension = permessage_deflate.PerMessageDeflate(True, True, 15, 15)
        protocol.extensions = [extension]
    for part in parts:
        protocol.receive_data(part)
    # It leaves messages to the layer above, which is this.
    events: list[Event] = []
    begun, decoder = b"", None
    opcodes = websockets.frames.Opcode
    for found in protocol.events_received():
        assert isinstance(found, websockets.frames.Frame)
        data = bytes(found.data)
        if found.opcode is opcodes.PING:
            events.append(Ping(data))
        elif found.opcode is opcodes.PONG:
            events.append(Pong(data))
        elif found.opcode is not opcodes.CLOSE:
            if found.opcode is not opcodes.CONT:
                begun = b""
                text = found.opcode is opcodes.TEXT
                decoder = codecs.getincrementaldecoder("utf-8")() if text else None
            begun += data
            try:
                if decoder is not None:
                    decoder.decode(data, found.fin)
            except UnicodeDecodeError:
                return events, 1007
            if found.fin:
                events.append(begun if decoder is None else begun.decode())
    if protocol.parser_exc is not None:
        assert protocol.close_sent is not None
        return events, protocol.close_sent.code
    return events, None if protocol.close_rcvd is None else protocol.close_rcvd.code


ORACLES = {"wsproto": by_wsproto, "websockets": by_websockets}


def flipped(data: bytes, places: list[int]) -> bytes:
    """Return ``data`` with single bits turned."""
    output = bytearray(data)
    for place in places:
        if output:
            output[place // 8 % len(output)] ^= 1 << place % 8
    return bytes(output)


texts = st.lists(
    st.text(max_size=20).map(str.encode)
    | st.sampled_from([bytes.fromhex(text) for text in INVALID_UTF8.values()]),
    max_size=3,
).map(b"".join)
payloads = st.one_of(
    st.text(max_size=200).map(str.encode),
    texts,
    st.binary(max_size=200),
    st.binary(min_size=1, max_size=5).map(lambda data: data * 14_000),
)


@st.composite
def messages(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Draw a whole message: first bytes and payloads, with control frames between."""
    parts = cut(draw(payloads), draw(st.lists(st.integers(0, 999), max_size=3)))
    frames: list[tuple[int, bytes]] = []
    for number, part in enumerate(parts or [b""]):
        opcode = draw(st.sampled_from([1, 2])) if number == 0 else 0
        fin = 0x80 if number == max(len(parts) - 1, 0) else 0
        if draw(st.booleans()) and frames:
            control = draw(st.sampled_from([0x89, 0x8A]))
            frames.append((control, draw(st.binary(max_size=125))))
        frames.append((fin | opcode, part))
    return frames


controls = st.tuples(st.sampled_from([0x89, 0x8A]), st.binary(max_size=125))
closes = st.tuples(
    st.just(0x88),
    st.one_of(
        st.builds(close, CODES, texts.map(lambda text: text[:123])),
        st.binary(max_size=3),
    ),
)
odd = st.tuples(st.integers(0, 255), st.binary(max_size=130))
streams = st.lists(
    st.one_of(
        messages(), messages(), st.one_of(controls, closes, odd).map(lambda f: [f])
    ),
    max_size=6,
).map(lambda lists: [frame for frames in lists for frame in frames])

DECIDED = """
RFC 6455 §5.2: lengths stand in the fewest bytes, and have 63 bits; websockets takes
    others.
RFC 6455 §5.4: a close frame may stand between fragments, as any control frame;
    websockets answers 1002.
RFC 6455 §7.4.1: 1014 is in the registry by now; wsproto answers 1002.
RFC 6455 §8.1: text fails as soon as nothing can mend it; both wait for the byte after
    the first two of a surrogate.
An illegal code with a reason that is not UTF-8 has two faults: both answers are right.
"""
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]\Z")


def _is_utf8(data: bytes) -> bool:
    return data.decode(errors="replace").encode() == data


def can_judge(frames: list[tuple[int, bytes]], oracle: str) -> bool:
    """Whether the oracle is right about this stream: not where ``DECIDED`` says."""
    begun, text = False, b""
    for first, payload in frames:
        if first == 0x88 and len(payload) > 1:
            code = int.from_bytes(payload[:2], "big")
            if oracle == "wsproto" and code == 1014:
                return False
            if not is_sendable(code) and not _is_utf8(payload[2:]):
                return False
        if begun and first == 0x88 and oracle == "websockets":
            return False
        if first & 0x0F < 8:
            text = text + payload if begun else payload
            begun = first < 0x80
            if begun and _SURROGATE.search(text):
                return False
    return True


@pytest.mark.parametrize("oracle", ORACLES)
@given(
    client=st.booleans(),
    frames=streams,
    places=splits,
    key=st.binary(min_size=4, max_size=4),
)
def test_same_events_and_code(
    oracle: str,
    client: bool,
    frames: list[tuple[int, bytes]],
    places: list[int],
    key: bytes,
) -> None:
    mask = None if client else key
    data = b"".join(frame(first, payload, mask=mask) for first, payload in frames)
    parts = cut(data, places)
    if can_judge(frames, oracle):
        assert ours(parts, client=client) == ORACLES[oracle](parts, client=client)


@pytest.mark.parametrize("oracle", ORACLES)
@given(
    frames=streams.filter(bool),
    places=splits,
    turned=st.lists(st.sampled_from([*range(8), 15]), max_size=2),
)
def test_same_header_faults(
    oracle: str, frames: list[tuple[int, bytes]], places: list[int], turned: list[int]
) -> None:
    """Bits turned in the first header: the first byte's, and the mask bit."""
    data = b"".join(frame(first, payload) for first, payload in frames)
    data = flipped(data[:2], turned) + data[2:]
    frames = [(data[0], frames[0][1]), *frames[1:]]
    # Theirs judge once a frame is whole, ours on the header: give them the rest.
    rest = [bytes(1 << 17)]
    mine, code = ours([*cut(data, places), *rest])
    theirs, their_code = ORACLES[oracle]([*cut(data, places), *rest])
    if can_judge(frames, oracle) and their_code == 1002:
        assert code in (1002, 1007)
        assert mine == theirs[: len(mine)]


@pytest.mark.parametrize(
    ("wire", "code", "wsproto_code", "websockets_code"),
    [
        pytest.param(
            frame(0x01, b"a") + frame(0x88, close(1000)), 1000, 1000, 1002, id="5.4"
        ),
        pytest.param(
            frame(0x01, b"\xed\xa0") + frame(0x88), 1007, 1005, 1002, id="8.1"
        ),
        pytest.param(frame(0x88, close(1014)), 1014, 1002, 1014, id="7.4.1-1014"),
        pytest.param(b"\x82\xff\x80" + bytes(11), 1002, 1002, None, id="5.2-63-bits"),
        pytest.param(
            frame(0x82, b"a", form=2), 1002, 1002, None, id="5.2-fewest-bytes"
        ),
        pytest.param(
            frame(0x88, close(999, b"\x80")), 1002, 1002, 1007, id="7.4-and-8.1"
        ),
    ],
)
def test_where_they_differ(
    wire: bytes, code: int, wsproto_code: int | None, websockets_code: int | None
) -> None:
    """Also a record: should a new release of theirs agree, ``DECIDED`` shrinks."""
    assert ours([wire])[1] == code
    assert by_wsproto([wire])[1] == wsproto_code
    assert by_websockets([wire])[1] == websockets_code


def compressed(payload: bytes, level: int, bits: int) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("oracle", ORACLES)
@given(
    payload=payloads,
    level=st.integers(0, 9),
    bits=st.integers(9, 15),
    inner=splits,
    places=splits,
    client=st.booleans(),
    text=st.booleans(),
)
def test_same_from_compressed_messages(
    oracle: str,
    payload: bytes,
    level: int,
    bits: int,
    inner: list[int],
    places: list[int],
    client: bool,
    text: bool,
) -> None:
    fragments = cut(compressed(payload, level, bits), inner)
    mask = None if client else b"abcd"
    first = 0x41 if text else 0x42
    data = b"".join(
        frame(
            (first if i == 0 else 0) | (0x80 if i == len(fragments) - 1 else 0),
            fragment,
            mask=mask,
        )
        for i, fragment in enumerate(fragments)
    )
    parts = cut(data * 2, places)
    mine = ours(parts, client=client, deflate=True)
    assert mine == ORACLES[oracle](parts, client=client, deflate=True)


@pytest.mark.parametrize("oracle", ORACLES)
@given(
    payload=st.sampled_from([bytes.fromhex(wire) for wire, _ in DEFLATED.values()])
    | st.binary(max_size=50)
    | st.builds(compressed, payloads, st.integers(0, 9), st.just(15)),
    turned=st.lists(st.integers(0, 1 << 12), max_size=2),
    size=st.none() | st.integers(0, 50),
)
def test_corrupt_data_is_never_taken_for_more(
    oracle: str, payload: bytes, turned: list[int], size: int | None
) -> None:
    """What we accept they accept; they also take what is cut off or has no end.

    RFC 7692 §7.2.1 decides: with the four bytes back, compressed data ends with an
    empty block. And it lets blocks follow one that is marked as the last, which they
    lose without a word: there ours may have more, or find it corrupt.
    """
    data = flipped(payload, turned)[:size]
    mine, code = ours([frame(0xC2, data)], deflate=True)
    theirs, their_code = ORACLES[oracle]([frame(0xC2, data)], deflate=True)
    if code is None:
        ends = zlib.decompressobj(-15)
        ends.decompress(data)
        if ends.eof:
            assert mine == theirs or isinstance(mine[0], bytes)
        else:
            assert mine == theirs
        assert their_code is None
    else:
        assert code == 1007


SENDERS: dict[str, Callable[[Connection, Any], bytes]] = {
    "message": lambda connection, message: connection.send(message),
    "ping": lambda connection, message: connection.ping(_bytes(message)[:125]),
    "close": lambda connection, message: connection.close(3000, str(message)),
}


def _bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


@pytest.mark.parametrize("oracle", ORACLES)
@given(
    kind=st.sampled_from(list(SENDERS)),
    message=st.text(max_size=400)
    | st.binary(max_size=400)
    | st.text(min_size=1, max_size=5).map(lambda text: text * 20_000),
    client=st.booleans(),
    deflate=st.booleans(),
    places=splits,
)
def test_they_understand_us(
    oracle: str,
    kind: str,
    message: str | bytes,
    client: bool,
    deflate: bool,
    places: list[int],
) -> None:
    connection = Connection(client=client, deflate=BOTH if deflate else None)
    parts = cut(SENDERS[kind](connection, message), places)
    told = ORACLES[oracle](parts, client=not client, deflate=deflate)
    if kind == "message":
        assert told == ([message], None)
    elif kind == "ping":
        assert told == ([Ping(_bytes(message)[:125])], None)
    else:
        assert told == ([], 3000)


@given(
    data=st.text(max_size=400) | st.binary(max_size=400),
    client=st.booleans(),
    deflate=st.booleans(),
    places=splits,
)
def test_we_understand_wsproto(
    data: str | bytes, client: bool, deflate: bool, places: list[int]
) -> None:
    role = wsproto.connection.ConnectionType
    extension = PerMessageDeflate(True, 15, True, 15)
    extension.finalize("permessage-deflate")
    sender = wsproto.connection.Connection(
        role.CLIENT if client else role.SERVER, [extension] if deflate else []
    )
    text = isinstance(data, str)
    kind: Any = wsproto.events.TextMessage if text else wsproto.events.BytesMessage
    wire = sender.send(kind(data=data))
    wire += sender.send(wsproto.events.Ping(b"?"))
    wire += sender.send(wsproto.events.CloseConnection(4000, "bye"))
    told = ours(cut(wire, places), client=not client, deflate=deflate)
    assert told == ([data, Ping(b"?")], 4000)


@given(
    data=st.text(max_size=400) | st.binary(max_size=400),
    client=st.booleans(),
    deflate=st.booleans(),
    places=splits,
)
def test_we_understand_websockets(
    data: str | bytes, client: bool, deflate: bool, places: list[int]
) -> None:
    side = websockets.protocol.Side
    sender = websockets.protocol.Protocol(
        side.CLIENT if client else side.SERVER,
        state=websockets.protocol.State.OPEN,
    )
    if deflate:
        extension = permessage_deflate.PerMessageDeflate(True, True, 15, 15)
        sender.extensions = [extension]
    if isinstance(data, str):
        sender.send_text(data.encode())
    else:
        sender.send_binary(data)
    sender.send_ping(b"?")
    sender.send_close(4000, "bye")
    wire = b"".join(sender.data_to_send())
    told = ours(cut(wire, places), client=not client, deflate=deflate)
    assert told == ([data, Ping(b"?")], 4000)


def test_the_mask_of_websockets_is_ours() -> None:
    from websockets.utils import apply_mask

    assert apply_mask(b"Hello", b"abcd") == xor(b"Hello", b"abcd")
