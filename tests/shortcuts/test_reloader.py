"""Werkzeug's reloader is private: without it a program is served all the same."""

from __future__ import annotations

import pytest

from flask_wschat.running import debugging
from flask_wschat.server import prepare


def test_a_werkzeug_with_another_reloader(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert debugging.has_reloader()
    for other in (None, object):
        monkeypatch.setattr(debugging, "StatReloaderLoop", other)
        caplog.clear()
        assert not debugging.has_reloader()
        assert "no reloading" in caplog.text


def test_without_a_reloader_the_program_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(debugging, "StatReloaderLoop", None)
    prepare(reload=True, patch=False)
