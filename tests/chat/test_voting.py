"""Polls: one vote for each voter, and tallies that don't flood."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest

from flask_wschat.backends import Backend
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.chat.voting import Conflated, Poll, Standing
from flask_wschat.errors import BackendError, PollClosed, PollError, UnknownChoice
from flask_wschat.messages import Message
from tests.support.waiting import DEADLINE, LONG, eventually


class House:
    """What a poll needs of a hub; keeps what is published, and when."""

    def __init__(self) -> None:
        self.backend: Backend = MemoryBackend(size=5, ttl=60)
        self.published: list[tuple[float, str, Message]] = []
        self.broken = False

    def dumps(self, data: Any) -> str:
        return json.dumps(data)

    def publish(self, topic: str, message: Message) -> None:
        if self.broken:
            raise BackendError("nobody can be told")
        self.published.append((time.monotonic(), topic, message))

    @property
    def tallies(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for _, _, message in self.published]


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def poll(house: House) -> Poll:
    return Poll(house, "Drinks", ["tea", "coffee", "water"])


def test_a_voter_has_one_vote_and_may_change_it(poll: Poll) -> None:
    assert poll.tally() == Standing({"tea": 0, "coffee": 0, "water": 0}, 0, False, 0)
    first = poll.vote("ann", "tea")
    assert (first.counts, first.total) == ({"tea": 1, "coffee": 0, "water": 0}, 1)
    poll.vote("ben", "tea")
    changed = poll.vote("ann", "water")
    assert (changed.counts, changed.total) == ({"tea": 1, "coffee": 0, "water": 1}, 2)
    assert changed.version > first.version
    assert list(changed.counts) == ["tea", "coffee", "water"]
    again = poll.vote("ann", "water")
    assert (again.counts, again.total) == (changed.counts, 2)
    assert poll.tally("ann").mine == "water"
    assert poll.tally("cy").mine is None
    # An id of any type is the text of it.
    poll.vote(7, "tea")
    assert poll.tally("7").mine == "tea"


def test_a_vote_that_cannot_count_changes_nothing(poll: Poll) -> None:
    poll.vote("ann", "tea")
    with pytest.raises(UnknownChoice, match="'beer' is none of tea, coffee, wa") as no:
        poll.vote("ann", "beer")
    assert (no.value.poll, no.value.choice) == ("Drinks", "beer")
    for nobody in (None, ""):
        with pytest.raises((TypeError, ValueError), match="a voter must"):
            poll.vote(nobody, "tea")
    assert poll.tally("ann").mine == "tea"
    assert poll.tally().total == 1


def test_a_closed_poll_takes_no_votes_until_it_is_open_again(poll: Poll) -> None:
    poll.vote("ann", "tea")
    closed = poll.close()
    assert closed.closed
    assert closed.total == 1
    with pytest.raises(PollClosed, match="'Drinks' is closed") as no:
        poll.vote("ben", "tea")
    assert isinstance(no.value, PollError)
    assert poll.tally() == closed
    opened = poll.reopen()
    assert not opened.closed
    assert opened.version > closed.version
    assert poll.vote("ben", "tea").counts["tea"] == 2


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        pytest.param("", ["a", "b"], "name must have 1 to 100", id="no-name"),
        pytest.param("x" * 101, ["a", "b"], "name must have 1 to 100", id="long-name"),
        pytest.param("a\nb", ["a", "b"], "name must be one line", id="two-lines"),
        pytest.param("p", ["a"], "2 to 100 options", id="one-option"),
        pytest.param("p", map(str, range(101)), "2 to 100 options", id="101-options"),
        pytest.param("p", ["a", "b", "a"], "an option twice", id="twice"),
        pytest.param("p", ["a", " b"], "an option must be one line", id="space"),
        pytest.param("p", ["a", 2], "an option must have", id="a-number"),
    ],
)
def test_names_and_options_are_checked(
    house: House, name: str, options: Any, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Poll(house, name, options)


def test_fifty_voters_at_once_count_once_each(house: House, poll: Poll) -> None:
    options = poll.options
    start = threading.Barrier(50)
    failed: list[BaseException] = []

    def vote(number: int) -> None:
        try:
            start.wait(DEADLINE)
            for turn in range(20):
                poll.vote(f"voter {number}", options[(number + turn) % 3])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=vote, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert failed == []
    last = Counter(options[(number + 19) % 3] for number in range(50))
    result = poll.tally()
    assert result.counts == last
    assert result.total == 50
    eventually(lambda: house.tallies[-1]["version"] == result.version)
    assert house.tallies[-1]["counts"] == result.counts


def test_tallies_are_published_ten_times_a_second_and_the_last_always(
    house: House, poll: Poll
) -> None:
    until = time.monotonic() + 0.5
    number = 0
    while time.monotonic() < until:
        number += 1
        poll.vote(f"voter {number}", "tea")
    eventually(lambda: house.tallies[-1]["total"] == number)
    times = [at for at, _, _ in house.published]
    assert len(times) <= 7
    assert all(b - a > 0.08 for a, b in itertools.pairwise(times))
    versions = [tally["version"] for tally in house.tallies]
    assert versions == sorted(set(versions))


def test_a_tally_is_published_at_once_in_the_form_of_the_wire(house: House) -> None:
    Poll(house, "All", ["a", "b"]).vote("ann", "b")
    Poll(house, "Here", ["a", "b"], room="Lobby").close()
    ((_, everyone, first), (_, room, second)) = house.published
    assert (everyone, room) == ("all", "room:Lobby")
    assert (first.event, first.key, first.json) == ("tally", "tally All", True)
    assert json.loads(first.data) == {
        "type": "tally",
        "poll": "All",
        "counts": {"a": 0, "b": 1},
        "total": 1,
        "closed": False,
        "version": 1,
    }
    assert json.loads(second.data)["closed"] is True


def test_a_vote_counts_though_nobody_can_be_told(
    house: House, poll: Poll, caplog: pytest.LogCaptureFixture
) -> None:
    house.broken = True
    assert poll.vote("ann", "tea").total == 1
    assert poll.vote("ben", "tea").total == 2
    assert [r.message for r in caplog.records] == [
        "poll 'Drinks': no tally can be sent: nobody can be told"
    ]
    house.broken = False
    eventually(lambda: house.published)
    assert house.tallies[-1]["total"] == 2


def test_a_request_while_one_is_under_way_is_not_forgotten() -> None:
    """What changes while the latest is being published leads to another call."""
    seen: list[int] = []
    value = 0
    entered, go_on = threading.Event(), threading.Event()

    def latest() -> None:
        seen.append(value)
        if value == 2:
            entered.set()
            go_on.wait(DEADLINE)

    conflated = Conflated(latest, "x")
    value = 1
    conflated.call(latest)
    value = 2
    conflated.call(latest)
    assert entered.wait(DEADLINE)
    value = 3
    conflated.call(latest)
    go_on.set()
    eventually(lambda: seen == [1, 2, 3])


def test_a_process_without_a_loop_tells_all_before_it_ends() -> None:
    """A task that votes and returns; its thread is a daemon."""
    code = """
import threading
from flask_wschat.backends import MemoryBackend
from flask_wschat.chat.voting import Poll

class House:
    backend = MemoryBackend()

    def publish(self, topic, message):
        print(message.data, flush=True)

poll = Poll(House(), "Drinks", ["tea", "coffee"])

def vote():
    for number in range(30):
        poll.vote(str(number), "tea")

thread = threading.Thread(target=vote, daemon=True)
thread.start()
thread.join()
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        timeout=DEADLINE,
    )
    totals = [json.loads(line)["total"] for line in answer.stdout.splitlines()]
    assert totals[0] == 1
    assert totals[-1] == 30
    assert len(totals) <= 3


FORKS = """
import os
from flask_wschat.chat.voting import Conflated

conflated = Conflated(lambda: None, "x")
conflated.call(lambda: None)
conflated.call(lambda: None)  # a thread of this process will
pid = os.fork()
if pid == 0:
    conflated.call(lambda: print("called", flush=True))
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_a_process_forked_off_while_a_call_is_due_calls_by_itself() -> None:
    """As gunicorn's workers are with --preload: threads stay with their parent."""
    child = subprocess.run(
        [sys.executable, "-c", FORKS], timeout=DEADLINE, stdout=subprocess.PIPE
    )
    assert child.stdout == b"called\n"


NATIVE = """
from gevent import monkey

monkey.patch_all()
import gevent
from gevent.threadpool import ThreadPool
from flask_wschat.chat.voting import Conflated

called = []
conflated = Conflated(lambda: called.append("the latest"), "x")
pool = ThreadPool(1)
for _ in range(3):
    pool.apply(conflated.call, (lambda: called.append("now"),))
with gevent.Timeout(5):
    while len(called) < 2:
        gevent.sleep(0.005)
print(called)
"""


def test_a_native_thread_of_a_patched_process_is_heard_of() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NATIVE], timeout=LONG, stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == b"['now', 'the latest']\n"
