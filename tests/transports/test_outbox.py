from __future__ import annotations

import pytest

from flask_wschat.codec import EncodedMessage, Opcode, encode_frame
from flask_wschat.transports.outbox import BATCH, Outbox


def text(message: str) -> bytes:
    return EncodedMessage(message).plain


class Wire:
    """A peer that takes ``room`` bytes, at most ``step`` at a time."""

    def __init__(self, room: int = 1 << 30, step: int = 1 << 30) -> None:
        self.room = room
        self.step = step
        self.batches: list[bytes | memoryview] = []

    def send(self, data: bytes | memoryview) -> int:
        if not self.room:
            raise BlockingIOError
        count = min(len(data), self.room, self.step)
        self.room -= count
        self.batches.append(data if count == len(data) else data[:count])
        return count


def drain(outbox: Outbox, step: int = 1 << 30) -> bytes:
    wire = Wire(step=step)
    while not outbox.drain(wire.send):
        pass
    assert outbox.size == 0
    return b"".join(wire.batches)


def test_frames_leave_in_order_and_joined() -> None:
    outbox = Outbox(1000, "close")
    frames = [text(str(number)) for number in range(10)]
    assert all(map(outbox.push, frames))
    assert outbox.size == sum(map(len, frames))
    wire = Wire()
    assert outbox.drain(wire.send)
    assert wire.batches == [b"".join(frames)]
    assert outbox.size == 0


@pytest.mark.parametrize("step", [1, 7, 1000, BATCH])
def test_short_sends_lose_nothing(step: int) -> None:
    outbox = Outbox(1 << 20, "close")
    frames = [text("x" * size) for size in (0, 1, 300, 50, BATCH // 4, 10)]
    for frame in frames:
        outbox.push(frame)
    assert drain(outbox, step) == b"".join(frames)


def test_a_batch_is_bounded_and_a_large_frame_is_not_copied() -> None:
    outbox = Outbox(1 << 30, "close")
    small, large = text("s" * 1000), text("l" * BATCH * 3)
    for frame in (large, small, small, large):
        outbox.push(frame)
    wire = Wire()
    assert outbox.drain(wire.send)
    assert wire.batches == [large, small + small, large]
    assert wire.batches[0] is wire.batches[2] is large


def test_a_frame_of_any_size_passes_when_there_is_room() -> None:
    outbox = Outbox(10, "close")
    assert outbox.push(text("x" * 1000))
    assert not outbox.push(text("y"))
    assert drain(outbox) == text("x" * 1000)
    assert outbox.push(text("y"))


def test_control_frames_are_always_taken() -> None:
    outbox = Outbox(1, "close")
    outbox.push(text("x"))
    pong = encode_frame(Opcode.PONG, b"")
    assert outbox.push(pong)
    assert drain(outbox) == text("x") + pong


def test_drop_oldest_loses_whole_messages_and_no_control_frame() -> None:
    outbox = Outbox(10, "drop_oldest")
    ping = encode_frame(Opcode.PING, b"")
    for frame in (text("old 1"), ping, text("old 2")):
        outbox.push(frame)
    assert outbox.push(text("new"))
    assert outbox.dropped == 1
    assert drain(outbox) == ping + text("old 2") + text("new")


def test_drop_oldest_never_touches_a_frame_partly_sent() -> None:
    outbox = Outbox(4, "drop_oldest")
    outbox.push(text("on its way"))
    assert not outbox.drain(Wire(room=1).send)
    assert outbox.push(text("new"))
    assert outbox.dropped == 0
    assert drain(outbox) == text("on its way")[1:] + text("new")


def test_a_key_replaces_what_is_unsent() -> None:
    outbox = Outbox(1000, "close")
    for frame, key in (
        (text("tally 1"), "poll"),
        (text("hello"), None),
        (text("tally 1"), "other poll"),
        (text("tally 2"), "poll"),
        (text("tally 3"), "poll"),
    ):
        outbox.push(frame, key)
    expected = text("hello") + text("tally 1") + text("tally 3")
    assert outbox.size == len(expected)
    assert drain(outbox) == expected


def test_a_key_does_not_reach_what_is_on_its_way() -> None:
    outbox = Outbox(1000, "close")
    outbox.push(text("tally 1"), "poll")
    assert not outbox.drain(Wire(room=0).send)
    outbox.push(text("tally 2"), "poll")
    assert drain(outbox) == text("tally 1") + text("tally 2")


def test_clear_keeps_only_what_is_partly_sent() -> None:
    outbox = Outbox(1000, "close")
    outbox.push(text("first"))
    assert not outbox.drain(Wire(room=2).send)
    outbox.push(text("second"), "key")
    outbox.clear()
    assert outbox.size == len(text("first")) - 2
    assert drain(outbox) == text("first")[2:]


def test_keys_hold_nothing_that_was_dropped_or_sent() -> None:
    """States of ever new keys, to a peer that never takes all there is."""
    limit, backlog = 10_000, 1_000
    dropping = Outbox(limit, "drop_oldest")
    sending = Outbox(1 << 30, "close")

    def held(outbox: Outbox) -> int:
        assert outbox._keys is not None
        return sum(map(len, outbox._keys.values()))

    for number in range(20_000):
        frame = encode_frame(Opcode.TEXT, b"%0100d" % number)
        dropping.push(frame, f"key {number}")
        sending.push(frame, f"key {number}")
        if number >= backlog:
            takes = [len(frame)]
            sending.drain(lambda data, takes=takes: takes.pop() if takes else 0)  # type: ignore[misc]
            assert sending.size
        assert held(dropping) < 4 * limit
        assert held(sending) < 4 * backlog * len(frame)


@pytest.mark.parametrize("size", [10, BATCH + 1])
def test_who_flushes_within_a_flush_leaves_it_to_that(size: int) -> None:
    """A finaliser may run at any allocation, write to the same peer, and flush."""
    outbox = Outbox(1 << 30, "close")
    first, second, third = (text(name * size) for name in "abc")
    outbox.push(first)
    sent: list[bytes] = []

    def send(data: bytes | memoryview) -> int:
        if not sent:
            outbox.push(second)
            assert not outbox.drain(send)
            outbox.push(third)
        sent.append(bytes(data))
        return len(data)

    assert outbox.drain(send)
    assert b"".join(sent) == first + second + third
    assert (outbox.size, outbox.frames, outbox.batch) == (0, [], b"")


def test_a_drain_that_failed_leaves_room_for_another() -> None:
    outbox = Outbox(100, "close")
    outbox.push(text("lost"))

    def fail(data: bytes | memoryview) -> int:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        outbox.drain(fail)
    outbox.push(text("another"))
    assert drain(outbox) == text("lost") + text("another")


def test_the_rest_may_be_cleared_within_a_flush() -> None:
    outbox = Outbox(1 << 30, "close")
    for frame in (text("x" * BATCH), text("y")):
        outbox.push(frame)

    def send(data: bytes | memoryview) -> int:
        outbox.clear()
        return len(data) - 1

    assert not outbox.drain(send)
    assert outbox.size == 1 and drain(outbox) == b"x"
