"""How polls stand, as one process knows of them: the memory backend's."""

from __future__ import annotations

import time

from ..errors import TooManyPolls, UnknownPoll
from ..messages import MadePoll, Tally
from .contract import MOST_POLLS


class _Poll:
    __slots__ = ("closed", "counts", "version", "votes")

    def __init__(self, version: int = 0) -> None:
        self.votes: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.version = version
        self.closed = False

    def tally(self, voter: str | None = None) -> Tally:
        mine = None if voter is None else self.votes.get(voter)
        return Tally(dict(self.counts), self.version, self.closed, mine)


class _Made(_Poll):
    """One made at run time, which is here ``until`` then, by a clock that goes on."""

    __slots__ = ("made", "until")

    def __init__(self, made: MadePoll, until: float) -> None:
        super().__init__(int(made.at * 1e6))
        self.made = made
        self.until = until


class Polls:
    """By name. Who calls holds a lock."""

    def __init__(self) -> None:
        self._polls: dict[str, _Poll] = {}
        self._made: dict[str, _Made] = {}

    # -- those made at run time

    def make(self, name: str, id: str, text: str, seconds: float) -> MadePoll:
        self.forget()
        known = self._made.get(name)
        if known is None:
            if len(self._made) >= MOST_POLLS:
                raise TooManyPolls(name, MOST_POLLS)
            made = MadePoll(name, id, text, time.time())
            known = self._made[name] = _Made(made, time.monotonic() + seconds)
        return known.made

    def made(self, name: str) -> MadePoll | None:
        known = self._made.get(name)
        return None if known is None or _is_over(known) else known.made

    def all_made(self) -> list[MadePoll]:
        self.forget()
        return [known.made for known in reversed(self._made.values())]

    def delete(self, name: str, id: str) -> bool:
        made = self.made(name)
        if made is None or made.id != id:
            return False
        del self._made[name]
        return True

    def forget(self) -> None:
        """Let go of those whose time is over."""
        for name in [name for name, known in self._made.items() if _is_over(known)]:
            del self._made[name]

    # -- and the others as well

    def vote(self, poll: str, voter: str, choice: str, id: str) -> Tally | None:
        state = self._state(poll, id)
        if state.closed:
            return None
        counts, earlier = state.counts, state.votes.get(voter)
        if earlier != choice:
            state.votes[voter] = choice
            counts[choice] = counts.get(choice, 0) + 1
            if earlier is not None:
                counts[earlier] -= 1
                if not counts[earlier]:
                    del counts[earlier]
            state.version += 1
        return state.tally(voter)

    def tally(self, poll: str, voter: str | None, id: str) -> Tally:
        state = self._state(poll, id) if id else self._polls.get(poll, _Poll())
        return state.tally(voter)

    def close(self, poll: str, closed: bool, id: str) -> Tally:
        state = self._state(poll, id)
        if state.closed != closed:
            state.closed = closed
            state.version += 1
        return state.tally()

    def _state(self, poll: str, id: str) -> _Poll:
        if not id:
            return self._polls.setdefault(poll, _Poll())
        made = self.made(poll)
        if made is None or made.id != id:
            raise UnknownPoll(poll)
        return self._made[poll]


def _is_over(poll: _Made) -> bool:
    return time.monotonic() >= poll.until
