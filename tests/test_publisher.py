"""``WSChat.publisher``: what a process without the application reaches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from flask_wschat import BackendError, ConfigError, WSChat
from flask_wschat.backends import MemoryBackend
from tests.support.following import chat, in_threads, make_chat, server, url
from tests.support.live import LiveServer
from tests.support.processes import ROOT
from tests.support.redis_server import RedisServer
from tests.support.waiting import LONG, eventually

from .protocol.peers import Peer

__all__ = ["chat", "make_chat", "server", "url"]

shared = pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
stored = pytest.mark.parametrize("url", ["memory", "sqlite", "redis"], indirect=True)


def elsewhere(url: str, *calls: tuple[str, list[Any], dict[str, Any]]) -> list[Any]:
    """Return the results of calls in a process without an application."""
    answer = subprocess.run(
        [sys.executable, "-m", "tests.support.publishing", url],
        input=json.dumps(calls),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert answer.returncode == 0 and not answer.stderr, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.mark.slow
@shared
@pytest.mark.timeout(60)
def test_a_process_without_the_application_reaches_everybody(
    server: LiveServer, chat: WSChat, url: str
) -> None:
    ann, ben = Peer(server, "ann"), Peer(server, "ben")
    ann.ask("join", room="Lobby")
    ann.ask("inbox")
    ann.ask("say", room="Lobby", data={"a": 1}, mid="m")
    ann.expect("message")
    eventually(lambda: chat.online() == ["ann", "ben"])
    results = elsewhere(
        url,
        ("broadcast", ["one"], {"room": "Lobby", "mid": "task"}),
        ("broadcast", ["one"], {"room": "Lobby", "mid": "task"}),
        ("broadcast", [{"to": "all"}], {}),
        ("broadcast", ["passing"], {"room": "Lobby", "keep": False}),
        ("emit", ["moved"], {"room": "Lobby", "x": 1.5}),
        ("send_to_user", ["ann", "note"], {}),
        ("online", [], {}),
        ("online", ["Lobby"], {}),
        ("is_online", ["ben"], {}),
        ("is_online", ["cleo"], {}),
        ("delete", ["Lobby", 1], {}),
        ("history", ["Lobby"], {}),
        ("disconnect_user", ["ben", 4001, "bye"], {}),
    )
    *first, page, closed = results
    assert first == [
        *(2, 2, 0, 0, None, 1),
        *(["ann", "ben"], ["ann"], True, False, True),
    ]
    assert [(e["seq"], e["data"], e["deleted"]) for e in page] == [
        (1, None, True),
        (2, "one", False),
    ]
    assert closed == 1 and ben.closed() == (4001, "bye")
    got = [ann.pick(kind) for kind in ("message", "message", "message", "moved")]
    assert [each.get("data", each.get("x")) for each in got if each["room"]] == [
        *("one", "passing", 1.5)
    ]
    assert ann.pick("direct")["data"] == "note"
    assert ann.pick("deleted")["seq"] == 1


@stored
def test_a_history_has_data_as_it_was_said(
    chat: WSChat, server: LiveServer, url: str
) -> None:
    said: list[Any] = ["hi", '{"a": 1}', "ü\u2028\0", b"\xff\0", b"", ""]
    said += [{"a": [1, None, "ü"]}, ["x"], 5, 1.5, True, None, "null", "5"]
    for data in said:
        chat.broadcast(data, room="Lobby")
    ann = Peer(server, "ann")
    ann.ask("join", room="Lobby")
    for number, data in enumerate([d for d in said if not isinstance(d, bytes)]):
        ann.ask("say", room="Lobby", data=data, mid=str(number))
        said.append(data)
    found = [entry.data for entry in chat.history("Lobby")]
    assert found == said and list(map(type, found)) == list(map(type, said))
    if url != "memory://":
        with WSChat.publisher(url) as publisher:
            assert publisher.history("Lobby") == chat.history("Lobby")


@shared
def test_it_may_be_called_from_threads_and_forks(url: str) -> None:
    publisher = WSChat.publisher(url, history_size=1000)
    in_threads(
        *[
            lambda: [publisher.broadcast(i, room="a") for i in range(10)]
            for _ in range(5)
        ]
    )
    assert [entry.seq for entry in publisher.history("a")] == list(range(1, 51))
    pid = os.fork()
    if not pid:  # as a task queue's worker begins
        done = publisher.broadcast("forked", room="a") == 51
        os._exit(not done)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert publisher.history("a", after=50)[0].data == "forked"
    publisher.close()


@shared
def test_it_keeps_as_much_as_it_is_told(url: str) -> None:
    with WSChat.publisher(url, history_size=2) as publisher:
        for number in range(4):
            publisher.broadcast(number, room="a")
        # What Flask's JSON knows, as in a view.
        publisher.broadcast(uuid.UUID(int=1), room="a", mid=uuid.uuid4())
        found = [entry.data for entry in publisher.history("a")]
    assert found == [3, str(uuid.UUID(int=1))]


@shared
def test_one_that_is_closed_says_so(url: str) -> None:
    with WSChat.publisher(url) as publisher:
        assert publisher.broadcast("x", room="a") == 1
    for call in (
        lambda: publisher.broadcast("x", room="a"),
        lambda: publisher.emit("x"),
        lambda: publisher.online(),
        lambda: publisher.history("a"),
    ):
        with pytest.raises(RuntimeError, match="this publisher is closed"):
            call()
    publisher.close()


@pytest.mark.parametrize("url", ["memory://", MemoryBackend()])
def test_the_memory_of_a_process_is_no_others(url: Any) -> None:
    with pytest.raises(ConfigError, match="memory:// is of one process alone"):
        WSChat.publisher(url)


@pytest.mark.parametrize(
    ("url", "options", "error", "words"),
    [
        ("http://example.org", {}, ConfigError, "WSCHAT_URL must begin with"),
        ("", {}, ConfigError, "WSCHAT_URL must begin with"),
        (None, {}, ConfigError, "WSCHAT_URL must be a URL"),
        ("sqlite://", {}, ConfigError, "must name a file"),
        ("sqlite:///x", {"history": 5}, TypeError, "history is none of history_size"),
        ("sqlite:///x", {"URL": "x"}, TypeError, "URL is none of"),
        ("sqlite:///x", {"history_size": "5"}, ConfigError, "WSCHAT_HISTORY_SIZE"),
        ("sqlite:///x", {"history_ttl": -1}, ConfigError, "WSCHAT_HISTORY_TTL"),
    ],
)
def test_what_makes_no_sense_is_refused(
    url: Any, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        WSChat.publisher(url, **options)


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_a_storage_that_is_away_is_an_error_and_may_come_back(
    url: str, redis: RedisServer
) -> None:
    with WSChat.publisher(url) as publisher:
        publisher.broadcast("x", room="a")
        redis.kill()
        with pytest.raises(BackendError):
            publisher.broadcast("y", room="a", mid="y")
        redis.restart()
        eventually(lambda: said_again(publisher), seconds=LONG)


def said_again(publisher: Any) -> bool:
    try:
        return bool(publisher.broadcast("y", room="a", mid="y"))
    except BackendError:
        return False


def test_a_file_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    publisher = WSChat.publisher(f"sqlite:///{tmp_path}/none/db")
    with publisher, pytest.raises(BackendError):
        publisher.broadcast("x", room="a")


@shared
def test_it_lets_messages_grow(chat: WSChat, server: LiveServer, url: str) -> None:
    ann = Peer(server, "ann")
    ann.ask("join", room="Lobby")
    with (
        WSChat.publisher(url) as publisher,
        publisher.stream(room="Lobby", sender="assistant") as answer,
    ):
        answer.append("Hello ")
        answer.append("world")
        assert ann.pick("stream")["id"] == answer.id
    message = ann.pick("message")
    assert (message["data"], message["from"]) == ("Hello world", "assistant")
    assert [entry.data for entry in chat.history("Lobby")] == ["Hello world"]
