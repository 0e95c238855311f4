"""Messages that are taken back, those not kept, and those that a task repeats."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from flask_wschat import WSChat
from tests.support.following import Follower, Quick, chat, make_chat, server, url
from tests.support.live import LiveServer

from ..protocol.peers import Peer

__all__ = ["chat", "make_chat", "server", "url"]

stored = pytest.mark.parametrize("url", ["memory", "sqlite", "redis"], indirect=True)
in_memory = pytest.mark.parametrize("url", ["memory"], indirect=True)


@stored
def test_what_is_taken_back_is_gone_for_all(chat: WSChat, server: LiveServer) -> None:
    ann, ben = Peer(server, "ann"), Peer(server, "ben")
    before = ann.ask("join", room="Lobby")
    for number in range(1, 4):
        ann.ask("say", room="Lobby", data=number, mid=f"m{number}")
    assert chat.delete("Lobby", 2) is True
    assert ann.expect("deleted", room="Lobby")["seq"] == 2
    assert chat.delete("Lobby", 2) is False
    # Who comes, comes back or reads the history finds its number, and nothing of it.
    for page in (
        ben.ask("join", room="Lobby"),
        ben.ask("join", room="Lobby", after=1, epoch=before["epoch"]),
        ann.ask("history", room="Lobby", before=3),
    ):
        (gone,) = [m for m in page["messages"] if m["seq"] == 2]
        assert gone["deleted"] is True
        assert gone["data"] is gone["from"] is gone["mid"] is None
        assert all("deleted" not in m for m in page["messages"] if m is not gone)
    one, two, three = chat.history("Lobby")
    assert (one.data, two.data, three.data) == (1, None, 3)
    assert two.deleted and two.sender is None and not (one.deleted or three.deleted)
    # Its id is known: it does not come back, and the numbers go on.
    assert ann.ask("say", room="Lobby", data=2, mid="m2")["seq"] == 2
    assert ann.ask("say", room="Lobby", data=4, mid="m4")["seq"] == 4
    assert ben.expect("message")["seq"] == 4


@stored
def test_a_follower_has_no_hole_where_one_is_taken_back(
    chat: WSChat, server: LiveServer
) -> None:
    ann = Follower(server, "ann").connect()
    for number in range(10):
        chat.broadcast(number, room="Lobby")
        if number % 3 == 2:
            chat.delete("Lobby", number)
            ann.connect()
    ann.follow(9)
    numbers = [message["seq"] for message in ann.shown]
    assert numbers == list(range(1, 11)) and ann.resets == 0


@in_memory
def test_what_cannot_be_taken_back(chat: WSChat) -> None:
    chat.broadcast("one", room="Lobby")
    assert chat.delete("Lobby", 0) is chat.delete("Lobby", 2) is False
    assert chat.delete("nowhere", 1) is False
    assert chat.delete(5, 1) is False  # the room "5"
    for room, seq, error in (
        (None, 1, TypeError),
        ("", 1, ValueError),
        ("Lobby", "1", TypeError),
        ("Lobby", True, TypeError),
        ("Lobby", 1.0, TypeError),
        ("Lobby", -1, ValueError),
    ):
        with pytest.raises(error):
            chat.delete(room, seq)  # type: ignore[arg-type]
    assert chat.delete("Lobby", 1 << 60) is False
    assert [entry.data for entry in chat.history("Lobby")] == ["one"]


@stored
def test_a_task_may_repeat_what_it_named(chat: WSChat, server: LiveServer) -> None:
    ann = Quick(server, "ann")
    ann.ask("join", room="Lobby")
    task = uuid.uuid4()
    assert chat.broadcast("done", room="Lobby", mid=task) == 1
    assert chat.broadcast("done", room="Lobby", mid=str(task)) == 1
    assert chat.broadcast("done", room="Attic", mid=task) == 1
    # Another's is another: a client's id is not the application's.
    assert ann.ask("say", room="Lobby", data="mine", mid=str(task))["seq"] == 2
    assert [entry.data for entry in chat.history("Lobby")] == ["done", "mine"]
    first = ann.expect("message")
    assert (first["mid"], first["from"]) == (str(task), None)
    chat.send_to_user("ann", "psst", mid=7)
    chat.send_to_user("ann", "psst", mid="7")
    assert [m["data"] for m in ann.ask("inbox")["messages"]] == ["psst"]


@stored
def test_what_is_not_kept_is_sent_and_no_more(chat: WSChat, server: LiveServer) -> None:
    ann = Peer(server, "ann")
    ann.ask("join", room="Lobby")
    assert chat.broadcast({"typing": "ben"}, room="Lobby", keep=False) == 0
    assert chat.broadcast("kept", room="Lobby") == 1
    passing, kept = ann.expect("message"), ann.expect("message")
    assert (passing["seq"], passing["data"]) == (0, {"typing": "ben"})
    assert (kept["seq"], kept["data"]) == (1, "kept")
    assert [entry.data for entry in chat.history("Lobby")] == ["kept"]


@in_memory
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"keep": 1}, TypeError, "keep is True or False, unlike 1"),
        ({"keep": None}, TypeError, "keep is True or False"),
        ({"mid": None, "keep": "no"}, TypeError, "keep is True or False"),
        ({"mid": 1.5}, TypeError, "mid must be a text, an integer"),
        ({"mid": b"m"}, TypeError, "mid must be a text"),
        ({"mid": ""}, ValueError, "mid must have 1 to"),
        ({"mid": "x" * 65}, ValueError, "mid must be 1 to 64 printable"),
        ({"mid": " m"}, ValueError, "mid must be 1 to 64 printable"),
        ({"mid": "a\nb"}, ValueError, "mid must be one line"),
        ({"mid": "m", "keep": False}, ValueError, "mid is for what is kept"),
        ({"mid": "m", "key": "k"}, ValueError, "mid is for what is kept"),
        ({"mid": "m", "room": None}, ValueError, "mid is for what is kept"),
    ],
)
def test_a_broadcast_that_makes_no_sense_sends_nothing(
    chat: WSChat, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        chat.broadcast("x", **{"room": "Lobby", **options})
    assert chat.history("Lobby") == []
