"""``/_wschat/metrics``: what Prometheus reads, and who may."""

from __future__ import annotations

import gzip
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest, parser
from prometheus_client.openmetrics import parser as openmetrics

from flask_wschat import WSChat
from flask_wschat.chat.listener import ChatListener
from flask_wschat.errors import ConfigError
from flask_wschat.operate.metrics import Collector
from tests.support.exposition import PAGE, values
from tests.support.live import Serve


def ask(app: Flask, headers: dict[str, str] | None = None, **environ: str) -> Any:
    return app.test_client().get(PAGE, headers=headers, environ_overrides=environ)


def test_what_was_counted_is_told(app: Flask, chat: WSChat, serve: Serve) -> None:
    @chat.authenticate
    def who() -> str:
        return "ann"

    @chat.listener("/chat")
    class Chat(ChatListener):
        pass

    with serve(app).connect("/chat") as client:
        client.recv()
        client.send('{"type": "join", "ref": 1, "room": "Kitchen"}')
        client.recv()
        text = chat.metrics()
    found = values(text)
    assert found["wschat_workers"] == 1
    assert found["wschat_backend_up"] == 1
    assert found["wschat_connections"] == 1
    assert found["wschat_users"] == 1
    assert found["wschat_rooms"] == 1
    assert found["wschat_connections_opened_total"] == 1
    assert found["wschat_messages_received_total"] == 1
    assert found["wschat_handler_seconds_count"] == 1
    assert found["wschat_handshakes_refused_total{status=403}"] == 0
    assert "Kitchen" not in text and "ann" not in re.findall(r"\w+", text)


def test_both_formats_are_what_their_parsers_read(app: Flask, chat: WSChat) -> None:
    names = (
        *("connections", "users", "rooms", "queued_bytes", "workers", "backend_up"),
        *("connections_opened", "connections_closed", "handshakes_refused"),
        *("messages_received", "messages_sent", "deliveries", "published"),
        *("slow_closes", "messages_dropped", "handler_errors", "handler_seconds"),
        *("backend_seconds", "loop_lag_seconds", "queue_bytes"),
    )
    plain = ask(app)
    assert plain.content_type == "text/plain; version=0.0.4; charset=utf-8"
    found = list(parser.text_string_to_metric_families(plain.text))
    assert sorted(f.name for f in found) == sorted(f"wschat_{n}" for n in names)
    assert plain.text == chat.metrics()

    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4"
    new = ask(app, {"Accept": accept})
    assert new.content_type.startswith("application/openmetrics-text; version=1.0.0")
    read: Any = openmetrics.text_string_to_metric_families
    found = list(read(new.text))
    assert sorted(f.name for f in found) == sorted(f"wschat_{n}" for n in names)
    assert {label for f in found for s in f.samples for label in s.labels} == {
        *("code", "status", "le")
    }
    assert all(f.documentation.endswith(".") for f in found)


def test_it_is_kept_by_nobody_and_packed_for_who_can(app: Flask, chat: WSChat) -> None:
    plain, packed = ask(app), ask(app, {"Accept-Encoding": "gzip;q=0.5"})
    assert packed.content_encoding == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    for answer in (plain, packed):
        assert answer.headers["Cache-Control"] == "no-store"
        assert set(answer.vary) == {"Accept", "Accept-Encoding"}
    refused = ask(app, {"Accept-Encoding": "gzip;q=0, identity"})
    assert refused.data == plain.data
    head = app.test_client().head(PAGE)
    assert (head.status_code, head.data) == (200, b"")
    assert app.test_client().post(PAGE).status_code == 405


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "172.31.0.1", "fd00::7"),
        *("fe80::1%eth0", "::ffff:10.0.0.1"),
    ],
)
def test_who_asks_from_a_private_address_is_told(
    app: Flask, chat: WSChat, address: str
) -> None:
    assert ask(app, REMOTE_ADDR=address).status_code == 200


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2a00::1", "::ffff:8.8.8.8", "", "unix", "10.0.0.1, 8.8.8.8"]
)
def test_others_are_told_what_to_do(app: Flask, chat: WSChat, address: str) -> None:
    answer = ask(app, REMOTE_ADDR=address)
    assert answer.status_code == 403
    assert "WSCHAT_METRICS = True" in answer.text
    assert "wschat_" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "header",
    [
        *("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via"),
        *("X-Forwarded-Server", "CF-Connecting-IP", "True-Client-IP"),
    ],
)
def test_who_comes_through_a_proxy_is_not_private(
    app: Flask, chat: WSChat, header: str
) -> None:
    answer = ask(app, {header: "127.0.0.1"}, REMOTE_ADDR="127.0.0.1")
    assert answer.status_code == 403
    assert header.lower() in answer.text.lower()


def test_who_comes_by_an_old_protocol_may_be_anybody(app: Flask, chat: WSChat) -> None:
    """nginx adds no header by itself, and speaks HTTP/1.0."""
    answer = ask(app, REMOTE_ADDR="127.0.0.1", SERVER_PROTOCOL="HTTP/1.0")
    assert answer.status_code == 403 and "HTTP/1.0" in answer.text


def test_a_version_that_is_none_is_that_of_who_names_none(
    app: Flask, chat: WSChat
) -> None:
    for kind in ("application/openmetrics-text", "text/plain"):
        answer = ask(app, {"Accept": f"{kind};version=newest"})
        assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_figures_that_cannot_be_read_are_no_fault_of_the_program(
    app: Flask, chat: WSChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert ask(app).status_code == 200  # it has a file of its own now
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as first_free:
        number = first_free.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        answer = ask(app)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answer.status_code == 503
    assert "Too many open files" in answer.text
    assert ask(app).status_code == 200


def test_everybody_may_or_nobody(app: Flask) -> None:
    app.config["WSCHAT_METRICS"] = True
    WSChat(app)
    assert ask(app, {"X-Forwarded-For": "8.8.8.8"}).status_code == 200
    assert ask(app, REMOTE_ADDR="8.8.8.8").status_code == 200

    closed = Flask(__name__)
    closed.config["WSCHAT_METRICS"] = 0  # as from the environment
    chat = WSChat(closed)
    assert ask(closed).status_code == 404
    with closed.app_context():
        assert "wschat_workers 1.0" in chat.metrics()

    wrong = Flask(__name__)
    wrong.config["WSCHAT_METRICS"] = "all"
    with pytest.raises(ConfigError, match='WSCHAT_METRICS must be "private", True or'):
        WSChat(wrong)


def test_an_applications_own_page_comes_first(app: Flask, chat: WSChat) -> None:
    @app.get(PAGE)
    def own() -> str:
        return "own"

    assert ask(app).text == "own"


def test_without_the_client_library_it_says_what_to_install(
    app: Flask, chat: WSChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    answer = ask(app)
    assert answer.status_code == 501
    assert "pip install" in answer.text and "[metrics]" in answer.text
    with pytest.raises(RuntimeError, match="pip install"):
        chat.metrics()


def test_a_registry_of_ones_own_has_it_too(app: Flask, chat: WSChat) -> None:
    registry = CollectorRegistry()
    registry.register(Collector(app))
    assert generate_latest(registry).decode() == chat.metrics()
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector(app))


def test_which_of_several_applications_is_meant() -> None:
    chat = WSChat()
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        chat.init_app(app)
    with pytest.raises(RuntimeError, match="which app"):
        chat.metrics()
    apps[1].extensions["wschat.hub"].figures.add("messages_in", 5)
    told = [values(ask(app).text)["wschat_messages_received_total"] for app in apps]
    assert told == [0, 5]


def test_it_is_there_at_each_host() -> None:
    app = Flask("hosts", host_matching=True, static_host="static.example")
    WSChat(app)
    for host in ("one.example", "two.example:8000"):
        assert app.test_client().get(PAGE, headers={"Host": host}).status_code == 200
