"""Names of all kinds from clients: whoever brings one can still be got rid of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from flask_wschat import Listener, WebSocket, WSChat
from tests.support.following import chat, make_chat, server, url
from tests.support.live import LiveServer, Serve
from tests.support.waiting import DEADLINE, eventually

__all__ = ["chat", "make_chat", "server", "url"]

STRANGE: list[Any] = [
    None,
    True,
    1.5,
    float("nan"),
    [],
    ["a"],
    {},
    {"a": []},
    "",
    "\ud800",
]
STRANGE += ["a\udfff", "\0", "a\nb", "x" * 100_000, -(10**400)]


@pytest.fixture
def plain(make_chat: Callable[..., WSChat], serve: Serve) -> LiveServer:
    """Ten may come, and join what they like."""
    chat = make_chat(MAX_CONNECTIONS=10)

    @chat.listener("/join")
    class Joins(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.join(json.loads(message))
            ws.send_json([sorted(ws.rooms), chat.online()])

    @chat.listener("/number/<int:room>")
    class Number(Listener):
        def on_open(self, ws: WebSocket, *args: Any, room: int, **more: Any) -> None:
            ws.join(room)
            ws.send_json(sorted(ws.rooms))

    return serve(chat._app())


def test_who_joins_what_is_no_name_is_not_there_for_ever(plain: LiveServer) -> None:
    for name in STRANGE * 3:
        with plain.connect("/join?user=ann") as client:
            client.send(json.dumps(name))
            with pytest.raises(ConnectionClosed) as end:
                client.recv(DEADLINE)
            assert end.value.rcvd is not None and end.value.rcvd.code == 1011, name
    with plain.connect("/join?user=ben") as client:
        client.send('"a"')
        assert json.loads(client.recv(DEADLINE))[0] == ["a"]

        def alone() -> bool:
            client.send('"a"')
            return bool(json.loads(client.recv(DEADLINE))[1] == ["ben"])

        eventually(alone)


def test_a_number_in_the_url_is_a_room(plain: LiveServer) -> None:
    for _ in range(20):
        with plain.connect("/number/5?user=ann") as client:
            assert json.loads(client.recv(DEADLINE)) == ["5"]
