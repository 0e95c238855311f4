from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flask_wschat import shortcuts


@pytest.fixture(autouse=True)
def environment_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is said in each test whether shortcuts are on."""
    monkeypatch.setattr(shortcuts, "SWITCH", None)


@pytest.fixture
def uncheck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let a package be of a version that nobody has checked."""

    def uncheck(package: str) -> None:
        monkeypatch.setitem(shortcuts.CHECKED, package, ("0.1", "0.2"))
        shortcuts.are_checked.cache_clear()

    yield uncheck
    monkeypatch.undo()
    shortcuts.are_checked.cache_clear()
