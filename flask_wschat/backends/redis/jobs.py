"""Commands that go to Redis together, and who is told what comes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from .wire import Arg, Call, LinkError, Reply, ReplyError, code_of

logger = logging.getLogger("flask_wschat")

Outcome = list[Reply] | LinkError | ReplyError


class Anew(Protocol):
    """What can be told to use a new connection."""

    def reset(self) -> None: ...


class Job:
    """Commands that go together, and who is told of their replies.

    ``again``: they may be sent twice, though the first ones may have arrived. ``done``
    must not wait.
    """

    __slots__ = ("_done", "again", "calls", "count", "replies", "tried", "until")

    gathers = False
    """Whether it takes in more until it is packed."""

    def __init__(
        self, calls: Sequence[Call], done: Callable[[Outcome], None], *, again: bool
    ) -> None:
        self.calls = calls
        self.again = again
        self._done = done
        self.tried = 0
        self.until = 0.0
        """When it is too late, by the monotonic clock."""
        self.count = 0
        """How many replies there will be, once it is packed."""
        self.replies: list[Reply] = []

    @property
    def key(self) -> Arg | None:
        """What it is about; None: nothing of its own."""
        return self.calls[0].key

    def pack(self) -> bytes:
        """Return what to send. Called for each attempt."""
        self.count = len(self.calls)
        self.replies = []
        if self.count == 1:
            return self.calls[0].packed
        return b"".join([call.packed for call in self.calls])

    def settle(self, pipe: Anew, outcome: Outcome) -> Job | None:
        """Take the replies, or why there are none. Does not wait.

        Return what is to be sent before all that waits; None: there is nothing more.
        """
        if isinstance(outcome, list):
            refused = [reply for reply in outcome if isinstance(reply, ReplyError)]
            if refused:
                unseen = [
                    index
                    for index, call in enumerate(self.calls)
                    if call.scripted and code_of(outcome[index]) == "NOSCRIPT"
                ]
                if unseen:
                    return _Whole(self, outcome, unseen)
                outcome = refused[0]
        if isinstance(outcome, Exception) and self.goes_again(pipe, outcome):
            return self
        self._done(outcome)
        return None

    def goes_again(self, pipe: Anew, error: LinkError | ReplyError) -> bool:
        """Whether it is to be sent once more after ``error``."""
        self.tried += 1
        if self.tried > 1:
            return False
        if isinstance(error, LinkError):
            return not error.silent and (self.again or not error.sent)
        if code_of(error) != "READONLY":
            return False
        pipe.reset()  # there may be a new primary behind the name
        return True


class _Whole(Job):
    """The scripts of a job that Redis had not seen, in their longer form."""

    __slots__ = ("_first", "_job", "_unseen")

    def __init__(self, job: Job, first: list[Reply], unseen: list[int]) -> None:
        super().__init__([job.calls[i] for i in unseen], job._done, again=job.again)
        self._job = job
        self._first = first
        self._unseen = unseen
        self.tried = job.tried
        self.until = job.until

    def pack(self) -> bytes:
        self.count = len(self.calls)
        self.replies = []
        return b"".join([call.whole() for call in self.calls])

    def settle(self, pipe: Anew, outcome: Outcome) -> Job | None:
        if not isinstance(outcome, list):
            return self._job.settle(pipe, outcome)
        for index, reply in zip(self._unseen, outcome, strict=True):
            if code_of(reply) == "NOSCRIPT":
                reply = ReplyError("it forgets scripts at once")
            self._first[index] = reply
        return self._job.settle(pipe, self._first)


class Confirmed(Job):
    """Jobs whose replies count once so many replicas have what was done."""

    __slots__ = ("_jobs", "_replicas", "_wait")

    def __init__(self, jobs: list[Job], replicas: int, wait: Call) -> None:
        super().__init__((), nothing, again=True)
        self._jobs = jobs
        self._replicas = replicas
        self._wait = wait
        self.until = jobs[0].until

    def pack(self) -> bytes:
        parts = [job.pack() for job in self._jobs]
        self.count = sum(job.count for job in self._jobs) + 1
        self.replies = []
        return b"".join(parts) + self._wait.packed

    def settle(self, pipe: Anew, outcome: Outcome) -> Job | None:
        lack: LinkError | None = None
        if isinstance(outcome, list):
            lack = self._lack(outcome.pop())
        again = []
        for job in self._jobs:
            own = outcome
            if isinstance(outcome, list):
                own, outcome = outcome[: job.count], outcome[job.count :]
                if lack is not None and not any(map(code_of, own)):
                    own = lack
            more = settled(pipe, job, own)
            if more is not None:
                again.append(more)
        return Confirmed(again, self._replicas, self._wait) if again else None

    def _lack(self, have: Reply) -> LinkError | None:
        if isinstance(have, int) and have >= self._replicas:
            return None
        why = (
            f"could not say in time that a replica has the message: {have} of"
            f" {self._replicas} (WSCHAT_REDIS_WAIT)"
        )
        return LinkError(why, sent=True, silent=True, alone=True)


def nothing(outcome: Outcome) -> None:
    pass


def settled(pipe: Anew, job: Job, outcome: Outcome) -> Job | None:
    """Settle ``job``, whatever its caller makes of it."""
    try:
        return job.settle(pipe, outcome)
    except Exception:
        logger.exception("error in what waited for Redis")
        return None
