"""The ready-made chat over several processes, with and without greenlets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flask_wschat import UnknownPoll, WSChat
from flask_wschat.testing import WSChatClient, WSChatSession
from tests.support.chat_client import Json
from tests.support.following import Follower, chat, make_chat, server, url
from tests.support.live import LiveServer, Serve
from tests.support.waiting import eventually

from ..protocol.peers import Peer

__all__ = ["chat", "make_chat", "server", "url"]


# ---- several processes ---------------------------------------------------------------


@pytest.fixture
def two(
    url: str, make_chat: Callable[..., WSChat], serve: Serve
) -> tuple[WSChat, LiveServer, WSChat, LiveServer]:
    """Two processes, as it were; of memory, there is nothing to test."""
    one, other = make_chat(), make_chat()
    return one, serve(one._app()), other, serve(other._app())


shared = pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)


@shared
def test_processes_share_rooms_people_and_votes(
    two: tuple[WSChat, LiveServer, WSChat, LiveServer],
) -> None:
    here, server_here, there, server_there = two
    for process in (here, there):
        process.poll("Tea?", ["yes", "no"])
    ann, ben = Follower(server_here, "ann").connect(), Follower(server_there, "ben")
    ben.connect()
    assert ann.peer is not None and ben.peer is not None
    assert ann.peer.expect("presence", joined=["ben"])["room"] == "Lobby"
    assert ben.peer.ask("who", room="Lobby")["present"] == ["ann", "ben"]
    assert here.online("Lobby") == there.online() == ["ann", "ben"]
    ann.peer.ask("say", room="Lobby", data="hi", mid="1")
    ben.follow("hi")
    there.broadcast("all", room="Lobby")
    ann.follow("all")
    ben.follow("all")
    assert ann.shown == ben.shown
    ben.peer.ask("vote", poll="Tea?", choice="yes")
    assert ann.peer.expect("tally")["counts"] == {"yes": 1, "no": 0}
    ann.peer.ask("inbox")
    assert there.send_to_user("ann", "psst") == 1
    assert ann.peer.expect("direct")["data"] == "psst"
    tab = Peer(server_there, "ann")
    eventually(lambda: here.send_to_user("ann", "both", key="k") == 2)
    assert there.disconnect_user("ann", 4001, "bye") == 2
    assert ann.peer.closed() == tab.closed() == (4001, "bye")
    assert ben.peer.expect("presence", left=["ann"])["joined"] == []
    eventually(lambda: there.online() == ["ben"])


@shared
def test_a_poll_made_at_run_time_is_one_in_all_processes(
    two: tuple[WSChat, LiveServer, WSChat, LiveServer],
) -> None:
    here, server_here, there, server_there = two
    ann, ben = Follower(server_here, "ann").connect(), Follower(server_there, "ben")
    ben.connect()
    assert ann.peer is not None and ben.peer is not None
    ask = {"poll": "Tea?", "choice": "yes"}
    assert ann.peer.fail("vote", **ask)["code"] == "unknown_poll"
    options = ["yes", "no", "10", "2"]
    tea = here.poll("Tea?", options, room="Lobby", lasts=600, data={"q": "Tea? żółw"})
    known = there.poll("Tea?")
    assert (known.options, known.room) == (tuple(options), "Lobby")
    assert known.data == {"q": "Tea? żółw"} and known.at == tea.at
    assert [poll.name for poll in there.polls()] == ["Tea?"]
    assert ben.peer.ask("vote", **ask)["total"] == 1
    assert ann.peer.expect("tally")["counts"] == {"yes": 1, "no": 0, "10": 0, "2": 0}
    standing = ann.peer.ask("poll", poll="Tea?")
    assert (standing["options"], standing["mine"]) == (options, None)
    known.close()
    assert ann.peer.expect("tally", closed=True)["total"] == 1
    assert ann.peer.fail("vote", **ask)["code"] == "poll_closed"
    tea.reopen()
    assert ben.peer.expect("tally", closed=False, version=tea.tally().version)
    assert ann.peer.fail("vote", poll="Tea?", choice="3")["code"] == "unknown_choice"
    assert ann.peer.ask("vote", **ask)["total"] == 2
    ben.peer.ask("leave", room="Lobby")
    assert ben.peer.fail("vote", **ask)["code"] == "not_joined"
    assert known.delete() and not tea.delete()
    for request, fields in (("vote", ask), ("poll", {"poll": "Tea?"})):
        assert ann.peer.fail(request, **fields)["code"] == "unknown_poll"
    with pytest.raises(UnknownPoll, match=r"'Tea\?'"):
        there.poll("Tea?")


@shared
def test_whether_one_user_is_online_is_known_in_all_processes(
    two: tuple[WSChat, LiveServer, WSChat, LiveServer],
    make_chat: Callable[..., WSChat],
) -> None:
    here, server, there, _ = two
    with server.connect("/chat?user=ann"), server.connect("/chat?user=7"):
        for process in (here, there, make_chat()):
            eventually(lambda p=process: p.is_online("ann"))  # type: ignore[misc]
            eventually(lambda p=process: p.is_online(7))  # type: ignore[misc]
            assert not process.is_online("ben")
            assert not process.is_online("an")
    eventually(lambda: not there.is_online("ann"))
    assert not here.is_online("ann")


@shared
def test_a_process_without_connections_reaches_everyone(
    two: tuple[WSChat, LiveServer, WSChat, LiveServer],
    make_chat: Callable[..., WSChat],
) -> None:
    """A task queue's, say: there is no loop, and no greenlet."""
    chat, server, _, server_there = two
    chat.poll("Tea?", ["yes", "no"])
    ann, ben = Follower(server, "ann").connect(), Follower(server_there).connect()
    assert ann.peer is not None and ben.peer is not None
    ann.peer.ask("inbox")
    task = make_chat()
    eventually(lambda: task.online("Lobby") == ["ann"])
    assert task.broadcast("hi", room="Lobby") == 1
    assert task.send_to_user("ann", {"n": 1}) == 1
    assert task.send_to_user("nobody", "later") == 0
    assert task.poll("Tea?", ["yes", "no"]).vote("x", "no").total == 1
    ann.follow("hi")
    assert ann.peer.expect("direct")["data"] == {"n": 1}
    assert ann.peer.expect("tally")["total"] == 1
    ben.follow("hi")
    assert ben.peer.expect("tally")["total"] == 1
    assert Peer(server, "nobody").ask("inbox")["messages"][0]["data"] == "later"
    assert task._hub().home.loop is None


def test_a_server_with_threads_serves_it_as_well(
    make_chat: Callable[..., WSChat],
) -> None:
    """There the loop is a thread of our own, and requests are done by others."""
    chat = make_chat()
    client = WSChatClient(chat._app())

    def ask(ws: WSChatSession, ref: int, **fields: Any) -> tuple[Json, list[Json]]:
        ws.send({"ref": ref, **fields})
        events = []
        while (message := ws.receive_json())["type"] != "reply":
            events.append(message)
        assert (message["ref"], message["ok"]) == (ref, True), message
        return message, events

    offered = ["wschat.v1.json"]
    with (
        client.connect("/chat", user="ann", subprotocols=offered) as ann,
        client.connect("/chat", user="ben") as ben,
    ):
        assert (ann.subprotocol, ben.subprotocol) == ("wschat.v1.json", None)
        for ws in (ann, ben):
            assert ws.receive_json()["type"] == "hello"
            page, events = ask(ws, 1, type="join", room="Lobby")
            assert events == []
        eventually(lambda: chat.online("Lobby") == ["ann", "ben"])

        def say(ws: WSChatSession) -> list[Json]:
            got: list[Json] = []
            for n in range(20):
                fields = {"room": "Lobby", "data": n, "mid": str(n)}
                _, events = ask(ws, n, type="say", **fields)
                got += events
            while len([e for e in got if e["type"] == "message"]) < 40:
                got.append(ws.receive_json())
            return [e for e in got if e["type"] == "message"]

        with ThreadPoolExecutor(2) as pool:
            one, other = pool.map(say, (ann, ben))
        assert one == other
        assert [m["seq"] for m in one] == list(range(1, 41))
        page, _ = ask(ann, 99, type="join", room="Lobby", after=38, epoch=page["epoch"])
        assert page["messages"] == one[38:]
