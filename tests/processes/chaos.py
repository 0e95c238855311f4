"""Members who talk while what serves them is killed, and what must hold at the end."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from .member import Feed, Member

Trouble = Callable[[], Awaitable[None]]

CUT_EVERY = 100
"""Acknowledged messages between two connections that are cut."""


class Talk:
    """``count`` messages of ``members``, each in turn in its rooms, under ``troubles``.

    The troubles come at even distances of acknowledged messages. No more is said than
    up to the next but one, so that none comes when all is over.
    """

    def __init__(
        self,
        members: Sequence[Member],
        count: int,
        troubles: Sequence[Trouble],
        *,
        cuts: bool = True,
    ) -> None:
        self.members = members
        self.acknowledged: dict[str, dict[str, int]] = {}
        """By room: number by mid."""
        self.cuts = 0
        self.seconds = 1e-9
        self._share = count // len(members)
        self._troubles = troubles
        self._step = count // (len(troubles) + 1)
        self._budget = asyncio.Semaphore(2 * self._step)
        self._turn = asyncio.Semaphore(0)
        self._done = 0
        self._cuts = cuts
        self._chance = random.Random(6)

    async def run(self, deadline: float) -> None:
        """Return when everything is acknowledged, and has reached everybody."""
        try:
            await asyncio.wait_for(self._run(), deadline)
        except asyncio.TimeoutError:
            raise AssertionError(f"not in {deadline} s: {self.report()}") from None

    async def _run(self) -> None:
        for member in self.members:
            member.start()
        for member in self.members:
            await member.until(member.ready.is_set, "it is connected")
        begun = time.monotonic()
        await asyncio.gather(self._trouble(), *map(self._speak, self.members))
        newest = {room: len(said) for room, said in self.acknowledged.items()}
        for member in self.members:
            for room, feed in member.feeds.items():
                done = functools.partial(_is_read, feed, newest[room])
                await member.until(done, f"the end of {room}")
        self.seconds = time.monotonic() - begun
        for member in self.members:
            await member.stop()

    async def _speak(self, member: Member) -> None:
        rooms = list(member.feeds)
        for number in range(self._share):
            await self._budget.acquire()
            room = rooms[number % len(rooms)]
            mid, seq = await member.say(room, [member.user, number])
            assert self.acknowledged.setdefault(room, {}).setdefault(mid, seq) == seq
            self._done += 1
            if self._cuts and self._done % CUT_EVERY == 0:
                self.cuts += 1
                self._chance.choice(self.members).cut()
            if self._done % self._step == 0:
                self._turn.release()

    async def _trouble(self) -> None:
        for trouble in self._troubles:
            await self._turn.acquire()
            await trouble()
            for _ in range(self._step):
                self._budget.release()
        for _ in range(self._step):  # what the division has left over
            self._budget.release()

    # -- what must hold

    def check(self) -> None:
        """Each acknowledged message was seen by all, once, in one order."""
        for room, said in self.acknowledged.items():
            seen = [m.feeds[room] for m in self.members if room in m.feeds]
            messages = seen[0].messages
            assert [m["seq"] for m in messages] == list(range(1, len(said) + 1)), room
            assert {m["mid"]: m["seq"] for m in messages} == said, room
            for feed in seen[1:]:
                assert feed.messages == messages, room
            # Who sends the next after the reply to the one before, is read in order.
            latest: Counter[str] = Counter()
            for message in messages:
                user, number = message["data"]
                assert message["from"] == user
                assert number >= latest[user], message
                latest[user] = number + 1

    def total(self, count: str) -> int:
        """Return the sum of one of the counts that feeds keep."""
        feeds = [feed for member in self.members for feed in member.feeds.values()]
        return sum(getattr(feed, count) for feed in feeds)

    def report(self) -> str:
        count = sum(map(len, self.acknowledged.values()))
        counts = ("resumed", "gaps", "jumps", "repeated", "unrecovered")
        totals = ", ".join(f"{self.total(name)} {name}" for name in counts)
        errors = Counter(error for member in self.members for error in member.errors)
        opened = sum(member.connections for member in self.members)
        closes = Counter(code for m in self.members for code, _ in m.closes)
        return (
            f"{count} messages in {self.seconds:.1f} s, {count / self.seconds:.0f}/s;"
            f" {self.cuts} cuts, {opened} connections; {totals};"
            f" errors {dict(errors)}, closes {dict(closes)}"
        )


def _is_read(feed: Feed, seq: int) -> bool:
    return feed.seq >= seq
