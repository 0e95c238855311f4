"""Redis whose primary fails, and whose sentinels choose another one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flask_wschat.backends import open as open_backend
from flask_wschat.backends.redis import RedisBackend
from flask_wschat.backends.redis.sentinel import SentinelAddress
from flask_wschat.backends.redis.subscriber import Timings
from flask_wschat.errors import BackendError, ConfigError
from flask_wschat.messages import Message
from tests.backends.cluster import Begin, RecordingHost
from tests.support.redis_server import RedisServer, Sentinels
from tests.support.waiting import LONG, eventually

ROOM = "room:a"
QUICK = Timings(probe=0.1, deaf=0.5, answer=1.0)


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    with Sentinels("repl-diskless-sync-delay 0", password="s3cret") as them:
        yield them


@pytest.fixture
def process(sentinels: Sentinels, begin: Begin) -> tuple[RedisBackend, RecordingHost]:
    return begin(RedisBackend(sentinels.url, timings=QUICK))


def say(backend: RedisBackend, data: str) -> int:
    """Publish as a client does, which tries again until it knows."""
    seq = 0

    def said() -> bool:
        nonlocal seq
        try:
            message = Message(data, sender="ann", mid=data)
            seq = backend.publish(ROOM, message, keep=True).seq
        except BackendError:
            return False
        return True

    eventually(said, "it is said", LONG)
    return seq


@pytest.mark.slow
def test_both_connections_follow_the_primary(
    sentinels: Sentinels, process: tuple[RedisBackend, RecordingHost]
) -> None:
    backend, host = process
    backend.subscribe([ROOM])
    assert say(backend, "1") == 1
    host.wait_for_count(1)
    with sentinels.primary.client() as client:
        assert client.wait(1, 2000) == 1
    sentinels.primary.kill()
    assert say(backend, "2") == 2
    eventually(lambda: host.losses, seconds=LONG)
    assert all(lost == [ROOM] for lost in host.losses)
    assert str(sentinels.replica.port) in backend._server.where
    # Who was the primary comes back as one, until it hears better.
    sentinels.primary.start()
    say(backend, "3")
    with sentinels.replica.client() as client:
        assert client.xlen("wschat:{room:a}:log") == 3
    eventually(lambda: backend.fault() is None)


@pytest.mark.slow
def test_a_primary_that_was_replaced_is_left_though_it_answers(
    sentinels: Sentinels, process: tuple[RedisBackend, RecordingHost]
) -> None:
    """As one does which the sentinels cannot reach, and we can."""
    backend, _ = process
    backend.subscribe([ROOM])
    say(backend, "1")
    with sentinels.primary.client() as client:
        assert client.wait(1, 2000) == 1
    sentinels.primary.pause()
    with sentinels.sentinels[0].client() as client:
        asked: Any = client.sentinel_master
        eventually(
            lambda: asked(sentinels.name)["port"] == sentinels.replica.port,
            "there is another primary",
            LONG,
        )
    for sentinel in sentinels.sentinels:
        sentinel.pause()  # none tells the old one
    eventually(lambda: backend.fault() is not None)
    sentinels.primary.resume()
    for _ in range(20):
        with pytest.raises(BackendError):
            backend.publish(ROOM, Message("x"), keep=True)
    for sentinel in sentinels.sentinels:
        sentinel.resume()
    assert say(backend, "2") == 2
    with sentinels.replica.client() as client:
        assert client.xlen("wschat:{room:a}:log") == 2


@pytest.mark.slow
def test_the_sentinels_may_be_gone_while_the_primary_serves(
    sentinels: Sentinels, process: tuple[RedisBackend, RecordingHost]
) -> None:
    backend, host = process
    backend.subscribe([ROOM])
    assert say(backend, "1") == 1
    for sentinel in sentinels.sentinels:
        sentinel.kill()
    assert say(backend, "2") == 2
    host.wait_for_count(2)
    done = threading.Event()
    done.wait(5 * QUICK.probe)
    assert backend.fault() is None
    with sentinels.primary.client() as client:
        client.client_kill_filter(_type="pubsub")
    eventually(lambda: "no sentinel answers" in str(backend.fault()))
    assert "s3cret" not in str(backend.fault())
    sentinels.sentinels[2].start()
    eventually(lambda: backend.fault() is None, seconds=LONG)


def test_a_sentinel_that_is_silent_is_not_waited_for_at_each_probe() -> None:
    """Who asks is the connection by which publications come: they would wait, too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = SentinelAddress(f"redis+sentinel://127.0.0.1:{port}/main", 0.05)
        for _ in range(5):
            address.check()
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_what_the_sentinels_do_not_know_is_told() -> None:
    with RedisServer(arguments=("--sentinel",)) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/other"
        backend = open_backend(url)
        with pytest.raises(BackendError, match="No such master"):
            backend.history(ROOM)
        backend.stop()


@pytest.mark.parametrize("hosts", ["h", "h/", "h:port/m", "h,h2:0x/m"])
def test_urls_that_cannot_work(hosts: str) -> None:
    with pytest.raises(ConfigError, match="WSCHAT_URL"):
        open_backend(f"redis+sentinel://:s3cret@{hosts}")


def test_the_sentinels_have_a_password_of_their_own() -> None:
    options = ("requirepass sesame",)
    with (
        RedisServer(password="s3cret") as server,
        RedisServer(
            f"sentinel monitor m/1 127.0.0.1 {server.port} 1",
            "sentinel auth-pass m/1 s3cret",
            *options,
            arguments=("--sentinel",),
            password="sesame",
        ) as sentinel,
    ):
        where = f"127.0.0.1:{sentinel.port}/m%2F1/2"
        url = f"valkey+sentinel://:s3cret@{where}?sentinel_password=sesame&prefix=x"
        backend = RedisBackend(url)
        assert backend.publish(ROOM, Message("x"), keep=True).seq == 1
        with server.client() as client:
            assert client.info("keyspace")["db2"]["keys"] == 2
        backend.stop()
        for wrong in ("?sentinel_password=wr0ng", ""):
            backend = RedisBackend(f"redis+sentinel://:s3cret@{where}{wrong}")
            with pytest.raises(BackendError, match="password") as raised:
                backend.history(ROOM)
            assert "wr0ng" not in str(raised.value)
            backend.stop()
