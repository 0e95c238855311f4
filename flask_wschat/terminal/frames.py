"""Showing the frames that go over the wire: ``--frames``."""

from __future__ import annotations

from collections.abc import Callable

from ..codec import Opcode, explain

SHOWN = 24
"""Bytes of a frame that are shown."""


def frames(show: Callable[[str], object]) -> Callable[[str, bytes], None]:
    """Return what takes the bytes of both directions, and shows a line for a frame."""
    names = {int(opcode): opcode.name.lower() for opcode in Opcode}
    held = {"sent": bytearray(), "received": bytearray()}

    def take(direction: str, data: bytes) -> None:
        left = held[direction]
        left += data
        while left:
            try:
                frame = explain(bytes(left[:SHOWN]))
            except ValueError:
                return  # not even its header is here
            if len(left) < (size := frame.size + frame.missing):
                return
            show(
                f"{'<>'[direction == 'sent']} fin={frame.fin:d}"
                f" rsv={''.join(f'{bit:d}' for bit in frame.rsv)}"
                f" opcode={names.get(frame.opcode, hex(frame.opcode))}"
                f" mask={frame.masked:d} length={frame.length}"
                f"  {frame.wire.hex(' ')}{' …' * (size > SHOWN)}"
            )
            del left[:size]

    return take
