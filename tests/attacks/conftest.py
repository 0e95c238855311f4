"""The servers that read HTTP by our rules, each as a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..servers.serving import OUR_WORKER, Kind, Server, gunicorn_command
from .raw import PATIENCE

_SERVE = ("-m", "tests.servers.serve")
WAYS = {
    "run": (*_SERVE, "run", "ADDRESS"),
    "ours": (*_SERVE, "ours", "ADDRESS"),
    "our-worker": (
        *gunicorn_command(OUR_WORKER, "127.0.0.1:ADDRESS"),
        *("--access-logfile", "-"),
    ),
}
FORKED = {"run": "patched", "ours": "plain", "our-worker": "patched"}
"""How each begins; what they patch by themselves is tested in `tests.servers`."""


@pytest.fixture(scope="module", params=WAYS)
def started_way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    nothing = Path(os.devnull)
    env = (("FLASK_WSCHAT_HANDSHAKE_TIMEOUT", str(PATIENCE)),)
    kind = Kind(
        request.param, WAYS[request.param], env=env, forked=FORKED[request.param]
    )
    server = Server(kind, tmp_path_factory.mktemp("server"), (nothing, nothing))
    yield server
    server.stop()


@pytest.fixture
def way(started_way: Server) -> Iterator[Server]:
    """``chat.run``, our handler on pywsgi, our gunicorn worker; none logs an error."""
    started_way.ensure()
    yield started_way
    assert started_way.running
    started_way.check_log()
