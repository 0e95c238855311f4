"""A site behind a real nginx, visited as the world does."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wschat import Listener, WSChat
from flask_wschat.operate.doctor import online
from flask_wschat.operate.doctor.finding import Finding, Setup
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process
from tests.support.programs import program
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

from .visited import create

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

DEPLOY = ROOT / "docs" / "deploy"
FIX = {"x_for": 1, "x_proto": 1, "x_host": 1}
GUNICORN = "-k flask_wschat.gunicorn.Worker -w 4"

NGINX = """
user root;
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    include {folder}/snippet.conf;
    upstream bare {{ server 127.0.0.1:{bare}; }}
    upstream nobody {{ server 127.0.0.1:{nobody}; }}
{servers}
}}
"""
SERVER = """
    server {{
        listen 127.0.0.1:{port}{tls};
        location / {{
            proxy_pass http://{upstream};
            {lines}
        }}
    }}
"""
HTTP_1_1 = "proxy_http_version 1.1;"
UPGRADES = (
    "proxy_set_header Upgrade $http_upgrade;"
    " proxy_set_header Connection $connection_upgrade;"
)
HOST = "proxy_set_header Host $http_host;"
HOSTS = HOST + " proxy_set_header X-Forwarded-Host $http_host;"
SCHEME = "proxy_set_header X-Forwarded-Proto $scheme;"
ADDRESS = "proxy_set_header X-Forwarded-For $remote_addr;"

# Its lines, whether it speaks TLS, who is behind it, and what is found there.
Fault = tuple[list[str], bool, str, set[str]]
FAULTS: dict[str, Fault] = {
    "no-upgrade": (
        [HTTP_1_1, HOSTS, SCHEME, ADDRESS],
        *(True, "chat", {"proxy-upgrade-lost"}),
    ),
    "http-1.0": (
        ["proxy_http_version 1.0;", UPGRADES, HOSTS, SCHEME, ADDRESS],
        *(True, "chat", {"proxy-http-1.0"}),
    ),
    "no-scheme": (
        [HTTP_1_1, UPGRADES, HOSTS, ADDRESS],
        *(True, "chat", {"proxy-scheme-lost"}),
    ),
    "no-host": (
        [HTTP_1_1, UPGRADES, SCHEME, ADDRESS],
        *(True, "chat", {"proxy-host-lost", "host-forged"}),
    ),
    "host-without-port": (
        [HTTP_1_1, UPGRADES, HOSTS.replace("http_host", "host"), SCHEME, ADDRESS],
        *(True, "chat", {"proxy-says-wrong"}),
    ),
    "no-address": (
        [HTTP_1_1, UPGRADES, HOSTS, SCHEME, 'proxy_set_header X-Forwarded-For "";'],
        *(True, "chat", {"proxy-address-lost"}),
    ),
    "believes-clients": (
        [HTTP_1_1, UPGRADES, HOST, SCHEME],
        *(True, "chat", {"proxy-address-lost", "address-forged", "host-forged"}),
    ),
    "no-fix": (
        [HTTP_1_1, UPGRADES, HOSTS, SCHEME, ADDRESS],
        *(True, "bare", {"proxy-not-believed"}),
    ),
    "no-fix-plain": (
        [HTTP_1_1, UPGRADES, HOSTS, SCHEME, ADDRESS],
        *(False, "bare", {"proxy-not-believed"}),
    ),
    "nobody": ([HTTP_1_1], False, "nobody", {"proxy-without-app"}),
    "moved": (["return 301 https://other.example;"], False, "chat", {"site-redirects"}),
    "blocked": (["deny all;"], False, "chat", {"site-blocked"}),
    "another": (["return 404;"], False, "chat", {"site-not-ours"}),
}


class Site:
    """nginx, gunicorn and Redis, as docs/deploy has them; and nginx with faults."""

    def __init__(self, folder: Path, pair: tuple[Path, Path]) -> None:
        self.folder, self.pair = folder, pair
        text = (DEPLOY / "redis.conf").read_text()
        text = text.replace("user default off", "user default on nopass ~* &* +@all")
        self.redis = RedisServer(*filter(None, text.splitlines()))
        self.storage = f"redis://chat:change-me@127.0.0.1:{self.redis.port}/0"
        self.port, plain, app, bare, nobody = (free_port() for _ in range(5))
        self.app, self.bare = app, bare
        self.ports = {name: free_port() for name in FAULTS}
        snippet = (DEPLOY / "nginx.conf").read_text()
        for old, new in {
            "listen 80;": f"listen 127.0.0.1:{plain};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "127.0.0.1:8000": f"127.0.0.1:{app}",
            "/etc/ssl/chat/fullchain.pem": str(pair[0]),
            "/etc/ssl/chat/privkey.pem": str(pair[1]),
        }.items():
            assert snippet.count(old) == 1, old
            snippet = snippet.replace(old, new)
        (folder / "snippet.conf").write_text(snippet)
        keys = f"; ssl_certificate {pair[0]}; ssl_certificate_key {pair[1]}"
        servers = "".join(
            SERVER.format(
                port=self.ports[name],
                tls=f" ssl{keys}" if tls else "",
                upstream=upstream,
                lines="\n".join(lines),
            )
            for name, (lines, tls, upstream, _) in FAULTS.items()
        )
        main = folder / "nginx.conf"
        said = {"folder": folder, "bare": bare, "nobody": nobody, "servers": servers}
        main.write_text(NGINX.format(**said))
        common = {"WSCHAT_URL": self.storage}
        self.processes = [
            self._gunicorn("app", app, "4", {"fix": FIX, **common}),
            self._gunicorn("bare", bare, "1", {"fix": None, **common}),
            Process(
                [program("nginx", "nginx"), "-c", str(main), "-e", "stderr"],
                folder / "nginx.log",
            ),
        ]

    def _gunicorn(
        self, name: str, port: int, workers: str, given: dict[str, Any]
    ) -> Process:
        command = ["-m", "gunicorn", "tests.operate.visited:app", "-w", workers]
        command += ["-k", "flask_wschat.gunicorn.Worker", "-b", f"127.0.0.1:{port}"]
        command += ["--no-control-socket"]
        env: dict[str, str | None] = {"VISITED": json.dumps(given)}
        return Process(command, self.folder / f"{name}.log", env, forked="patched")

    def __enter__(self) -> Site:
        self.redis.start()
        for process in self.processes:
            process.start()
        self.processes[0].await_port(self.app)
        self.processes[2].await_port(self.port)
        eventually(lambda: not self.look(self.port), self._words)
        return self

    def _words(self) -> str:
        return f"nothing is found, not {self.look(self.port)}"

    def __exit__(self, *error: object) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.redis.stop()

    def look(
        self, port: int, *, scheme: str = "https", fix: Any = FIX, **config: Any
    ) -> dict[str, Finding]:
        app = create(fix, **({"WSCHAT_URL": self.storage} | config))
        setup = Setup(app=app, url=f"{scheme}://127.0.0.1:{port}")
        return {each.name: each for each in online.online(setup)}


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[Path, Path]
) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(pair[0]))
        with Site(tmp_path_factory.mktemp("site"), pair) as site:
            yield site


def test_nothing_is_said_of_the_set_up_in_the_docs(site: Site) -> None:
    given = {"fix": FIX, "WSCHAT_URL": site.storage, "SESSION_COOKIE_SECURE": True}
    command = [sys.executable, "-m", "flask", "--app", "tests.operate.visited"]
    command += ["wschat", "doctor", "--gunicorn", GUNICORN, "--verbose"]
    done = subprocess.run(
        [*command, "--url", f"https://127.0.0.1:{site.port}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "VISITED": json.dumps(given), "WSCHAT_SHORTCUTS": ""},
    )
    looked, *unseen, last = done.stdout.splitlines()
    assert (last, done.returncode, done.stderr) == ("fine", 0, "")
    assert looked.startswith("looked at versions.packages, ")
    assert any("CONFIG of Redis" in line for line in unseen)
    assert all(line.startswith("could not see ") for line in unseen)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_proxy_is_found(site: Site, name: str) -> None:
    _, tls, upstream, names = FAULTS[name]
    fix = None if upstream == "bare" else FIX
    scheme = "https" if tls else "http"
    found = site.look(site.ports[name], scheme=scheme, fix=fix)
    assert set(found) == names


def test_faults_of_the_app_are_found(site: Site, pair: tuple[Path, Path]) -> None:
    other = site.look(site.port, SECRET_KEY="another key than the site's own")
    assert set(other) == {"site-other-key"}
    direct = site.look(site.app, scheme="http")
    wanted = {"address-forged", "host-forged", "proxy-address-lost"}
    assert set(direct) == wanted
    wrong = site.look(site.port, fix=FIX | {"x_for": 2})
    assert set(wrong) == {"proxy-count"}
    assert "x_for=2, and 1 proxies" in wrong["proxy-count"].what
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "_REST", 1.0)
        assert set(site.look(site.port)) == {"certificate-ends"}
        patch.setenv("SSL_CERT_FILE", "/dev/null")
        untrusted = site.look(site.port)
    assert set(untrusted) == {"certificate"}


def test_a_name_that_looks_like_rebinding(site: Site) -> None:
    app = create(None, WSCHAT_URL=site.storage)
    visited = online.Site(f"http://127.0.0.1:{site.bare}")
    found: list[Finding] = []
    get = visited.get
    visited.get = (  # type: ignore[method-assign]
        lambda path, **headers: get(path, **headers, Host="chat.example.org")
    )
    visited.origin, visited.shown = "http://chat.example.org", "chat.example.org"
    found += online._handshake(Setup(app=app), visited)
    assert [each.name for each in found] == ["host-refused"]


def test_a_dashboard_is_no_door_to_knock_at() -> None:
    app = Flask("an_app")
    chat = WSChat(app)
    chat.dashboard("/live", allow=lambda: False)
    assert online._socket_path(app) == "/live/socket"
    chat.listener("/rooms/<room>")(type("Room", (Listener,), {}))
    assert online._socket_path(app) == "/rooms/doctor"


def test_an_origin_that_the_site_leaves_out(site: Site) -> None:
    app = create(FIX, WSCHAT_URL=site.storage)
    visited = online.Site(f"http://127.0.0.1:{site.app}")
    visited.origin = "https://www.example.org"
    [found] = online._handshake(Setup(app=app), visited)
    assert found.name == "origin-refused"


def test_nobody_is_there() -> None:
    def names(url: str) -> list[str]:
        return [each.name for each in online.online(Setup(url=url))]

    assert names(f"https://127.0.0.1:{free_port()}") == ["site-unreachable"]
    assert names("chat.example.org") == ["url"]


class Answers(http.server.BaseHTTPRequestHandler):
    """A site of a strange kind."""

    def do_GET(self) -> None:
        status, body = (
            (200, '{"live": true}')
            if self.path.endswith("live")
            else (503, '{"ready": false, "reasons": ["storage"]}')
            if self.path.endswith("ready")
            else (500, "broken")
        )
        self.send_response_only(status)
        self.send_header("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def strange() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_clock_a_storage_and_a_handshake(strange: int) -> None:
    setup = Setup(app=create(None), url=f"http://127.0.0.1:{strange}")
    found = {each.name: each for each in online.online(setup)}
    wanted = {"clock-site", "site-not-ready", "site-other-key", "handshake-refused"}
    assert set(found) == wanted
    assert "behind ours" in found["clock-site"].what
    assert "answers 500: broken" in found["handshake-refused"].what


def test_who_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        [found] = online.online(Setup(url=url))
    assert found.name == "site-unreachable"
    assert "timed out" in found.what
