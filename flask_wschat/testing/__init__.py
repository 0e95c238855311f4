"""The test client, and the pytest plugin with its fixtures.

pytest imports this for every project beside which the package is installed. So Flask,
gevent and what else the client needs, which takes half a second, are not imported
before a fixture or a name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..server import LiveServer
    from .client import TIMEOUT, Refused, WSChatClient, WSChatSession

__all__ = [
    "TIMEOUT",
    "Refused",
    "WSChatClient",
    "WSChatSession",
    "wschat_client",
    "wschat_server",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import client

    return getattr(client, name)


@pytest.fixture
def wschat_client(app: Any) -> WSChatClient:
    """A test client for the fixture ``app``."""
    from .client import WSChatClient

    return WSChatClient(app)


@pytest.fixture
def wschat_server() -> Iterator[Callable[..., LiveServer]]:
    """A function that serves an app on a free port until the test ends.

    ``wschat_server(app)`` returns a ``LiveServer`` with ``port``, ``url(path)`` and
    ``log``. An error that the server logged fails the test.
    """
    from ..server import LiveServer

    servers: list[LiveServer] = []

    def serve(app: Any, **options: Any) -> LiveServer:
        servers.append(LiveServer(app, **options))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()
        assert "Traceback" not in server.log.getvalue(), server.log.getvalue()
