"""What a route does so that pages know it is there: docs/protocol.md, Heartbeats."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser

from flask_wschat import Events, Listener, WebSocket, WSChat
from tests.support.live import LiveServer
from tests.support.processes import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(60)]

PAGE = """<script type="module">
  import { WSChat } from "/_wschat/wschat.js";
  window.states = {};
  window.chats = {};
  for (const path of ["sensor", "events", "deaf", "plain"]) {
    const chat = (chats[path] = new WSChat(`/${path}`));
    chat.onState(({ state }) => (states[path] ??= []).push(state));
  }
</script>"""


def as_shown() -> Any:
    """Return the listener that the page of the protocol shows."""
    text = (ROOT / "docs" / "protocol.md").read_text().partition("## Heartbeats")[2]
    found = re.search(r"```python\n(.*?)```", text, re.S)
    assert found is not None
    names: dict[str, Any] = {"Listener": Listener, "json": json}
    exec(found[1], names)
    return names["Sensor"]


def test_a_page_knows_that_a_route_is_there_that_answers(
    app: Flask, chat: WSChat, server: LiveServer, chromium: Browser
) -> None:
    chat.listener("/sensor")(as_shown())
    chat.listener("/plain")(Listener)
    chat.listener("/events")(Events)

    @chat.listener("/deaf")
    class Deaf(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.send({"type": "hello", "ping": 25})

    app.add_url_rule("/", "page", lambda: PAGE)
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_function(
            "Object.values(window.chats ?? {}).every((chat) => chat.state === 'open'"
            " && (chat.hello || chat === chats.plain))"
        )
        page.evaluate("dispatchEvent(new Event('online'))")  # a reason to doubt
        page.wait_for_function("chats.deaf.state === 'reconnecting'")
        # All were asked at the same time, so those that are here have answered.
        for path in ("sensor", "events", "plain"):
            assert page.evaluate(f"states.{path}.at(-1)") == "open", path
            assert "reconnecting" not in page.evaluate(f"states.{path}"), path
        assert (
            page.evaluate("chats.sensor.request('ping').then(() => 'pong')") == "pong"
        )
        assert (
            page.evaluate("chats.events.request('ping').then(() => 'pong')") == "pong"
        )
