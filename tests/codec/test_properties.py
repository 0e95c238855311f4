"""Three properties that carry the weight, on streams nobody thought of."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from flask_wschat.codec import Closed, Connection, Event, Ping, Pong

from .wire import MASK, close, cut, frame, splits

LIMIT = 1000

texts = st.text(max_size=200).map(str.encode)
# Repeated, as Hypothesis takes its time for each byte that it draws.
long = st.binary(min_size=1, max_size=9)
payloads = st.one_of(
    texts, st.binary(max_size=200), long.map(lambda data: (data * LIMIT)[: LIMIT + 3])
)
keys = st.binary(min_size=4, max_size=4)


def frames_of(role: str) -> st.SearchStrategy[bytes]:
    """Frames to the server or the client, most of them legal."""
    masks = keys if role == "server" else st.none()
    legal = st.builds(
        frame, st.sampled_from([0x81, 0x82]), texts | payloads, mask=masks
    )
    control = st.builds(
        frame, st.sampled_from([0x89, 0x8A]), st.binary(max_size=125), mask=masks
    )
    parts = st.builds(
        frame, st.sampled_from([0x00, 0x01, 0x02, 0x80]), payloads, mask=masks
    )
    goodbye = st.builds(
        frame,
        st.just(0x88),
        st.builds(close, st.integers(0, 5000) | st.just(1000), texts.map(_short)),
        mask=masks,
    )
    odd = st.builds(
        frame, st.integers(0, 255), payloads, mask=keys | st.none(), form=st.just(0)
    )
    return st.one_of(legal, legal, control, parts, parts, goodbye, odd)


def _short(text: bytes) -> bytes:
    return text[:123]


def fragmented(payload: bytes, places: list[int], first: int) -> bytes:
    """Return ``payload`` as a message in fragments, for a server."""
    parts = cut(payload, places) or [b""]
    firsts = [first] + [0x00] * (len(parts) - 1)
    firsts[-1] |= 0x80
    return b"".join(map(frame, firsts, parts))


def run(connection: Connection, parts: list[bytes]) -> tuple[list[Event], bytes]:
    """Return all events and all that was answered."""
    events: list[Event] = []
    answers = b""
    for part in parts:
        events += connection.receive_data(part)
        answers += connection.data_to_send()
    return events, answers


@given(st.lists(frames_of("server"), max_size=8), splits)
def test_any_split_gives_the_same_events(
    frames: list[bytes], places: list[int]
) -> None:
    data = b"".join(frames)
    whole = run(Connection(max_message=LIMIT), [data])
    assert run(Connection(max_message=LIMIT), cut(data, places)) == whole
    bytewise = [bytes([byte]) for byte in data]
    assert run(Connection(max_message=LIMIT), bytewise) == whole


@given(st.lists(frames_of("client"), max_size=8), splits)
def test_any_split_gives_a_client_the_same_events(
    frames: list[bytes], places: list[int]
) -> None:
    data = b"".join(frames)
    whole, _ = run(Connection(client=True, max_message=LIMIT), [data])
    parts, _ = run(Connection(client=True, max_message=LIMIT), cut(data, places))
    assert parts == whole


@given(
    st.booleans(),
    st.one_of(
        st.binary(max_size=300),
        st.lists(frames_of("server"), max_size=6).map(b"".join),
        st.builds(
            lambda frames, junk: b"".join(frames) + junk,
            st.lists(frames_of("server"), max_size=3),
            st.binary(max_size=30),
        ),
    ),
    splits,
)
@example(False, frame(0x81, "é".encode()[:1], mask=MASK), [])
def test_any_bytes_give_events_or_one_close(
    client: bool, data: bytes, places: list[int]
) -> None:
    connection = Connection(client=client, max_message=LIMIT)
    events, _ = run(connection, cut(data, places))
    events += connection.receive_eof()
    assert isinstance(events[-1], Closed)
    assert [type(event) for event in events].count(Closed) == 1
    assert connection.state.value == "closed"


messages = st.one_of(
    st.text(max_size=300), st.binary(max_size=300), long.map(lambda data: data * 9000)
)


@given(
    st.lists(
        st.tuples(st.booleans(), messages | st.builds(Ping, st.binary(max_size=125))),
        max_size=6,
    ),
    splits,
    st.sampled_from([1000, 1001, 3000, 4999]),
    st.text(max_size=20),
)
def test_two_connections_deliver_what_was_sent(
    script: list[tuple[bool, Any]], places: list[int], code: int, reason: str
) -> None:
    ends = Connection(client=False), Connection(client=True)
    for to_server, message in script:
        sender, receiver = ends if not to_server else ends[::-1]
        if isinstance(message, Ping):
            events, pong = run(receiver, cut(sender.ping(message.payload), places))
            assert events == [message]
            assert sender.receive_data(pong) == [Pong(message.payload)]
        else:
            events, _ = run(receiver, cut(sender.send(message), places))
            assert events == [message]
    server, client = ends
    events, echo = run(client, cut(server.close(code, reason), places))
    assert events == [Closed(code, reason)]
    assert server.receive_data(echo) == [Closed(code, "")]


@given(texts | payloads, splits, st.sampled_from([0x01, 0x02]))
def test_fragments_give_what_the_whole_gives(
    payload: bytes, places: list[int], first: int
) -> None:
    whole = run(Connection(), [frame(0x80 | first, payload)])
    assert run(Connection(), [fragmented(payload, places, first)]) == whole
