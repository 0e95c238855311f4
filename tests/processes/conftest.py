"""What processes can share, made anew for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer


@pytest.fixture(params=["redis", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The ``WSCHAT_URL`` of each that several processes can share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/chat.db"
    server: RedisServer = request.getfixturevalue("redis")
    return server.url
