"""Who voted for what, and the polls that are made at run time."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Protocol

from ...errors import BackendError, TooManyPolls, UnknownPoll
from ...messages import MadePoll, Tally
from ..contract import MOST_POLLS
from .wire import Arg, Call, Reply, Script, decode, encode

_LONGER = 10_000  # ms for which one stays in the list that is there no more
_FIELDS = ("id", "text", "at")


class Run(Protocol):
    def __call__(self, calls: Sequence[Call], *, again: bool) -> list[Reply]: ...


class Names(Protocol):
    """How keys are called, and the scripts that use them."""

    def key(self, topic: str, suffix: str) -> bytes: ...
    def script(self, name: str, limits: Sequence[int] = ()) -> Script: ...


class Polls:
    """Those of all processes.

    ``strange``: what to raise where what is kept of a topic makes no sense.
    """

    def __init__(
        self, run: Run, names: Names, strange: Callable[[str], BackendError]
    ) -> None:
        self._run = run
        self._key = names.key
        self._strange = strange
        self._list = names.key("polls", "polls")
        self._act = names.script("poll")
        self._make = names.script("made")
        self._note = names.script("polls")

    # -- those made at run time

    def make(self, poll: str, id: str, text: str, seconds: float) -> MadePoll:
        known = self.made(poll)
        if known is not None:
            return known
        # In a cluster the list is elsewhere. So it has the new one before that is made,
        # and for a little longer: what is in there and is not shows as one looks it up.
        ms = max(round(seconds * 1000), 1)
        item = encode(f"{id} {poll}")
        args: list[Arg] = [item, ms + _LONGER, MOST_POLLS]
        if not self._one(self._note.call([self._list], args)):
            raise TooManyPolls(poll, MOST_POLLS)
        call = self._make.call(self._keys(poll, id), [id, text, ms])
        made = self._as_made(poll, self._one(call))
        assert made is not None
        if made.id != id:  # another process was faster
            self._one(Call("ZREM", [self._list, item]))
        return made

    def made(self, poll: str) -> MadePoll | None:
        return self._as_made(poll, self._one(self._look_up(poll)))

    def all_made(self) -> list[MadePoll]:
        items = self._one(Call("ZRANGE", [self._list, 0, -1]))
        try:
            known = [decode(item).split(" ", 1) for item in items]
            calls = [self._look_up(name) for _, name in known]
        except (ValueError, TypeError) as error:
            raise self._strange("polls") from error
        replies = self._run(calls, again=True) if calls else []
        polls = [
            made
            for (id, name), reply in zip(known, replies, strict=True)
            if (made := self._as_made(name, reply)) is not None and made.id == id
        ]
        return sorted(polls, key=operator.attrgetter("at"), reverse=True)

    def delete(self, poll: str, id: str) -> bool:
        call = self._make.call(self._keys(poll, id), [id])
        deleted = bool(self._run([call], again=False)[0])
        self._one(Call("ZREM", [self._list, encode(f"{id} {poll}")]))
        return deleted

    def _look_up(self, poll: str) -> Call:
        return Call("HMGET", [self._keys(poll, "any")[0], *_FIELDS])

    def _as_made(self, poll: str, reply: Reply) -> MadePoll | None:
        try:
            id, text, at = reply
            if id is None:
                return None
            return MadePoll(poll, decode(id), decode(text), float(at))
        except (ValueError, TypeError) as error:
            raise self._strange("made:" + poll) from error

    # -- and the others as well

    def vote(self, poll: str, voter: str, choice: str, id: str) -> Tally | None:
        return self._do(poll, id, "vote", voter, choice)

    def tally(self, poll: str, voter: str | None, id: str) -> Tally:
        tally = self._do(poll, id, "look", *(() if voter is None else (voter,)))
        assert tally is not None
        return tally

    def close(self, poll: str, closed: bool, id: str) -> Tally:
        tally = self._do(poll, id, "close" if closed else "open")
        assert tally is not None
        return tally

    def _do(self, poll: str, id: str, action: str, *args: str) -> Tally | None:
        reply = self._one(self._act.call(self._keys(poll, id), [action, id, *args]))
        if reply is None:
            return None
        if reply == 0:
            raise UnknownPoll(poll)
        try:
            version, closed, mine, counts = reply
            names, numbers = map(decode, counts[::2]), map(int, counts[1::2])
            return Tally(
                dict(zip(names, numbers, strict=True)),
                version,
                bool(closed),
                None if mine is None else decode(mine),
            )
        except (ValueError, TypeError) as error:
            raise self._strange("poll:" + poll) from error

    def _keys(self, poll: str, id: str) -> list[bytes]:
        topic = ("made:" if id else "poll:") + poll
        return [self._key(topic, suffix) for suffix in ("poll", "voters", "counts")]

    def _one(self, call: Call) -> Reply:
        return self._run([call], again=True)[0]
