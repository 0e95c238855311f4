"""Chooses the twin of what is hot in ``frames``: C where it is built, else Python.

The environment variable ``WSCHAT_PUREPYTHON``, set to anything, asks for Python.
"""

from __future__ import annotations

import os

from .frames import FrameParser, apply_mask, encode_frame, encode_message

__all__ = [
    "ACCELERATED",
    "FrameParser",
    "apply_mask",
    "encode_frame",
    "encode_message",
]

ACCELERATED = False
"""Whether the C twin serves."""

if not os.environ.get("WSCHAT_PUREPYTHON"):
    try:
        from ._speedups import FrameParser, apply_mask, encode_frame, encode_message
    except ImportError:
        pass  # no compiler when this was installed, or a Python that has no stable ABI
    else:
        ACCELERATED = True
