"""Clients of a chat whose SQLite file is put back from a copy."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_wschat import WSChat
from tests.support.following import Follower, make_chat, url
from tests.support.live import Serve

__all__ = ["make_chat", "url"]

pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.mark.parametrize("restarts", [False, True])
def test_nobody_takes_new_numbers_for_lost_ones(
    make_chat: Callable[..., WSChat], serve: Serve, tmp_path: Path, restarts: bool
) -> None:
    chat = make_chat()
    server = serve(chat._app())
    stays, comes_back = (Follower(server, name).connect() for name in ("ann", "ben"))
    for data in "123":
        chat.broadcast(data, room="Lobby")
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "db")) as db,
        contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy,
    ):
        db.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()
    for data in ("lost 4", "lost 5"):
        chat.broadcast(data, room="Lobby")
    for follower in (stays, comes_back):
        follower.follow("lost 5")
    assert comes_back.peer is not None
    comes_back.peer.client.close_socket()
    if restarts:
        chat._hub().backend.stop()
    os.replace(tmp_path / "copy", tmp_path / "db")
    if restarts:  # a process that never saw what is lost
        chat = make_chat()
        stays.server = comes_back.server = serve(chat._app())
    for data in ("new 4", "new 5", "new 6"):
        chat.broadcast(data, room="Lobby")
    if restarts:
        stays.connect()
    for follower in (stays, comes_back.connect()):
        follower.follow("new 6")
        assert follower.resets == 1
        assert follower.data[-6:] == ["1", "2", "3", "new 4", "new 5", "new 6"]
