"""Tests at the same time: which ones stay together, and what begins first."""

from __future__ import annotations

import pytest


def arrange(items: list[pytest.Item]) -> None:
    """Put ``items`` into groups, which pytest-xdist hands out as a whole.

    A group are the tests of a file that share what is set up once for several: a
    server, a browser. Each other test is one by itself. Those that may take longest
    begin first, so that no processor waits for the last of them.
    """
    for item in items:
        if shared := _shared(item):
            file = item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(" ".join([file, *shared])))
    items.sort(key=_seconds, reverse=True)


def _shared(item: pytest.Item) -> list[str]:
    """Return the fixtures that ``item`` shares with others of its file."""
    assert isinstance(item, pytest.Function)
    indices = item.callspec.indices if hasattr(item, "callspec") else {}
    return sorted(
        f"{name} {indices.get(name, '')}".rstrip()
        for name, definitions in item._fixtureinfo.name2fixturedefs.items()
        if definitions and definitions[-1].scope == "module"
    )


def _seconds(item: pytest.Item) -> float:
    """Return how long ``item`` may take, as far as it says so."""
    limit = item.get_closest_marker("timeout")
    return float(limit.args[0]) if limit else 0.0
