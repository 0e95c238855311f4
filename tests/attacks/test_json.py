"""JSON that costs, or that others could not read again: deep, and with long numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_wschat import WebSocket, WSChat
from flask_wschat.chat.fields import MAX_DEPTH
from tests.protocol.peers import Peer, check
from tests.support.following import make_chat, url
from tests.support.live import Serve, receive

__all__ = ["make_chat", "url"]

memory = pytest.mark.parametrize("url", ["memory"], indirect=True)


def lists(depth: int) -> str:
    return "[" * depth + "]" * depth


def objects(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@memory
def test_what_cannot_be_read_by_all_is_not_kept(
    make_chat: Callable[..., WSChat], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    chat = make_chat()
    ann = Peer(serve(chat._app()), "ann")
    ann.ask("join", room="Lobby")
    assert ann.hello["limits"]["depth"] == MAX_DEPTH

    def say(ref: int, data: str) -> Any:
        ann.client.send(
            f'{{"type":"say","room":"Lobby","ref":{ref},"mid":"{ref}","data":{data}}}'
        )
        return ann.reply(ref)

    fine = [
        lists(MAX_DEPTH),
        objects(MAX_DEPTH),
        f"[{','.join([lists(MAX_DEPTH - 1)] * 50)}]",
        json.dumps("[" * 5000),
        json.dumps([{"a": number} for number in range(500)]),
        "9" * 308,
        "1e308",
    ]
    for ref, data in enumerate(fine):
        assert say(ref, data)["ok"], data[:50]
    bad = [
        lists(MAX_DEPTH + 1),
        objects(MAX_DEPTH + 1),
        f"[[[1]],{lists(MAX_DEPTH)}]",
        lists(500),
        "1e999",
        "-1e999",
        "[9.9e400]",
        "9" * 309,
        "9" * 5000,
        f"-{'9' * 60_000}",
    ]
    for ref, data in enumerate(bad, 100):
        error = check("error.reply", say(ref, data))["error"]
        assert error["code"] == "bad_request", data[:50]
    assert [json.dumps(entry.data) for entry in chat.history("Lobby")] == [
        json.dumps(json.loads(data)) for data in fine
    ]
    assert "Traceback" not in caplog.text


@memory
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f'{{"ref":1,"type":"who","x":{"[" * 300_000}', "bad_request"),
        (f'{{"ref":1,"type":"who","x":{objects(50_000)}}}', "bad_request"),
        (f'{{"ref":{"9" * 400},"type":"who"}}', "bad_request"),
        (f'{{"ref":{"9" * 900_000},"type":"who"}}', "bad_request"),
        ('{"ref":1e999,"type":"who"}', "bad_request"),
        ('{"ref":1,"type":"who","x":NaN}', "bad_json"),
        ('{"ref":1,"type":"who","x":[-Infinity]}', "bad_json"),
        ('{"ref":1,"type":"who","x":0x10}', "bad_json"),
        ('{"ref":1,"type":"who","x":1_000}', "bad_json"),
    ],
    ids=range(9),
)
def test_what_cannot_be_read_is_answered_and_no_error_of_ours(
    make_chat: Callable[..., WSChat],
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    text: str,
    code: str,
) -> None:
    ann = Peer(serve(make_chat()._app()), "ann")
    ann.client.send(text)
    assert check("error.reply", ann.reply(None))["error"]["code"] == code
    ann.client.send(f'{{"type":"join","ref":7,"room":"a","after":{"9" * 400}}}')
    assert ann.reply(7)["error"]["code"] == "bad_request"
    ann.ask("ping")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "[" * 900_000,
        objects(20_000),
        "9" * 5000,
        "NaN",
        "[1, -Infinity]",
        b"\xff",
        b"[NaN]",
        "",
    ],
    ids=range(8),
)
def test_receive_json_raises_what_it_says(
    app: Flask, chat: WSChat, serve: Serve, text: str | bytes
) -> None:
    @chat.route("/")
    def view(ws: WebSocket) -> None:
        while True:
            try:
                ws.send_json({"got": ws.receive_json()})
            except ValueError as error:
                ws.send(f"refused: {error}"[:50])

    with serve(app).connect("/") as client:
        client.send(text)
        assert "got" not in receive(client)
        client.send('["NaN, to Infinity", 1]')
        assert json.loads(receive(client)) == {"got": ["NaN, to Infinity", 1]}
