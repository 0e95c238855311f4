"""Work for one message or connection does not grow with what else there is.

Counted in lines of ours that run, which no busy machine changes: as many where hundreds
of others are connected, or rooms known, or messages kept, as where there are ten. A
loop over others within one line counts too, if Python runs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import flask_wschat
from flask_wschat.hub.hub import Hub
from flask_wschat.messages import EVERYONE, Message, room_topic, user_topic
from flask_wschat.websocket import WebSocket
from tests.support.in_memory import Peer, Reader, another, open_pair

OURS = str(Path(flask_wschat.__file__).parent)
FEW, MANY = 10, 500


def steps(call: Callable[[], Any]) -> int:
    """Return how many lines of the package ``call`` runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


Before = Callable[[Hub, int], Any]


def others(hub: Hub, count: int) -> list[tuple[WebSocket, Peer]]:
    """Users, each in a room of their own."""
    found = []
    for number in range(count):
        ws, peer = another(hub, f"other {number}")
        ws.join(f"room {number}")
        found.append((ws, peer))
    return found


def others_of_the_chat(hub: Hub, count: int) -> list[Reader]:
    found = []
    for number in range(count):
        reader = Reader(hub, f"reader {number}")
        reader.ws.leave("a")
        reader.ws.join(f"room {number}")
        found.append(reader)
    return found


def left_rooms(hub: Hub, count: int) -> None:
    """Rooms, and users, that are wanted by nobody any more, but for a while."""
    ws, _ = another(hub)
    for number in range(count):
        ws.join(f"room {number}")
        ws.leave(f"room {number}")
        gone, _ = another(hub, f"gone {number}")
        gone._transport.abort()


def kept(hub: Hub, count: int) -> None:
    for number in range(count):
        hub.publish(room_topic("a"), Message(str(number)), keep=True)
        hub.publish(EVERYONE, Message(str(number)), keep=True)


def stalled(hub: Hub, count: int) -> None:
    """Peers whose queues hold something."""
    for ws, peer in others(hub, count):
        peer.transport.pause()
        ws.send("wait")


def many_rooms_of_one(hub: Hub, count: int) -> None:
    ws, _ = another(hub, "collector")
    for number in range(count):
        ws.join(f"room {number}")


@pytest.mark.parametrize(
    "before",
    [others, others_of_the_chat, left_rooms, kept, stalled, many_rooms_of_one],
)
@pytest.mark.parametrize(
    "what",
    [
        "say to a room",
        "say to a room but one",
        "keep in a room",
        "send to a user",
        "send",
        "receive",
        "join",
        "leave",
        "come",
        "come with a user",
        "go",
        "ping",
        "read in the chat",
    ],
)
def test_as_much_work_with_many_others(what: str, before: Before) -> None:
    few, many = (work(what, before, count) for count in (FEW, MANY))
    assert few > 0
    # Lists that grow, batches: a few lines more or less.
    assert many <= few * 1.2 + 20


def work(what: str, before: Before, count: int) -> int:
    ws, peer, hub = open_pair()
    before(hub, count)
    ann, _ = another(hub, "ann")
    for member in (ws, ann):
        member.join("b")
    topic, said = room_topic("b"), Message("hello")

    def send() -> None:
        ws.send("hello")

    def receive() -> None:
        peer.send("hello")
        assert ws.receive() == "hello"

    calls: dict[str, Callable[[], Any]] = {
        "say to a room": lambda: hub.publish(topic, said),
        "say to a room but one": lambda: hub.publish(
            topic, Message("hello", exclude=ws.id)
        ),
        "keep in a room": lambda: hub.publish(topic, said, keep=True),
        "send to a user": lambda: hub.publish(user_topic("ann"), said),
        "send": send,
        "receive": receive,
        "join": lambda: ws.join("c"),
        "leave": lambda: ws.leave("b"),
        "come": lambda: another(hub),
        "come with a user": lambda: another(hub, "bob"),
        "go": ann._transport.abort,
        "ping": lambda: ws._sweep(0.0, 25.0, 20.0),
        "read in the chat": lambda: Reader(hub, "bob").read(0),
    }
    return steps(calls[what])
