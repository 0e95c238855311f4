"""What the log says of sockets: attributes of records, errors, and more in debug."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from flask import Flask, got_request_exception
from websockets.exceptions import InvalidStatus

from flask_wschat import Events, Listener, WebSocket, WSChat, connected, event
from flask_wschat.opening.reporter import shortened
from tests.support.in_memory import open_pair
from tests.support.live import LiveServer, closed, receive
from tests.support.waiting import eventually

ATTRIBUTES = ("route", "user", "connection", "address", "event")


def about(record: logging.LogRecord) -> tuple[Any, ...]:
    return tuple(record.__dict__[name] for name in ATTRIBUTES)


class Failing(Listener):
    def on_open(self, ws: WebSocket, what: str) -> None:
        self.what = what
        if what == "on_open":
            raise ValueError("oops")
        ws.send("open")

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        if self.what == "on_message":
            raise ValueError("oops")

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        if self.what == "on_close":
            raise ValueError("oops")


class Errors(list[BaseException]):
    """What was sent as ``got_request_exception``."""

    def __init__(self, app: Flask) -> None:
        got_request_exception.connect(self.note, app)

    def note(self, sender: Flask, exception: BaseException, **_: Any) -> None:
        self.append(exception)


@pytest.fixture
def errors(app: Flask) -> Errors:
    return Errors(app)


@pytest.fixture
def failing(app: Flask, chat: WSChat) -> None:
    chat.authenticate(lambda: "ann")
    chat.listener("/<what>")(Failing)

    @chat.route("/view")
    def view(ws: WebSocket) -> None:
        ws.send("open")
        ws.receive()
        raise ValueError("oops")

    @chat.listener("/events")
    class Board(Events):
        @event
        def move(self, x: int, password: str = "") -> None:
            raise ValueError("oops")


MOVE = '{"type":"move","ref":1,"x":2,"password":"hunter2 \\" too"}'


def provoke(server: LiveServer, what: str) -> list[Any]:
    """Have something fail; return what its client was told."""
    path = "events" if what == "move" else what
    heard: list[Any] = []
    with server.connect(f"/{path}") as client:
        if what != "on_open":
            heard.append(receive(client))
            client.send(MOVE)
        if what == "move":
            heard.append(json.loads(receive(client)))
        elif what != "on_close":
            heard.append(closed(client))
    return heard


FAILURES = ("on_open", "on_message", "on_close", "view", "move")


def test_each_error_of_a_handler_is_told_of_once_and_by_all_that_is_known(
    server: LiveServer,
    failing: None,
    errors: Errors,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for what in FAILURES:
        told = provoke(server, what)
        eventually(lambda: errors, what)
        assert [str(error) for error in errors] == ["oops"]
        [record] = caplog.records
        route = {"move": "/events", "view": "/view"}.get(what, "/<what>")
        assert about(record)[:2] == (route, "ann")
        connection, address, kind = about(record)[2:]
        assert (len(connection), address, kind) == (16, "127.0.0.1", what)
        called = {"move": "the event 'move'", "view": "the view"}.get(what, what)
        words = f"{called} of {route} (user ann, connection {connection})"
        assert record.getMessage() == f"Exception in {words}"
        assert "hunter2" not in caplog.text and "oops" in caplog.text
        if what == "move":
            assert told[-1]["error"]["code"] == "internal"
            assert told[-1]["error"]["message"] == "an error in the server"
        elif what != "on_close":
            assert told[-1] == (1011, "internal error")
        errors.clear()
        caplog.clear()


def test_where_it_debugs_the_log_has_the_message_and_the_client_a_hint(
    app: Flask,
    server: LiveServer,
    failing: None,
    errors: Errors,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app.debug = True
    for what in FAILURES:
        told = provoke(server, what)
        eventually(lambda: errors, what)
        [record] = caplog.records
        words, text = record.getMessage(), caplog.text
        handled = ', handling {"type":"move","ref":1,"x":2,"password":"…"}'
        assert words.endswith(handled) == (what in ("on_message", "move"))
        assert "hunter2" not in words
        # It begins with the application's own code.
        first = text.split("Traceback (most recent call last):\n")[1].split("\n")[0]
        assert "test_log_records.py" in first
        said = told[-1]["error"]["message"] if what == "move" else str(told[-1])
        if what != "on_close":
            assert "ValueError in test_log_records.py, line " in said
            assert "see the server's log" in said
        errors.clear()
        caplog.clear()


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("hello", "hello"),
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
        ("x" * 600, "x" * 500 + "…"),
        (b"\xff" * 600, "600 bytes b'" + r"\xff" * 124 + r"\x…"),
        ('{"Password": "a\\"b", "x": 1}', '{"Password": "…", "x": 1}'),
        ('{"api_key":12345,"key":"k"}', '{"api_key":"…","key":"k"}'),
        ('{"token":"never clos' + "x" * 3000, '{"token":"…"'),
        ('{"a":{"authToken":["t"]}}', '{"a":{"authToken":"…"]}}'),
    ],
)
def test_a_message_is_shortened(message: str | bytes, shown: str) -> None:
    assert shortened(message) == shown


def test_errors_beside_a_socket_are_sent_as_well(
    app: Flask,
    chat: WSChat,
    server: LiveServer,
    failing: None,
    errors: Errors,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("oops")

    with app.app_context():
        task = chat.start_background_task(fail)
    assert task is not None and task.wait(5)
    connected.connect(fail, app)
    provoke(server, "on_close")
    eventually(lambda: len(errors) == 3)
    beside, receiver, _ = caplog.records
    assert about(beside)[:4] == (None,) * 4
    assert "the background task" in beside.__dict__["event"]
    assert about(receiver)[0] == "/<what>" and about(receiver)[-1] == "connected"


def test_who_is_told_of_an_error_and_fails_harms_nobody(
    app: Flask, server: LiveServer, failing: None, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sender: Flask, **_: Any) -> None:
        raise LookupError("not reported")

    got_request_exception.connect(fail, app)
    assert provoke(server, "move")[-1]["error"]["code"] == "internal"
    assert "a receiver of got_request_exception" in caplog.messages[-1]


def test_a_query_ends_no_field_of_the_access_log(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["WSCHAT_ACCESS_LOG"] = True
    WSChat(app)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    app.test_client().get(
        "/no?x", headers=headers, environ_overrides={"QUERY_STRING": 'x" 101 0.1 "'}
    )
    [line] = [r.getMessage() for r in caplog.records if r.name.endswith("access")]
    assert line.startswith('127.0.0.1 "GET /no?x%22 101 0.1 %22 HTTP/1.1" 404 ')


def test_other_lines_of_a_socket_have_the_attributes(
    app: Flask, server: LiveServer, failing: None, caplog: pytest.LogCaptureFixture
) -> None:
    evil = {"Origin": "https://evil.example"}
    with pytest.raises(InvalidStatus, match="403"):
        server.connect("/view", additional_headers=evil)
    [record] = caplog.records
    assert about(record) == ("/view", None, None, "127.0.0.1", "origin")
    caplog.clear()
    ws, peer, _ = open_pair(MAX_QUEUE=100)
    ws._address, ws._route = "10.0.0.1\n", "/echo"
    peer.transport.pause()
    while ws._transport.write(ws._connection.send("x" * 50)):
        pass
    ws._overflow()
    [record] = caplog.records
    assert about(record) == ("/echo", None, ws.id, r"10.0.0.1\n", "slow")
