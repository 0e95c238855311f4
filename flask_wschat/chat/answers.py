"""``Answers``: replies in the order of the requests, though some are known later.

Who stores something waits for nothing: the storage calls back, and the reply is sent
once all that was asked before has its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ..incoming import INBOX_LIMIT
from ..messages import Receipt
from ..transports import Event
from ..websocket import WebSocket

MOST = 64
"""Requests of one connection that may be under way; what follows stays unread."""

Outcome = Receipt | Exception
Step = Callable[["Answer", Outcome], str | None]
"""Makes a reply of an outcome; None: the same ``Answer`` waits for another outcome."""


class Answer:
    """One request's; to be called with what became of it, from whichever thread."""

    __slots__ = ("_answers", "outcome", "size", "step")

    def __init__(
        self, answers: Answers, step: Step | None, outcome: Outcome | str | None
    ) -> None:
        self._answers = answers
        self.step = step  # None: the outcome is the reply
        self.outcome = outcome
        self.size = 0

    def __call__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._answers.go_on()

    def take(self) -> str | None:
        """Return the reply; None: it is not known yet. In the loop."""
        outcome = self.outcome
        if outcome is None or isinstance(outcome, str):
            return outcome
        self.outcome = None
        assert self.step is not None
        return self.step(self, outcome)


class Answers:
    """Those of one connection, which asks in one thread at a time.

    ``event`` makes what a thread or greenlet waits for, as ``Hub.event``.
    """

    __slots__ = (
        *("_answered", "_asked", "_at_it", "_bytes_answered", "_bytes_asked"),
        *("_event", "_idle", "_waiting", "_ws"),
    )

    def __init__(self, ws: WebSocket, event: Callable[[], Event]) -> None:
        self._ws = ws
        self._event = event
        self._waiting: list[Answer] = []  # in the loop only
        self._at_it = False
        self._idle: Event | None = None
        # Who asks changes the first ones, the loop the others: no lock is needed.
        self._asked = self._bytes_asked = 0
        self._answered = self._bytes_answered = 0

    @property
    def under_way(self) -> int:
        """How many requests have no reply yet."""
        return self._asked - self._answered

    @property
    def full(self) -> bool:
        """Whether no more may be asked until there are replies."""
        size = self._bytes_asked - self._bytes_answered
        return size >= INBOX_LIMIT or self._asked - self._answered >= MOST

    # -- for who asks

    def expect(self, step: Step, size: int) -> Answer:
        """Keep a place for the reply to a request of so many bytes."""
        answer = Answer(self, step, None)
        answer.size = size
        self._bytes_asked += size
        self._put(answer)
        return answer

    def send(self, text: str) -> None:
        """Send a reply, behind those to what was asked before."""
        if self._asked == self._answered:
            self._ws.send(text)
        else:
            self._put(Answer(self, None, text))

    def settle(self) -> None:
        """Wait until nothing is under way.

        :raises ConnectionClosed: nobody hears any more of what is asked after it.
        """
        if self._asked != self._answered:
            self._idle = self._event()  # first: who answers the last one looks here
            while self._asked != self._answered:
                self._idle.wait()
                self._idle.clear()
            self._idle = None
            if self._ws.closed:
                raise self._ws._closed_error()

    def _put(self, answer: Answer) -> None:
        self._asked += 1
        loop = self._ws._transport.loop
        if loop.is_current():
            self._add(answer)
        else:
            loop.call_threadsafe(self._add, answer)

    # -- for who answers

    def go_on(self) -> None:
        """Send what is known by now; from whichever thread."""
        loop = self._ws._transport.loop
        if loop.is_current():
            self._work()
        else:
            with contextlib.suppress(
                ValueError
            ):  # it has ended, and all that was in it
                loop.call_threadsafe(self._work)

    # -- in the loop

    def _add(self, answer: Answer) -> None:
        self._waiting.append(answer)
        self._work()

    def _work(self) -> None:
        if self._at_it:
            return  # a step has its outcome at once: it is looked at below
        self._at_it = True
        ws, waiting = self._ws, self._waiting
        while waiting:
            try:
                text = waiting[0].take()
            except Exception as error:
                # Who is told of errors has made one: as where no storage is asked.
                self._at_it = False
                ws._fail(error)
                return
            if text is None:
                if waiting[0].outcome is None:
                    break
                continue  # the step had another one at once
            ws._answer(text)
            self._bytes_answered += waiting.pop(0).size
            self._answered += 1
        self._at_it = False
        if self._idle is not None and self._asked == self._answered:
            self._idle.set()
        if ws._inbox and not ws._busy:
            ws._wake()  # it was full
