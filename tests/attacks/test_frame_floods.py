"""Clients that send frames which are no messages: pings, pongs, tiny parts of one."""

from __future__ import annotations

import contextlib
import threading
import time
import types

import pytest
from flask import Flask

import flask_wschat.peer
from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.codec import Opcode, encode_frame
from flask_wschat.peer import CONTROL_FRAMES, TINY_FRAMES
from tests.support.in_memory import Open, Peer
from tests.support.live import LiveServer, receive
from tests.support.waiting import eventually


def frame(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return encode_frame(opcode, payload, fin=fin, mask=b"mask")


PING, PONG = frame(Opcode.PING), frame(Opcode.PONG)
BEGIN = frame(Opcode.TEXT, fin=False)
EMPTY = frame(Opcode.CONTINUATION, fin=False)
TINY = frame(Opcode.CONTINUATION, b"tiny", fin=False)
END = frame(Opcode.CONTINUATION)

CONTROL = (1008, "too many pings or pongs")
PARTS = (1008, "a message in too many tiny frames")


@pytest.fixture
def chat(app: Flask) -> WSChat:
    chat = WSChat(app)

    @chat.listener("/echo")
    class Echo(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.send(message)

    return chat


@pytest.mark.parametrize(
    ("first", "flood", "ending"),
    [
        pytest.param(b"", PING * 1000, CONTROL, id="pings"),
        pytest.param(b"", frame(Opcode.PING, b"x" * 125) * 99, CONTROL, id="big-pings"),
        pytest.param(b"", PONG * 1000, CONTROL, id="pongs"),
        pytest.param(BEGIN, EMPTY * 1000, PARTS, id="empty"),
        pytest.param(BEGIN, TINY * 1000, PARTS, id="tiny"),
        pytest.param(BEGIN, (PING + EMPTY * 9) * 99, PARTS, id="mixed"),
    ],
)
def test_a_flood_of_frames_has_an_end_and_nobody_else_notices(
    server: LiveServer,
    first: bytes,
    flood: bytes,
    ending: tuple[int, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    healthy, flooder = server.connect("/echo"), server.connect("/echo")
    sock = flooder.socket
    sock.sendall(first)
    ended = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                sock.sendall(flood)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        eventually(lambda: flooder.protocol.close_code is not None)
        healthy.send("still here")
        assert receive(healthy) == "still here"
    finally:
        ended.set()
        flooder.close_socket()
        thread.join()
    assert (flooder.protocol.close_code, flooder.protocol.close_reason) == ending
    assert caplog.text.count("closed with 1008") == 1
    assert "/echo (user None" in caplog.text


@pytest.mark.parametrize("control", [PING, PONG], ids=["ping", "pong"])
def test_the_edge_of_control_frames(
    opened: Open, monkeypatch: pytest.MonkeyPatch, control: bytes
) -> None:
    now = [100.0]
    clock = types.SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    monkeypatch.setattr(flask_wschat.peer, "time", clock)
    ws, peer, _ = opened()
    for _ in range(10):  # a thousand each second, for as long as it likes
        put(peer, control * CONTROL_FRAMES)
        now[0] += 1
    put(peer, control * (2 * CONTROL_FRAMES - 1))
    assert not ws.closed
    now[0] += 0.99
    put(peer, control)
    assert (ws.close_code, ws.close_reason) == CONTROL


def test_the_edge_of_tiny_frames(opened: Open) -> None:
    ws, peer, _ = opened()
    for _ in range(3):  # each message has its own
        put(peer, BEGIN + TINY * (TINY_FRAMES - 2) + END)
        assert len(ws.receive()) == 4 * (TINY_FRAMES - 2)
    # More are no harm if they are worth something.
    big = frame(Opcode.CONTINUATION, b"x" * 16, fin=False)
    put(peer, BEGIN + big * 10 * TINY_FRAMES + END)
    assert len(ws.receive()) == 160 * TINY_FRAMES
    put(peer, BEGIN + TINY * (TINY_FRAMES + 50))
    assert (ws.close_code, ws.close_reason) == PARTS


def test_who_writes_a_byte_at_a_time_sends_no_tiny_frames(opened: Open) -> None:
    ws, *_ = opened()
    whole = frame(Opcode.TEXT, b"x" * 9 * TINY_FRAMES)
    for at in range(len(whole)):
        ws._data_received(whole[at : at + 1])
    assert len(ws.receive()) == 9 * TINY_FRAMES
    assert not ws.closed


def put(peer: Peer, data: bytes) -> None:
    """Have ``data`` received, all of it."""
    peer.transport.write(data)
