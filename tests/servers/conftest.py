"""Each server once for all the tests that it has to pass."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .serving import KINDS, Kind, Server


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out the pairs of test and server that ``kinds`` says make no sense."""
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("kinds")
        callspec = getattr(item, "callspec", None)
        fits = not mark or mark.args[0](callspec and callspec.params["started"])
        (kept if fits else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def started(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    kind: Kind = request.param
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
