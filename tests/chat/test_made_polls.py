"""Polls made at run time: stored for all processes, and for a time."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from flask_wschat import Poll, TooManyPolls, UnknownPoll, WSChat
from tests.support.following import chat, in_threads, make_chat, server, url
from tests.support.live import LiveServer
from tests.support.processes import ROOT
from tests.support.waiting import LONG, eventually

from ..protocol.peers import Peer

__all__ = ["chat", "make_chat", "server", "url"]

here = pytest.mark.parametrize("url", ["memory"], indirect=True)
shared = pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
YES_NO = ["yes", "no"]
DAY = 86400


@here
def test_what_is_made_again_is_the_same(chat: WSChat) -> None:
    tea = chat.poll("Tea?", YES_NO, lasts=DAY, data={"asked by": "ann"})
    tea.vote("ann", "yes")
    again = chat.poll("Tea?", iter(YES_NO), lasts=60, data="another")
    assert again.data == {"asked by": "ann"} and again.tally("ann").mine == "yes"
    assert chat.poll("Tea?") is again, "so that its tallies are gathered"
    assert tea.at is not None and abs(time.time() - tea.at) < 60
    again.data["asked by"] = "mallory"
    assert tea.data == {"asked by": "ann"}
    for options, room in ((["no", "yes"], None), (YES_NO, "Lobby")):
        with pytest.raises(ValueError, match="made with other options or room"):
            chat.poll("Tea?", options, room=room, lasts=DAY)
    assert tea.delete()
    assert chat.poll("Tea?", ["no", "yes"], room=7, lasts=DAY).room == "7"


@here
def test_one_of_the_code_has_its_name_for_itself(chat: WSChat) -> None:
    stored = chat.poll("Tea?", YES_NO, lasts=DAY)
    stored.vote("ann", "yes")
    code = chat.poll("Tea?", YES_NO)
    assert (code.at, code.data, code.tally().total) == (None, None, 0)
    assert chat.poll("Tea?") is code
    with pytest.raises(ValueError, match="is code here, made without lasts="):
        chat.poll("Tea?", YES_NO, lasts=DAY)
    with pytest.raises(ValueError, match="is code, made without lasts="):
        code.delete()
    assert chat.polls() == [stored] and stored.tally().total == 1


@here
def test_one_that_is_gone_says_so(
    chat: WSChat, caplog: pytest.LogCaptureFixture
) -> None:
    tea = chat.poll("Tea?", YES_NO, lasts=DAY)
    for voter in ("ann", "ben"):  # of the second one it is told a little later
        tea.vote(voter, "yes")
    assert tea.delete() and not tea.delete()
    calls: list[Callable[[], object]] = [
        *(lambda: tea.vote("ann", "yes"), tea.tally, tea.close, tea.reopen),
        lambda: chat.poll("Tea?"),
    ]
    for call in calls:
        with pytest.raises(
            UnknownPoll, match=r"no poll 'Tea\?', or not any more"
        ) as no:
            call()
        assert no.value.poll == "Tea?"
    eventually(lambda: not tea._conflated._waiting)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@here
@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        ({"lasts": "60"}, TypeError, "lasts is a number of seconds, unlike '60'"),
        ({"lasts": True}, TypeError, "lasts is a number of seconds"),
        ({"lasts": 0.5}, ValueError, "from 1 to 2678400 seconds, unlike 0.5"),
        ({"lasts": 31 * DAY + 1}, ValueError, "lasts is from 1 to"),
        ({"lasts": float("nan")}, ValueError, "lasts is from 1 to"),
        ({"lasts": 10**5000}, ValueError, "lasts is from 1 to"),
        ({"lasts": 60, "data": object()}, TypeError, "not JSON serializable"),
        ({"lasts": 60, "data": float("inf")}, ValueError, "not JSON"),
        ({"lasts": 60, "data": "x" * 8191}, ValueError, "up to 8192 bytes as JSON"),
        ({"lasts": 60, "room": None, "options": "ab"}, TypeError, "a list of texts"),
        ({"lasts": 60, "options": ["a", 2]}, ValueError, "an option must have"),
        ({"lasts": 60, "options": 5}, TypeError, "a list of texts, unlike 5"),
        ({"lasts": 60, "room": object()}, TypeError, "a room must be a text"),
        ({"lasts": 60, "name": "x" * 101}, ValueError, "name must have 1 to 100"),
        ({"lasts": 60, "name": 5}, ValueError, "name must have 1 to 100"),
        ({"data": 1}, TypeError, "data is for a poll that is stored: with lasts"),
        ({"options": None, "lasts": 60}, TypeError, "with options"),
        ({"options": None, "room": "a"}, TypeError, "with options"),
        ({"options": None, "data": 0}, TypeError, "with options"),
        ({"options": None, "name": "a\nb"}, ValueError, "name must be one line"),
    ],
)
def test_what_cannot_be_made_makes_nothing(
    chat: WSChat, arguments: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        chat.poll(**{"name": "Tea?", "options": YES_NO, **arguments})
    assert chat.polls() == []


@here
def test_there_are_only_so_many(chat: WSChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_wschat.backends.polls.MOST_POLLS", 3)
    monkeypatch.setattr("flask_wschat.chat.chat._MOST_USED", 2)
    made = [chat.poll(f"Tea {n}?", YES_NO, lasts=DAY) for n in range(3)]
    with pytest.raises(TooManyPolls, match="3 polls are stored, as many as may"):
        chat.poll("Tea?", YES_NO, lasts=DAY)
    assert [poll.name for poll in chat.polls()] == [poll.name for poll in made[::-1]]
    assert len(chat._chat()._used) == 2
    made[1].delete()
    chat.poll("Tea?", YES_NO, lasts=DAY)


@here
def test_in_one_process_its_tallies_are_gathered(
    chat: WSChat, server: LiveServer
) -> None:
    chat.poll("Tea?", YES_NO, lasts=DAY)
    people = [Peer(server, f"user{n}") for n in range(4)]
    for turn in range(40):
        people[turn % 4].ask("vote", poll="Tea?", choice=YES_NO[turn // 4 % 2])
    began = time.monotonic()
    version = chat.poll("Tea?").tally().version
    tallies = [people[0].expect("tally")]
    while tallies[-1]["version"] < version:
        tallies.append(people[0].expect("tally"))
    assert len(tallies) <= 4 + 10 * (time.monotonic() - began + 1)
    assert len(tallies) < 20 or time.monotonic() > began + 1


@shared
def test_those_who_make_one_at_once_have_one(
    make_chat: Callable[..., WSChat],
) -> None:
    processes = [make_chat(), make_chat()]
    had: list[Poll] = []
    refused: list[ValueError] = []

    def make(number: int, options: list[str]) -> None:
        try:
            had.append(processes[number % 2].poll("Tea?", options, lasts=DAY))
        except ValueError as error:
            refused.append(error)

    in_threads(*[lambda n=n: make(n, YES_NO) for n in range(8)])
    assert len({poll._id for poll in had}) == 1 and len(had) == 8
    had[0].delete()
    had.clear()
    options = [YES_NO, ["maybe", *YES_NO]]
    in_threads(*[lambda n=n: make(n, options[n // 2 % 2]) for n in range(8)])
    assert len(had) == len(refused) == 4
    assert {poll.options for poll in had} == {processes[0].poll("Tea?").options}
    assert {str(error) for error in refused} == {
        "the poll 'Tea?' was made with other options or room"
    }
    assert len(processes[1].polls()) == 1


@shared
def test_of_votes_while_it_is_deleted_none_is_in_the_next(
    make_chat: Callable[..., WSChat],
) -> None:
    processes = [make_chat(), make_chat()]
    first = processes[0].poll("Tea?", YES_NO, lasts=DAY)
    late: list[str] = []
    counted: dict[str, list[str]] = {first._id: []}

    def vote(number: int) -> None:
        process = processes[number % 2]
        for turn in range(12):
            voter = f"voter {number}.{turn}"
            try:
                poll = process.poll("Tea?")
                poll.vote(voter, "yes")
            except UnknownPoll:
                late.append(voter)
            else:
                counted.setdefault(poll._id, []).append(voter)

    def replace() -> None:
        eventually(lambda: len(counted[first._id]) > 9)
        assert processes[1].poll("Tea?").delete()
        processes[1].poll("Tea?", YES_NO, lasts=DAY)

    in_threads(replace, *[lambda n=n: vote(n) for n in range(4)])
    second = processes[0].poll("Tea?")
    assert second._id != first._id
    assert second.tally().total == len(counted.get(second._id, []))
    assert sum(map(len, counted.values())) + len(late) == 48
    with pytest.raises(UnknownPoll):
        first.tally()
    for process in processes:
        process._chat().settle_polls()


VOTES = """
import sys
from flask_wschat import WSChat

with WSChat.publisher(sys.argv[1]) as there:
    tea = there.poll("Tea?")
    print(tea.vote("task", "no").total, tea.data, len(there.polls()))
    lunch = there.poll("Lunch", ["soup", "salad"], room="Lobby", lasts=60, data=[1])
    lunch.vote("task", "soup")
    tea.close()
"""


@pytest.mark.slow
@shared
def test_another_process_votes_and_makes_one(
    chat: WSChat, server: LiveServer, url: str
) -> None:
    ann = Peer(server, "ann")
    ann.ask("join", room="Lobby")
    tea = chat.poll("Tea?", YES_NO, lasts=DAY, data={"q": "Tea?"})
    task = subprocess.run(
        [sys.executable, "-c", VOTES, url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert (task.stderr, task.stdout) == ("", "1 {'q': 'Tea?'} 1\n")
    assert ann.expect("tally", poll="Tea?")["counts"] == {"yes": 0, "no": 1}
    assert ann.expect("tally", poll="Lunch")["total"] == 1
    assert ann.expect("tally", poll="Tea?", closed=True)["total"] == 1
    assert ann.fail("vote", poll="Tea?", choice="yes")["code"] == "poll_closed"
    tea.reopen()
    assert ann.ask("vote", poll="Tea?", choice="yes")["total"] == 2
    assert ann.ask("poll", poll="Lunch")["options"] == ["soup", "salad"]
    assert [(p.name, p.data) for p in chat.polls()] == [
        *(("Lunch", [1]), ("Tea?", json.loads('{"q": "Tea?"}')))
    ]
