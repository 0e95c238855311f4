"""One connection's answers, step by step."""

from __future__ import annotations

import contextlib

import pytest
from greenlet import GreenletExit

from flask_wschat.chat.answers import Answer, Answers, Outcome
from flask_wschat.errors import ConnectionClosed
from flask_wschat.messages import Receipt
from flask_wschat.transports.loop import new_event
from tests.support.in_memory import open_pair


@pytest.mark.parametrize(
    "fault", [KeyError, SystemExit, KeyboardInterrupt, GreenletExit]
)
def test_one_that_cannot_be_made_keeps_nobody_waiting(
    fault: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Else the thread that waits for it would for ever, and never see the end."""

    def fail(answer: Answer, outcome: Outcome) -> str:
        raise fault("told of an error, and made one")

    ws, _, _ = open_pair()
    answers = Answers(ws, new_event)
    first, second = Answer(answers, 1, fail), Answer(answers, 2, lambda *_: "kept")
    answers.put(first, 10)
    answers.put(second, 10)
    second(Receipt(2, 0, ""))
    ordered = fault is KeyboardInterrupt  # the program is to end
    with pytest.raises(fault) if ordered else contextlib.nullcontext():
        first(Receipt(1, 0, ""))
    assert ws.closed and ("made one" in caplog.text) is not ordered
    answers.go_on()
    assert (answers.asked, answers.answered) == (2, 2) and not answers.full


def test_nobody_waits_for_a_storage_in_the_place_of_who_has_gone() -> None:
    """Else each who asks and goes costs a thread until it answers, if it ever does."""
    ws, _, _ = open_pair()
    answers = Answers(ws, new_event)
    answers.put(Answer(answers, 1, None), 10)
    ws.close()
    with pytest.raises(ConnectionClosed):
        answers.settle()
