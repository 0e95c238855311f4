"""Monkey-patching: found at `init_app`, and said once with the line that mends it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging
from gevent import monkey
{patch}
logging.basicConfig(format="%(message)s")
from flask import Flask
from flask_wschat import WSChat
WSChat(Flask("app"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patch", "warning"),
    [
        pytest.param("", "", id="not at all"),
        pytest.param("monkey.patch_all()", "", id="all of it"),
        pytest.param(
            "monkey.patch_all(thread=False)", "but not threading", id="no threads"
        ),
        pytest.param("monkey.patch_socket()", "patched socket, but not", id="sockets"),
    ],
)
@pytest.mark.pain(8)
def test_partial_patching_is_warned_of(patch: str, warning: str) -> None:
    program = PROGRAM.format(patch=patch)
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    lines = answer.stderr.splitlines()
    if warning:
        [line] = lines
        assert warning in line and "monkey.patch_all()" in line
    else:
        assert lines == []


def test_eventlet_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without eventlet itself, which does not install beside today's gevent."""
    import types

    from flask_wschat.transports.patched import patching_fault

    patcher = types.ModuleType("eventlet.patcher")
    patcher.is_monkey_patched = lambda name: True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)
    assert "eventlet" in (patching_fault() or "")
