"""What docs/operate/logs.md shows is run as it stands there."""

from __future__ import annotations

import importlib
import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

import flask_wschat
from flask_wschat import Events, Listener, WebSocket, WSChat, event, signals
from flask_wschat.settings import Settings
from flask_wschat.testing import Refused, WSChatClient
from tests.support.processes import ROOT
from tests.support.waiting import eventually

PAGE = (ROOT / "docs/operate/logs.md").read_text()
SNIPPETS = dict(re.findall(r"<!-- test: (\w+) -->\n```python\n(.*?)```", PAGE, re.S))


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, which is afterwards as it was before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def failing(app: Flask) -> Flask:
    app.config["WSCHAT_ACCESS_LOG"] = True
    chat = WSChat(app)

    @chat.listener("/events")
    class Board(Events):
        @event
        def move(self, x: int) -> None:
            raise ValueError("oops")

    @chat.route("/echo")
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    return app


def move(app: Flask) -> None:
    client = WSChatClient(app)
    with client.connect("/events?ticket=", user="ann") as ws:
        ws.receive()
        ws.send({"type": "move", "ref": 1, "x": 2})
        ws.receive()
        client.errors.clear()
    with pytest.raises(Refused), client.connect("/nowhere"):
        pass


@pytest.mark.parametrize("recipe", ["json", "structlog"])
def test_each_line_is_json(recipe: str, root: logging.Logger, failing: Flask) -> None:
    root.handlers[:] = []
    exec(SNIPPETS[recipe], {})
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    said = io.StringIO()
    handler.setStream(said)
    move(failing)
    eventually(lambda: said.getvalue().count("\n") == 4, said.getvalue)
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    order = ["open", "move", "close", "refused"]
    opened, failed, ended, refused = sorted(
        lines, key=lambda line: order.index(line["event"])
    )
    assert failed["message"].startswith("Exception in the event 'move' of /events")
    assert (failed["user"], failed["route"], failed["event"]) == (
        "ann",
        "/events",
        "move",
    )
    error = failed.get("error") or failed["exception"]
    assert error.endswith("ValueError: oops")
    assert opened["connection"] == failed["connection"] == ended["connection"]
    assert opened["status"] == 101 and ended["code"] == 1000
    assert refused["status"] == 404 and refused["path"] == "/nowhere"


def test_signals(failing: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scope = {"app": failing}
    exec(SNIPPETS["signals"], scope)
    with WSChatClient(failing).connect("/echo", user="ann"):
        pass
    eventually(lambda: "ann left: 1000" in caplog.text)
    assert "ann came to /echo from 127.0.0.1" in caplog.text


def test_spans(failing: Flask) -> None:
    # By name: who checks the types may have none of it.
    trace = importlib.import_module("opentelemetry.trace")
    sdk = importlib.import_module("opentelemetry.sdk.trace")
    exporting = importlib.import_module("opentelemetry.sdk.trace.export")
    memory: Any = importlib.import_module(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter"
    ).InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(exporting.SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    chat = failing.extensions["wschat"]

    @chat.listener("/plain")
    class Plain(Listener):
        def on_open(self, ws: WebSocket) -> None:
            pass

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.send(trace.get_current_span().name)

    exec(SNIPPETS["spans"], {"chat": chat})
    move(failing)
    with WSChatClient(failing).connect("/plain") as ws:
        ws.send("a")
        ws.assert_received("on_message /plain")
    with WSChatClient(failing).connect("/echo") as ws:
        ws.send("a")
        ws.assert_received("a")
    eventually(
        lambda: len(memory.get_finished_spans()) == 3,
        lambda: repr([span.name for span in memory.get_finished_spans()]),
    )
    spans = {span.name: span for span in memory.get_finished_spans()}
    assert spans.keys() == {
        *("move /events", "on_open /plain", "on_message /plain"),
    }
    failed = spans["move /events"]
    assert failed.attributes["enduser.id"] == "ann"
    assert failed.attributes["http.route"] == "/events"
    [error] = failed.events
    assert error.attributes["exception.message"] == "oops"


def test_the_page_names_what_there_is() -> None:
    tables = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE, re.M))
    for name in signals.__all__:
        assert name in tables
        told = re.findall(r"`(\w+)`", tables[name])
        doc = getattr(flask_wschat, name).__doc__
        assert doc.startswith(f"``(app, {', '.join(told)})``")
    assert {"route", "user", "connection", "address", "event"} < tables.keys()
    assert "`WSCHAT_ACCESS_LOG = True`" in PAGE and not Settings().ACCESS_LOG
