"""``WSChat(app)`` changes nothing for requests that do not ask to upgrade."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    redirect,
    request,
    session,
    stream_with_context,
    url_for,
)
from flask.sessions import SecureCookieSessionInterface
from flask.views import MethodView
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder, run_wsgi_app

from flask_wschat import WSChat

WRAPPED = {"wsgi_app", "request_context", "create_url_adapter", "dispatch_request"}
"""Methods that are the extension's in an application; of these it goes straight on."""


def build(**options: Any) -> Flask:
    """Return an app that uses most of what Flask has."""
    app = Flask("an_app", **options)
    app.secret_key = "for tests"
    log: list[Any] = []
    app.extensions["log"] = log
    area = Blueprint("area", __name__, url_prefix="/area")

    @app.before_request
    def before() -> None:
        log.append((request.endpoint, type(request.url_rule), current_app.name))
        g.before = True

    @app.after_request
    def after(response: Response) -> Response:
        response.headers["X-After"] = str(g.get("before"))
        return response

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        log.append(("teardown", type(error)))

    @app.get("/")
    def index() -> str:
        return url_for("area.page", n=5, _external=True)

    @app.get("/adapter")
    def adapter() -> Any:
        adapter: Any = app.create_url_adapter(request)
        methods = sorted(adapter.allowed_methods("/form"))
        return jsonify(type(adapter).__name__, methods, adapter.test("/nowhere"))

    @app.route("/form", methods=["GET", "POST"])
    def form() -> str:
        flash(request.form.get("word", "none"))
        return " ".join([*request.form.values(), *get_flashed_messages()])

    @app.get("/count")
    def count() -> dict[str, object]:
        session["n"] = session.get("n", 0) + 1
        session.permanent = True
        return {"n": session["n"], "kind": type(session._get_current_object()).__name__}  # type: ignore[attr-defined]

    @app.get("/clear")
    def clear() -> Any:
        session.clear()
        return redirect(url_for("index"))

    @app.get("/stream")
    def stream() -> Response:
        words = (f"{request.path}{n}" for n in range(3))
        return Response(stream_with_context(words))

    @app.get("/slash/")
    def slash() -> str:
        return "slash"

    @app.get("/abort/<int:code>")
    def refuse(code: int) -> str:
        abort(code)

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError

    @app.errorhandler(418)
    def teapot(error: Any) -> tuple[str, int]:
        return "short and stout", 418

    @area.before_request
    def in_area() -> None:
        g.area = True

    @area.get("/<int:n>")
    def page(n: int) -> str:
        return f"{n} {g.area} {request.blueprint}"

    class Method(MethodView):
        def put(self) -> str:
            return "put"

    app.add_url_rule("/method", view_func=Method.as_view("method"))
    app.register_blueprint(area)
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    return app


REQUESTS: list[dict[str, Any]] = [
    {"path": "/"},
    {"path": "/", "method": "HEAD"},
    {"path": "/", "method": "OPTIONS"},
    {"path": "/", "method": "DELETE"},
    {"path": "/", "base_url": "https://example.com:8443/mounted"},
    {"path": "/", "headers": {"X-Forwarded-Host": "proxied.example"}},
    {"path": "/", "headers": {"Host": "bad host"}},
    {"path": "/adapter"},
    {"path": "/form", "method": "POST", "data": {"word": "caf\xe9"}},
    {"path": "/form", "method": "POST", "data": b"{", "content_type": "text/json"},
    {"path": "/count"},
    {"path": "/count", "headers": {"Cookie": "session=junk"}},
    {"path": "/clear"},
    {"path": "/stream"},
    {"path": "/slash"},
    {"path": "/slash/"},
    {"path": "/nowhere"},
    {"path": "/caf\xe9"},
    {"path": "/abort/403"},
    {"path": "/abort/418"},
    {"path": "/broken"},
    {"path": "/area/7"},
    {"path": "/area/x"},
    {"path": "/method", "method": "PUT"},
    {"path": "/method"},
    {"path": "/static/none.css"},
    # To upgrade to something else, or without saying so twice, is not to ask for it
    {"path": "/", "headers": {"Upgrade": "h2c", "Connection": "Upgrade"}},
    {"path": "/", "headers": {"Upgrade": "websocket"}},
    {"path": "/count", "headers": {"Connection": "Upgrade"}},
    {
        "path": "/form",
        "method": "POST",
        "headers": {"Upgrade": "websocket", "Connection": "Upgrade"},
    },
]


def answers(app: Flask) -> list[Any]:
    """Return the answers to all requests, and what the app has noted meanwhile."""
    found: list[Any] = []
    cookies = ""
    for asked in REQUESTS:
        builder = EnvironBuilder(**asked)
        if cookies and "Cookie" not in builder.headers:
            builder.headers["Cookie"] = cookies
        body, status, headers = run_wsgi_app(app, builder.get_environ(), buffered=True)
        found.append((asked, status, headers.to_wsgi_list(), b"".join(body)))
        if new := headers.get("Set-Cookie"):
            cookies = new.partition(";")[0]
    return [*found, app.extensions["log"]]


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cookies be signed at the same time."""
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: 1_800_000_000.5)
    monkeypatch.setattr("flask.sessions.datetime", _Frozen)


class _Frozen:
    @staticmethod
    def now(zone: Any) -> Any:
        from datetime import datetime

        return datetime(2030, 1, 1, tzinfo=zone)


OPTIONS: list[Callable[[Flask], Any]] = [
    lambda app: None,
    lambda app: app.config.update(SERVER_NAME="example.com"),
    lambda app: app.config.update(TRUSTED_HOSTS=["localhost"]),
    lambda app: app.config.update(SESSION_COOKIE_NAME="other", SECRET_KEY="other"),
    lambda app: app.config.update(SECRET_KEY=None),
    lambda app: app.config.update(WSCHAT_SHORTCUTS=False),
]


@pytest.mark.filterwarnings("ignore:Current server name")
@pytest.mark.parametrize("option", OPTIONS)
def test_the_answers_are_the_same_to_the_byte(option: Callable[[Flask], Any]) -> None:
    plain, ours = build(), build()
    option(plain)
    option(ours)
    chat = WSChat(ours)
    chat.route("/socket")(lambda ws: None)
    assert answers(ours) == answers(plain)


def test_what_an_application_has_stays_its_own() -> None:
    app = build()
    app.session_interface = SecureCookieSessionInterface()
    before = vars(app).copy()
    parts = {name: dict(value) for name, value in before.items() if type(value) is dict}
    chat = WSChat(app)
    chat.route("/socket")(lambda ws: None)
    after = vars(app)
    changed = {name for name in after if after[name] is not before.get(name)}
    assert changed == {*WRAPPED, "create_jinja_environment"}  # called once, if at all
    for name, value in parts.items():
        assert {key: after[name].get(key) for key in value} == value
        added = map(str, after[name].keys() - value.keys())
        assert {key for key in added if not key.startswith("wschat")} <= {"<lambda>"}


def test_what_flask_gives_to_all_applications_stays() -> None:
    before = vars(Flask).copy()
    app = Flask("app")
    interface, map_class = app.session_interface, type(app.url_map)
    WSChat(app)
    assert vars(Flask) == before
    assert app.session_interface is interface
    assert app.session_interface is Flask.session_interface
    assert type(app.url_map) is map_class
    for name in ("request_class", "response_class", "app_ctx_globals_class"):
        assert name not in vars(app)


def test_methods_of_the_instance_are_passed_on_to() -> None:
    """Also those that a subclass has, and those set before."""
    called: list[str] = []

    class Mine(Flask):
        def create_url_adapter(self, request: Any) -> Any:
            called.append("create_url_adapter")
            return super().create_url_adapter(request)

        def request_context(self, environ: Any) -> Any:
            called.append("request_context")
            return super().request_context(environ)

        def dispatch_request(self, *args: Any) -> Any:
            called.append("dispatch_request")
            return super().dispatch_request(*args)

        def wsgi_app(self, environ: Any, start_response: Any) -> Any:
            called.append("wsgi_app")
            return super().wsgi_app(environ, start_response)

    calls = []
    for extend in (lambda app: app, WSChat):
        app = Mine("mine")
        app.add_url_rule("/", "index", lambda: "index")
        extend(app)
        assert app.test_client().get("/").text == "index"
        calls.append(called.copy())
        called.clear()
    assert calls[0] == calls[1]
    assert set(calls[0]) == WRAPPED
