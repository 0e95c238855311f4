"""A short run of each program, of one seed; the programs themselves have more."""

from __future__ import annotations

import pytest

from benchmarks.rooms.crowd import allow_descriptors

from . import failovers, people

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.parametrize("wait", [0, 1])
def test_what_is_lost_in_a_failover_is_told(wait: int) -> None:
    allow_descriptors()
    outcome = failovers.run(1, wait, 120, workers=2, troubles=3)
    assert not outcome.problems, outcome.line()
    assert not wait or outcome.lost == 0, outcome.line()


def test_all_agree_on_who_is_there_and_on_the_poll() -> None:
    allow_descriptors()
    outcome = people.run(1, "redis", workers=2, troubles=2, seconds=1.0)
    assert not outcome.problems, outcome.line()
    assert outcome.votes > 10
