"""``Answers``: replies in the order of the requests, though some are known later.

Who stores something waits for nothing: the storage calls back, and the reply is sent
once all that was asked before has its own. See docs/decisions/47.
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

_LOOK = 1.0
"""Seconds until who waits for a late storage looks whether anybody hears of it."""

Outcome = Receipt | Exception
Step = Callable[["Answer", Outcome], str | None]
"""Makes a reply of an outcome; None: the same ``Answer`` waits for another outcome."""


class Answer:
    """One request's; to be called with what became of it, from whichever thread."""

    __slots__ = ("_answers", "name", "outcome", "ref", "size", "step", "waits")

    def __init__(
        self, answers: Answers, ref: int, step: Step | None, name: str = ""
    ) -> None:
        self._answers = answers
        self.name = name  # of the request, for the log
        self.ref = ref
        self.step = step  # None: the outcome is the reply
        self.outcome: Outcome | str | None = None
        self.size = 0
        self.waits = False

    @property
    def ws(self) -> WebSocket:
        return self._answers.ws

    def __call__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if self.waits:  # looked at after the outcome is there: see `put`
            self._answers.go_on()

    def take(self) -> str | None:
        """Return the reply; None: it is not known yet."""
        while (outcome := self.outcome) is not None:
            if self.step is None:
                assert isinstance(outcome, str)
                return outcome
            assert not isinstance(outcome, str)
            self.outcome = None
            if (text := self.step(self, outcome)) is not None:
                return text
        return None


class Answers:
    """Those of one connection, which asks in one thread at a time.

    ``event`` makes what a thread or greenlet waits for, as ``Hub.event``.
    """

    __slots__ = (
        *("_at_it", "_bytes_answered", "_bytes_asked", "_event", "_idle", "_waiting"),
        *("answered", "asked", "ws"),
    )

    def __init__(self, ws: WebSocket, event: Callable[[], Event]) -> None:
        self.ws = ws
        self._event = event
        self._waiting: list[Answer] = []  # in the loop only
        self._at_it = False
        self._idle: Event | None = None
        # Who asks changes the first ones, the loop the others: no lock is needed.
        self.asked = self._bytes_asked = 0
        self.answered = self._bytes_answered = 0

    @property
    def full(self) -> bool:
        """Whether no more may be asked until there are replies."""
        size = self._bytes_asked - self._bytes_answered
        return size >= INBOX_LIMIT or self.asked - self.answered >= MOST

    # -- for who asks

    def put(self, answer: Answer, size: int) -> None:
        """Send the reply to a request of so many bytes once it is known."""
        if self.asked == self.answered and (text := answer.take()) is not None:
            self.ws.send(text)  # nobody had to wait
            return
        answer.size = size
        answer.waits = True
        self.asked += 1
        self._bytes_asked += size
        loop = self.ws._transport.loop
        if loop.is_current():
            self._add(answer)
        else:
            loop.call_threadsafe(self._add, answer)

    def send(self, text: str) -> None:
        """Send a reply, behind those to what was asked before."""
        if self.asked == self.answered:
            self.ws.send(text)
        else:
            answer = Answer(self, 0, None)
            answer.outcome = text
            self.put(answer, 0)

    def settle(self) -> None:
        """Wait until there is a reply to all that was asked.

        :raises ConnectionClosed: nobody hears any more of what is asked after it.
        """
        if self.asked != self.answered:
            self._idle = self._event()  # first: who answers the last one looks here
            while self.asked != self.answered and not self.ws.closed:
                self._idle.wait(_LOOK)
                self._idle.clear()
            self._idle = None
            if self.ws.closed:
                raise self.ws._closed_error()

    # -- for who answers

    def go_on(self) -> None:
        """Send what is known by now; from whichever thread."""
        loop = self.ws._transport.loop
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
            return  # a step asks the storage, which answers at once
        self._at_it = True
        try:
            while self._waiting and self._send_next():
                pass
        finally:
            self._at_it = False
            idle = self._idle  # who waits there may stop just now
            if idle is not None and self.asked == self.answered:
                idle.set()
            ws = self.ws
            if ws._inbox and not ws._busy:
                ws._wake()  # it was full

    def _send_next(self) -> bool:
        """Send the first reply of those that wait; False: it is not known yet."""
        ws, waiting = self.ws, self._waiting
        reply: str | BaseException | None
        try:
            reply = waiting[0].take()
        except BaseException as error:
            # Who is told of errors has made one: as where no storage is asked.
            reply = error
        if reply is None:
            return False
        try:
            if isinstance(reply, str):
                ws._answer(reply)
            else:
                ws._fail(reply)
        finally:  # whatever becomes of it, nobody waits for it any more
            self._bytes_answered += waiting.pop(0).size
            self.answered += 1
        return True
