"""Tests at the same time: pytest-xdist hands out files, each as a whole.

What a file's tests share, a server or a browser, is then started once.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest


def arrange(items: list[pytest.Item]) -> None:
    """Begin with the files that may take longest, so that nobody waits for the last."""
    seconds: Counter[Path] = Counter()
    for item in items:
        limit = item.get_closest_marker("timeout")
        seconds[item.path] += limit.args[0] if limit else 1
    items.sort(key=lambda item: seconds[item.path], reverse=True)
