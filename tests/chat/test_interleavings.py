"""Answers that come from another thread, switched at each line of what they run."""

from __future__ import annotations

import pytest

from flask_wschat.chat.answers import Answer, Answers, Outcome
from flask_wschat.errors import BackendError
from flask_wschat.messages import Receipt
from flask_wschat.transports.loop import new_event
from tests.support.interleaving import Explorer, Gate, Threads
from tests.support.stepped import Pair, SteppedLoop, loop

__all__ = ["loop"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

FILES = ["chat/answers.py", "transports/waiting.py"]


def told(answer: Answer, outcome: Outcome) -> str:
    return f"{answer.ref} {getattr(outcome, 'seq', 'error')}"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)], ids=str)
def test_replies_have_their_order_and_all_are_sent(
    loop: SteppedLoop, order: tuple[int, ...]
) -> None:
    """Whenever the storage says what became of each, be it before it is waited for."""

    def scenario() -> Threads:
        with Pair(loop) as pair:
            answers = Answers(pair.ws, new_event)
            asked = [Answer(answers, number, told) for number in range(3)]
            submitted = Gate()

            def ask() -> None:
                answers.put(asked[0], 10)
                answers.send("between")
                submitted.open()
                answers.put(asked[1], 10)
                answers.put(asked[2], 10)
                answers.settle()
                answers.send("at last")

            def store() -> None:
                for number in order:
                    if number:
                        submitted.wait()
                    asked[number](
                        BackendError() if number == 1 else Receipt(number, 0, "")
                    )

            yield [ask, store]
            assert pair.hear() == ["0 0", "between", "1 error", "2 2", "at last"]
            assert answers.asked == answers.answered and not answers.full

    Explorer(loop, files=FILES).explore(scenario)


def test_one_that_asks_once_more_keeps_its_place(loop: SteppedLoop) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            answers = Answers(pair.ws, new_event)
            again = Gate()

            def once_more(answer: Answer, outcome: Outcome) -> str | None:
                answer.step = told
                again.open()
                return None

            first, second = Answer(answers, 1, once_more), Answer(answers, 2, told)

            def ask() -> None:
                answers.put(first, 10)
                answers.put(second, 10)

            def store() -> None:
                first(Receipt(5, 0, ""))
                second(Receipt(6, 0, ""))
                again.wait()
                first(Receipt(7, 0, ""))

            yield [ask, store]
            assert pair.hear() == ["1 7", "2 6"]

    Explorer(loop, files=FILES).explore(scenario)
