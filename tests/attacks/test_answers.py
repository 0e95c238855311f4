"""Clients that ask for much, and take little of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from flask import Flask, Response

import flask_wschat.servers.handler
from flask_wschat import WSChat
from tests.support.live import LiveServer, Serve
from tests.support.waiting import DEADLINE, eventually

SIZE = 1 << 25


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture(params=["ours", "ours on pywsgi"])
def server(
    request: pytest.FixtureRequest,
    app: Flask,
    serve: Serve,
    ended: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[LiveServer]:
    monkeypatch.setattr(flask_wschat.servers.handler, "TAKING", 0.5)

    @app.get("/whole")
    def whole() -> Response:
        answer = Response(b"x" * SIZE)
        answer.call_on_close(lambda: ended.append("whole"))
        return answer

    @app.get("/pieces")
    def pieces() -> Response:
        answer = Response(iter([b"x" * (SIZE // 64)] * 64))
        answer.call_on_close(lambda: ended.append("pieces"))
        return answer

    WSChat(app)
    yield serve(app, request.param)


def ask(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.parametrize("path", ["whole", "pieces"])
def test_who_takes_nothing_is_given_up(
    server: LiveServer, ended: list[str], path: str
) -> None:
    with server.socket() as sock:
        sock.sendall(ask(f"/{path}"))
        eventually(lambda: ended == [path])
        size = 0
        try:
            while data := sock.recv(1 << 20):
                size += len(data)
        except ConnectionError:
            pass
        assert size < SIZE


@pytest.mark.parametrize("path", ["whole", "pieces"])
def test_who_takes_it_slowly_gets_all_of_it(server: LiveServer, path: str) -> None:
    """It takes longer than the time that there is for a part."""
    pause = threading.Event()
    with server.socket() as sock:
        sock.sendall(ask(f"/{path}"))
        size = 0
        for turn in range(int(DEADLINE * 1000)):
            data = sock.recv(1 << 20)
            if not data:
                break
            size += len(data)
            pause.wait(0.15 if turn < 6 else 0)
    assert size > SIZE
