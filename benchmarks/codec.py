"""The codec beside foreign ones, as ratios of one run; exits with 1 under a bar.

    python -m benchmarks.codec

A message of masked text is parsed and one of the same size encoded, as a server does
it: bytes come in reads of 64 KiB. ``wsproto`` is pure Python; ours is measured as both
twins. Unmasking is compared with the C extension of ``websockets``. Rounds alternate
between all, and a ratio is the median over the rounds, so that what else the machine
does hits them alike.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
import unittest.mock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import websockets.speedups
import wsproto.connection
from wsproto.events import TextMessage

from flask_wschat.codec import Connection, Event, connection, encode_frame, frames

try:
    from flask_wschat.codec import _speedups
except ImportError:
    TWINS: dict[str, Any] = {"Python": frames}
else:
    TWINS = {"Python": frames, "C": _speedups}

READ = 1 << 16
MASK = b"\x12\x34\x56\x78"
SIZES = {"64 B": 64, "4 KiB": 1 << 12, "64 KiB": 1 << 16, "1 MiB": 1 << 20}
ROUNDS = 15
SECONDS = 0.03
"""For each contender in each round."""
TALK_BAR = 1.5
MASK_BAR = 1 / 1.5

Work = Callable[[], object]


def main() -> int:
    """Print the table; return 1 if the accelerated codec is under a bar."""
    print(
        f"Python {platform.python_version()}, wsproto {version('wsproto')},"
        f" websockets {version('websockets')}"
    )
    if "C" not in TWINS:
        print("The C twin is not built: python setup.py build_ext --inplace")
    print(f"{'':28}{'theirs':>10}{'Python':>10}{'ratio':>8}{'C':>10}{'ratio':>8}  bar")
    good = True
    for title, size in SIZES.items():
        good &= row(f"parse + encode {title}", *talk(size), bar=TALK_BAR)
    for title, size in SIZES.items():
        good &= row(f"unmask {title}", *mask(size), bar=MASK_BAR)
    print("Times in µs. A ratio is theirs : ours, so more is faster.")
    return 0 if good else 1


def row(title: str, theirs: Work, ours: dict[str, Work], *, bar: float) -> bool:
    """Measure and print one line; return whether the best of ours is over the bar."""
    times: dict[str, list[float]] = {name: [] for name in ("theirs", *ours)}
    for _ in range(ROUNDS):
        times["theirs"].append(microseconds(theirs))
        for name, work in ours.items():
            with twin(TWINS[name]):
                times[name].append(microseconds(work))
    line = f"{title:28}{statistics.median(times['theirs']):10.2f}"
    ratio = 0.0
    for name in ours:
        pairs = zip(times["theirs"], times[name], strict=True)
        ratio = statistics.median(their / our for their, our in pairs)
        line += f"{statistics.median(times[name]):10.2f}{ratio:7.2f}x"
    print(f"{line}  {bar:.2f}x {'ok' if ratio >= bar else 'MISSED'}")
    return ratio >= bar


def microseconds(work: Work) -> float:
    """Return how long one call takes."""
    count, begin = 0, time.perf_counter()
    while (took := time.perf_counter() - begin) < SECONDS or count == 0:
        for _ in range(10):
            work()
        count += 10
    return took / count * 1e6


@contextmanager
def twin(module: Any) -> Iterator[None]:
    """Let connections take their frames from ``module``."""
    names = {name: getattr(module, name) for name in ("FrameParser", "encode_frame")}
    with unittest.mock.patch.multiple(connection, **names):
        yield


def talk(size: int) -> tuple[Work, dict[str, Work]]:
    """Return what parses and encodes a text of ``size`` bytes: theirs, and ours."""
    text = ("Hello world! " * size)[:size]
    wire = encode_frame(1, text.encode(), mask=MASK)
    reads = [wire[start : start + READ] for start in range(0, len(wire), READ)]
    role = wsproto.connection.ConnectionType.SERVER
    wsproto_connection = wsproto.connection.Connection(role)

    def theirs() -> None:
        parts: list[str] = []
        for read in reads:
            wsproto_connection.receive_data(read)
            for event in wsproto_connection.events():
                assert isinstance(event, TextMessage)
                parts.append(event.data)
        assert "".join(parts) == text
        wsproto_connection.send(TextMessage(text))

    def ours(module: Any) -> Work:
        with twin(module):
            our_connection = Connection(max_message=size)

        def work() -> None:
            events: list[Event] = []
            for read in reads:
                events += our_connection.receive_data(read)
            assert events == [text]
            our_connection.send(text)

        return work

    return theirs, {name: ours(module) for name, module in TWINS.items()}


def mask(size: int) -> tuple[Work, dict[str, Work]]:
    """Return what unmasks ``size`` bytes: theirs, and ours."""
    data = bytes(size)

    def ours(module: Any) -> Work:
        return lambda: module.apply_mask(data, MASK)

    return (
        lambda: websockets.speedups.apply_mask(data, MASK),
        {name: ours(module) for name, module in TWINS.items()},
    )


if __name__ == "__main__":
    sys.exit(main())
