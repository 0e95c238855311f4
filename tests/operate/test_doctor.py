"""Each thing that can be wrong with an app or its server is found, and nothing else."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, redirect, request
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_wschat import Listener, WSChat
from flask_wschat.cli import wschat
from flask_wschat.operate.doctor import (
    build,
    examining,
    mirror,
    on_sqlite,
    origins,
    program,
    serving,
)
from flask_wschat.operate.doctor.finding import Finding, Kind, Setup

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "operate" / "doctor.md"

Change = Callable[[Flask], object]


def made(change: Change | None = None, **config: Any) -> Flask:
    """Return an app that is well set up, but for ``change``."""
    app = Flask("an_app")
    app.config.update({"SECRET_KEY": secrets.token_hex()} | config)
    if change is not None:
        change(app)
    chat = WSChat(app)
    chat.listener("/chat")(type("Chat", (Listener,), {}))
    return app


def behind_proxy(app: Flask, **counts: int) -> None:
    given = {"x_for": 1, "x_proto": 1, "x_host": 1} | counts
    app.wsgi_app = ProxyFix(app.wsgi_app, **given)  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def gunicorn() -> dict[str, Any]:
    """gunicorn's settings as docs/deploy has them, read by gunicorn."""
    words = "-k flask_wschat.gunicorn.Worker -w 4 app:app"
    found = examining.read_gunicorn(words.split(" "))
    assert isinstance(found, dict), found
    assert found["app"] == "app:app"
    return found | {"app": None}  # the tests' own are no modules


@pytest.fixture(autouse=True)
def as_usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(build, "SWITCH", None)  # whatever the tests run with
    logger = logging.getLogger("flask_wschat")
    logger.disabled = True
    yield
    logger.disabled = False


def found_in(setup: Setup) -> dict[str, Finding]:
    with setup.app.app_context():  # type: ignore[union-attr]
        found = examining.examine(setup)
    # In CI others may be newer than those that were tested.
    return {e.name: e for e in found if not e.name.startswith(("version-", "python-"))}


def test_nothing_is_said_of_a_good_set_up(
    gunicorn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_sqlite, "_is_temporary", lambda path: False)
    file = f"sqlite:///{tmp_path}/chat.db"
    app = made(behind_proxy, WSCHAT_URL=file)
    assert found_in(Setup(app=app, gunicorn=gunicorn)) == {}
    (tmp_path / "chat.db").touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(tmp_path / "chat.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
    assert found_in(Setup(app=app, gunicorn=gunicorn)) == {}


def test_in_development_there_are_notes_at_most() -> None:
    app = Flask("an_app")
    chat = WSChat(app)
    chat.route("/rooms/<room>")(lambda ws, room: None)
    found = found_in(Setup(app=app))
    assert set(found) == {"secret-key-missing"}
    assert {each.severity for each in found.values()} == {"note"}


OFF = {"SESSION_COOKIE_SAMESITE": "None"}
ORIGINS = "WSCHAT_ORIGINS"
SECURE = {"SESSION_COOKIE_SECURE": True}
SITE = "https://chat.example.org"

LONG = {"workers": 1, "timeout": 90, "graceful_timeout": 90}

CONFIGURED: list[tuple[str, dict[str, Any], str | None]] = [
    ("setting-unknown", {"WSCHAT_PING_INTERVALL": 25}, None),
    ("ping-rare", {"WSCHAT_PING_INTERVAL": 60}, None),
    ("ping-often", {"WSCHAT_PING_INTERVAL": 1}, None),
    ("ping-timeout-short", {"WSCHAT_PING_TIMEOUT": 1}, None),
    ("queue-smaller-than-message", {"WSCHAT_MAX_QUEUE": 1000}, None),
    ("queues-few", {"WSCHAT_MAX_QUEUED": 2 << 20}, None),
    ("history-smaller-than-message", {"WSCHAT_HISTORY_BYTES": 1000}, None),
    ("history-short", {"WSCHAT_HISTORY_TTL": 30}, None),
    ("drain-none", {"WSCHAT_DRAIN": 0}, None),
    ("drain-long", {"WSCHAT_DRAIN": 61}, None),
    ("handshake-timeout-long", {"WSCHAT_HANDSHAKE_TIMEOUT": 600}, None),
    (
        "places-contradict",
        {"WSCHAT_MAX_CONNECTIONS": 10, "WSCHAT_MAX_CONNECTIONS_PER_USER": 10},
        None,
    ),
    ("redis-wait-elsewhere", {"WSCHAT_REDIS_WAIT": 1}, None),
    ("shortcuts-off", {"WSCHAT_SHORTCUTS": False}, None),
    ("secret-key-missing", {"SECRET_KEY": None}, None),
    ("secret-key-known", {"SECRET_KEY": "dev"}, None),
    ("secret-key-known", {"SECRET_KEY": b"Change-me!"}, None),
    ("secret-key-short", {"SECRET_KEY": "Wq3kX9!"}, None),
    ("secret-key-short", {"SECRET_KEY": "a" * 64}, None),
    ("cookie-samesite", OFF, None),
    ("origins-any", {ORIGINS: "*"}, None),
    ("origins-null", {ORIGINS: ["null"]}, None),
    ("origins-path", {ORIGINS: ["https://a.example/chat"]}, None),
    ("origins-slash", {ORIGINS: ["https://a.example/"]}, None),
    ("origins-scheme", {ORIGINS: ["wss://a.example"]}, None),
    ("origins-http", {ORIGINS: ["http://a.example"], **SECURE}, None),
    ("origins-not-own", {ORIGINS: ["https://a.example"]}, SITE),
    ("trusted-hosts", {"TRUSTED_HOSTS": ["a.example"]}, SITE),
    ("server-name", {"SERVER_NAME": "a.example"}, SITE),
    ("cookie-secure", {}, SITE),
    ("cookie-never-sent", SECURE, "http://chat.example.org"),
    (
        "cookie-strict",
        {ORIGINS: [SITE, "https://a.example"], "SESSION_COOKIE_SAMESITE": "Strict"}
        | SECURE,
        SITE,
    ),
    ("testing", {"TESTING": True}, None),
    ("debug-in-production", {"DEBUG": True}, None),
]


@pytest.mark.parametrize(("name", "config", "url"), CONFIGURED)
def test_a_fault_of_the_configuration_is_found(
    name: str, config: dict[str, Any], url: str | None, gunicorn: dict[str, Any]
) -> None:
    if url is not None:
        config = {"SESSION_COOKIE_SECURE": name != "cookie-secure"} | config
    app = made(behind_proxy, **config)
    setup = Setup(app=app, gunicorn=gunicorn | LONG, url=url)
    looks = [look for look in examining.LOOKS if look.__name__ != "online"]
    with app.app_context():
        found = examining.examine(setup, looks)
    assert [each.name for each in found] == [name]


SERVED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("worker-sync", {"worker_class": "sync"}, {}),
    ("worker-unloadable", {"unloadable": "No module named 'packaging'"}, {}),
    ("gunicorn-app", {"app": "app:app", "app_is_there": False}, {}),
    ("gunicorn-app", {"app": "flask", "app_is_there": True}, {}),
    ("worker-foreign", {"worker_class": "uvicorn.workers.UvicornWorker"}, {}),
    (
        "worker-geventwebsocket",
        {"worker_class": "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"},
        {},
    ),
    ("threads-few", {"worker_class": "gthread", "threads": 1}, {}),
    (
        "gthread-in-public",
        {"worker_class": "gthread", "threads": 100, "bind": ["0.0.0.0:80"]},
        {},
    ),
    (
        "tls-in-threads",
        {"worker_class": "gthread", "threads": 100, "certfile": "a.pem"},
        {},
    ),
    ("memory-with-workers", {"workers": 2}, {}),
    ("graceful-timeout-short", {"graceful_timeout": 5}, {}),
    ("graceful-timeout-short", {"timeout": 0}, {"WSCHAT_DRAIN": 45}),
    ("timeout-short", {"timeout": 2}, {"WSCHAT_DRAIN": 1}),
    ("max-requests", {"max_requests": 1000}, {}),
    ("worker-connections", {}, {"WSCHAT_MAX_CONNECTIONS": 5000}),
    ("worker-connections-few", {"worker_connections": 10}, {}),
    ("gunicorn-reload", {"reload": True}, {}),
    (
        "forwarded-allow-ips",
        {"forwarded_allow_ips": ["*"], "bind": ["[::]:80"]},
        {},
    ),
    ("keep-alive-long", {"keepalive": 600}, {}),
]


@pytest.mark.parametrize(("name", "changes", "config"), SERVED)
def test_a_fault_of_the_server_is_found(
    name: str,
    changes: dict[str, Any],
    config: dict[str, Any],
    gunicorn: dict[str, Any],
) -> None:
    app = made(behind_proxy, **config)
    found = found_in(Setup(app=app, gunicorn=gunicorn | {"workers": 1} | changes))
    found.pop("proxyfix-in-public", None)
    assert set(found) == {name}


def test_figures_for_everybody(gunicorn: dict[str, Any]) -> None:
    app = made(behind_proxy, WSCHAT_METRICS=True)
    setup = Setup(app=app, gunicorn=gunicorn | {"workers": 1})
    assert "metrics-public" in found_in(setup)


def test_many_workers(gunicorn: dict[str, Any]) -> None:
    app = made(behind_proxy, WSCHAT_URL="redis://127.0.0.1:1")
    setup = Setup(app=app, gunicorn=gunicorn | {"workers": 999})
    assert [each.name for each in serving.gunicorn(setup)] == ["workers-many"]


PROXIED: list[tuple[str, Change | None, dict[str, Any], dict[str, Any]]] = [
    ("proxyfix-missing", None, {}, {}),
    (
        "proxyfix-places",
        None,
        {},
        {"WSCHAT_MAX_CONNECTIONS_PER_ADDRESS": 10},
    ),
    (
        "proxyfix-missing-for-https",
        None,
        {"bind": "0.0.0.0:80"},
        {"SESSION_COOKIE_SECURE": True},
    ),
    (
        "proxyfix-missing-for-https",
        None,
        {"bind": ["0.0.0.0:80"]},
        {"PREFERRED_URL_SCHEME": "https"},
    ),
    ("proxyfix-in-public", behind_proxy, {"bind": ["0.0.0.0:80"]}, {}),
    ("proxyfix-hops", lambda app: behind_proxy(app, x_for=4), {}, {}),
    ("proxyfix-partly", lambda app: behind_proxy(app, x_host=0), {}, {}),
    (
        "proxyfix-twice",
        lambda app: [behind_proxy(app) for _ in "12"],  # type: ignore[func-returns-value]
        {},
        {},
    ),
]


@pytest.mark.parametrize(("name", "change", "changes", "config"), PROXIED)
def test_a_fault_of_the_proxys_line_is_found(
    name: str,
    change: Change | None,
    changes: dict[str, Any],
    config: dict[str, Any],
    gunicorn: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(origins, "_in_container", lambda: False)
    app = made(change, **config)
    found = found_in(Setup(app=app, gunicorn=gunicorn | {"workers": 1} | changes))
    assert name in found
    assert set(found) <= {name, "proxyfix-missing"}


def test_proxyfix_after_the_extension_is_seen(gunicorn: dict[str, Any]) -> None:
    app = made()
    behind_proxy(app)
    assert found_in(Setup(app=app, gunicorn=gunicorn | {"workers": 1})) == {}


def test_what_is_in_the_way_of_our_routes_is_found() -> None:
    app = Flask("an_app", static_folder=None)
    app.secret_key = secrets.token_hex()
    WSChat(app)
    app.add_url_rule("/_wschat/mine", "mine", lambda: "")
    app.before_request(lambda: ("log in", 401))
    app.extensions |= {"socketio": None, "sock": None}
    found = found_in(Setup(app=app, url="http://localhost:1"))
    assert "answers 401" in found["health-blocked"].what
    wanted = {"health-blocked", "no-routes", "route-of-our-name", "socketio-route"}
    assert wanted | {"flask-sock"} <= set(found)


def test_an_app_for_https_only_is_asked_so() -> None:
    app = made()

    @app.before_request
    def secured() -> Any:
        if not request.is_secure:
            return redirect(request.url.replace("http:", "https:", 1))

    assert found_in(Setup(app=app)) == {}


def test_a_dashboard_that_lets_everybody_in_is_found() -> None:
    def here_only() -> bool:
        return request.remote_addr == "127.0.0.1"

    app = made()
    chat = app.extensions["wschat"]
    chat.dashboard("/live", allow=here_only, endpoint="live")
    chat.dashboard("/admin/live", allow=lambda: True)
    chat.dashboard("/shut", endpoint="shut")
    [found] = found_in(Setup(app=app)).values()
    assert (found.name, "/admin/live" in found.what) == ("dashboard-open", True)


def test_the_mirror_is_for_who_knows_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    app, other = made(), made()

    def status(token: str | None) -> int:
        headers = {} if token is None else {mirror.HEADER: token}
        return app.test_client().get(mirror.URL, headers=headers).status_code

    good = mirror.token(app)
    assert status(good) == 200
    refused = (None, "", "x", mirror.token(other), f"{good}x")
    assert {status(token) for token in refused} == {404}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 4000)
    assert status(good) == 404
    assert mirror.token(made(SECRET_KEY=None)) is None


def test_settings_that_nobody_reads_are_found() -> None:
    app = made()
    app.config["WSCHAT_PING_INTERVAL"] = 30
    environ = {"FLASK_WSCHAT_DRAIN": "1", "WSCHAT_URL": "redis://x", "WSCHAT_MINE": "1"}
    setup = Setup(app=app, environ=environ)
    with app.app_context():
        found = examining.examine(setup)
    assert [each.what for each in found] == [
        "FLASK_WSCHAT_DRAIN is in the environment, and not in app.config",
        "WSCHAT_URL is in the environment, and not in app.config",
        "WSCHAT_PING_INTERVAL came into app.config after WSChat had read it",
    ]
    assert [each.name for each in found] == ["setting-unread"] * 2 + ["setting-late"]


def test_an_app_without_sockets_is_said_to_be_one() -> None:
    assert "no-wschat" in found_in(Setup(app=Flask("plain")))


def test_a_look_that_hangs_or_fails_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = threading.Lock()
    lock.acquire()

    def hangs(setup: Setup) -> Iterator[Finding]:
        yield program.NO_ROUTES()
        lock.acquire()

    def fails(setup: Setup) -> Iterator[Finding]:
        raise OSError("no redis://me:secret@host")
        yield

    monkeypatch.setattr(examining, "SECONDS", 0.05)
    found = examining.examine(Setup(url="https://x"), [hangs, fails])
    lock.release()
    assert [each.name for each in found] == [
        "look-too-long",
        "no-routes",
        "look-failed",
    ]
    assert "secret" not in found[2].what


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("redis://me:p@ss/w@host:1/0 is down", "redis://…@host:1/0 is down"),
        (
            "no postgresql+psycopg://u:p@db/x, sir",
            "no postgresql+psycopg://…@db/x, sir",
        ),
        ("unix:///s?db=0&password=geheim", "unix:///s?db=0&password=…"),
        ("write @chat.route(a@b)", "write @chat.route(a@b)"),
        ("a\x1b[31m\nb", "a\\x1b[31m\\nb"),
    ],
)
def test_a_finding_may_be_pasted_anywhere(said: str, shown: str) -> None:
    assert serving.UNREADABLE(why=said).what.endswith(f": {shown}")


def test_the_command_prints_and_exits_as_it_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = made()
    runner = app.test_cli_runner()
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    done = runner.invoke(wschat, ["doctor"])
    assert (done.exit_code, done.output) == (0, "fine\n")
    done = runner.invoke(wschat, ["doctor", "--verbose"])
    assert "secrecy.key" in done.output
    assert done.output.endswith("\nfine\n")
    app.secret_key = "change me"
    done = runner.invoke(wschat, ["doctor"])
    assert done.exit_code == 1
    first, means, remedy = done.output.splitlines()
    assert first.startswith("warning  the SECRET_KEY is one that stands in tutorials")
    assert first.endswith("[secret-key-known]")
    assert means.startswith(" " * 9) and remedy.startswith(" " * 9 + "python -c")
    done = runner.invoke(wschat, ["doctor", "--json"])
    [row] = json.loads(done.output)
    assert list(row) == ["severity", "name", "what", "means", "remedy"]
    done = runner.invoke(wschat, ["doctor", "--quiet"])
    assert (done.exit_code, done.output) == (1, "")
    assert runner.invoke(wschat, ["doctor", "--gunicorn", '"']).exit_code == 2


def test_the_page_has_each_finding_and_no_other() -> None:
    rows = re.findall(
        r"^\| (error|warning|note) \| `([\w.-]+)` \| (.*) \|$", PAGE.read_text(), re.M
    )
    told = {name: (severity, text) for severity, name, text in rows}
    kinds = {
        kind.name: (
            kind.severity,
            f"{kind.what} | {kind.means} | `{kind.remedy}`".replace("||", "\\|\\|"),
        )
        for kind in Kind.all.values()
    }
    assert told == kinds, "python -m tests.operate.findings"
    assert len(rows) == len(told)


def test_each_finding_is_found_by_some_test() -> None:
    texts = "".join(path.read_text() for path in HERE.glob("test_doctor*.py"))
    assert [name for name in Kind.all if f'"{name}"' not in texts] == []
