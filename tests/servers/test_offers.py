"""Taking a socket over at the worst of moments."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from flask import Flask

from flask_wschat import Listener, WSChat
from flask_wschat.client import connect
from flask_wschat.errors import HandshakeError
from flask_wschat.servers import offers
from flask_wschat.servers.offers import NoDescriptors, ThreadOffer
from flask_wschat.transports.threaded import ThreadedLoop
from tests.support.threaded import serve_threaded
from tests.support.waiting import eventually

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def open_files() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def descriptors_left(free: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 50, hard))
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError as error:
                assert error.errno == errno.EMFILE
                break
        for fd in taken[len(taken) - free :]:
            os.close(fd)
            taken.remove(fd)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


@pytest.mark.parametrize("free", [0, 1, 2])
def test_at_the_limit_of_descriptors_none_is_lost_and_nothing_is_said(
    pair: tuple[socket.socket, socket.socket], free: int
) -> None:
    ours, theirs = pair
    before = open_files()
    with descriptors_left(free):
        for _ in range(5):
            with pytest.raises(NoDescriptors):
                ThreadOffer(ours, lambda: b"").accept(ANSWER, lambda: None)
    assert set(open_files()) <= set(before)  # what was left over may go
    ours.sendall(b"HTTP goes on")
    assert theirs.recv(100) == b"HTTP goes on"


@pytest.mark.parametrize("free", [0, 1, 2, 3])
def test_a_loop_that_cannot_start_keeps_nobody_waiting(
    free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libev tries for ever, and prints an error each time."""
    monkeypatch.setattr(ThreadedLoop, "_shared", None)
    before = open_files()
    with descriptors_left(free):
        for _ in range(3):
            with pytest.raises(OSError):
                ThreadedLoop.shared()
    assert set(open_files()) <= set(before)  # what was left over may go


def test_a_client_that_left_costs_no_descriptor(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.close()
    before = open_files()
    for _ in range(5):
        with pytest.raises(OSError):
            ThreadOffer(ours, lambda: b"").accept(ANSWER, lambda: None)
    assert set(open_files()) <= set(before)  # what was left over may go


def test_an_error_in_what_was_read_ahead_costs_none(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair
    before = open_files()
    with pytest.raises(ZeroDivisionError):
        ThreadOffer(ours, lambda: bytes(1 // 0)).accept(ANSWER, lambda: None)
    assert set(open_files()) <= set(before)  # what was left over may go
    monkeypatch.setattr(offers, "_send", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ThreadOffer(ours, lambda: b"").accept(ANSWER, lambda: None)
    assert set(open_files()) <= set(before)  # what was left over may go


def test_a_client_hears_503_while_no_loop_can_start(
    app: Flask, chat: WSChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shared() -> ThreadedLoop:
        raise OSError(errno.EMFILE, "too many open files")

    chat.listener("/listen")(Listener)
    with serve_threaded(app) as port:
        monkeypatch.setattr(ThreadedLoop, "shared", shared)
        with pytest.raises(HandshakeError) as refused:
            connect(f"ws://127.0.0.1:{port}/listen", timeout=5)
        assert refused.value.status == 503


def test_a_client_hears_503_while_no_descriptor_is_left(
    app: Flask, chat: WSChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dup(fd: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    chat.listener("/listen")(Listener)
    with contextlib.ExitStack() as stack:
        url = f"ws://127.0.0.1:{stack.enter_context(serve_threaded(app))}/listen"
        stack.callback(chat._hub().shutdown)
        with monkeypatch.context() as patch:
            patch.setattr(offers, "os", SimpleNamespace(dup=dup))
            for _ in range(3):
                with pytest.raises(HandshakeError) as refused:
                    connect(url, timeout=5)
                assert refused.value.status == 503
        with connect(url, timeout=5):
            eventually(lambda: chat._hub().count() == 1)
