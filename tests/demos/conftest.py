"""A demo server for each test, checked for tracebacks at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demos.serving import DemoServer


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[DemoServer]:
    server = DemoServer(tmp_path / "server.log")
    try:
        yield server
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log
