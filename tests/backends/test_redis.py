"""What Redis can do to a backend; what every backend promises is in test_contract."""

from __future__ import annotations

import ctypes
import os
import re
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from flask_wschat.backends.redis.backend import RedisBackend
from flask_wschat.backends.redis.subscriber import Timings
from flask_wschat.backends.redis.wire import Replies, ReplyError, code_of, pack
from flask_wschat.errors import BackendError, ConfigError
from flask_wschat.messages import Message
from tests.backends.cluster import PROGRAMS, Begin, RecordingHost, run_program
from tests.support.certificate import make_pair
from tests.support.redis_server import RedisServer, Relay
from tests.support.waiting import DEADLINE, LONG, eventually

ROOM = "room:a"
QUICK = Timings(probe=0.1, deaf=0.3, answer=0.5)
AOF = ("appendonly yes", "appendfsync always")

Process = tuple[RedisBackend, RecordingHost]
Open = Callable[..., Process]
Serve = Callable[..., RedisServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Make Redis servers, which end with the test."""
    servers: list[RedisServer] = []

    def make(*options: str, start: bool = True, **kinds: Any) -> RedisServer:
        servers.append(RedisServer(*options, **kinds))
        if start:
            servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def open_url(serve: Serve, begin: Begin) -> Open:
    """Make processes of a URL; stopped before their servers are."""
    return lambda url, **options: begin(
        RedisBackend(url, **({"timings": QUICK} | options))
    )


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "flask_wschat"]


def works(backend: RedisBackend, host: RecordingHost, data: str = "it works") -> None:
    """Publish and receive, as soon as there is no fault any more."""
    eventually(lambda: backend.fault() is None)
    seen = len(host.deliveries)
    backend.publish(ROOM, Message(data, sender="test", mid=data), keep=True)
    host.wait_for(lambda: data in [d.message.data for d in host.deliveries[seen:]])


# -- ways to it


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_an_acl_user_needs_only_the_keys_of_the_prefix(
    serve: Serve, open_url: Open, scheme: str
) -> None:
    server = serve("user eve on >se:c/ret ~mine:* &mine:* +@all -@dangerous")
    address = f"eve:se%3Ac%2Fret@127.0.0.1:{server.port}"
    backend, host = open_url(f"{scheme}://{address}/0?prefix=mine")
    backend.subscribe([ROOM])
    works(backend, host)
    backend.attend([(ROOM, "ann", 1)])
    backend.refresh()
    backend.vote("tea", "ann", "green")
    backend.make_poll("lunch", "id", "", 60)
    backend.vote("lunch", "ann", "soup", "id")
    with server.client() as client:
        keys: list[Any] = client.keys()
    assert {key.split(b":", 1)[0] for key in keys} == {b"mine"}
    tags = {key.split(b"{")[1].split(b"}")[0] for key in keys if b"process" not in key}
    assert tags == {b"room:a", b"presence", b"poll:tea", b"made:lunch", b"polls"}


def test_prefixes_and_databases_are_apart(serve: Serve, open_url: Open) -> None:
    server = serve()
    ways = ["0", "1", "0?prefix=other"]
    processes = [open_url(f"redis://127.0.0.1:{server.port}/{way}") for way in ways]
    for backend, _ in processes:
        backend.subscribe([ROOM])
    for way, (backend, host) in zip(ways, processes, strict=True):
        works(backend, host, way)
    for way, (backend, host) in zip(ways, processes, strict=True):
        assert host.data(ROOM) == [way]
        assert backend.history(ROOM).seq == 1


def test_a_cluster_finds_the_keys_of_each_call_in_one_slot(
    serve: Serve, open_url: Open
) -> None:
    server = serve("cluster-enabled yes")
    with server.client() as client:
        cluster: Any = client.cluster
        assert cluster("ADDSLOTS", *range(16384))
        eventually(lambda: cluster("INFO")["cluster_state"] == "ok")
    (backend, host), (other, _) = open_url(server.url), open_url(server.url)
    backend.subscribe([ROOM, "all"])
    works(backend, host)
    assert backend.history(ROOM).seq == 1
    backend.attend([(ROOM, "ann", 1), ("room:b", "ann", 1)])
    assert other.present(ROOM, heard=True).users == {"ann": 1}
    assert not backend.refresh() and not other.refresh()
    assert backend.vote("tea", "ann", "green") == other.tally("tea", "ann")
    assert other.close_poll("tea").closed
    made = backend.make_poll("tea", "id", "", 60)
    assert other.vote("tea", "ann", "green", "id") == backend.tally("tea", "ann", "id")
    assert other.made_polls() == [made] and other.delete_poll("tea", "id")
    backend.stop()
    assert other.present(ROOM).users == {}


def test_tls(serve: Serve, open_url: Open, tmp_path: Path) -> None:
    server = serve(tls=make_pair(tmp_path))
    backend, host = open_url(server.url)
    backend.subscribe([ROOM])
    works(backend, host, "x" * 100_000)
    together = [threading.Thread(target=works, args=(backend, host, n)) for n in "abcd"]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join(LONG)
    assert sorted(map(str, host.data(ROOM)[1:])) == list("abcd")
    untrusted, _ = open_url(server.url.replace("rediss", "valkeys").split("?")[0])
    with pytest.raises(BackendError, match="certificate"):
        untrusted.history(ROOM)


def test_a_unix_socket(serve: Serve, open_url: Open) -> None:
    server = serve(unix=True)
    backend, host = open_url(server.url)
    backend.subscribe([ROOM])
    works(backend, host)


def test_a_url_that_cannot_work() -> None:
    for url, words in [
        ("redis://h:port", "WSCHAT_URL"),
        ("redis://h/0?colour=red", "colour"),
        ("http://h", "http://"),
        ("rediss://h?ssl_cert_reqs=some", "WSCHAT_URL cannot work"),
    ]:
        with pytest.raises(ConfigError, match=words):
            RedisBackend(url)


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match="pip install"):
        RedisBackend("redis://h")


# -- ways it refuses


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("", "wants a password"),
        (":wrong@", "refuses the user or the password"),
        ("eve:se@", "may not"),
    ],
)
@pytest.mark.parametrize("db", [0, 1])
def test_who_is_not_let_in_is_told_why(
    serve: Serve, open_url: Open, user: str, words: str, db: int
) -> None:
    server = serve("user eve on >se ~* resetchannels +@all", password="secret")
    backend, _ = open_url(f"redis://{user}127.0.0.1:{server.port}/{db}")
    eventually(backend.fault)
    fault = backend.fault()
    assert fault is not None
    assert words in fault
    assert f"127.0.0.1:{server.port}" in fault
    for secret in ("wrong", "secret"):
        assert secret not in fault
    for action in (lambda: backend.subscribe([ROOM]), lambda: backend.history(ROOM)):
        with pytest.raises(BackendError, match=words):
            action()


def test_a_server_that_repeats_the_password_is_not_quoted(open_url: Open) -> None:
    """As one does that does not know AUTH, of what it was given with it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                while data := peer.recv(4096):
                    words = data.replace(b"\r\n", b" ")
                    peer.sendall(b"-ERR unknown command, with args: " + words + b"\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        backend, _ = open_url(f"redis://ann:s3cret%25@127.0.0.1:{port}")
        with pytest.raises(BackendError, match="unknown command") as raised:
            backend.publish(ROOM, Message("x"))
        assert "s3cret" not in "".join(traceback.format_exception(raised.value))


def test_full_memory_stores_and_delivers_nothing(serve: Serve, open_url: Open) -> None:
    server = serve("maxmemory-policy noeviction")
    backend, host = open_url(server.url)
    backend.subscribe([ROOM])
    works(backend, host)
    with server.client() as client:
        client.config_set("maxmemory", 1)
        for topic in (ROOM, "room:new"):
            with pytest.raises(BackendError, match="maxmemory"):
                backend.publish(topic, Message("x"), keep=True)
        with pytest.raises(BackendError, match="maxmemory"):
            backend.vote("tea", "ann", "green")
        assert backend.history(ROOM).seq == 1
        backend.publish(ROOM, Message("passing"))
        host.wait_for(lambda: host.data(ROOM) == ["it works", "passing"])
        assert backend.fault() is None
        client.config_set("maxmemory", 0)
    assert backend.publish(ROOM, Message("x"), keep=True).seq == 2
    assert backend.tally("tea").counts == {}


def test_what_others_write_to_a_log_is_pushed_out_too(
    serve: Serve, open_url: Open
) -> None:
    server = serve()
    backend, _ = open_url(server.url, max_bytes=100)
    backend.history(ROOM)
    with server.client() as client:
        client.xadd("wschat:{room:a}:log", {"x": "y"}, id="0-1")
        client.xadd("wschat:{room:a}:log", {"? - - 9": "no header"}, id="0-2")
        for _ in range(9):
            backend.publish(ROOM, Message("x" * 30), keep=True)
        # One may stay that nobody gets: where it begins was not noted.
        assert client.xlen("wschat:{room:a}:log") <= 4
    assert [entry.seq for entry in backend.history(ROOM).entries] == [7, 8, 9]


def test_presence_is_right_again_after_full_memory(
    serve: Serve, open_url: Open
) -> None:
    server = serve("maxmemory-policy noeviction")
    (one, _), (other, _) = (open_url(server.url, presence_ttl=0.3) for _ in range(2))
    one.attend([(ROOM, "ann", 1), (ROOM, "ben", 1)])
    other.attend([(ROOM, "bob", 1)])
    with server.client() as client:
        client.config_set("maxmemory", 1)
        for backend in (one, other):
            with pytest.raises(BackendError, match="maxmemory"):
                backend.refresh()
        # Who leaves can be told all the same: it takes no memory.
        one.attend([(ROOM, "ben", 0)])
        eventually(lambda: not one.present(ROOM, heard=True).users)
        client.config_set("maxmemory", 0)
    for backend in (one, other, one, other):
        assert not backend.refresh()
    assert other.present(ROOM).users == {"ann": 1, "bob": 1}


def test_every_key_has_a_life(serve: Serve, open_url: Open) -> None:
    """But polls in code: they are the application's, and stay."""
    server = serve()
    (one, _), (other, _) = open_url(server.url), open_url(server.url)
    for backend, name in ((one, "ann"), (other, "bob")):
        backend.subscribe([ROOM, "room:empty"])
        backend.claim(["room:plain"], Message("", event="claim"))
        topics = (ROOM, "room:plain", "room:left", "all", f"user:{name}")
        backend.attend([(topic, name, 1) for topic in topics])
        for number in range(20):
            said = Message("x" * number, sender=name, mid=f"{number}")
            for topic in (ROOM, "room:plain", "user:eve"):
                backend.publish(topic, said, keep=True)
        backend.history("room:empty")
        backend.attend([("room:left", name, 0)])
        backend.once(name, 10)
        backend.lease(name, "a", 10)
        backend.vote("tea", name, "green")
        made = backend.make_poll("lunch", name, "", 60)
        backend.vote("lunch", name, "soup", made.id)
        backend.refresh()
    other._here().people._forget()  # it dies, and nobody is told
    with server.client() as client:
        keys = {key.decode(): client.pttl(key) for key in client.scan_iter()}
        assert {key for key, life in keys.items() if life == -1} == {
            f"wschat:{{poll:tea}}:{suffix}" for suffix in ("poll", "voters", "counts")
        }
        kinds = {key.rpartition(":")[2] for key in keys}
        lasting = {"meta", "log", "mids0", "told", "people", "topics", "once", "lease"}
        lasting |= {"living", "clock"}
        assert kinds == lasting | {"poll", "voters", "counts", "polls"}
        made_of = {key[20:]: life for key, life in keys.items() if "made:" in key}
        assert 0 < made_of["poll"] <= 60_000
        for suffix in ("voters", "counts"):  # which must not go before it
            assert made_of["poll"] < made_of[suffix] < 62_000
        # Who stays gives them a new one, again and again.
        ends = (":people", ":topics", ":living", ":clock")
        ours = [key for key in keys if key.endswith(ends)]
        ours = [key for key in ours if not {"bob", "left"} & {*re.split("[:}]", key)}]
        mine = one._here().people.process
        ours = [key for key in ours if ":topics" not in key or mine in key]
        for key in ours:
            client.pexpire(key, 60_000)
        for _ in range(10):
            one.refresh()
        assert {key for key in ours if client.pttl(key) <= 60_000} == set()


def test_a_replica_is_a_fault_until_it_is_the_primary(
    serve: Serve, open_url: Open
) -> None:
    server = serve()
    backend, host = open_url(server.url)
    backend.subscribe([ROOM])
    works(backend, host)
    with server.client() as client:
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(BackendError, match="replica"):
            backend.publish(ROOM, Message("x"), keep=True)
        eventually(lambda: "replica" in (backend.fault() or ""))
        client.replicaof("NO", "ONE")
    works(backend, host, "2")
    assert backend.history(ROOM).seq == 2


def test_loading_is_a_fault_until_it_is_done(serve: Serve, open_url: Open) -> None:
    server = serve("key-load-delay 10000", "loading-process-events-interval-bytes 1024")
    backend, host = open_url(server.url)
    backend.subscribe([ROOM])
    works(backend, host)
    with server.client() as client:
        for number in range(500):
            client.set(f"other:{number}", os.urandom(2000))
        client.save()
    server.kill()
    server.start(wait=False)
    eventually(lambda: "loading" in (backend.fault() or ""))
    with pytest.raises(BackendError, match="loading"):
        backend.publish(ROOM, Message("x"), keep=True)
    with server.client() as client:
        client.config_set("key-load-delay", 0)
    works(backend, host, "2")


# -- ways it fails


def test_down_at_the_start(
    serve: Serve, open_url: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(start=False)
    backend, host = open_url(server.url)
    eventually(backend.fault)
    assert "cannot be reached" in str(backend.fault())
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(BackendError, match="cannot be reached"):
            backend.subscribe([ROOM])
        with pytest.raises(BackendError, match="cannot be reached"):
            backend.publish(ROOM, Message("x"), keep=True)
    assert time.monotonic() - began < 1
    server.start()
    host.wait_for(lambda: host.losses == [[ROOM]])  # who was refused is told
    works(backend, host)
    lines = log_lines(caplog)
    assert len(lines) == 2
    assert "cannot be reached" in lines[0]
    assert "is back" in lines[1]


def test_what_was_acknowledged_outlives_a_kill(
    serve: Serve, open_url: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(*AOF)
    backend, host = open_url(server.url)
    backend.subscribe([ROOM, "room:b"])
    works(backend, host, "1")
    page = backend.history(ROOM)
    for restart in (1, 2):
        server.restart()
        host.wait_for(lambda n=restart: len(host.losses) >= n)  # type: ignore[misc]
        works(backend, host, f"after {restart}")
    assert all(sorted(topics or ()) == [ROOM, "room:b"] for topics in host.losses)
    resumed = backend.history(ROOM, after=1, epoch=page.epoch)
    assert resumed.recovered
    assert [e.data for e in resumed.entries] == ["after 1", "after 2"]
    again = backend.publish(ROOM, Message("1", sender="test", mid="1"), keep=True)
    assert (again.seq, again.fresh) == (1, False)
    lines = log_lines(caplog)
    assert len(lines) == 4
    assert ["is back" in line for line in lines] == [False, True] * 2


def test_lost_messages_begin_a_new_epoch(serve: Serve, open_url: Open) -> None:
    server = serve()
    backend, host = open_url(server.url)
    backend.subscribe([ROOM])
    works(backend, host, "1")
    epoch = backend.history(ROOM).epoch
    server.restart()
    host.wait_for(lambda: host.losses)
    works(backend, host, "2")
    page = backend.history(ROOM, after=1, epoch=epoch)
    assert not page.recovered
    assert page.epoch != epoch


@pytest.mark.parametrize("by", ["delivery", "page"])
@pytest.mark.parametrize("asked", ["publish", "history"])
def test_numbers_that_a_process_saw_are_not_given_again(
    serve: Serve, open_url: Open, by: str, asked: str
) -> None:
    """As after a failover to a replica that had not got the last messages."""
    server = serve()
    other, _ = open_url(server.url)
    first = other.publish(ROOM, Message("1"), keep=True)
    backend, host = open_url(server.url)
    with server.client() as client:
        keys = [f"wschat:{{{ROOM}}}:{name}" for name in ("meta", "log")]
        older: list[Any] = [client.dump(key) for key in keys]
        if by == "delivery":
            backend.subscribe([ROOM])
            works(backend, host, "2")
        else:
            other.publish(ROOM, Message("2"), keep=True)
            backend.subscribe([ROOM])
            assert backend.history(ROOM).seq == 2
        for key, value in zip(keys, older, strict=True):
            client.restore(key, 0, value, replace=True)
    if asked == "publish":
        another = backend.publish(ROOM, Message("other 2"), keep=True)
        assert (another.seq, another.epoch != first.epoch) == (2, True)
        epoch = another.epoch
    else:
        page = backend.history(ROOM, after=1, epoch=first.epoch)
        assert (page.seq, page.recovered, page.epoch != first.epoch) == (1, False, True)
        epoch = page.epoch
    assert other.history(ROOM).epoch == backend.history(ROOM).epoch == epoch


def test_a_pause_ends_in_errors_and_then_in_a_resume(
    serve: Serve, open_url: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    backend, host = open_url(server.url)
    backend.subscribe([ROOM])
    works(backend, host, "1")
    server.pause()
    try:
        began = time.monotonic()
        message = Message("2", sender="ann", mid="m")
        with pytest.raises(BackendError, match="does not answer"):
            backend.publish(ROOM, message, keep=True)
        assert time.monotonic() - began < 2 * QUICK.answer
        eventually(lambda: "does not" in (backend.fault() or ""))
        assert time.monotonic() - began < QUICK.probe + QUICK.answer + 0.5
    finally:
        server.resume()
    works(backend, host, "3")
    host.wait_for(lambda: host.losses == [[ROOM]])
    # It may have been stored when Redis went on: it is known, or is stored now.
    receipt = backend.publish(ROOM, message, keep=True)
    entries = backend.history(ROOM).entries
    assert sorted(str(e.data) for e in entries) == ["1", "2", "3"]
    assert [e.seq for e in entries if e.mid == "m"] == [receipt.seq]
    assert len(log_lines(caplog)) == 2


def test_errors_have_no_frames_of_others_that_waited(
    serve: Serve, open_url: Open
) -> None:
    server = serve()
    backend, _ = open_url(server.url)
    lengths: list[int] = []

    def ask() -> None:
        try:
            backend.present(ROOM)
        except BackendError as error:
            cause = error.__cause__
            assert cause is not None
            lengths.append(len(traceback.extract_tb(cause.__traceback__)))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    server.pause()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.resume()
    assert len(lengths) == 20
    assert max(lengths) < 10


def test_a_killed_subscription_is_made_again(
    serve: Serve, open_url: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    backend, host = open_url(server.url)
    topics = [f"room:{number}" for number in range(1200)]
    backend.subscribe([ROOM, *topics])
    works(backend, host, "1")
    with server.client() as client:
        client.client_kill_filter(_type="pubsub")
    host.wait_for(lambda: sum(len(topics or ()) for topics in host.losses) == 1201)
    assert backend.fault() is None  # all the while
    works(backend, host, "2")
    assert len(log_lines(caplog)) == 2
    backend.unsubscribe(topics)

    def subscriptions() -> int:
        with server.client() as client:
            return len(client.pubsub_channels())

    eventually(lambda: subscriptions() == 2)  # the room, and the probes


def test_a_killed_command_connection_is_made_again(
    serve: Serve, open_url: Open
) -> None:
    """What cannot be done twice is sent again; what could be is not."""
    server = serve()
    backend, host = open_url(server.url, timings=Timings(probe=60, deaf=120, answer=5))
    backend.subscribe([ROOM])
    works(backend, host, "1")
    with server.client() as client:

        def waiting() -> list[Any]:
            known: Any = client.client_list()
            return [c for c in known if c["flags"] == "b" and "eval" in c["cmd"]]

        answers: list[Any] = []
        client.client_pause(60_000, all=False)  # who writes waits
        backend.submit(ROOM, Message("2"), answers.append, keep=True)
        for mid in ("3", "4"):
            message = Message(mid, sender="ann", mid=mid)
            backend.submit(ROOM, message, answers.append, keep=True)
        eventually(waiting)
        (stuck,) = waiting()
        client.client_kill_filter(_id=stuck["id"])
        eventually(lambda: [c for c in waiting() if c["id"] != stuck["id"]])
        assert len(answers) == 1
        assert isinstance(answers[0], BackendError)
        client.client_unpause()
    eventually(lambda: len(answers) == 3)
    assert [a.seq for a in answers[1:]] == [2, 3]
    assert [e.data for e in backend.history(ROOM).entries[1:]] == ["3", "4"]


def test_an_idle_connection_that_ended_is_not_used(
    serve: Serve, open_url: Open
) -> None:
    server = serve()
    backend, _ = open_url(server.url)
    with server.client() as client:

        def ours() -> list[Any]:
            known: Any = client.client_list(_type="normal")
            return [c for c in known if c["name"] == "wschat"]

        for count in (1, 2, 3):
            assert backend.publish(ROOM, Message("x"), keep=True).seq == count
            client.client_kill_filter(_type="normal", skipme=True)
            eventually(lambda: not ours())


def test_nothing_is_lost_or_doubled_while_it_is_killed(
    serve: Serve, open_url: Open
) -> None:
    """Whoever is refused tries again with the same mid until it is acknowledged."""
    server = serve(*AOF)
    processes = [open_url(server.url, size=1000) for _ in "ab"]
    acknowledged: dict[str, int] = {}
    for backend, _ in processes:
        backend.subscribe([ROOM])

    def say(backend: RedisBackend, name: str) -> None:
        pause = threading.Event()
        for number in range(100):
            mid = f"{name}{number}"
            while mid not in acknowledged:
                message = Message("x", sender="ann", mid=mid)
                try:
                    receipt = backend.publish(ROOM, message, keep=True)
                    acknowledged[mid] = receipt.seq
                except BackendError:
                    pause.wait(0.01)

    threads = [
        threading.Thread(target=say, args=(backend, name + str(number)))
        for name, (backend, _) in zip("ab", processes, strict=True)
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for until in (200, 500):
        eventually(lambda until=until: len(acknowledged) >= until)  # type: ignore[misc]
        server.restart()
    for thread in threads:
        thread.join(DEADLINE)
    page = processes[0][0].history(ROOM, limit=1000)
    assert [e.seq for e in page.entries] == list(range(1, 801))
    assert {str(e.mid): e.seq for e in page.entries} == acknowledged
    for _, host in processes:
        numbers = [d.seq for d in host.deliveries]
        assert numbers == sorted(set(numbers))
        assert numbers == list(range(1, 801)) or host.losses


@pytest.mark.pain(16)
def test_a_deaf_subscription_is_noticed(serve: Serve, open_url: Open) -> None:
    server = serve()
    relay = Relay(server.port)
    try:
        backend, host = open_url(f"redis://127.0.0.1:{relay.port}")
        backend.subscribe([ROOM])
        works(backend, host, "1")
        relay.freeze()
        began = time.monotonic()
        host.wait_for(lambda: host.losses == [[ROOM]])
        assert time.monotonic() - began < QUICK.deaf + 2 * QUICK.probe + 0.5
        works(backend, host, "2")
    finally:
        relay.stop()


def test_a_process_that_stood_still_is_not_deaf(
    serve: Serve, open_url: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that was stopped, or in a machine that was."""
    backend, host = open_url(serve().url)
    backend.subscribe([ROOM])
    works(backend, host)
    for number in range(3):
        # With Python's lock, so that no thread of the process goes on.
        ctypes.PyDLL(None).usleep(int(2e6 * QUICK.deaf))
        works(backend, host, str(number))
    assert host.losses == [] and log_lines(caplog) == []


@pytest.mark.slow
def test_a_crowd_of_topics_comes_back_after_a_cut(serve: Serve, open_url: Open) -> None:
    """Their confirmations alone are more than Redis may buffer for us."""
    server = serve("client-output-buffer-limit pubsub 1500kb 0 0")
    backend, host = open_url(server.url, timings=QUICK._replace(answer=DEADLINE))
    topics = [f"room:{number}" for number in range(30_000)]
    backend.subscribe(topics)
    assert host.losses == []
    with server.client() as client:
        client.client_kill_filter(_type="pubsub")

        def told() -> list[str]:
            return [topic for lost in host.losses for topic in lost or ()]

        eventually(lambda: len(told()) >= len(topics), seconds=2 * DEADLINE)
        assert sorted(told()) == sorted(topics)
        listening: Any = backend._here().subscriber
        eventually(lambda: listening._up)
        # Who comes amid the others need not wait for them.
        client.client_kill_filter(_type="pubsub")
        eventually(lambda: len(told()) > len(topics), seconds=2 * DEADLINE)
        backend.subscribe([ROOM])
        works(backend, host)
        eventually(lambda: len(told()) >= 2 * len(topics), seconds=2 * DEADLINE)


def test_scripts_are_sent_again_to_a_redis_that_has_forgotten_them(
    serve: Serve, open_url: Open
) -> None:
    server = serve()
    backend, _ = open_url(server.url)
    with server.client() as client:
        for count in (1, 2):
            client.script_flush()
            assert backend.publish(ROOM, Message("x"), keep=True).seq == count
            backend.attend([(ROOM, "ann", count), ("room:b", "ann", count)])
    assert backend.history(ROOM).seq == 2


def test_who_attends_while_it_is_down_can_say_it_again(
    serve: Serve, open_url: Open
) -> None:
    server = serve(start=False)
    backend, _ = open_url(server.url)
    with pytest.raises(BackendError, match="cannot be reached"):
        backend.attend([(ROOM, "ann", 1)])
    with pytest.raises(BackendError, match="cannot be reached"):
        backend.refresh()
    server.start()
    # Without anything to hear there is no fault either: who asks is answered.
    backend.attend([(ROOM, "ann", 1)])
    version = backend.present(ROOM).version
    server.restart()
    assert backend.present(ROOM).users == {}
    assert backend.refresh()  # it has forgotten everybody
    backend.attend([(ROOM, "ann", 1)])
    assert not backend.refresh()
    assert backend.present(ROOM).users == {"ann": 1}
    assert backend.present(ROOM).version > version


def test_a_stop_while_it_is_down_is_quick(serve: Serve, open_url: Open) -> None:
    server = serve()
    backend, host = open_url(server.url)
    backend.subscribe([ROOM])
    backend.attend([(ROOM, "ann", 1)])
    works(backend, host)
    server.kill()
    eventually(backend.fault)
    began = time.monotonic()
    backend.stop()
    assert time.monotonic() - began < 1
    with pytest.raises(BackendError, match="stopped"):
        backend.history(ROOM)


def test_what_is_acknowledged_is_on_a_replica(
    serve: Serve, open_url: Open, caplog: pytest.LogCaptureFixture
) -> None:
    primary, replica = serve("repl-diskless-sync-delay 0"), serve()
    backend, _ = open_url(primary.url, wait=1, timings=QUICK._replace(answer=1.5))
    first, second = (Message(n, sender="ann", mid=n) for n in "12")
    with replica.client() as client, primary.client() as known:
        client.replicaof("127.0.0.1", str(primary.port))
        eventually(lambda: known.set("other", "x") and known.wait(1, 100))
        for _ in range(2):
            assert backend.publish(ROOM, first, keep=True).seq == 1
            assert client.xlen(f"wschat:{{{ROOM}}}:log") == 1
    replica.pause()
    try:
        for _ in range(2):  # the second time it is only known
            with pytest.raises(BackendError, match=r"0 of 1.*REDIS_WAIT"):
                backend.publish(ROOM, second, keep=True)
        assert backend.history(ROOM).seq == 2  # who reads does not wait
        assert backend.fault() is None
        (line,) = log_lines(caplog)  # once, as any refusal
        assert "0 of 1 (WSCHAT_REDIS_WAIT)" in line
    finally:
        replica.resume()
    answers: list[Any] = []
    for _ in range(3):
        backend.submit(ROOM, second, answers.append, keep=True)
    eventually(lambda: len(answers) == 3)
    assert {(a.seq, a.fresh) for a in answers} == {(2, False)}


# -- foreign hands


def test_garbage_is_ignored(
    serve: Serve, open_url: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    backend, host = open_url(server.url)
    backend.subscribe([ROOM])
    works(backend, host, "1")
    with server.client() as client:
        (channel,) = client.pubsub_channels("*room*")
        for payload in [
            b"",
            b"junk",
            b"\x80\x04K\x01.",
            b"1 2 3 4",
            b"x e 1.5 {}\nx",
            b"1 e x {}\nx",
            b"1 \xff 1.5 - - 4 {}\nx",
            b"1 e 1.5 - - 4 {}\n\xff",
            b"1 e 1.5 - - 4 []\nx",
            b'1 e 1.5 - - 11 {"key":1}\nx',
            b"1 e 1.5 - - 100002 " + b"[" * 100_000 + b"\nx",
            b"1 e 1.5 - - 3 {\nx",
            b'{"json":true}\n1',
            b"1 e 1.5 - - 5 {}\nx",
            b"1 e 1.5 - - -4 {}\nx",
            b"1 e 1.5 - - 8,-4 {}\nx",
            b"1 e 1.5 - - 4,4 {}\nx",
            b"1 e 1.5 - - x {}\nx",
            b"1 e 1.5 - -  {}\nx",
            b"1 e 1.5 - - 4 ",
            b"{}\nxyz",
            b"1 e 1.5 - - 4 ",
        ]:
            client.publish(channel, payload)
        client.xadd(f"wschat:{{{ROOM}}}:log", {"9e9 - - 4": "junk"}, "1-1")
        client.xadd(f"wschat:{{{ROOM}}}:log", {"x": "y"}, "1-2")
    works(backend, host, "2")
    assert host.data(ROOM) == ["1", "2"]
    assert [e.data for e in backend.history(ROOM).entries] == ["1", "2"]
    assert "strange publication" in log_lines(caplog)[0]
    assert host.losses == []


def test_a_message_that_is_too_long_is_refused(serve: Serve, open_url: Open) -> None:
    backend, _ = open_url(serve().url, timings=Timings(answer=DEADLINE))
    with pytest.raises(BackendError, match="16777216"):
        backend.publish(ROOM, Message("x" * (16 << 20)), keep=True)
    backend.publish(ROOM, Message("x" * (15 << 20)), keep=True)
    (entry,) = backend.history(ROOM).entries
    assert len(entry.data) == 15 << 20


def test_names_of_any_characters(serve: Serve, open_url: Open) -> None:
    (backend, host), (other, _) = (open_url(serve().url) for _ in "ab")
    del other
    for name in ("room:}{", "room:", "room:\ud800", "room:a\r\n b", "user:ż:log"):
        backend.subscribe([name])
        backend.publish(name, Message("x", mid="\ud800"), keep=True)
        host.wait_for(lambda name=name: host.data(name) == ["x"])  # type: ignore[misc]
        assert backend.history(name).entries[0].mid == "\ud800"
        backend.attend([(name, "\ud800", 1), (name, "", 1)])
        assert backend.vote(name, "\ud800", "}\n") == backend.tally(name, "\ud800")


# -- processes


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_in_a_process_that(serve: Serve, program: str) -> None:
    server = serve()
    run_program(program, server.url)


class LateBell:
    """Rings only once something else has come to who hears it."""

    def __init__(self, bell: socket.socket, first: Callable[[], None]) -> None:
        self._bell = bell
        self._first = first

    def send(self, data: bytes) -> int:
        self._first()
        return self._bell.send(data)

    def close(self) -> None:
        self._bell.close()


def test_a_bell_that_is_late_is_heard(open_url: Open, serve: Serve) -> None:
    url = serve().url
    (backend, host), (other, _) = open_url(url), open_url(url)
    backend.subscribe([ROOM])
    subscriber: Any = backend._processes[os.getpid()].subscriber

    def come() -> None:
        other.publish(ROOM, Message("x"), keep=True)
        host.wait_for(lambda: host.data(ROOM) == ["x"])

    subscriber._bell = LateBell(subscriber._bell, come)
    backend.subscribe(["room:b"])
    # Else its thread would turn round and round, for the sake of this byte.
    eventually(lambda: not select.select([subscriber._ear], [], [], 0)[0])


# -- the protocol


def test_replies_come_in_any_pieces() -> None:
    data = b"+OK\r\n:-5\r\n$-1\r\n$0\r\n\r\n*-1\r\n*2\r\n$4\r\n\r\n\r\n\r\n*1\r\n:1\r\n"
    data += b"-ERR no such thing\r\n*0\r\n"
    for size in range(1, len(data) + 1):
        parser = Replies()
        replies: list[Any] = []
        for start in range(0, len(data), size):
            replies += parser.feed(data[start : start + size])
        error = replies.pop(6)
        assert replies == [b"OK", -5, None, b"", None, [b"\r\n\r\n", [1]], []]
        assert isinstance(error, ReplyError)
        assert str(error) == "ERR no such thing"


def test_what_is_not_redis_is_said_so(open_url: Open) -> None:
    with pytest.raises(ConnectionError, match="not Redis"):
        Replies().feed(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'. script: ab", "OOM"),
        (
            "ERR Error running script (call to f_ab): @user_script:3: @user_script: 3:"
            " -READONLY You can't write against a read only replica. ",
            "READONLY",
        ),
        (
            "ERR The user executing the script can't run this command or subcommand"
            " script: ab, on @user_script:21.",
            "NOPERM",
        ),
        (
            "ERR Error running script (call to f_ab): @user_script:1: @user_script: 1:"
            " The user executing the script can't run this command or subcommand ",
            "NOPERM",
        ),
        (
            "ERR ACL failure in script: User chat has no permissions to run the 'xdel'"
            " command script: ab, on @user_script:1.",
            "NOPERM",
        ),
        ("ERR No such master with that name", "NOMASTER"),
        ("ERR This instance has cluster support disabled", "NOCLUSTER"),
        ("ERR unknown command", "ERR"),
    ],
)
def test_the_kind_of_an_error_in_newer_and_older_words(words: str, code: str) -> None:
    assert code_of(ReplyError(words)) == code


def test_commands_are_packed_as_redis_py_packs_them() -> None:
    arguments = ("SET", b"\x00\r\n", "ż", 5, -1, 1.5, b"")
    connection: Any = redis_py.Connection
    theirs = b"".join(connection().pack_command(*arguments))
    assert pack(*arguments) == theirs
