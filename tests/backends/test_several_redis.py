"""Several Redis beside each other; what every backend promises is in test_contract."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from flask_wschat.backends import open as open_backend
from flask_wschat.backends.redis import RedisBackend, RedisRing
from flask_wschat.backends.redis.subscriber import Timings
from flask_wschat.errors import BackendError, ConfigError
from flask_wschat.hub.subscriptions import Subscriptions
from flask_wschat.messages import EVERYONE, Message
from flask_wschat.transports.threaded import ThreadedLoop
from tests.backends.cluster import RecordingHost
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

QUICK = Timings(probe=0.1, deaf=0.3, answer=0.5)
TOPICS = [f"room:{number}" for number in range(3000)]


def places(url: str) -> list[int]:
    ring: Any = RedisRing(url)
    return [ring._place(topic) for topic in TOPICS]


@pytest.fixture
def servers() -> Iterator[list[RedisServer]]:
    with RedisServer() as one, RedisServer() as other:
        yield [one, other]


def test_a_topic_keeps_its_place() -> None:
    found = places("redis://a,b:6380,c/0")
    assert found[:12] == [0, 1, 2, 0, 1, 2, 0, 1, 1, 0, 1, 2]
    # Whatever the order, the password, the database, and how the port is said.
    turned = places("rediss://ann:secret@b:6380,c:6379,a/3?prefix=x")
    assert [(place + 1) % 3 for place in turned] == found
    assert all(900 < count < 1100 for count in Counter(found).values())


def test_one_host_more_takes_its_share_and_moves_nothing_else() -> None:
    before, after = places("redis://a,b,c"), places("redis://a,b,c,d")
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {3}
    assert 650 < len(moved) < 850


def test_one_host_is_no_ring() -> None:
    for url in ("redis://:a,b%2C@h", "unix:///a,b", "redis://h/0?prefix=a,b"):
        assert isinstance(open_backend(url), RedisBackend)


@pytest.mark.parametrize("hosts", ["a,a", "a,b,A:6379", "a:port,b", "a,b:0x1"])
def test_hosts_that_cannot_be(hosts: str) -> None:
    with pytest.raises(ConfigError, match="WSCHAT_URL") as raised:
        open_backend(f"redis://:s3cret@{hosts}")
    assert "s3cret" not in str(raised.value)


def test_what_is_elsewhere_goes_on_while_one_is_down(
    servers: list[RedisServer],
) -> None:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    backend, host = RedisRing(f"redis://{hosts}", timings=QUICK), RecordingHost()
    backend.start(host)
    try:
        everyone = backend._place(EVERYONE)
        there = {backend._place(topic) == everyone: topic for topic in TOPICS[:50]}
        gone, stays = there[False], there[True]
        down = servers[1 - everyone]
        backend.subscribe([gone, stays])
        backend.attend([(gone, "ann", 1), (stays, "ann", 1)])
        eventually(lambda: backend.fault() is None)
        down.kill()
        why = f":{down.port} cannot be reached; does it run?"
        eventually(lambda: why in str(backend._at(gone).fault()))
        # Who comes is let in: nobody but those in its topics can do without it.
        assert backend.fault() is None
        with pytest.raises(BackendError, match=str(down.port)):
            backend.subscribe([gone, "room:new", stays])
        with pytest.raises(BackendError, match=str(down.port)):
            backend.publish(gone, Message("x"), keep=True)
        backend.publish(stays, Message("goes on"), keep=True)
        host.wait_for(lambda: "goes on" in host.data(stays))
        backend.refresh()  # the others must hear that this process lives
        down.start()
        host.wait_for(lambda: any(gone in (lost or ()) for lost in host.losses))
        assert not any(stays in (lost or ()) for lost in host.losses)
        eventually(lambda: backend._at(gone).fault() is None)
        backend.publish(gone, Message("again"), keep=True)
        host.wait_for(lambda: "again" in host.data(gone))
        for server in servers:
            server.kill()
        eventually(backend.fault)
        with pytest.raises(BackendError):
            backend.refresh()
    finally:
        backend.stop()


def test_rooms_elsewhere_are_joined_while_one_is_down(
    servers: list[RedisServer],
) -> None:
    """Also those that are asked for together with rooms that cannot be had."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    backend, loop = RedisRing(f"redis://{hosts}", timings=QUICK), ThreadedLoop.shared()
    backend.start(RecordingHost())
    wanted = Subscriptions(backend, lambda topic: True, threading.Event)
    try:
        everyone = backend._place(EVERYONE)
        servers[1 - everyone].kill()
        some = TOPICS[:20]
        wanted.want(loop, some)  # in one go
        for topic in some:
            if backend._place(topic) == everyone:
                wanted.wait(loop, [topic])
            else:
                with pytest.raises(BackendError):
                    wanted.wait(loop, [topic])
    finally:
        backend.stop()
