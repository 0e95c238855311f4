"""What all answers of the demos have, without a server."""

from __future__ import annotations

import gzip
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from demos import chat, hall
from example_app import app
from flask_wschat import BackendError

ZH = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}


@pytest.fixture
def client() -> FlaskClient:
    return app.test_client()


def cookies(answer: TestResponse) -> list[str]:
    return answer.headers.getlist("Set-Cookie")


# ---- headers and cookies ------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/vote",
        "/group",
        "/private/login",
        "/nowhere",
        "/static/style.css",
        "/_wschat/wschat.js",
        "/ws/home",
        "/qr.svg",
    ],
)
def test_each_answer_has_each_header_once(client: FlaskClient, path: str) -> None:
    answer = client.get(path, buffered=True)
    for name in hall.HEADERS:
        assert len(answer.headers.getlist(name)) == 1, name
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    for directive in ("default-src 'self'", "frame-ancestors 'self'", "base-uri"):
        assert directive in policy


def test_pages_and_styles_are_compressed_for_who_takes_it(client: FlaskClient) -> None:
    small = {"Accept-Encoding": "br, gzip"}
    for path in ("/vote", "/static/style.css", "/_wschat/wschat.js"):
        plain = client.get(path, buffered=True)
        packed = client.get(path, buffered=True, headers=small)
        assert plain.content_encoding is None
        assert packed.content_encoding == "gzip"
        assert packed.content_length == len(packed.data) < len(plain.data) / 2
        assert gzip.decompress(packed.data)[:50] == plain.data[:50]
        assert "Accept-Encoding" in plain.vary
        assert "Accept-Encoding" in packed.vary
    for path in ("/qr.svg", "/nowhere", "/static/icon.svg"):
        answer = client.get(path, buffered=True, headers=small)
        assert answer.content_encoding is None
    # What has not changed is not sent at all.
    style = client.get("/static/style.css", buffered=True, headers=small)
    assert style.get_etag()[1]  # weak, as what was not compressed has it, too
    known = {**small, "If-None-Match": style.headers["ETag"]}
    answer = client.get("/static/style.css", buffered=True, headers=known)
    assert (answer.status_code, answer.data) == (304, b"")


def test_cookies_are_for_pages_only(client: FlaskClient) -> None:
    for path in ("/static/style.css", "/static/nothing.css", "/_wschat/wschat.js"):
        assert cookies(client.get(path, buffered=True)) == [], path
    for path in ("/nowhere", "/vote/nowhere", "/qr.svg", "/ws/vote", "/bot/nowhere"):
        assert cookies(client.get(path, buffered=True)) == [], path
    for path in ("/", "/qr.svg", "/static/style.css"):
        assert cookies(client.options(path)) == [], path
    assert cookies(client.get("/logout")) == []
    assert cookies(client.post("/group/login", data={"name": ""})) == []
    [cookie] = cookies(client.get("/"))
    assert cookie.startswith("session=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    # Once is enough.
    assert cookies(client.get("/vote")) == []


def test_forms_of_other_origins_are_refused(client: FlaskClient) -> None:
    name = {"name": "Ada"}
    for path in ("/vote", "/logout", "/language", "/group/login"):
        for origin in ("http://localhost:3000", "http://evil.example", "null", ""):
            answer = client.post(path, data=name, headers={"Origin": origin})
            assert (answer.status_code, cookies(answer)) == (403, []), (path, origin)
        ours = client.post(path, data=name, headers={"Origin": "http://localhost"})
        assert ours.status_code in (302, 400)
        assert client.post(path, data=name).status_code in (302, 400)


def test_the_key_is_made_once_and_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "instance" / "secret_key"
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(hall.own_key, [path] * 8))
    assert keys == {path.read_text()}
    assert len(keys.pop()) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret_key"]


# ---- when something cannot be done --------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "words", "chinese"),
    [
        ("GET", "/nowhere", 404, "There is nothing here", "这里什么也没有"),
        ("GET", "/logout", 405, "Not this way", "不能这样打开"),
        ("POST", "/group/login", 413, "That was too much", "内容太长了"),
        ("GET", "/group", 503, "The storage cannot be reached", "无法访问存储"),
        ("GET", "/private/login", 500, "Something went wrong", "出错了"),
    ],
)
def test_errors_are_pages_that_say_what_to_do(
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    status: int,
    words: str,
    chinese: str,
) -> None:
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    client.post("/group/login", data={"name": "Ada"})

    def away() -> list[str]:
        raise BackendError("the storage is away")

    def broken() -> dict[str, str]:
        raise RuntimeError("a fault of ours")

    if status == 503:
        monkeypatch.setattr(chat, "online", away)
    if status == 500:
        monkeypatch.setitem(app.view_functions, "who.login", lambda page: broken())
    data = {"name": "x" * 100_000} if status == 413 else None
    for headers, said in ({}, words), (ZH, chinese):
        answer = client.open(path, method=method, data=data, headers=headers)
        assert answer.status_code == status
        assert answer.mimetype == "text/html"
        assert f"<h1>{said}</h1>" in answer.text
        assert 'href="/"' in answer.text
        assert "fault of ours" not in answer.text
        assert ("POST" in (answer.allow or ())) == (status == 405)
        assert cookies(answer) == []


@pytest.mark.parametrize("host", ["a..b", "x" * 8000, f"{'a' * 64}.example", "xn--a"])
def test_no_host_is_a_fault_of_ours(host: str) -> None:
    for path in ("/", "/vote", "/plug", "/nowhere", "/ws/vote", "/static/style.css"):
        environ = EnvironBuilder(path, headers=[("Host", host)]).get_environ()
        _, status, _ = run_wsgi_app(app, environ, buffered=True)
        assert status[:3] == "400" or (host == "xn--a" and status[0] in "24"), path


# ---- languages ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("", "en"),
        ("en-GB,en;q=0.9", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh-TW", "zh"),
        ("en;q=0.8,zh;q=0.9", "zh"),
        ("de-DE,de;q=0.9", "en"),
        ("de,zh;q=0.5", "zh"),
        ("*", "en"),
        ("\x80;q=;,,", "en"),
    ],
)
def test_a_page_speaks_what_the_browser_asks_for(
    client: FlaskClient, asked: str, got: str
) -> None:
    page = client.get("/", headers={"Accept-Language": asked})
    assert f'<html lang="{got}">' in page.text
    assert page.headers["Content-Language"] == got
    assert "Accept-Language" in page.headers["Vary"]


def test_what_was_chosen_goes_before_what_the_browser_asks_for(
    client: FlaskClient,
) -> None:
    form = {"language": "en", "back": "/vote?a=%F0%9F%91%A8"}
    answer = client.post("/language", data=form, headers=ZH)
    assert (answer.status_code, answer.location) == (302, form["back"])
    [cookie] = cookies(answer)
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert '<html lang="en">' in client.get("/vote", headers=ZH).text
    # What is no language changes nothing.
    assert cookies(client.post("/language", data={"language": "tlh"})) == []
    client.set_cookie("language", "tlh")
    assert '<html lang="zh">' in client.get("/vote", headers=ZH).text


@pytest.mark.parametrize(
    "back",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/",
        "evil.example",
        "",
        "/\t/evil.example",
        "/\n/evil.example",
        "\\\\evil.example",
        "javascript:1",
        "/\r\nSet-Cookie: a=b",
        "/vote\n",
        " //evil.example",
        "/.//evil.example",
    ],
)
def test_the_way_back_leads_to_pages_of_ours_only(
    client: FlaskClient, back: str
) -> None:
    answer = client.post("/language", data={"language": "zh", "back": back})
    assert answer.status_code == 302
    assert answer.location in ("/", "/.//evil.example")
    assert len(cookies(answer)) == 1


# ---- the way in for phones ----------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "asked", "told"),
    [
        ("127.0.0.1", "http://localhost:5000", ""),
        ("127.0.0.1", "http://[::1]:5000", ""),
        ("0.0.0.0", "http://localhost:5000", "http://192.0.2.7:5000"),
        ("0.0.0.0", "http://127.0.0.1", "http://192.0.2.7"),
        ("::", "http://[::1]:5000", "http://192.0.2.7:5000"),
        ("0.0.0.0", "http://hall.example:5000", "http://hall.example:5000"),
        # By `flask run --host`, or with a server before it.
        ("127.0.0.1", "https://demo.example", "https://demo.example"),
    ],
)
def test_pages_know_their_address_for_others(
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    asked: str,
    told: str,
) -> None:
    monkeypatch.setattr(hall, "HOST", host)
    monkeypatch.setattr(hall, "lan_address", lambda: "192.0.2.7")
    page = client.get("/vote", base_url=asked)
    assert ('id="far"' in page.text) is bool(told)
    assert f'data-url="{told}"' in page.text or not told
    picture = client.get("/qr.svg?path=/group%23Tea", base_url=asked)
    assert picture.mimetype == "image/svg+xml"
    with app.test_request_context(base_url=asked):
        assert picture.text == hall.qr_svg(hall.public_url("/group#Tea"))


@pytest.mark.parametrize("path", ["vote", "/" + "x" * 300, "/" + "中" * 100, "x:y"])
def test_codes_are_for_addresses_of_ours(client: FlaskClient, path: str) -> None:
    assert client.get("/qr.svg", query_string={"path": path}).status_code == 404


def test_an_address_too_long_for_a_code_has_none(client: FlaskClient) -> None:
    far = "http://" + ".".join(["x" * 60] * 60)
    assert client.get("/qr.svg", base_url=far).status_code == 404
    assert client.get("/vote", base_url=far).status_code == 200


def test_pages_work_without_codes(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.drawn.cache_clear()
    monkeypatch.setitem(sys.modules, "segno", None)
    assert hall.qr_svg("http://192.0.2.7:5000/") is None
    assert client.get("/qr.svg").status_code == 404
    assert client.get("/", base_url="http://hall.example").status_code == 200


# ---- the dashboard ------------------------------------------------------------------


def test_the_dashboard_is_for_this_machine(client: FlaskClient) -> None:
    way = 'href="/admin/live"'
    assert client.get("/admin/live").status_code == 200
    assert way in client.get("/").text
    for headers, address in (
        ({}, "192.0.2.1"),
        ({"X-Forwarded-For": "192.0.2.1"}, "127.0.0.1"),
        ({"Host": "demo.example"}, "127.0.0.1"),
    ):
        asked = {"headers": headers, "environ_base": {"REMOTE_ADDR": address}}
        assert client.get("/admin/live", **asked).status_code == 403
        assert client.get("/admin/live/socket", **asked).status_code == 403
        assert way not in client.get("/", **asked).text
