"""Each backend for the contract, and a process for it to serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_wschat.backends import Backend
from flask_wschat.backends.sqlite.backend import SQLiteBackend
from tests.support.redis_server import RedisServer

from .cluster import (
    GROWING,
    STORES,
    AnyBackend,
    Begin,
    Cluster,
    ClusterStore,
    RecordingHost,
    Start,
    Store,
)


def _clusters(kinds: list[type[Store]]) -> Any:
    # A cluster takes ten seconds to begin.
    params = [
        pytest.param(
            kind,
            id=kind.__name__.removesuffix("Store").lower(),
            marks=[pytest.mark.slow] if kind is ClusterStore else [],
        )
        for kind in kinds
    ]

    @pytest.fixture(params=params)
    def clusters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
        cluster = Cluster(request.param(tmp_path))
        yield cluster
        cluster.close()

    return clusters


cluster = _clusters(STORES)
sharing = _clusters([kind for kind in STORES if kind.shared])
growing = _clusters(GROWING)


@pytest.fixture
def started(cluster: Cluster) -> tuple[Backend, RecordingHost]:
    """One process of each backend."""
    return cluster.start()


@pytest.fixture
def backend(started: tuple[Backend, RecordingHost]) -> Backend:
    return started[0]


@pytest.fixture
def host(started: tuple[Backend, RecordingHost]) -> RecordingHost:
    return started[1]


@pytest.fixture
def two(
    sharing: Cluster,
) -> tuple[tuple[Backend, RecordingHost], tuple[Backend, RecordingHost]]:
    """Two processes of each backend that processes can share."""
    return sharing.start(), sharing.start()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what SQLite does from time to time be done at once."""
    monkeypatch.setattr("flask_wschat.backends.sqlite.writer.TIDY", 0.1)
    monkeypatch.setattr("flask_wschat.backends.sqlite.writer.PROBE", 0.1)


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a backend in a process for it to serve; stopped after the test."""
    backends: list[Backend] = []

    def begin(backend: AnyBackend) -> tuple[AnyBackend, RecordingHost]:
        host = RecordingHost()
        backend.start(host)
        backends.append(backend)
        return backend, host

    yield begin
    for backend in backends:
        backend.stop()


@pytest.fixture
def start(path: Path, begin: Begin) -> Start:
    """Return one more backend on the test's file, and its process."""

    def start(
        where: Path = path, **options: Any
    ) -> tuple[SQLiteBackend, RecordingHost]:
        return begin(SQLiteBackend(where, **options))

    return start


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis for all the tests of a file."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    """A foreign client of it; it is empty."""
    with server.client() as client:
        client.flushall()
        yield client
