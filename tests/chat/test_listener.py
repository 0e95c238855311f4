"""The ready-made chat's promises, on each backend: every message once, in order."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from flask_wschat import ChatListener, WSChat
from flask_wschat.client import open_over
from flask_wschat.codec import ClientHandshake
from tests.servers.serving import RawClient
from tests.support.following import (
    Follower,
    chat,
    in_threads,
    make_chat,
    server,
    url,
)
from tests.support.live import LiveServer, Serve
from tests.support.waiting import DEADLINE, eventually

from ..protocol.peers import Peer

__all__ = ["chat", "make_chat", "server", "url"]


# ---- nothing missed, nothing twice ---------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_who_joins_while_others_publish_misses_nothing(
    chat: WSChat, server: LiveServer
) -> None:
    """And gets nothing twice, nor in another order than the others."""
    followers = [Follower(server, "ben").connect()]
    ahead = threading.Semaphore(100)  # as fast as a client can read
    each, total = 600, 1200
    done = threading.Event()

    def publish(name: str) -> None:
        for number in range(each):
            ahead.acquire()
            chat.broadcast([name, number], room="Lobby")

    def watch() -> None:
        watcher = followers[0]
        assert watcher.peer is not None
        while watcher.at["after"] < total:
            watcher.take(watcher.peer.expect("message"))
            ahead.release()
        done.set()

    def join() -> None:
        """Join anew and anew, and read again in between."""
        while not done.is_set():
            follower = Follower(server, "ann").connect()
            followers.append(follower)
            assert follower.peer is not None
            for _ in range(3):
                for _ in range(20):
                    if follower.at["after"] < total:
                        follower.take(follower.peer.expect("message"))
                follower.read()
            follower.peer.client.close_socket()

    in_threads(join, join, join, watch, *[functools.partial(publish, x) for x in "xy"])
    by_seq: dict[int, Any] = {}
    for follower in followers:
        numbers = [m["seq"] for m in follower.shown]
        assert not numbers or numbers == list(range(numbers[0], numbers[-1] + 1))
        assert follower.resets == 0
        for message in follower.shown:
            assert by_seq.setdefault(message["seq"], message) == message
    assert followers[0].data == [by_seq[seq + 1]["data"] for seq in range(total)]
    ordered = [by_seq[seq]["data"] for seq in sorted(by_seq)]
    for name in "xy":
        mine = [number for who, number in ordered if who == name]
        assert mine == sorted(mine)
    assert len(followers) > 3 and len(ordered) == total


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_who_is_cut_off_again_and_again_misses_nothing(
    chat: WSChat, server: LiveServer
) -> None:
    ann, ben = Follower(server, "ann").connect(), Follower(server, "ben").connect()

    def say() -> None:
        peer = Peer(server, "cy")
        peer.ask("join", room="Lobby")
        for number in range(300):
            peer.ask("say", room="Lobby", data=number, mid=f"m{number}")
        peer.ask("say", room="Lobby", data="end", mid="end")

    def cut() -> None:
        for number in range(0, 300, 20):
            ann.follow(number)
            ann.connect()
        ann.follow("end")

    in_threads(say, cut, lambda: ben.follow("end"))
    assert ann.data == ben.data == [*range(300), "end"]
    assert ann.resets == 0


def test_what_is_kept_no_more_is_said(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    chat = make_chat(HISTORY_SIZE=5)
    server = serve(chat._app())
    ann = Follower(server, "ann").connect()
    for number in range(5):
        chat.broadcast(number, room="Lobby")
    ann.follow(4)
    assert ann.peer is not None
    ann.peer.client.close()
    for number in range(5, 10):
        chat.broadcast(number, room="Lobby")
    ann.connect()
    assert (ann.data, ann.resets) == (list(range(10)), 0)
    ann.peer.client.close()
    for number in range(10, 16):
        chat.broadcast(number, room="Lobby")
    ann.connect()
    assert ann.data == [*range(10), *range(11, 16)]
    assert ann.resets == 1


def test_a_number_without_an_epoch_is_taken_for_one_of_today(
    server: LiveServer,
) -> None:
    ann = Peer(server, "ann")
    ann.ask("join", room="Lobby")
    for number in range(1, 4):
        ann.ask("say", room="Lobby", data=number, mid=f"m{number}")
    ben = Peer(server, "ben")
    page = ben.ask("join", room="Lobby", after=1)
    assert page["recovered"]
    assert [message["seq"] for message in page["messages"]] == [2, 3]
    # More than there are: it cannot be today's, and nobody else is to suffer for it.
    again = ben.ask("join", room="Lobby", after=9)
    assert not again["recovered"]
    assert [message["seq"] for message in again["messages"]] == [1, 2, 3]
    assert again["epoch"] == page["epoch"]


def test_one_said_by_two_tabs_at_once_is_stored_once(server: LiveServer) -> None:
    ben = Follower(server, "ben").connect()
    tabs = [Peer(server, "ann") for _ in range(4)]
    for tab in tabs:
        tab.ask("join", room="Lobby")
    replies: list[list[int]] = [[] for _ in tabs]

    def say(tab: Peer, seqs: list[int]) -> None:
        for number in range(25):
            reply = tab.ask("say", room="Lobby", data=number, mid=str(number))
            seqs.append(reply["seq"])

    in_threads(*map(functools.partial, [say] * 4, tabs, replies))
    tabs[0].ask("say", room="Lobby", data="end", mid="end")
    ben.follow("end")
    assert sorted(ben.data[:-1]) == list(range(25))
    assert replies[0] == replies[1] == replies[2] == replies[3]
    stored = {m["data"]: m["seq"] for m in ben.shown}
    assert replies[0] == [stored[number] for number in range(25)]


def test_people_without_a_user_id_don_t_share_their_mids(
    chat: WSChat, server: LiveServer
) -> None:
    one, two = Peer(server), Peer(server)
    for peer in (one, two):
        peer.ask("join", room="Lobby")
    assert one.ask("say", room="Lobby", data="one", mid="1")["seq"] == 1
    assert two.ask("say", room="Lobby", data="two", mid="1")["seq"] == 2
    assert one.ask("say", room="Lobby", data="one", mid="1")["seq"] == 1
    assert [one.expect("message")["from"] for _ in "12"] == [None, None]
    assert [entry.sender for entry in chat.history("Lobby")] == [None, None]


@pytest.mark.timeout(60)
def test_all_see_the_same_order(server: LiveServer) -> None:
    followers = [Follower(server, f"u{n}").connect() for n in range(4)]

    def say(follower: Follower) -> None:
        assert follower.peer is not None
        for number in range(50):
            data = [follower.user, number]
            follower.peer.put("say", room="Lobby", data=data, mid=str(number))

    in_threads(*[functools.partial(say, follower) for follower in followers])

    def read(follower: Follower) -> None:
        assert follower.peer is not None
        while len(follower.shown) < 200:
            follower.take(follower.peer.expect("message"))

    in_threads(*[functools.partial(read, follower) for follower in followers])
    assert all(f.shown == followers[0].shown for f in followers)
    for name in ("u0", "u3"):
        mine = [number for who, number in followers[0].data if who == name]
        assert mine == list(range(50))


def test_who_reads_too_slowly_is_let_go_and_catches_up(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    chat = make_chat(MAX_QUEUE=1_000_000, HISTORY_SIZE=500)
    server = serve(chat._app())
    ben = Follower(server, "ben").connect()
    epoch = ben.at["epoch"]
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        handshake = ClientHandshake("localhost", "/chat?user=ann")
        slow = open_over(sock, handshake, DEADLINE)
        slow.send('{"type":"join","ref":1,"room":"Lobby"}')
        eventually(lambda: chat.online("Lobby") == ["ann", "ben"])
        for number in range(200):
            chat.broadcast([number, "x" * 50_000], room="Lobby")
            ben.follow([number, "x" * 50_000])  # the others see nothing of it
        eventually(lambda: chat._hub().count() == 1)
    ann = Follower(server, "ann")
    ann.at = {"after": 0, "epoch": epoch}
    ann.connect()  # in pages that fit the queue
    assert ann.data == ben.data
    assert ann.resets == 0


def test_big_messages_come_in_pages_that_fit(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    class Chat(ChatListener):
        max_data = 1 << 20

    chat = make_chat(Chat, MAX_QUEUE=50_000)
    server = serve(chat._app())
    ann = Follower(server, "ann").connect()
    assert ann.peer is not None
    for number in range(6):
        data = str(number) * 20_000 + "é"
        ann.peer.ask("say", room="Lobby", data=data, mid=str(number))
    new = Peer(server, "cy").ask("join", room="Lobby")
    assert [m["seq"] for m in new["messages"]] == [6]
    assert not new["more"]
    ben = Follower(server, "ben")
    ben.at = {"after": 0, "epoch": ann.at["epoch"]}
    ben.connect()
    assert [data[0] for data in ben.data] == list("012345")


# ---- many ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_people_come_and_go_all_at_once(chat: WSChat, server: LiveServer) -> None:
    watcher = Peer(server, "watcher")
    watcher.ask("join", room="Lobby")

    def come_and_go(name: str) -> None:
        for turn in range(5):
            peer = Peer(server, name)
            for _ in range(3):
                peer.ask("join", room="Lobby")
                peer.ask("leave", room="Lobby")
            peer.ask("join", room="Lobby")
            peer.ask("join", room=name)
            if turn % 2:
                peer.client.close()
            else:
                peer.client.close_socket()

    in_threads(*[functools.partial(come_and_go, f"u{n}") for n in range(8)])
    eventually(lambda: chat.online() == ["watcher"])
    assert chat.online("Lobby") == ["watcher"]
    hub = chat._hub()
    eventually(lambda: not hub.presence.busy)
    # What was announced adds up to those who are there.
    last = chat.broadcast("end", room="Lobby")
    present: set[str] = {"watcher"}
    while True:
        event = watcher.events.pop(0) if watcher.events else watcher.hear()
        if event["type"] == "message" and event["seq"] == last:
            break
        if event["type"] == "presence":
            present = (present | set(event["joined"])) - set(event["left"])
    assert present == {"watcher"}
    assert set(hub.members.plain) == {"all"}
    assert set(hub.feeds.topics) == {"all", "room:Lobby", "user:watcher"}


def _memory() -> int:
    """Return the most bytes this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_hundred_thousand_rooms_are_cheap(chat: WSChat, server: LiveServer) -> None:
    with server.connect("/chat"):
        before = _memory()
        for number in range(100_000):
            chat.broadcast("hello", room=f"room {number}")
        hub = chat._hub()
        assert set(hub.members.plain) == {"all"}
        assert len(hub._topics._idle) == 0
    assert _memory() - before < 100_000 * 1200


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_thousands_of_rooms_are_joined_at_a_steady_rate(
    chat: WSChat, server: LiveServer
) -> None:
    """As much work for the last as for the first, wherever the messages are.

    In seconds of the processor's time, so that 1,280 tell it as well as more: what
    takes a 1,000th part more for each room that is there would be found.
    """
    took = []
    with contextlib.ExitStack() as stack:
        for number in range(16):
            client = stack.enter_context(RawClient(server))
            client.open(f"/chat?user=u{number}")
            start = time.process_time()
            for n in range(80):
                join = {"type": "join", "ref": n, "room": f"{number} {n}"}
                client.socket.sendall(client.connection.send(json.dumps(join)))
            messages = (json.loads(str(event)) for event in client.events())
            replies = (each for each in messages if each["type"] == "reply")
            assert all(reply["ok"] for reply in itertools.islice(replies, 80))
            took.append(time.process_time() - start)
        assert len(chat._hub().feeds.topics) > 1280
    first, last = min(took[:4]), min(took[-4:])
    assert last < 2 * first, (first, last)
