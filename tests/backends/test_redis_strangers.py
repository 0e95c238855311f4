"""What others write to our keys and channels is an error with a remedy, or ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flask_wschat.backends.redis.backend import RedisBackend
from flask_wschat.errors import BackendError
from flask_wschat.messages import Message, Receipt
from tests.backends.cluster import Begin, RecordingHost
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

ROOM = "room:a"
META, PEOPLE, LOG = (f"wschat:{{room:a}}:{name}" for name in ("meta", "people", "log"))


@pytest.fixture
def process(
    server: RedisServer, client: Any, begin: Begin
) -> tuple[RedisBackend, RecordingHost]:
    backend, host = begin(RedisBackend(server.url))
    backend.subscribe([ROOM])
    return backend, host


def say(backend: RedisBackend, text: str, *, keep: bool = True) -> Receipt:
    return backend.publish(ROOM, Message(text, sender="ann", mid=text), keep=keep)


def test_what_follows_the_first_message_does_not_come_before_it(
    process: tuple[RedisBackend, RecordingHost], client: Any
) -> None:
    """Redis knows the script before it is called on a connection."""
    backend, host = process
    for turn in range(3):
        done: list[Any] = []
        client.script_flush()
        backend.submit(ROOM, Message(f"{turn} kept"), done.append, keep=True)
        backend.submit(ROOM, Message(f"{turn} passing"), done.append)
        eventually(lambda done=done: len(done) == 2)  # type: ignore[misc]
        client.client_kill_filter(_type="normal", skipme=True)
        if turn == 0:
            host.wait_for(lambda: host.data(ROOM) == ["0 kept", "0 passing"])
    assert client.info("commandstats")["cmdstat_eval"]["calls"] >= 3


def test_whoever_raises_when_told_keeps_nothing_from_the_others(
    process: tuple[RedisBackend, RecordingHost], client: Any
) -> None:
    backend, _ = process
    say(backend, "first")
    answers: list[Any] = []

    def fails(answer: object) -> None:
        answers.append(answer)
        raise RuntimeError("a mistake of the application's")

    client.client_pause(200, all=True)
    for number in range(5):
        backend.submit(ROOM, Message(str(number)), fails, keep=True)
    eventually(lambda: len(answers) == 5)
    assert [answer.seq for answer in answers] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("field", "value"), [("epoch", "a b"), ("epoch", b"\xff"), ("seq", "many")]
)
def test_all_are_told_where_a_topic_is_not_ours(
    process: tuple[RedisBackend, RecordingHost], client: Any, field: str, value: Any
) -> None:
    backend, _ = process
    say(backend, "1")
    client.hset(META, field, value)
    with pytest.raises(BackendError, match=r"not ours|refused"):
        say(backend, "2")
    client.delete(META)
    assert say(backend, "3").fresh


def ask(backend: RedisBackend, what: str) -> object:
    asks: dict[str, Callable[[], object]] = {
        "page": lambda: backend.history(ROOM),
        "tally": lambda: backend.tally("tea"),
        "who": lambda: backend.present(ROOM, heard=True),
        "attend": lambda: backend.attend([(ROOM, "ann", 1)]),
    }
    return asks[what]()


@pytest.mark.parametrize(
    ("key", "field", "value", "what"),
    [
        (META, "epoch", b"\xff", "page"),
        (META, "seq", "5 bananas", "page"),
        ("wschat:{poll:tea}:counts", "green", "many", "tally"),
        ("wschat:{poll:tea}:counts", b"\xff", "1", "tally"),
        ("wschat:{presence}:clock", "beat", "x", "who"),
        (PEOPLE, None, "a string", "attend"),
    ],
)
def test_what_cannot_be_understood_is_said_so(
    process: tuple[RedisBackend, RecordingHost],
    client: Any,
    key: str,
    field: Any,
    value: Any,
    what: str,
) -> None:
    backend, _ = process
    say(backend, "1")
    backend.vote("tea", "ann", "green")
    backend.refresh()
    if field is None:
        client.set(key, value)
    else:
        client.hset(key, field, value)
    with pytest.raises(BackendError, match=r"not ours|another program|refused"):
        ask(backend, what)
    client.delete(key)
    ask(backend, what)


@pytest.mark.parametrize("value", ["x", "1", '{"p":null}', '{"p":1e400}', b"\xff"])
def test_strange_people_are_left_out_and_replaced(
    process: tuple[RedisBackend, RecordingHost], client: Any, value: Any
) -> None:
    backend, _ = process
    backend.attend([(ROOM, "ann", 1)])
    client.hset(PEOPLE, mapping={"bob": value})
    client.hset(PEOPLE, mapping={b"\xff\xfe": '{"p":1}'})
    assert backend.present(ROOM).users == {"ann": 1}
    assert backend.present(ROOM, heard=True).users == {"ann": 1}
    if value != '{"p":1e400}':
        client.hset(PEOPLE, "bob", "x" if value == '{"p":null}' else value)
        backend.attend([(ROOM, "bob", 1)])
        assert backend.present(ROOM).users == {"ann": 1, "bob": 1}


@pytest.mark.parametrize(
    "payload",
    [
        b"0 nan - {}\nx",
        b"0 1e999 - {}\nx",
        b"1 e inf t - 4 {}\nx",
        b"-1 e 1.0 t - 4 {}\nx",
        b"%d e 1.0 t - 4 {}\nx" % 10**30,
        b"9" * 5000 + b" e 1.0 t - 4 {}\nx",
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_publications_that_no_client_could_read_are_ignored(
    process: tuple[RedisBackend, RecordingHost], client: Any, payload: bytes
) -> None:
    backend, host = process
    assert client.publish("wschat:{room:a}:live:0", payload) == 1
    say(backend, "ours")
    host.wait_for(lambda: host.data(ROOM) == ["ours"])


def test_an_entry_whose_time_is_none_is_ignored(
    process: tuple[RedisBackend, RecordingHost], client: Any
) -> None:
    backend, _ = process
    say(backend, "1")
    client.xadd(LOG, {"nan - - 4": "{}\nx"}, id="2-9")
    client.hset(META, "seq", 2)
    page = backend.history(ROOM)
    assert [entry.data for entry in page.entries] == ["1"]
    json.dumps([entry.at for entry in page.entries], allow_nan=False)
