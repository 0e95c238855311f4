"""Who is there, and how a poll stands, under kills and cuts: do all agree at the end?

    python -m tests.scale.people [--seeds 10] [--backend redis sqlite]

People come, go, lose the network and vote, each in an order of chance, while workers
are killed and, with Redis, its connections are cut or swallowed. In the end everybody's
list of who is there is that of those who are there, each vote is the last that its
voter was told of, and the history of the poll could have happened one step after the
other: its version never falls from the end of one request to the begin of another.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rooms.crowd import Crowd, Member, allow_descriptors
from benchmarks.rooms.relay import RelayProcess
from tests.processes.app import OPTIONS
from tests.processes.cluster import Cluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import LONG, eventually

from .failovers import LONGEST, Work

ROOM, POLL = "Lobby", "Biscuits"
PEOPLE = 24
"""Two connections are of one user, of a third of them."""
QUICK = {"PING_INTERVAL": 2, "PING_TIMEOUT": 1}
"""With these a silent process has nobody after three seconds."""
STEPS = 150.0
"""Of all of them, in a second."""
AGREES = 15.0
"""Seconds in which all must agree: the silence of the dead, and some more."""


class Vote(NamedTuple):
    began: float
    ended: float
    version: int
    counts: tuple[tuple[str, int], ...]


@dataclass
class Outcome:
    seed: int
    backend: str
    steps: Counter[str] = field(default_factory=Counter)
    votes: int = 0
    agreed: float = 0.0
    """Seconds until all lists of who is there were right."""
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        steps = ", ".join(f"{count} {name}" for name, count in self.steps.items())
        return (
            f"{self.backend} seed {self.seed:2}: {steps}; {self.votes} votes; agreed"
            f" after {self.agreed:.1f} s at most, all in {self.seconds:.0f} s;"
            f" {'; '.join(self.problems[:4]) or 'holds'}"
        )


class Person:
    """One client, what it does, and what came of its votes."""

    def __init__(self, member: Member, chance: random.Random, votes: bool) -> None:
        self.member = member
        self.votes = votes
        self.history: list[Vote] = []
        self.last: str | None = None
        self.busy = False
        self._chance = chance

    @property
    def here(self) -> bool:
        return self.member.wanted

    def step(self, steps: Counter[str]) -> None:
        """Do something by chance."""
        if self.busy:
            return
        if not self.here:
            steps["comings"] += 1
            self._come()
            return
        if self._chance.random() < 0.6 and self.votes:
            self.vote(self._chance.choice(OPTIONS))
            return
        name = self._chance.choice(("leavings", "cuts", "goings"))
        steps[name] += 1
        if name == "leavings":
            self.member.leave()
        elif name == "cuts":
            self.member.cut()
        else:
            self.member.close()

    def _come(self) -> None:
        member = self.member
        member.wanted = True
        if member.open:
            member.join()
        elif member.sock is None:
            member.crowd.queue(member)

    def vote(self, choice: str) -> None:
        """Vote until it is told to count."""
        self.busy = True
        began = time.monotonic()

        def counted(reply: dict[str, Any]) -> None:
            self.busy = False
            self.last = choice
            counts = tuple(sorted(reply["counts"].items()))
            vote = Vote(began, time.monotonic(), reply["version"], counts)
            self.history.append(vote)

        self.member.insist("vote", counted, poll=POLL, choice=choice)


@contextlib.contextmanager
def place(backend: str, folder: Path) -> Iterator[tuple[str, RelayProcess | None]]:
    """Yield the URL of a fresh storage, and what stands before it."""
    if backend == "sqlite":
        yield f"sqlite:///{folder}/chat.db", None
        return
    with RedisServer() as redis, RelayProcess(redis.port) as relay:
        yield f"redis://127.0.0.1:{relay.port}/0", relay


def run(
    seed: int,
    backend: str,
    *,
    workers: int = 3,
    troubles: int = 6,
    seconds: float = 1.5,
) -> Outcome:
    """Return what became of it; ``seconds`` are between two troubles."""
    chance = random.Random(seed)
    outcome = Outcome(seed, backend)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="wschat-people-") as name,
        place(backend, Path(name)) as (url, relay),
        Cluster(url, Path(name), workers, **QUICK) as cluster,
        contextlib.closing(Crowd(hears=True)) as crowd,
    ):
        port = int(cluster.address.split(":")[2].split("/")[0])
        for number in range(PEOPLE):
            double = number % 3 == 2
            crowd.add(1, [port], ROOM, f"user {number - double}")
        people = [
            Person(member, chance, number % 3 != 2)
            for number, member in enumerate(crowd.members)
        ]
        assert crowd.run(lambda: crowd.joined == PEOPLE, LONGEST), crowd.count
        on = [True]

        def go_on(_: object) -> None:
            if on[0]:
                chance.choice(people).step(outcome.steps)
                crowd.later(chance.expovariate(STEPS), go_on, None)

        kinds = ["nothing", "kill"]
        if relay is not None:
            kinds += ["cut", "deaf", "hole"]
        chosen = ["kill", *(chance.choice(kinds) for _ in range(troubles - 1))]
        chance.shuffle(chosen)
        for kind in chosen:
            on[0] = True
            go_on(None)
            crowd.rest(seconds / 2)
            outcome.steps[kind] += 1
            work = Work(functools.partial(_trouble, kind, relay, cluster))
            work.start()
            crowd.run(work.is_over, LONGEST)
            work.end()
            crowd.rest(seconds / 2)
            on[0] = False
            _agree(crowd, people, outcome)
            if outcome.problems:
                break
        _check_poll(crowd, people, outcome)
        outcome.counts = crowd.count
        if "Traceback" in cluster.log:
            outcome.problems.append("a traceback: " + cluster.log[-2000:])
    outcome.seconds = time.monotonic() - began
    return outcome


def _trouble(kind: str, relay: RelayProcess | None, cluster: Cluster) -> None:
    if kind == "nothing":
        return
    if relay is None or kind == "kill":
        cluster.kill()
        eventually(cluster.is_whole, "a new worker serves", LONG)
    elif kind == "cut":
        relay.tell("cut 0.2")
    elif kind == "deaf":
        relay.tell("cut-subscribed 0.2")
    else:
        relay.tell("hole")
        time.sleep(1)
        relay.tell("pass")


def _agree(crowd: Crowd, people: list[Person], outcome: Outcome) -> None:
    """Wait until all is quiet, and compare what everybody knows."""
    problem = outcome.problems.append
    there = [person for person in people if person.here]
    done = crowd.run(
        lambda: all(p.member.joined for p in there) and not any(p.busy for p in people),
        LONGEST,
    )
    if done is None:
        problem("not everybody is back in time, or has voted")
        return
    users = {person.member.user for person in there}

    def wrong() -> list[Person]:
        return [person for person in there if person.member.roster != users]

    agreed = crowd.run(lambda: not wrong(), AGREES)
    outcome.agreed = max(outcome.agreed, AGREES if agreed is None else agreed)
    for person in wrong():
        more, less = person.member.roster - users, users - person.member.roster
        problem(f"{person.member.user} sees {sorted(more)} and not {sorted(less)}")
    _ask_all(crowd, there, users, outcome)


def _ask_all(
    crowd: Crowd, there: list[Person], users: set[str], outcome: Outcome
) -> None:
    """Have everybody ask who is there."""
    replies: list[dict[str, Any]] = []
    for person in there:
        person.member.insist("who", replies.append, room=ROOM)
    crowd.run(lambda: len(replies) == len(there), LONGEST)
    for reply in replies:
        if set(reply["present"]) != users or reply.get("count", len(users)) != len(
            users
        ):
            outcome.problems.append(f"who: {reply['present']}, and not {sorted(users)}")


def _check_poll(crowd: Crowd, people: list[Person], outcome: Outcome) -> None:
    problem = outcome.problems.append
    there = [person for person in people if person.here]
    voters = [person for person in people if person.last is not None]
    standings: list[tuple[Person, dict[str, Any]]] = []
    for person in there:

        def told(reply: dict[str, Any], person: Person = person) -> None:
            standings.append((person, reply))

        person.member.insist("poll", told, poll=POLL)
    crowd.run(lambda: len(standings) == len(there), LONGEST)
    counts = {option: 0 for option in OPTIONS}
    for person in voters:
        assert person.last is not None
        counts[person.last] += 1
    for person, standing in standings:
        if standing["counts"] != counts or standing["total"] != len(voters):
            problem(f"{standing['counts']} are counted, and {counts} were told")
        if person.votes and standing["mine"] != person.last:
            problem(f"{person.member.user}: {standing['mine']}, not {person.last}")
    history = [vote for person in people for vote in person.history]
    outcome.votes = len(history)
    # A version says one thing, whoever is told of it.
    known: dict[int, tuple[tuple[str, int], ...]] = {}
    tallies = [tally for person in people for tally in person.member.tallies]
    said = [(vote.version, vote.counts) for vote in history]
    said += [(t["version"], tuple(sorted(t["counts"].items()))) for t in tallies]
    for version, found in said:
        if known.setdefault(version, found) != found:
            problem(f"version {version} is {known[version]} and {found}")
    # What begins after another has ended has not the older version.
    ends = sorted((vote.ended, vote.version) for vote in history)
    newest = list(itertools.accumulate((version for _, version in ends), max))
    at = 0
    for vote in sorted(history):
        while at < len(ends) and ends[at][0] < vote.began:
            at += 1
        if at and vote.version < newest[at - 1]:
            problem(f"version {vote.version} was told after {newest[at - 1]}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Presence and polls under kills.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--backend", nargs="+", default=["redis", "sqlite"])
    options = parser.parse_args()
    allow_descriptors()
    good = True
    for backend in options.backend:
        for seed in range(options.first, options.first + options.seeds):
            outcome = run(seed, backend)
            good &= not outcome.problems
            print(outcome.line(), flush=True)
    print("all hold" if good else "something does not hold")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
