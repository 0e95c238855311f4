"""Polls made at run time in SQLite: how long they last, and what is left of them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from flask_wschat.backends.sqlite import made, polls, schema, system


@pytest.fixture
def opened() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        schema.create(db)
        yield db


def test_how_long_a_poll_lasts_goes_by_no_clock_that_is_set(
    opened: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    up, day, boot = 1000.0, 1e9, "one"
    system = SimpleNamespace(uptime=lambda: up, boot=lambda: boot)
    monkeypatch.setattr(made, "system", system)
    monkeypatch.setattr(made, "time", SimpleNamespace(time=lambda: day))

    def names() -> list[str]:
        return [poll.name for poll in made.find_all(opened)]

    made.make(opened, "tea", "id1", "", 3600)
    for now in (0.0, 2e9, 1e9 + 3599):
        day = now
        assert names() == ["tea"]
    up += 3599
    assert names() == ["tea"]
    up += 1
    assert names() == [] and made.find(opened, "tea") is None
    made.make(opened, "tea", "id2", "", 3600)
    up, boot = 10, "two"  # the host has started anew
    day += 3599
    assert names() == ["tea"]
    up += 1e6  # which says nothing of a time before that
    assert names() == ["tea"]
    day += 1
    assert names() == []
    boot = ""  # where the system has no word for it
    made.make(opened, "tea", "id3", "", 3600)
    up, day = 10, day + 3599
    assert names() == ["tea"]
    day += 1
    assert names() == []


def test_the_votes_of_a_poll_go_some_at_a_time(
    opened: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "_CHUNK", 10)
    for name in ("tea", "lunch", "code"):
        id = name if name != "code" else ""
        if id:
            made.make(opened, name, id, "", 3600)
        for voter in range(25):
            key = made.key(opened, name, id)
            polls.vote(opened, key, f"voter {voter}", f"choice {voter % 3}")

    def rows(table: str) -> int:
        return int(schema.one(opened, f"SELECT count(*) FROM {table}"))

    assert made.delete(opened, "tea", "tea")
    assert made.make(opened, "tea", "tea2", "", 3600).id == "tea2"
    deleted: list[int] = []
    while not deleted or deleted[-1]:
        deleted.append(made.tidy(opened))
    assert deleted == [10, 10, 5, 0]
    assert [rows(t) for t in ("votes", "counts", "polls", "made")] == [50, 6, 3, 2]
    for name, id in (("lunch", "lunch"), ("code", "")):
        standing = polls.tally(opened, made.key(opened, name, id), None)
        assert sum(standing.counts.values()) == 25


def test_a_host_that_starts_anew_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert system.boot() == system.boot()
    for path, word in ((tmp_path / "boot_id", "a-word"), (tmp_path / "none", "")):
        (tmp_path / "boot_id").write_text("a-word\n")
        monkeypatch.setattr(system, "BOOT", path)
        assert system.boot.__wrapped__() == word
