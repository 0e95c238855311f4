"""A server that knows nothing of WebSockets, and minds the letter of PEP 3333."""

from __future__ import annotations

import http.client
import threading
import wsgiref.simple_server
import wsgiref.validate
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from flask_wschat import Listener, WSChat

OPENING = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def port(app: Flask, chat: WSChat) -> Iterator[int]:
    chat.listener("/listen")(Listener)
    app.add_url_rule("/page", "page", lambda: "a page")
    server = wsgiref.simple_server.make_server(
        "127.0.0.1",
        0,
        wsgiref.validate.validator(app),
        handler_class=Quiet,
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def ask(port: int, path: str, headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_strict_server_passes_on_every_answer(port: int) -> None:
    assert ask(port, "/page", {}) == (200, "a page")
    status, body = ask(port, "/listen", {})
    assert status == 426 and "new WebSocket(" in body
    status, body = ask(port, "/listen", OPENING)
    assert status == 501 and "gunicorn" in body
    status, body = ask(port, "/listen", {**OPENING, "Sec-WebSocket-Version": "8"})
    assert status == 501
    assert ask(port, "/page", OPENING)[0] == 400  # as Werkzeug says it
    assert ask(port, "/nowhere", OPENING)[0] == 404
