"""Showing the frames that go over the wire: ``--frames``."""

from __future__ import annotations

from collections.abc import Callable

from ..codec import Anatomy, Opcode, explain

SHOWN = 24
"""Bytes of a frame that ``--frames`` shows."""


class Frames:
    """Cuts what goes over the wire into frames and shows a line for each."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show
        self._rest = {"sent": b"", "received": b""}
        self._skip = {"sent": 0, "received": 0}  # payload bytes that are not shown

    def __call__(self, direction: str, data: bytes) -> None:
        arrow = ">" if direction == "sent" else "<"
        data = self._rest[direction] + data
        at = self._skip[direction]
        while at < len(data):
            window = data[at : at + SHOWN]
            try:
                frame = explain(window)
            except ValueError:
                break
            size = frame.size + frame.missing
            if len(window) < min(size, SHOWN):
                break
            more = " …" if size > SHOWN else ""
            self._show(f"{arrow} {_header_bits(frame)}  {frame.wire.hex(' ')}{more}")
            at += size
        self._skip[direction] = max(at - len(data), 0)
        self._rest[direction] = data[at:]


def _header_bits(frame: Anatomy) -> str:
    names = {int(opcode): opcode.name.lower() for opcode in Opcode}
    rsv = "".join(f"{bit:d}" for bit in frame.rsv)
    opcode = names.get(frame.opcode, f"{frame.opcode:#x}")
    return (
        f"fin={frame.fin:d} rsv={rsv} opcode={opcode} mask={frame.masked:d}"
        f" length={frame.length}"
    )
