"""URL adapters of requests that ask to upgrade: Flask's, for both kinds of route."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.routing import Map, MapAdapter, Rule, WebsocketMismatch
from werkzeug.test import EnvironBuilder

from flask_wschat.shortcuts.routing import Adapters

ENVIRON = {"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"}


@pytest.fixture
def app() -> Flask:
    app = Flask("an_app")
    app.add_url_rule("/socket/<int:n>", "socket", lambda n: "", websocket=True)
    app.add_url_rule("/page", "page", lambda: "", methods=["GET", "POST"])
    app.add_url_rule("/slash/", "slash", lambda: "", websocket=True)
    return app


def asked(app: Flask, path: str, base_url: str = "http://localhost") -> Any:
    """Return a request of ``path`` that no adapter was made for."""
    builder = EnvironBuilder(path, base_url, environ_base=ENVIRON)
    return app.request_class(builder.get_environ())


def outcome(function: Any, *args: Any, **options: Any) -> Any:
    try:
        return function(*args, **options)
    except HTTPException as error:
        return type(error), getattr(error, "new_url", None)


@pytest.mark.parametrize("times", [1, 3], ids=["made", "known"])
@pytest.mark.parametrize("path", ["/socket/5", "/slash/", "/slash", "/nowhere", "/a?b"])
def test_an_adapter_answers_all_that_flasks_does(
    app: Flask, path: str, times: int
) -> None:
    adapters = Adapters(app)
    made = [adapters.get(asked(app, path)) for _ in range(times)][-1]
    flasks: MapAdapter | None = app.create_url_adapter(asked(app, path))
    assert flasks is not None
    for adapter in (made, flasks):
        outcome(adapter.match, return_rule=True)  # as Flask does first
    for question, args in [
        *(("match", ()), ("match", ("/socket/7",)), ("match", ("/page",))),
        *(("match", ("/page", "POST")), ("match", ("/socket/7", "PUT"))),
        *(("test", ()), ("test", ("/socket/1",)), ("test", ("/page",))),
        *(("allowed_methods", ()), ("allowed_methods", ("/socket/1",))),
        *(("build", ("socket", {"n": 3})), ("build", ("page",))),
        ("get_host", (None,)),
    ]:
        answers = [
            outcome(getattr(adapter, question), *args) for adapter in (made, flasks)
        ]
        assert answers[0] == answers[1], (question, args)
    assert vars(made) == vars(flasks)


@pytest.mark.parametrize("times", [1, 3], ids=["made", "known"])
def test_a_plain_route_is_found(app: Flask, times: int) -> None:
    adapters = Adapters(app)
    made = [adapters.get(asked(app, "/page")) for _ in range(times)][-1]
    assert made.match(return_rule=True)[0].endpoint == "page"
    assert made.match() == ("page", {})
    assert made.test() and sorted(made.allowed_methods()) == [
        *("GET", "HEAD", "OPTIONS", "POST")
    ]


def test_adapters_of_ones_own_stay(app: Flask) -> None:
    class Adapter(MapAdapter):
        pass

    class Own(Map):
        def bind_to_environ(self, *args: Any, **options: Any) -> MapAdapter:
            adapter = super().bind_to_environ(*args, **options)
            adapter.__class__ = Adapter
            return adapter

    app.url_map = Own(
        [
            Rule("/socket/<int:n>", endpoint="socket", websocket=True),
            Rule("/page", endpoint="page"),
        ]
    )
    adapters = Adapters(app)
    for _ in range(2):
        found = [adapters.get(asked(app, path)) for path in ("/socket/5", "/page")]
        assert [type(adapter) for adapter in found] == [Adapter, Adapter]
        assert [a.match()[0] for a in found] == ["socket", "page"]
    with pytest.raises(WebsocketMismatch):
        found[0].match("/page")


def test_no_host_is_vouched_for_that_flask_did_not_look_at(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of Flask 3.0, where a function before the request may set the trusted ones."""
    monkeypatch.setattr(
        app,
        "create_url_adapter",
        lambda request: app.url_map.bind_to_environ(request.environ),
    )
    adapters = Adapters(app)
    monkeypatch.setattr(adapters, "_as_usual", True)
    for _ in range(3):
        late = asked(app, "/socket/5", base_url="http://evil.example")
        assert adapters.get(late).match()[0] == "socket"
        late.trusted_hosts = ["good.example"]
        with pytest.raises(HTTPException):
            late.host  # noqa: B018


def test_trusted_hosts_are_minded(app: Flask) -> None:
    adapters = Adapters(app)
    adapters.get(asked(app, "/socket/5", base_url="http://evil.example"))
    app.config["TRUSTED_HOSTS"] = ["good.example"]
    late = asked(app, "/socket/5", base_url="http://evil.example")
    theirs = asked(app, "/socket/5", base_url="http://evil.example")
    outcomes = outcome(adapters.get, late), outcome(app.create_url_adapter, theirs)
    if "TRUSTED_HOSTS" in Flask.default_config:  # as of Flask 3.1
        assert outcomes[0] == outcomes[1] == (SecurityError, None)
    else:
        assert [adapter.match() for adapter in outcomes] == [("socket", {"n": 5})] * 2


def test_what_cannot_be_copied_is_made_as_flask_does(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = Adapters(app)
    monkeypatch.setattr(adapters, "_key", lambda request: 1 / 0)
    for path, endpoint in (("/socket/5", "socket"), ("/page", "page")):
        assert adapters.get(asked(app, path)).match()[0] == endpoint
