"""The whole app with tiny limits: nothing is lost without a word, and nothing stays."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.processes import Process

from .budget import long

SEEDS = 2_000 if long else 30


@pytest.mark.timeout(0 if long else 120)
@pytest.mark.parametrize("twins", ["C", "Python"])
def test_nothing_is_lost_and_nothing_stays(twins: str, tmp_path: Path) -> None:
    """A process of its own, as the twins are chosen when they are imported."""
    env = {"WSCHAT_PUREPYTHON": "1" if twins == "Python" else None}
    command = [sys.executable, "-m", "tests.fuzz.tiny", f"--seeds={SEEDS}"]
    process = Process(command, tmp_path / "log", env)
    process.start()
    assert process.wait(36_000 if long else 110) == 0, process.log
    assert f"{SEEDS} seeds passed, {twins} twins" in process.log
