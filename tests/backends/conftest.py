"""Each backend for the contract, and a process for it to serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_wschat.backends import Backend

from .cluster import STORES, Cluster, RecordingHost, Store


def _clusters(kinds: list[type[Store]]) -> Any:
    names = [kind.__name__.removesuffix("Store").lower() for kind in kinds]

    @pytest.fixture(params=kinds, ids=names)
    def clusters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
        cluster = Cluster(request.param(tmp_path))
        yield cluster
        cluster.close()

    return clusters


cluster = _clusters(STORES)
sharing = _clusters([kind for kind in STORES if kind.shared])


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
