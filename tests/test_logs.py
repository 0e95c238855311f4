"""Lines of the log that clients have a part in."""

from __future__ import annotations

import logging

import pytest

from flask_wschat import logs
from flask_wschat.logs import SparingLog, printable, redacted

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


def test_a_handler_that_raises_ends_nothing_but_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(record: logging.LogRecord) -> bool:
        raise ValueError("a filter's")

    own = logging.getLogger("flask_wschat.failing")
    own.addFilter(fail)
    log = SparingLog(own)
    log.warning("full", "refused")
    log.error(KeyError(), "oops")
    assert capsys.readouterr().err.count("ValueError: a filter's") == 2


def test_a_flood_of_errors_is_a_few_tracebacks_and_a_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SparingLog(logger)

    def fail(kind: type[BaseException], other: bool = False) -> None:
        try:
            if other:
                raise kind("elsewhere")
            raise kind("oops")
        except BaseException as error:
            log.error(error, "error in %s", "ann")

    for _ in range(logs.ERRORS + 5):
        fail(ValueError)
    assert caplog.text.count("ValueError: oops") == logs.ERRORS
    fail(ValueError, other=True)
    fail(SystemExit)
    assert "ValueError: elsewhere" in caplog.text and "SystemExit" in caplog.text
    caplog.clear()
    monkeypatch.setattr(logs, "SECONDS", -1.0)
    fail(ValueError)
    assert "error in ann (and 5 more of this kind before)" in caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://ann:s3cret@h:6379/0", "redis://…@h:6379/0"),
        ("redis://:s3cret@h/0?db=1", "redis://…@h/0?db=1"),
        ("redis://:s3/cr@et@h/0", "redis://…@h/0"),
        ("redis://:s3?c#r\net@h/0", "redis://…@h/0"),
        ("redis:s3cret@h", "redis:…@h"),
        ("ann:s3cret@h", "ann:…@h"),
        ("s3cret@h", "…@h"),
        ("redis://:s3cret", "redis://:…"),
        ("redis://h:s3cret/0", "redis://h:…"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://h?db=1&password=s3cret&x=2", "redis://h?db=1&password=…&x=2"),
        ("unix:///run/redis.sock?Password=s3cret", "unix:///run/redis.sock?Password=…"),
        ("sqlite:////var/lib/chat.db", "sqlite:////var/lib/chat.db"),
        (b"redis://:s3cret@h", "b'redis://…@h'"),
        (None, "None"),
    ],
)
def test_a_password_is_not_shown(url: object, shown: str) -> None:
    assert redacted(url) == shown
