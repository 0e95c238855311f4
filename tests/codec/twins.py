"""The twins of the codec: in Python, and in C where it is built."""

from __future__ import annotations

from typing import Any

from flask_wschat.codec import frames

TWINS: dict[str, Any] = {"python": frames}
try:
    from flask_wschat.codec import _speedups
except ImportError:
    pass
else:
    TWINS["c"] = _speedups
