"""What is said and heard: each request, each reply, each event."""

from __future__ import annotations

import threading

import pytest
from flask import Flask

from flask_wschat import WSChat
from flask_wschat.messages import Message
from tests.support.live import LiveServer
from tests.support.waiting import DEADLINE

from .peers import Meet


@pytest.mark.pain(20)
def test_hello(meet: Meet) -> None:
    hello = meet("ann").hello
    assert (hello["type"], hello["protocol"], hello["user"]) == ("hello", 1, "ann")
    assert hello["ping"] == 25
    assert hello["limits"]["message"] == 100_000
    assert meet().hello["user"] is None


def test_a_ping_is_answered(meet: Meet) -> None:
    assert meet().ask("ping")["ok"]
    ann = meet("ann", "Lobby")
    assert ann.ask("ping")["ok"]
    assert ann.events == []


def test_what_is_said_reaches_all_and_is_in_each_page(meet: Meet) -> None:
    ann, ben = meet("ann", "Lobby"), meet("ben", "Lobby")
    assert ann.expect("presence", joined=["ben"])["left"] == []
    values = ["text", 1.5, None, True, [1, "a"], {"text": "a\nb", "ü": {}}]
    for number, value in enumerate(values, 1):
        reply = ann.ask("say", room="Lobby", data=value, mid=f"m{number}")
        assert reply["seq"] == number
        for peer in (ann, ben):
            message = peer.expect("message")
            assert (message["room"], message["seq"]) == ("Lobby", number)
            assert (message["from"], message["mid"]) == ("ann", f"m{number}")
            assert (message["data"], message["at"]) == (value, reply["at"])
    page = meet("cy").ask("join", room="Lobby")
    assert [m["data"] for m in page["messages"]] == values
    assert (page["seq"], page["present"]) == (6, ["ann", "ben", "cy"])
    assert not page["recovered"]
    assert not page["more"]
    assert ben.ask("who", room="Lobby")["present"] == ["ann", "ben", "cy"]
    history = ben.ask("history", room="Lobby", before=3, limit=1)
    assert [m["data"] for m in history["messages"]] == [1.5]
    assert (history["epoch"], history["seq"]) == (page["epoch"], 6)
    assert ben.ask("history", room="Lobby", before=1)["messages"] == []
    assert ben.ask("history", room="Lobby", limit=10**6)["messages"] == page["messages"]


def test_what_the_application_says(meet: Meet, chat: WSChat) -> None:
    ann = meet("ann", "Lobby")
    chat.broadcast("text", room="Lobby")
    chat.broadcast({"a": [1]}, room="Lobby")
    chat.broadcast(b"\x00\xff", room="Lobby")
    chat.broadcast("typing", room="Lobby", key="typing")
    got = [ann.expect("message") for _ in range(4)]
    assert [m["data"] for m in got] == ["text", {"a": [1]}, "AP8=", "typing"]
    assert [m["seq"] for m in got] == [1, 2, 3, 0]
    assert [m.get("binary") for m in got] == [None, None, True, None]
    assert {(m["from"], m["mid"]) for m in got} == {(None, None)}
    assert ann.ask("history", room="Lobby")["messages"] == got[:3]
    ann.ask("inbox")
    chat.send_to_user("ann", "psst")
    direct = ann.expect("direct")
    assert (direct["from"], direct["to"], direct["data"]) == (None, "ann", "psst")
    chat.broadcast("to everybody")
    message = ann.expect("message")
    assert (message["room"], message["seq"]) == (None, 0)
    assert message["data"] == "to everybody"


def test_who_comes_back_reads_on_page_after_page(meet: Meet) -> None:
    ann = meet("ann", "Lobby")
    first = meet("ben").ask("join", room="Lobby")
    size = ann.hello["limits"]["page"]
    for number in range(1, size + 11):
        ann.put("say", room="Lobby", data=number, mid=str(number))
    while ann.expect("message")["seq"] < size + 10:
        pass
    ben, got = meet("ben"), []
    at = {"after": 0, "epoch": first["epoch"]}
    page = ben.ask("join", room="Lobby", **at)
    assert (page["recovered"], page["more"], len(page["messages"])) == (
        True,
        True,
        size,
    )
    # Nothing live comes in between, but with the next page or after it.
    ann.put("say", room="Lobby", data="live", mid="live")
    ann.expect("message", data="live")
    got += page["messages"]
    page = ben.ask("join", room="Lobby", after=size, epoch=first["epoch"])
    got += page["messages"]
    assert (page["recovered"], page["more"]) == (True, False)
    assert [m["seq"] for m in got] == list(range(1, size + 12))
    assert ben.events == []
    ann.put("say", room="Lobby", data="later", mid="later")
    assert ben.expect("message")["seq"] == size + 12


@pytest.mark.pain(15)
def test_what_cannot_be_had_is_said(meet: Meet, app: Flask) -> None:
    ann = meet("ann", "Lobby")
    ann.ask("say", room="Lobby", data=1, mid="1")
    epoch = ann.ask("join", room="Lobby")["epoch"]
    ben = meet("ben")
    for at in ({"after": 0, "epoch": "other"}, {"after": 7, "epoch": epoch}):
        page = ben.ask("join", room="Lobby", **at)
        assert not page["recovered"]
        assert not page["more"]
        assert [m["data"] for m in page["messages"]] == [1]


def missed(app: Flask, topic: str, count: int) -> None:
    """Let so many messages be said while the process hears nothing of a topic."""
    hub = app.extensions["wschat.hub"]
    hub.backend.unsubscribe([topic])
    for number in range(count):
        hub.backend.publish(topic, Message(str(number)), keep=True)
    hub.backend.subscribe([topic])
    hub.lost([topic])


def test_a_gap_is_told_and_nothing_more_until_the_next_join(
    meet: Meet, app: Flask
) -> None:
    ann, ben = meet("ann", "Lobby"), meet("ben", "Lobby")
    ann.ask("inbox")
    epoch = ann.ask("join", room="Lobby")["epoch"]
    for topic in ("room:Lobby", "user:ann"):
        missed(app, topic, 300)  # more than are kept
    gaps = [ann.expect("gap")["room"] for _ in "12"]
    assert set(gaps) == {"Lobby", None}
    ben.ask("say", room="Lobby", data="meanwhile", mid="1")
    ben.ask("tell", to="ann", data="psst", mid="2")
    page = ann.ask("join", room="Lobby", after=300, epoch=epoch)
    assert [m["data"] for m in page["messages"]] == ["meanwhile"]
    assert page["recovered"]
    assert ann.ask("inbox")["messages"][-1]["data"] == "psst"
    assert [e for e in ann.events if e["type"] in ("message", "direct")] == []


def test_what_the_process_missed_is_sent_on(meet: Meet, app: Flask) -> None:
    ann, ben = meet("ann", "Lobby"), meet("ben", "Lobby")
    ben.ask("say", room="Lobby", data="before", mid="1")
    missed(app, "room:Lobby", 200)
    ben.ask("say", room="Lobby", data="after", mid="2")
    heard = [ann.expect("message") for _ in range(202)]
    assert [m["seq"] for m in heard] == list(range(1, 203))
    assert [m["data"] for m in heard[:2]] == ["before", "0"]
    assert heard[-1]["data"] == "after"


def test_a_repeated_mid_is_stored_once(meet: Meet) -> None:
    ann, ben = meet("ann", "Lobby"), meet("ben", "Lobby")
    first = ann.ask("say", room="Lobby", data="once", mid="1")
    again = meet("ann", "Lobby").ask("say", room="Lobby", data="once", mid="1")
    assert again["seq"] == first["seq"] == 1
    # The mid is the sender's own.
    assert ben.ask("say", room="Lobby", data="mine", mid="1")["seq"] == 2
    assert [ben.expect("message")["data"] for _ in "12"] == ["once", "mine"]
    told = ann.ask("tell", to="ben", data="once", mid="2")
    assert ann.ask("tell", to="ben", data="once", mid="2")["seq"] == told["seq"]
    assert len(ben.ask("inbox")["messages"]) == 1


def test_what_is_told_reaches_both_in_all_their_tabs(meet: Meet) -> None:
    ann, tab, ben = meet("ann"), meet("ann"), meet("ben")
    for peer in (ann, tab, ben):
        assert peer.ask("inbox")["messages"] == []
    reply = ann.ask("tell", to="ben", data={"text": "psst"}, mid="1")
    for peer in (ann, tab, ben):
        direct = peer.expect("direct")
        assert (direct["from"], direct["to"], direct["mid"]) == ("ann", "ben", "1")
        assert (direct["data"], direct["seq"]) == ({"text": "psst"}, 1)
    assert reply["seq"] == 1
    # To oneself there is one; to somebody away it waits.
    ann.ask("tell", to="ann", data="note", mid="2")
    assert [ann.expect("direct")["seq"]] == [2]
    ann.ask("tell", to="cy", data="later", mid="3")
    cy = meet("cy").ask("inbox")
    assert [m["data"] for m in cy["messages"]] == ["later"]
    page = tab.ask("inbox", after=1, epoch=ann.ask("inbox")["epoch"])
    assert [m["data"] for m in page["messages"]] == ["note", "later"]
    assert page["recovered"]


def test_presence_is_of_users(meet: Meet) -> None:
    ann, ben, tab = meet("ann", "Lobby"), meet("ben", "Lobby"), meet("ben", "Lobby")
    meet("", "Lobby")
    ann.expect("presence", joined=["ben"])
    ben.client.close()
    tab.ask("leave", room="Lobby")
    tab.ask("leave", room="Lobby")
    tab.ask("leave", room="never joined")
    change = ann.expect("presence")
    assert (change["joined"], change["left"]) == ([], ["ben"])
    assert ann.ask("who", room="Lobby")["present"] == ["ann"]


def test_votes(meet: Meet, chat: WSChat) -> None:
    ann, ben = meet("ann"), meet("ben")
    assert ann.ask("poll", poll="Drinks")["mine"] is None
    reply = ann.ask("vote", poll="Drinks", choice="tea")
    assert (reply["counts"], reply["total"]) == ({"tea": 1, "coffee": 0}, 1)
    assert not reply["closed"]
    tally = ben.expect("tally")
    assert (tally["poll"], tally["counts"]) == ("Drinks", reply["counts"])
    ben.ask("vote", poll="Drinks", choice="coffee")
    assert ann.expect("tally", total=2)["version"] > tally["version"]
    standing = ann.ask("poll", poll="Drinks")
    assert (standing["mine"], standing["total"]) == ("tea", 2)
    assert standing["options"] == ["tea", "coffee"]
    assert meet().ask("poll", poll="Drinks")["mine"] is None


def test_subprotocol(server: LiveServer) -> None:
    for offered in (["wschat.v1.json"], ["other", "wschat.v1.json"]):
        with server.connect("/chat", subprotocols=offered) as client:
            assert client.subprotocol == "wschat.v1.json"
    with server.connect("/chat") as client:
        assert client.subprotocol is None


@pytest.mark.parametrize("chat", [{"WSCHAT_HISTORY_SIZE": 2000}], indirect=True)
def test_who_comes_and_goes_while_others_talk_misses_nothing(meet: Meet) -> None:
    """Again and again over from the history to what is live, at full rate."""
    ann, count = meet("ann", "Lobby"), 1500
    ahead = threading.Semaphore(150)  # else all is said before the second turn

    def talk() -> None:
        for number in range(1, count + 1):
            ahead.acquire(timeout=DEADLINE)
            ann.put("say", room="Lobby", data=number, mid=str(number))

    ben = meet("ben")
    page = ben.ask("join", room="Lobby")
    seq, epoch, turns = page["seq"], page["epoch"], 0
    talking = threading.Thread(target=talk)
    talking.start()
    while seq < count:
        # A few live ones; then away, and back on a new connection.
        while seq < count and seq % 40 != 39:
            message = ben.expect("message")
            seq += 1
            ahead.release()
            assert (message["seq"], message["data"]) == (seq, seq)
        ben.client.close()
        ben, more, turns = meet("ben"), True, turns + 1
        while more:
            page = ben.ask("join", room="Lobby", after=seq, epoch=epoch)
            assert page["recovered"]
            for message in page["messages"]:
                seq += 1
                ahead.release()
                assert (message["seq"], message["data"]) == (seq, seq)
            more = page["more"]
    talking.join(DEADLINE)
    assert turns > 1
