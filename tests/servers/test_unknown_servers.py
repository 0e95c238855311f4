"""A server that works otherwise inside than those known is one without sockets."""

from __future__ import annotations

import io
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from flask_wschat.servers.offers import GunicornGreenletOffer, ThreadOffer, find_offer

GUNICORNS = SimpleNamespace(reader=SimpleNamespace(unreader=None))
"""The body of a request, of which nothing is known but this."""

OTHERS: dict[str, dict[str, Any]] = {
    "one that says nothing": {},
    "Werkzeug, another body": {"werkzeug.socket": None, "wsgi.input": object()},
    "gunicorn, another body": {"gunicorn.socket": None, "wsgi.input": object()},
    "gunicorn, another reader": {"gunicorn.socket": None, "wsgi.input": GUNICORNS},
    "a reader of no socket": {"wsgi.input": io.BufferedReader(io.BytesIO())},
    "none": {"wsgi.input": None},
}


@pytest.mark.parametrize("environ", OTHERS.values(), ids=OTHERS.keys())
def test_an_unknown_server_offers_nothing(environ: dict[str, Any]) -> None:
    assert find_offer(environ, lambda *_: None) is None


def test_known_servers_offer_their_socket() -> None:
    one, other = socket.socketpair()
    unreader = SimpleNamespace(buf=io.BytesIO(b"ahead"))
    body = SimpleNamespace(reader=SimpleNamespace(unreader=unreader))
    with one, other:
        offer = find_offer({"werkzeug.socket": one, "wsgi.input": io.BytesIO()}, None)
        assert isinstance(offer, ThreadOffer)
        offer = find_offer({"gunicorn.socket": one, "wsgi.input": body}, None)
        assert isinstance(offer, ThreadOffer)
        assert not isinstance(offer, GunicornGreenletOffer)
