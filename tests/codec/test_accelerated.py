"""The choice between the twins, and what only the C one can get wrong."""

from __future__ import annotations

import gc
import importlib
import sys
import tracemalloc
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_wschat import codec
from flask_wschat.codec import accelerated, frames
from tests.codec.twins import TWINS

from .wire import cut, frame, splits

needs_c = pytest.mark.skipif(
    "c" not in TWINS,
    reason="the C codec is not built: that takes a compiler and Python's headers",
)


@pytest.fixture(scope="module", autouse=True)
def twin() -> None:
    """Once is enough: these tests say themselves which of the two they mean."""


@pytest.fixture
def reload() -> Iterator[Any]:
    """Import the choice anew; afterwards as it was."""
    with pytest.MonkeyPatch.context() as patch:

        def again(**changes: Any) -> ModuleType:
            for name, value in changes.items():
                if name == "environ":
                    patch.setenv("WSCHAT_PUREPYTHON", value)
                else:
                    patch.setitem(sys.modules, f"flask_wschat.codec.{name}", value)
            return importlib.reload(accelerated)

        patch.delenv("WSCHAT_PUREPYTHON", raising=False)
        yield again
    importlib.reload(accelerated)


class TestChoice:
    @needs_c
    def test_c_where_it_is_built(self, reload: Any) -> None:
        choice = reload(environ="")
        assert choice.ACCELERATED
        assert choice.apply_mask is TWINS["c"].apply_mask
        assert choice.FrameParser is TWINS["c"].FrameParser

    def test_python_where_it_is_asked_for(self, reload: Any) -> None:
        choice = reload(environ="1")
        assert not choice.ACCELERATED
        assert choice.encode_frame is frames.encode_frame

    def test_python_where_nothing_else_is(self, reload: Any) -> None:
        choice = reload(_speedups=None)
        assert not choice.ACCELERATED
        assert choice.FrameParser is frames.FrameParser

    def test_it_is_told(self) -> None:
        assert codec.ACCELERATED is accelerated.ACCELERATED


@needs_c
class TestTwins:
    """What differs would show here; the other tests say what is right."""

    @given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
    def test_apply_mask(self, data: bytes, mask: bytes) -> None:
        expected = frames.apply_mask(data, mask)
        assert TWINS["c"].apply_mask(data, mask) == expected

    @given(
        st.integers(0, 15),
        st.binary(max_size=300),
        st.booleans(),
        st.booleans(),
        st.none() | st.binary(min_size=4, max_size=4),
    )
    def test_encode_frame(
        self, opcode: int, payload: bytes, fin: bool, rsv1: bool, mask: bytes | None
    ) -> None:
        results = []
        for module in TWINS.values():
            try:
                wire = module.encode_frame(
                    opcode, payload, fin=fin, rsv1=rsv1, mask=mask
                )
            except ValueError as error:
                wire = str(error)
            results.append(wire)
        assert results[0] == results[1]

    @given(
        st.booleans(),
        st.booleans(),
        st.integers(0, 300) | st.just(1 << 62),
        st.lists(
            st.binary(max_size=40)
            | st.builds(
                frame,
                st.integers(0, 255),
                st.binary(max_size=200),
                mask=st.none() | st.binary(min_size=4, max_size=4),
            ),
            max_size=6,
        ).map(b"".join),
        splits,
    )
    def test_parser(
        self, masked: bool, rsv1: bool, limit: int, data: bytes, places: list[int]
    ) -> None:
        parsers = [
            module.FrameParser(masked=masked, max_message=limit, rsv1=rsv1)
            for module in TWINS.values()
        ]
        for part in cut(data, places):
            results = [parser.feed(part) for parser in parsers]
            assert results[0] == results[1]
            faults = [parser.fault for parser in parsers]
            assert repr(faults[0]) == repr(faults[1])

    @given(
        st.lists(
            st.binary(max_size=3)
            | st.builds(
                frame,
                st.sampled_from([0x01, 0x81, 0x82, 0x00, 0x80, 0x89, 0x88]),
                st.binary(max_size=130),
            ),
            max_size=40,
        ).map(b"".join),
        splits,
        st.lists(st.integers(0, 5), min_size=1, max_size=5),
    )
    def test_parser_a_few_frames_at_a_time(
        self, data: bytes, places: list[int], mosts: list[int]
    ) -> None:
        parsers = [
            module.FrameParser(masked=True, max_message=200)
            for module in TWINS.values()
        ]
        whole = frames.FrameParser(masked=True, max_message=200)
        found, expected = [], []
        for number, part in enumerate(cut(data, places)):
            most = mosts[number % len(mosts)]
            results = [parser.feed(part, most) for parser in parsers]
            assert results[0] == results[1]
            assert len(results[0]) <= most
            faults = [parser.fault for parser in parsers]
            assert repr(faults[0]) == repr(faults[1])
            found += results[0]
            expected += whole.feed(part)
        found += parsers[0].feed(b"")

        def joined(frames: list[frames.Frame]) -> list[tuple[int, bytes]]:
            """Pieces of a message are cut where calls come: that may differ."""
            parts: list[tuple[int, bytes]] = []
            for opcode, payload, *_ in frames:
                if opcode == 0 and parts and parts[-1][0] < 8:
                    parts[-1] = parts[-1][0], parts[-1][1] + payload
                else:
                    parts.append((opcode, payload))
            return parts

        assert joined(found) == joined(expected)

    @given(st.text(max_size=200) | st.binary(max_size=200) | st.just(b"x" * 70_000))
    def test_encode_message(self, message: str | bytes) -> None:
        results = {module.encode_message(message) for module in TWINS.values()}
        assert len(results) == 1


@needs_c
class TestC:
    def test_frames_have_names(self) -> None:
        parser = TWINS["c"].FrameParser(masked=True, max_message=10)
        (found,) = parser.feed(frame(0x81, b"a"))
        assert type(found) is frames.Frame
        assert found.payload == b"a"
        assert found.fin is True

    @given(st.lists(st.text(max_size=200) | st.binary(max_size=200), max_size=5))
    def test_messages_in_one_look(self, sent: list[str | bytes]) -> None:
        stream = b"".join(
            frame(0x81, message.encode())
            if isinstance(message, str)
            else frame(0x82, message)
            for message in sent
        )
        parser = TWINS["c"].FrameParser(masked=True, max_message=1000)
        assert parser.messages(stream) == sent
        assert parser.fault is None

    def test_more_messages_than_one_look_is_for(self) -> None:
        parser = TWINS["c"].FrameParser(masked=True, max_message=1000)
        assert parser.messages(frame(0x81) * 4096) == [""] * 4096
        assert parser.messages(frame(0x81) * 4097) is None

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(frame(0x89, b"x"), id="ping"),
            pytest.param(frame(0x88), id="close"),
            pytest.param(frame(0x01, b"x"), id="fragment"),
            pytest.param(frame(0x80, b"x"), id="continuation"),
            pytest.param(frame(0xC1, b"x"), id="rsv1"),
            pytest.param(frame(0x81, b"\xff"), id="no-utf-8"),
            pytest.param(frame(0x81, b"x", mask=None), id="unmasked"),
            pytest.param(frame(0x82, b"x" * 1001), id="too-big"),
            pytest.param(frame(0x82, b"x", form=2), id="not-the-fewest-bytes"),
            pytest.param(frame(0x82, b"x", form=8), id="64-bit"),
            pytest.param(frame(0x82, b"x" * 200)[:-1], id="payload-in-part"),
            pytest.param(frame(0x82, b"x" * 200)[:7], id="mask-in-part"),
            pytest.param(frame(0x82, b"x" * 200)[:3], id="length-in-part"),
            pytest.param(b"\x82", id="one-byte"),
        ],
    )
    def test_all_else_is_left_alone(self, other: bytes) -> None:
        parser = TWINS["c"].FrameParser(masked=True, max_message=1000)
        for stream in (other, frame(0x81, b"before") + other):
            assert parser.messages(stream) is None
        fresh = TWINS["c"].FrameParser(masked=True, max_message=1000)
        assert parser.feed(other) == fresh.feed(other)
        assert repr(parser.fault) == repr(fresh.fault)

    def test_nothing_is_looked_at_inside_a_message(self) -> None:
        whole = frame(0x81, b"x")
        for begun in (frame(0x01, b"x"), frame(0x82, b"xy")[:-1], b"\x82"):
            parser = TWINS["c"].FrameParser(masked=True, max_message=1000)
            parser.feed(begun)
            assert parser.messages(whole) is None

    @given(
        st.integers(65_536, 70_000),
        splits,
        st.lists(st.booleans(), min_size=1, max_size=8),
    )
    def test_a_large_message_has_a_place(
        self, size: int, places: list[int], placing: list[bool]
    ) -> None:
        payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
        head, rest = frame(0x82, payload)[:40], frame(0x82, payload)[40:]
        parser = TWINS["c"].FrameParser(masked=True, max_message=size)
        assert parser.place() is None
        found = parser.feed(head)
        for number, part in enumerate(cut(rest, places)):
            place = parser.place()
            assert len(place) >= len(part)
            if placing[number % len(placing)]:
                place[: len(part)] = part
                found += parser.placed(len(part))
            else:
                found += parser.feed(part)
        assert found == [frames.Frame(2, payload)]
        assert parser.place() is None
        assert parser.messages(frame(0x81, b"next")) == ["next"]

    def test_a_place_takes_what_it_has_room_for(self) -> None:
        parser = TWINS["c"].FrameParser(masked=True, max_message=1 << 20)
        with pytest.raises(ValueError, match="no place"):
            parser.placed(0)
        parser.feed(frame(0x82, b"x" * 65_536)[:-1])
        with pytest.raises(ValueError, match="no place"):
            parser.placed(2)
        assert len(parser.place()) == 1

    def test_shared_bytes_stay_as_they_are(self) -> None:
        """CPython has one object for each single byte, and one for none."""
        parser = TWINS["c"].FrameParser(masked=True, max_message=10)
        for value in range(256):
            data = frame(0x82, bytes([value]))
            assert parser.feed(data + frame(0x82)) == [
                frames.Frame(2, bytes([value])),
                frames.Frame(2, b""),
            ]
        assert [bytes([value])[0] for value in range(256)] == list(range(256))

    @pytest.mark.parametrize(
        "call",
        [
            lambda c: c.apply_mask(b"a"),
            lambda c: c.apply_mask("a", b"abcd"),
            lambda c: c.apply_mask(b"a", "abcd"),
            lambda c: c.apply_mask(b"a", b"abc"),
            lambda c: c.encode_frame(1),
            lambda c: c.encode_frame(1, "a"),
            lambda c: c.encode_frame("1", b"a"),
            lambda c: c.encode_frame(1, b"a", mask=b"abc"),
            lambda c: c.encode_frame(1, b"a", other=1),
            lambda c: c.encode_frame(1, b"a", fin=_NoTruth()),
            lambda c: c.encode_message(None),
            lambda c: c.encode_message(bytearray(b"a")),
            lambda c: c.encode_message("\udc80"),
            lambda c: c.FrameParser(masked=True, max_message=1).messages("a"),
            lambda c: c.FrameParser(masked=True, max_message=1).placed("a"),
            lambda c: c.FrameParser(),
            lambda c: c.FrameParser(True, 1),
            lambda c: c.FrameParser(masked=True, max_message="1"),
            lambda c: c.FrameParser(masked=True, max_message=1).feed("a"),
            lambda c: c.FrameParser(masked=True, max_message=1).feed(None),
            lambda c: c.FrameParser(masked=True, max_message=1).feed(),
            lambda c: c.FrameParser(masked=True, max_message=1).feed(b"", 1, 2),
            lambda c: c.FrameParser(masked=True, max_message=1).feed(b"", "1"),
        ],
    )
    def test_wrong_arguments_raise(self, call: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            call(TWINS["c"])

    def test_any_bytes_like_payload_is_sent(self) -> None:
        payloads: list[Any] = [bytearray(b"abc"), memoryview(b"abc")]
        for payload in payloads:
            wire = TWINS["c"].encode_frame(2, payload)
            assert wire == frames.encode_frame(2, payload) == b"\x82\x03abc"

    def test_a_finaliser_that_feeds_amid_a_feed(self) -> None:
        """It is refused; half a large message would be written beside its place."""
        parser = TWINS["c"].FrameParser(masked=True, max_message=1 << 20)
        refused: list[bool] = []

        kept: list[object] = []

        class Garbage:
            left = 1000

            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                if Garbage.left > 0:
                    Garbage.left -= 1
                    kept.extend([] for _ in range(9))  # that counts
                    try:
                        parser.feed(b"")
                    except RuntimeError:
                        refused.append(True)
                    Garbage()

        # More than CPython has tuples in store: so it makes some.
        stream = frame(0x81, b"y") * 5000
        thresholds = gc.get_threshold()
        gc.collect()
        Garbage()
        gc.set_threshold(1)
        try:
            found = parser.feed(stream)
        finally:
            gc.set_threshold(*thresholds)
            Garbage.left = 0
            gc.collect()
        assert found == [frames.Frame(1, b"y")] * 5000
        # From 3.12 on the collector runs between Python's own instructions only.
        assert refused or sys.version_info >= (3, 12)

    def test_nothing_leaks(self) -> None:
        c = TWINS["c"]
        stream = frame(0x81, b"a" * 300) + frame(0x01, b"b") + frame(0x89, b"c")

        def work() -> None:
            for _ in range(100):
                parser = c.FrameParser(masked=True, max_message=1000)
                for start in range(0, len(stream), 50):
                    parser.feed(stream[start : start + 50])
                assert parser.fault is None
                parser.feed(b"\x83\x80\x00")
                assert parser.fault is not None
                c.encode_frame(2, b"a" * 1000, mask=b"abcd")
                c.apply_mask(b"a" * 1000, b"abcd")
                with pytest.raises(ValueError, match="control"):
                    c.encode_frame(8, bytes(126))

        def growth() -> int:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(5):
                work()
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before

        work()
        tracemalloc.start()
        try:
            work()
            # Other threads of a test run may keep something meanwhile, but once.
            assert min(growth() for _ in range(3)) < 5000
        finally:
            tracemalloc.stop()


class _NoTruth:
    def __bool__(self) -> bool:
        raise TypeError("neither")
