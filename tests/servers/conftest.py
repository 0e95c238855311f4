"""Each server once for all the tests that it has to pass."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificate import make_pair
from .serving import KINDS, OUR_WORKER, Kind, Server


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    return make_pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def started(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    kind: Kind = request.param
    if OUR_WORKER in kind.command and not importlib.util.find_spec(
        "flask_wschat.gunicorn"
    ):
        pytest.skip("flask_wschat.gunicorn is not there yet")
    nothing = Path(os.devnull)
    pair = request.getfixturevalue("pair") if kind.tls else (nothing, nothing)
    # Not the long name of the test: a Unix socket's path has 108 bytes.
    server = Server(kind, tmp_path_factory.mktemp("server"), pair)
    yield server
    server.stop()
    server.check_log()


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    """The application, served in each way in turn; no test may leave an error."""
    started.ensure()
    yield started
    started.check_log()
