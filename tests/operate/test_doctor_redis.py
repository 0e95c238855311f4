"""A real Redis, set as it should not be."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wschat import WSChat
from flask_wschat.operate.doctor import on_redis, redis_kinds
from flask_wschat.operate.doctor.finding import Finding, Setup
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

CONF = Path(__file__).parents[2] / "docs" / "deploy" / "redis.conf"


def looked(url: str, **config: Any) -> dict[str, Finding]:
    """Return what is found about the Redis at ``url``, by name."""
    return {each.name: each for each in examined(url, **config)[0]}


def examined(url: str, **config: Any) -> tuple[list[Finding], list[str]]:
    app = Flask("an_app")
    app.config.update(WSCHAT_URL=url, **config)
    WSChat(app)
    setup = Setup(app=app)
    return list(on_redis.redis(setup)), setup.unseen


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """As docs/deploy/redis.conf has it, but that an operator comes in."""
    text = CONF.read_text()
    assert "\nuser default off\n" in text
    text = text.replace("user default off", "user default on nopass ~* &* +@all")
    with RedisServer(*filter(None, text.splitlines())) as server:
        yield server


@pytest.fixture
def asked(server: RedisServer) -> Iterator[Any]:
    """A foreign client; what it sets is as before after the test."""
    with server.client() as opened:
        client: Any = opened
        before = client.config_get("*")
        yield client
        now = client.config_get("*")
        for name, value in before.items():
            if now[name] != value:
                client.config_set(name, value)


def of_chat(server: RedisServer) -> str:
    return f"redis://chat:change-me@127.0.0.1:{server.port}/0"


def test_nothing_is_said_of_the_one_in_the_docs(server: RedisServer) -> None:
    found, unseen = examined(of_chat(server))
    assert found == []
    [line] = unseen
    assert line.startswith(f"CONFIG of Redis at 127.0.0.1:{server.port} (appendfsync")
    assert examined(server.url) == ([], [])


def test_what_is_set_wrong_is_found(server: RedisServer, asked: Any) -> None:
    asked.config_set("appendonly", "no")
    asked.config_set("maxmemory-policy", "allkeys-lru")
    asked.config_set("maxmemory", asked.info("memory")["used_memory"] * 10 // 9)
    asked.config_set("timeout", 300)
    asked.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 10")
    found = set(looked(server.url))
    by_info = {"redis-aof-off", "redis-policy", "redis-nearly-full"}
    assert found == by_info | {"redis-timeout", "redis-pubsub-buffer"}
    assert set(looked(of_chat(server))) == by_info
    asked.config_set("maxmemory", asked.info("memory")["used_memory"] + 1000)
    assert "redis-full" in looked(server.url)
    asked.config_set("maxmemory", asked.info("memory")["used_memory"] + 200_000)
    asked.mset({f"key{n}": "x" * 10_000 for n in range(15)})
    asked.config_set("maxmemory", asked.info("memory")["used_memory"] - 50_000)
    eventually(lambda: asked.info("stats")["evicted_keys"], "a key is thrown away")
    assert "redis-evicted" in looked(server.url)
    asked.config_resetstat()
    asked.config_set("maxmemory", 0)
    asked.config_set("maxmemory-policy", "noeviction")
    asked.config_set("appendonly", "yes")
    asked.config_set("appendfsync", "no")
    asked.config_set("min-replicas-to-write", 1)
    found = set(looked(server.url)) - {"redis-timeout", "redis-pubsub-buffer"}
    assert found == {"redis-appendfsync", "redis-min-replicas"}


def test_a_remedy_can_be_pasted(server: RedisServer, asked: Any) -> None:
    asked.config_set("maxmemory-policy", "allkeys-lru")
    way = f"redis-cli -h 127.0.0.1 -p {server.port}"
    line = "CONFIG SET maxmemory-policy noeviction"
    found = looked(server.url)["redis-policy"]
    assert found.remedy.startswith(f"{way} {line} && {way} CONFIG REWRITE")
    found = looked(of_chat(server))["redis-policy"]  # which may set nothing itself
    assert found.remedy.startswith(f"{way} --user admin --askpass {line}")


def test_what_is_no_redis() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            peer, _ = other.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"redis://127.0.0.1:{other.getsockname()[1]}/0"
        found = looked(url)["redis-unreachable"]
        thread.join()
    assert "is no Redis" in found.what


def test_replicas_that_are_waited_for(server: RedisServer, asked: Any) -> None:
    assert set(looked(server.url, WSCHAT_REDIS_WAIT=1)) == {"redis-replicas"}
    asked.config_set("repl-diskless-sync-delay", 0)
    with RedisServer(f"replicaof 127.0.0.1 {server.port}") as replica:

        def state() -> object:
            return asked.info("replication").get("slave0", {}).get("state")

        eventually(lambda: state() == "online", "it is there")
        assert set(looked(server.url, WSCHAT_REDIS_WAIT=1)) == {"redis-replica-spare"}
        assert "redis-replica" in looked(replica.url)


def test_clients_and_disks(server: RedisServer, asked: Any) -> None:
    asked.config_set("maxclients", 33)
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(29)]
    eventually(lambda: asked.info("clients")["connected_clients"] >= 30, "all are in")
    assert set(looked(server.url)) == {"redis-clients"}
    for sock in held:
        sock.close()
    broken = "aof_enabled:1\r\nrdb_last_bgsave_status:err\r\naof_last_write_status:err"
    said = on_redis.parsed(broken.encode())
    assert [each.name for each in on_redis._kept(said, {"where": "x"})] == [
        "redis-disk"
    ] * 2


def test_a_redis_that_lets_nobody_in(server: RedisServer, asked: Any) -> None:
    port = server.port
    [wrong] = looked(f"redis://chat:wrong@127.0.0.1:{port}").values()
    assert (wrong.name, "wrong" in wrong.what.replace("WRONGPASS", "")) == (
        "redis-login",
        False,
    )
    assert set(looked(f"redis://127.0.0.1:{port}/99")) == {"redis-database"}
    nowhere = free_port()
    [away] = looked(f"redis://me:secret@127.0.0.1:{nowhere}").values()
    assert away.name == "redis-unreachable"
    assert f"127.0.0.1:{nowhere} cannot be reached" in away.what
    assert "secret" not in away.what
    asked.acl_setuser(
        "mute", enabled=True, passwords=["+x"], commands=["+time", "+client"]
    )
    found = looked(f"redis://mute:x@127.0.0.1:{port}")
    assert set(found) == {"redis-no-info"}
    asked.acl_setuser("mute", enabled=True, commands=["-time"])
    assert set(looked(f"redis://mute:x@127.0.0.1:{port}")) == {"redis-refuses"}


class Faked:
    """A Redis whose answers take their time, or are of another one."""

    def __init__(self, info: str = "", ahead: float = 0.0) -> None:
        self.address = self.connection = self
        self.where = "10.0.0.1:6379"
        self._info = info
        self._ahead = ahead

    def ask(self, *words: str) -> Any:
        if words[0] == "TIME":
            micros = int((time.time() + self._ahead) * 1e6)
            return [str(micros // 1_000_000).encode(), str(micros % 1_000_000).encode()]
        return self._info.encode()


def test_a_slow_one_and_a_wrong_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup()
    faked: Any = Faked(ahead=-60)
    [found] = on_redis._pace(Setup(), faked)
    assert found.name == "clock-redis"
    assert "60 s behind ours" in found.what
    ticks = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) / 100)
    faked = Faked()
    assert [each.name for each in on_redis._pace(Setup(), faked)] == ["redis-slow"]
    slowest = iter([*([0.0, 0.0] * 19), 1.0, 1.2] * 2)
    monkeypatch.setattr(time, "perf_counter", lambda: next(slowest))
    assert [each.name for each in on_redis._pace(Setup(), faked)] == [
        "redis-slow-at-times"
    ]
    faked = Faked(
        "redis_version:5.0.1\nloading:1\nconnected_clients:1\nmaxclients:9999"
    )
    found_of = on_redis._info(setup, faked, of_cluster=False)
    assert [each.name for each in found_of] == ["redis-old", "redis-loading"]


def test_an_open_one_on_a_network() -> None:
    app = Flask("an_app")
    faked: Any = Faked()
    for url, names in (
        ("redis://10.0.0.1:6379", ["redis-open"]),
        ("redis://:secret@10.0.0.1:6379", []),
        ("redis://10.0.0.1:6379?password=secret", []),
    ):
        app = Flask("an_app")
        app.config["WSCHAT_URL"] = url
        WSChat(app)
        found = on_redis._reachable_by_others(Setup(app=app), faked)
        assert [each.name for each in found] == names
    faked.where = "127.0.0.1:6379 (mymaster)"
    app.config["WSCHAT_URL"] = "redis://127.0.0.1"
    assert list(on_redis._reachable_by_others(Setup(app=app), faked)) == []


def test_a_cluster_with_holes(server: RedisServer) -> None:
    assert set(looked(f"redis+cluster://127.0.0.1:{server.port}")) == {"redis-refuses"}
    options = ("cluster-enabled yes", f"cluster-port {free_port()}", "appendonly yes")
    with RedisServer(*options) as alone, alone.client() as client:
        slots: Any = client
        slots.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16000)
        url = f"redis+cluster://127.0.0.1:{alone.port}"
        eventually(lambda: looked(url), "it knows of its slots")
        found = looked(url)
        assert set(found) == {"cluster-slots", "cluster-no-replica"}
        assert "for 383 of" in found["cluster-slots"].what
        assert "redis-is-cluster" in looked(alone.url)


def test_sentinels(server: RedisServer) -> None:
    watch = f"sentinel monitor mymaster 127.0.0.1 {server.port} 2"
    with RedisServer(watch, arguments=("--sentinel",)) as sentinel:
        hosts = f"127.0.0.1:{sentinel.port},127.0.0.1:{free_port()}"
        found = looked(f"redis+sentinel://{hosts}/mymaster")
    assert set(found) == {"sentinel-quorum", "sentinel-down", "sentinel-few"}


def test_a_url_that_cannot_work() -> None:
    app = Flask("an_app")
    app.config["WSCHAT_URL"] = "redis://127.0.0.1"
    WSChat(app)
    setup = Setup(app=app)
    assert setup.hub is not None
    object.__setattr__(setup.hub.settings, "URL", "redis://me:p/w@127.0.0.1:6379")
    [found] = on_redis.redis(setup)
    assert found.name == "redis-url"


def test_remedies_change_nothing_by_themselves() -> None:
    for kind in vars(redis_kinds).values():
        remedy = getattr(kind, "remedy", "")
        assert not re.search(r"FLUSH|DEL ", remedy)
