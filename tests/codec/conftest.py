"""Each test runs on both twins: the Python codec, and the C one where it is built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flask_wschat.codec import connection

from .twins import TWINS


@pytest.fixture(scope="module", params=list(TWINS), autouse=True)
def twin(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module that a connection takes its frames from."""
    module = TWINS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FrameParser", "encode_frame", "encode_message"):
            patch.setattr(connection, name, getattr(module, name))
        yield module
