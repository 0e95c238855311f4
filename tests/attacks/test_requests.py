"""Any JSON where the ready-made chat expects a name, a number or an epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flask_wschat import WSChat
from tests.support.following import Quick, make_chat, url
from tests.support.live import Serve

__all__ = ["make_chat", "url"]

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    2**53,
    10**300,
    "",
    " ",
    "None",
    "\ud800",
    "a\udfff",
    "\0",
    "\0ann",
    "a\nb",
    "\u202eabc",
    "e\u0301",
    "x" * 101,
    "x" * 60_000,
    [],
    ["a"],
    {},
    {"a": {}},
    [[[[[]]]]],
]
REQUESTS: dict[str, Any] = {
    "join": {"room": "a", "after": 1, "epoch": "e"},
    "inbox": {"after": 1, "epoch": "e"},
    "leave": {"room": "a"},
    "say": {"room": "Lobby", "mid": "m", "data": 1},
    "tell": {"to": "ben", "mid": "m", "data": 1},
    "history": {"room": "Lobby", "before": 9, "limit": 9},
    "who": {"room": "Lobby"},
    "vote": {"poll": "Tea", "choice": "Green"},
    "poll": {"poll": "Tea"},
    "stream": {"room": "Lobby", "id": "1"},
    "stop": {"room": "Lobby", "id": "1"},
    "ping": {},
}
EXPECTED = {"bad_request", "not_joined", "unknown_poll", "unknown_choice", "too_big"}
EXPECTED |= {"unknown_type", "unknown_stream"}


@pytest.mark.timeout(60)
def test_no_value_of_a_field_is_an_error_of_ours(
    make_chat: Callable[..., WSChat], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    chat = make_chat()
    chat.poll("Tea", ["Green", "Black"])
    server = serve(chat._app())
    ann = Quick(server, "ann")
    ann.ask("join", room="Lobby")
    ref = 1000
    for kind, good in REQUESTS.items():
        for field in {**good, "type": kind}:
            for value in VALUES:
                ref += 1
                request = {"type": kind, **good, "ref": ref, field: value}
                ann.client.send(json.dumps(request))
                reply = ann.reply(ref)
                if not reply["ok"]:
                    assert reply["error"]["code"] in EXPECTED, (request, reply)
    ben = Quick(server, "ben")
    ann.ask("join", room="Lobby")
    assert ben.ask("join", room="Lobby")["present"] == ["ann", "ben"]
    assert "Traceback" not in caplog.text
