"""The proxies' configurations in docs/deploy, run by the real programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.ports import free_port
from tests.support.processes import ROOT, Process
from tests.support.programs import program

from .serving import RawClient, Site, closed, eventually, gunicorn_command, receive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

DEPLOY = ROOT / "docs" / "deploy"
CLIENT = "127.0.0.2"
"""Not the proxy's address, so that the two cannot be taken for each other."""

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
}}
"""


class Proxied(Site):
    """The application behind a proxy: two gunicorn workers with gevent."""

    def __init__(self, name: str, folder: Path, pair: tuple[Path, Path]) -> None:
        super().__init__(free_port(), certificate=pair[0], source=CLIENT)
        self.plain = Site(free_port(), source=CLIENT)
        self.upstream = Site(free_port())
        address = f"127.0.0.1:{self.upstream.port}"
        # The app's line may stand before or after the extension's.
        order = {"nginx": "before", "haproxy": "after"}[name]
        self.processes = [
            Process(
                gunicorn_command("gevent", address, "-w", "2"),
                folder / "app.log",
                {"PROXY_FIX": order},
                forked="patched",
            ),
            Process(getattr(self, f"_{name}")(folder, pair), folder / "log", {}),
        ]

    def _nginx(self, folder: Path, pair: tuple[Path, Path]) -> list[str]:
        self._snippet(
            folder,
            "nginx.conf",
            {
                "listen 80;": f"listen 127.0.0.1:{self.plain.port};",
                "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
                "127.0.0.1:8000": f"127.0.0.1:{self.upstream.port}",
                "/etc/ssl/chat/fullchain.pem": str(pair[0]),
                "/etc/ssl/chat/privkey.pem": str(pair[1]),
            },
        )
        main = folder / "nginx.conf"
        main.write_text(NGINX.format(folder=folder))
        return [program("nginx", "nginx"), "-c", str(main), "-e", "stderr"]

    def _haproxy(self, folder: Path, pair: tuple[Path, Path]) -> list[str]:
        both = folder / "both.pem"
        both.write_text(pair[0].read_text() + pair[1].read_text())
        snippet = self._snippet(
            folder,
            "haproxy.cfg",
            {
                "maxconn 20000": "maxconn 200",  # may be over the limit of files here
                "bind :80\n": f"bind 127.0.0.1:{self.plain.port}\n",
                "bind :443 ": f"bind 127.0.0.1:{self.port} ",
                "127.0.0.1:8000": f"127.0.0.1:{self.upstream.port}",
                "/etc/haproxy/chat.pem": str(both),
            },
        )
        return [program("haproxy", "haproxy"), "-db", "-f", str(snippet)]

    def _snippet(self, folder: Path, name: str, changes: dict[str, str]) -> Path:
        text = (DEPLOY / name).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        snippet = folder / "snippet.conf"
        snippet.write_text(text)
        return snippet

    def start(self) -> None:
        app, proxy = self.processes
        app.start()
        # First: a proxy that finds nobody makes a note of it, and comes back later.
        self._await(app, self.upstream)
        proxy.start()
        self._await(proxy, self)

    def _await(self, process: Process, site: Site) -> None:
        def answers() -> bool:
            assert process.running, process.log
            try:
                return site.http("/page")[0] == 200
            except OSError:
                return False

        eventually(answers, "it answers")

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def proxied(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    pair: tuple[Path, Path],
) -> Iterator[Proxied]:
    site = Proxied(request.param, tmp_path_factory.mktemp("proxy"), pair)
    try:
        site.start()
        yield site
    finally:
        site.stop()
    for process in site.processes:
        for word in ("Traceback", "[error]", "[ALERT]"):
            assert word not in process.log, process.log


@pytest.mark.parametrize("path", ["/echo", "/listen", "/old"])
def test_echo(proxied: Proxied, path: str) -> None:
    with proxied.connect(path) as client:
        for size in (1, 126, 65536, 1 << 20, 1 << 24):
            client.send("x" * size)
            client.send(b"\xff" * size)
            assert receive(client) == "x" * size
            assert receive(client) == b"\xff" * size
        assert client.ping().wait(10)


def test_frames_behind_the_request(proxied: Proxied) -> None:
    with RawClient(proxied) as client:
        client.open("/listen", client.connection.send("first"))
        assert next(client.events()) == "first"


def test_compression(proxied: Proxied) -> None:
    with proxied.connect("/listen", compression="deflate") as client:
        assert client.protocol.extensions
        client.send("hello, " * 20_000)
        assert receive(client) == "hello, " * 20_000


@pytest.mark.pain(11)
def test_the_origin_is_the_one_of_the_proxy(proxied: Proxied) -> None:
    with proxied.connect("/listen", origin=proxied.origin) as client:
        client.send("let in")
        assert receive(client) == "let in"
    for wrong in (
        proxied.origin.replace("https", "http"),
        f"https://127.0.0.1:{proxied.upstream.port}",
        "https://evil.example",
    ):
        with pytest.raises(InvalidStatus) as caught:
            proxied.connect("/listen", origin=wrong)
        assert caught.value.response.status_code == 403
        assert b"origin is not allowed" in (caught.value.response.body or b"")


def test_the_client_is_seen(proxied: Proxied) -> None:
    claims = {"X-Forwarded-For": "10.9.8.7", "X-Forwarded-Host": "evil.example"}
    with proxied.connect("/who", additional_headers=claims) as client:
        seen = json.loads(receive(client))
    assert seen["address"] == CLIENT
    # Flask says "http" for "wss": the request was an ordinary one at first.
    assert re.sub("^wss", "https", seen["url"]) == f"{proxied.origin}/who"


@pytest.mark.pain(6)
def test_both_workers_serve(proxied: Proxied) -> None:
    pids = set()

    def both() -> bool:
        with proxied.connect("/who") as client:
            pids.add(json.loads(receive(client))["pid"])
        return len(pids) == 2

    eventually(both, "both workers took a connection")


def test_close_codes_and_refusals_pass(proxied: Proxied) -> None:
    with proxied.connect("/close/4001") as client:
        assert closed(client) == (4001, "kicked")
    for path, status in (("/nowhere", 404), ("/listen?user=mallory", 401)):
        with pytest.raises(InvalidStatus) as caught:
            proxied.connect(path)
        assert caught.value.response.status_code == status


def test_http_passes_too(proxied: Proxied) -> None:
    assert proxied.http("/page") == (200, "a page")
    status, body = proxied.http("/listen")
    assert status == 426
    assert f"wss://127.0.0.1:{proxied.port}/listen" in body
    assert proxied.plain.http("/page")[0] in (301, 302)
