"""Where Redis is: what a URL says, and names that are not resolved."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from flask_wschat.backends import open as open_backend
from flask_wschat.backends.redis.address import Address, several
from flask_wschat.backends.redis.wire import LinkError
from flask_wschat.errors import ConfigError
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("redis://h", ["redis://h"]),
        ("redis://h,i:1/0?a=,", ["redis://h/0?a=,", "redis://i:1/0?a=,"]),
        ("redis://u:p,q@h, i?x", ["redis://u:p,q@h?x", "redis://u:p,q@i?x"]),
        ("unix:///a,b?db=1,2", ["unix:///a,b?db=1,2"]),
        ("redis://", ["redis://"]),
    ],
)
def test_the_hosts_of_a_url(url: str, urls: list[str]) -> None:
    assert several(url) == urls


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://a,", "no host"),
        ("redis://:se,cret@a,,b", "no host"),
        ("redis+sentinel://a,,b/mymaster", "no host"),
        ("redis+cluster://,a", "no host"),
        ("redis://:12/cret@host", "%2F"),
        ("redis://:12?cret@host", "%3F"),
        ("redis://:12#cret@host", "%23"),
        ("redis://u:12/cret@a,b/0", "%2F"),
        ("redis+sentinel://:12/cret@a,b/mymaster", "%2F"),
        ("redis+sentinel://:12#cret@a,b/mymaster", "%23"),
        ("redis+cluster://:12?cret@a,b", "%3F"),
        ("redis://host/chat", "'chat'"),
        ("redis://host/0/1", "'0/1'"),
        ("redis://host/-1", "'-1'"),
        ("redis+sentinel://host/mymaster/chat", "'chat'"),
        ("unix://", "socket"),
    ],
)
def test_what_would_lead_elsewhere_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        open_backend(url)
    assert "cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://[::1]:7000", "::1:7000"),
        ("redis+cluster://[::1]:7000,[::2]", "::1:7000, ::2:6379"),
        ("redis+sentinel://[::1],h:1/m/0", "m (sentinels ::1:26379, h:1)"),
        ("redis://:p%40%2F%3F%23@host?client_name=a@b", "host:6379"),
        ("unix://u:p@/run/a@b.sock?db=1", "/run/a@b.sock"),
    ],
)
def test_where_a_url_leads(url: str, where: str) -> None:
    backend: Any = open_backend(url)
    assert backend._server.where == where


def test_a_name_that_is_not_resolved_has_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve: Any = socket.getaddrinfo
    answer = threading.Event()
    asked = 0

    def hang(host: str, *args: Any, **more: Any) -> Any:
        nonlocal asked
        if host == "redis.example":
            asked += 1
            answer.wait()
            host = "127.0.0.1"
        return resolve(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with RedisServer() as server:
        address = Address(f"redis://redis.example:{server.port}", 0.05)
        for _ in range(10):
            began = time.monotonic()
            with pytest.raises(LinkError, match="not resolved") as raised:
                address.connect()
            assert raised.value.silent
            assert time.monotonic() - began < 1
        assert asked == 4  # no more than so many threads wait for an answer
        answer.set()
        with server.client() as client:
            # Those that came late were let go of.
            eventually(lambda: not address._waiting)
            eventually(lambda: len(client.client_list()) == 1)
        address.connect().disconnect()
        monkeypatch.undo()
        with pytest.raises(LinkError, match="cannot be reached"):
            Address("redis://name.invalid", 3).connect()
