"""One connection's answers, step by step."""

from __future__ import annotations

import pytest

from flask_wschat.chat.answers import Answer, Answers, Outcome
from flask_wschat.messages import Receipt
from flask_wschat.transports.loop import new_event
from tests.support.in_memory import open_pair


def test_one_that_cannot_be_made_keeps_nobody_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else the thread that waits for it would for ever, and never see the end."""

    def fail(answer: Answer, outcome: Outcome) -> str:
        raise KeyError("told of an error, and made one")

    ws, _, _ = open_pair()
    answers = Answers(ws, new_event)
    first, second = Answer(answers, 1, fail), Answer(answers, 2, fail)
    answers.put(first, 10)
    answers.put(second, 10)
    second(Receipt(2, 0, ""))
    first(Receipt(1, 0, ""))
    assert ws.closed and "made one" in caplog.text
    assert (answers.asked, answers.answered) == (2, 2) and not answers.full
