"""URL adapters of requests that ask to upgrade: Flask's, for both kinds of route."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Flask, session
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException
from werkzeug.routing import (
    BaseConverter,
    Map,
    MapAdapter,
    Rule,
    WebsocketMismatch,
)
from werkzeug.test import EnvironBuilder

from flask_wschat import WSChat
from flask_wschat.opening.either import EitherAdapter, find_either
from flask_wschat.servers.offers import UPGRADE
from flask_wschat.shortcuts.routing import Adapters

PATHS = ["/socket/5", "/slash/", "/slash", "/nowhere", "/page", "/hosted", "/a?b=%C3"]
BASES = [
    "http://localhost",
    "http://localhost:5000",
    "https://example.com",
    "https://example.com:443",
    "http://example.com:80",
    "http://example.com:5000/mounted",
    "http://chat.example.com",
    "http://CHAT.Example.COM",
    "http://evil.example",
    "http://127.0.0.1:8000",
    "http://[::1]:5000",
    "http://[::1]",
]


def build(**options: Any) -> Flask:
    """Return an app with routes of both kinds."""
    app = Flask("an_app", **options)
    app.secret_key = "for tests"
    host: dict[str, Any] = {}
    if options.get("host_matching"):
        host = {"host": "<name>.example.com"}
    app.add_url_rule("/socket/<int:n>", "socket", lambda n: "", websocket=True)
    app.add_url_rule("/page", "page", lambda: "", methods=["GET", "POST"])
    app.add_url_rule("/slash/", "slash", lambda: "", websocket=True)
    app.add_url_rule("/hosted", "hosted", lambda **_: "", websocket=True, **host)
    if options.get("subdomain_matching"):
        app.add_url_rule(
            "/hosted", "sub", lambda **_: "", websocket=True, subdomain="<name>"
        )
    return app


def plain() -> Flask:
    return build()


def with_server_name() -> Flask:
    app = build()
    app.config["SERVER_NAME"] = "example.com"
    return app


def with_port_in_server_name() -> Flask:
    app = build()
    app.config["SERVER_NAME"] = "example.com:5000"
    return app


def with_subdomains() -> Flask:
    app = build(subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.com"
    return app


def with_subdomains_of_nothing() -> Flask:
    return build(subdomain_matching=True)


def with_default_subdomain() -> Flask:
    app = build()
    app.url_map.default_subdomain = "www"
    return app


def with_hosts() -> Flask:
    return build(host_matching=True, static_host="example.com")


def with_trusted_hosts() -> Flask:
    app = build()
    app.config["TRUSTED_HOSTS"] = [".example.com", "localhost"]
    return app


def with_class() -> Flask:
    class Own(Flask):
        def create_url_adapter(self, request: Any) -> Any:
            adapter = super().create_url_adapter(request)
            if adapter is not None:
                adapter.script_name = "/own/"
            return adapter

    app = Own("own")
    app.add_url_rule("/socket/<int:n>", "socket", lambda n: "", websocket=True)
    app.add_url_rule("/page", "page", lambda: "")
    return app


APPS = [
    *(plain, with_server_name, with_port_in_server_name, with_subdomains),
    *(with_subdomains_of_nothing, with_default_subdomain, with_hosts),
    *(with_trusted_hosts, with_class),
]


def asked(app: Flask, path: str, base: str = "http://localhost", **more: str) -> Any:
    """Return a request of ``path`` that no adapter was made for."""
    builder = EnvironBuilder(path, base)
    environ = builder.get_environ()
    environ |= {"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"}
    environ |= {UPGRADE: object(), **more}
    return app.request_class(environ)


def outcome(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return function(*args, **options)
    except Exception as error:
        return type(error), getattr(error, "new_url", None), str(error)


QUESTIONS = [
    *(("match", ()), ("match", ("/socket/7",)), ("match", ("/page",))),
    *(("match", ("/page", "POST")), ("match", ("/socket/7", "PUT"))),
    *(("test", ()), ("test", ("/socket/1",)), ("test", ("/page",))),
    *(("allowed_methods", ()), ("allowed_methods", ("/socket/1",))),
    *(("allowed_methods", ("/page",)), ("get_host", (None,)), ("get_host", ("x",))),
    *(("build", ("socket", {"n": 3})), ("build", ("page",))),
    ("build", ("page", {}, "GET", True)),
]


def answers(adapter: Any, request: Any) -> list[Any]:
    """Return all that can be known of an adapter and what it has made of a request."""
    if not isinstance(adapter, MapAdapter):
        return [adapter]
    found = [vars(adapter).copy(), outcome(adapter.match, return_rule=True)]
    found += [outcome(getattr(adapter, name), *args) for name, args in QUESTIONS]
    found += [vars(adapter), outcome(lambda: request.host), request.trusted_hosts]
    return found


def compare(app: Flask, requests: Iterable[Callable[[], Any]]) -> None:
    """See that each of several requests finds what Flask's own adapter does."""
    for new in requests:
        ours, flasks = new(), new()
        made = outcome(app.create_url_adapter, ours)
        long = outcome(
            lambda request: find_either(type(app).create_url_adapter(app, request)),
            flasks,
        )
        assert answers(made, ours) == answers(long, flasks)


@pytest.mark.filterwarnings("ignore:Current server name")
@pytest.mark.parametrize("make", APPS)
def test_an_adapter_answers_all_that_flasks_does(make: Callable[[], Flask]) -> None:
    app = make()
    WSChat(app)
    for base in BASES:
        for path in PATHS:
            compare(app, [lambda: asked(app, path, base)] * 3)  # noqa: B023


@pytest.mark.parametrize(
    "environ",
    [
        {"PATH_INFO": ""},
        {"PATH_INFO": "//page"},
        {"PATH_INFO": "/caf\xc3\xa9"},
        {"PATH_INFO": "/caf\xe9"},
        {"QUERY_STRING": "caf\xc3\xa9"},
        {"SCRIPT_NAME": "/mounted"},
        {"SCRIPT_NAME": "/caf\xc3\xa9"},
        {"REQUEST_METHOD": "HEAD"},
        {"REQUEST_METHOD": "POST"},
        {"REQUEST_METHOD": "get"},
        {"HTTP_CONNECTION": "keep-alive, Upgrade"},
        {"HTTP_CONNECTION": "keep-alive"},
        {"HTTP_UPGRADE": "WebSocket"},
        {"wsgi.url_scheme": "https"},
        {"wsgi.url_scheme": "ws"},
        {"HTTP_HOST": ""},
        {"HTTP_HOST": "a" * 600},
        {"HTTP_HOST": "b\xfccher.example"},
        {"HTTP_HOST": "xn--bcher-kva.example"},
        {"HTTP_HOST": "evil example"},
        {"SERVER_PORT": "8000"},
    ],
    ids=str,
)
@pytest.mark.parametrize("gone", [[], ["HTTP_HOST"], ["QUERY_STRING"], ["PATH_INFO"]])
def test_an_environ_out_of_the_ordinary(
    environ: dict[str, str], gone: list[str]
) -> None:
    app = plain()
    WSChat(app)

    def new() -> Any:
        request = asked(app, "/socket/5", **environ)
        for name in gone:
            del request.environ[name]
        return app.request_class(request.environ)

    compare(app, [lambda: asked(app, "/socket/5"), new, new, new])


SHARED = plain()
WSChat(SHARED)


@given(
    st.sampled_from(BASES),
    st.text(st.characters(max_codepoint=255)),
    st.text(st.characters(max_codepoint=255)),
)
def test_any_path_and_query(base: str, path: str, query: str) -> None:
    more = {"PATH_INFO": "/" + path, "QUERY_STRING": query}
    compare(SHARED, [lambda: asked(SHARED, "/", base, **more)] * 2)


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_host(host: str) -> None:
    compare(SHARED, [lambda: asked(SHARED, "/page", HTTP_HOST=host)] * 2)


CHANGES: dict[str, Callable[[Flask], Any]] = {
    "SERVER_NAME": lambda app: app.config.update(SERVER_NAME="example.com"),
    "TRUSTED_HOSTS": lambda app: app.config.update(TRUSTED_HOSTS=["good.example"]),
    "subdomain": lambda app: setattr(app.url_map, "default_subdomain", "www"),
    "subdomain matching": lambda app: setattr(app, "subdomain_matching", True),
    "host matching": lambda app: setattr(app.url_map, "host_matching", True),
    "another map": lambda app: setattr(app, "url_map", Map([Rule("/x", endpoint="x")])),
    "trusted hosts of a class": lambda app: setattr(
        app.request_class, "trusted_hosts", ["good.example"]
    ),
}


@pytest.mark.filterwarnings("ignore:Current server name")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_changes_later_counts(change: Callable[[Flask], Any]) -> None:
    app = plain()
    app.request_class = type("Own", (app.request_class,), {})
    WSChat(app)
    for base in ("http://evil.example", "http://good.example"):
        compare(app, [lambda: asked(app, "/page", base)] * 2)  # noqa: B023
    change(app)
    for base in ("http://evil.example", "http://good.example"):
        compare(app, [lambda: asked(app, "/page", base)] * 3)  # noqa: B023


@pytest.mark.parametrize("times", [1, 3], ids=["made", "known"])
def test_a_plain_route_is_found(times: int) -> None:
    app = plain()
    WSChat(app)
    made = [app.create_url_adapter(asked(app, "/page")) for _ in range(times)][-1]
    assert isinstance(made, EitherAdapter)
    assert made.match(return_rule=True)[0].endpoint == "page"
    assert made.match() == ("page", {})
    assert made.test() and sorted(made.allowed_methods()) == [
        *("GET", "HEAD", "OPTIONS", "POST")
    ]


@pytest.mark.shortcut
def test_a_known_one_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    app = plain()
    WSChat(app)
    app.create_url_adapter(asked(app, "/page"))

    def fail(*args: Any, **options: Any) -> Any:
        raise AssertionError("the long way")

    monkeypatch.setattr(Map, "bind_to_environ", fail)
    adapter = app.create_url_adapter(asked(app, "/socket/5?a=b"))
    assert adapter is not None and adapter.match() == ("socket", {"n": 5})
    with pytest.raises(AssertionError, match="the long way"):
        app.create_url_adapter(asked(app, "/page", "http://other.example"))


class OwnAdapter(MapAdapter):
    pass


class OwnMap(Map):
    def bind_to_environ(self, *args: Any, **options: Any) -> MapAdapter:
        adapter = super().bind_to_environ(*args, **options)
        adapter.__class__ = OwnAdapter
        return adapter


def test_adapters_of_ones_own_stay() -> None:
    app = Flask("app")
    app.url_map = OwnMap(
        [
            Rule("/socket/<int:n>", endpoint="socket", websocket=True),
            Rule("/page", endpoint="page"),
        ]
    )
    WSChat(app)
    for _ in range(2):
        found = [
            app.create_url_adapter(asked(app, path)) for path in ("/socket/5", "/page")
        ]
        assert [type(adapter) for adapter in found] == [OwnAdapter, OwnAdapter]
        assert [a and a.match()[0] for a in found] == ["socket", "page"]
    with pytest.raises(WebsocketMismatch):
        found[0].match("/page")  # type: ignore[union-attr]


@pytest.mark.parametrize("own", [False, True])
def test_a_converter_that_fails_is_answered_for_by_flask(own: bool) -> None:
    """Also one that looks at the session, which is open only when Flask asks."""

    class OfUser(BaseConverter):
        def to_python(self, value: str) -> Any:
            return 1 / 0 if value == "fail" else session.get("user", value)

    app = Flask("app")
    app.secret_key = "for tests"
    if own:
        app.url_map = OwnMap()
    app.url_map.converters["user"] = OfUser
    chat = WSChat(app)
    chat.route("/socket/<user:who>")(lambda ws, who: None)
    context = app.request_context(asked(app, "/socket/fail").environ)
    with pytest.raises(ZeroDivisionError):
        try:
            context.push()
        finally:
            context.pop()
    with app.request_context(asked(app, "/socket/ann").environ) as context:
        assert context.request.view_args == {"who": "ann"}


@pytest.mark.shortcut
def test_no_host_is_vouched_for_that_flask_did_not_look_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of Flask 3.0, where a function before the request may set the trusted ones."""
    app = plain()
    adapters = Adapters(app, EitherAdapter)
    first = asked(app, "/socket/5", "http://evil.example")
    adapters.learn(first, find_either(app.url_map.bind_to_environ(first.environ)))
    for _ in range(3):
        late = asked(app, "/socket/5", "http://evil.example")
        adapter = adapters.find(late)
        assert adapter.match()[0] == "socket"
        late.trusted_hosts = ["good.example"]
        with pytest.raises(HTTPException):
            late.host  # noqa: B018


def test_what_cannot_be_told_apart_is_made_as_flask_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Adapters, "_key", lambda *_: 1 / 0)
    app = plain()
    WSChat(app)
    compare(app, [lambda: asked(app, path) for path in PATHS])  # noqa: B023


@pytest.mark.shortcut
def test_only_so_many_are_known() -> None:
    app = plain()
    adapters = Adapters(app, EitherAdapter)
    for number in range(100):
        request = asked(app, "/page", f"http://h{number}.example")
        made = find_either(app.create_url_adapter(request))
        adapters.learn(request, made)
    known = [
        adapters.find(asked(app, "/page", f"http://h{number}.example"))
        for number in range(100)
    ]
    assert sum(each is not None for each in known) == 64


def test_switched_off_nothing_is_known() -> None:
    app = plain()
    adapters = Adapters(app, EitherAdapter, quickly=False)
    request = asked(app, "/page")
    adapters.learn(request, find_either(app.create_url_adapter(request)))
    assert adapters.find(asked(app, "/page")) is None
