"""Lines of the log that clients have a part in."""

from __future__ import annotations

import logging

import pytest

from flask_wschat import logs
from flask_wschat.logs import SparingLog, printable

logger = logging.getLogger("flask_wschat")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("ann", "ann"),
        ("Zoë 👩", "Zoë 👩"),
        (7, "7"),
        ("ann\nERROR forged", r"ann\nERROR forged"),
        ("a\r\x1b[2Jb\u2028c\x85", r"a\r\x1b[2Jb\u2028c\x85"),
        ("\ud800\u202e\x00", r"\ud800\u202e\x00"),
        ("x" * 300, "x" * 200 + "…"),
    ],
)
def test_what_a_client_chose_stays_on_its_line(value: object, shown: str) -> None:
    assert printable(value) == shown
    printable(value).encode()


def test_many_lines_of_a_kind_are_one_and_a_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(logs, "monotonic", lambda: now)
    log = SparingLog(logger)
    for number in range(500):
        log.warning("full", "refused %d", number)
    log.warning("origin", "foreign")
    now += logs.SECONDS
    log.warning("full", "refused %d", 501)
    log.warning("origin", "foreign")
    assert caplog.messages == [
        "refused 0",
        "foreign",
        "refused 501 (and 499 more of this kind before)",
        "foreign",
    ]
