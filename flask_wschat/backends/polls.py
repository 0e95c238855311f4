"""How polls stand, as one process knows of them: the memory backend's."""

from __future__ import annotations

from ..messages import Tally


class _Poll:
    __slots__ = ("closed", "counts", "version", "votes")

    def __init__(self) -> None:
        self.votes: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.version = 0
        self.closed = False

    def tally(self, voter: str | None = None) -> Tally:
        mine = None if voter is None else self.votes.get(voter)
        return Tally(dict(self.counts), self.version, self.closed, mine)


class Polls:
    """By name. Who calls holds a lock."""

    def __init__(self) -> None:
        self._polls: dict[str, _Poll] = {}

    def vote(self, poll: str, voter: str, choice: str) -> Tally | None:
        state = self._polls.setdefault(poll, _Poll())
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

    def tally(self, poll: str, voter: str | None = None) -> Tally:
        return self._polls.get(poll, _Poll()).tally(voter)

    def close(self, poll: str, closed: bool) -> Tally:
        state = self._polls.setdefault(poll, _Poll())
        if state.closed != closed:
            state.closed = closed
            state.version += 1
        return state.tally()
