"""Chooses the twin of ``queue`` and ``counts``: C where it is built, else Python.

The environment variable ``WSCHAT_PUREPYTHON``, set to anything, asks for Python.
"""

from __future__ import annotations

import os

from .counts import Counts, clock
from .queue import Allowance, Queue, add_to_all, flush_ready, held, receive

__all__ = [
    "ACCELERATED",
    "Allowance",
    "Counts",
    "Queue",
    "add_to_all",
    "clock",
    "flush_ready",
    "held",
    "receive",
]

ACCELERATED = False
"""Whether the C twin serves."""

if not os.environ.get("WSCHAT_PUREPYTHON"):
    try:
        from ._speedups import (
            Allowance,
            Counts,
            Queue,
            add_to_all,
            clock,
            flush_ready,
            held,
            receive,
        )
    except ImportError:
        pass  # no compiler when this was installed, or a Python that has no stable ABI
    else:
        ACCELERATED = True
