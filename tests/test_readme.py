"""What the README shows works as shown, and its tables tell the truth."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import pytest
import websockets.sync.client
from flask import Flask
from playwright.sync_api import Browser, expect
from websockets.exceptions import ConnectionClosed as ForeignClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from flask_wschat import WSChat
from flask_wschat.client import connect
from flask_wschat.settings import PREFIX, Settings
from tests.support.chat_client import ChatClient
from tests.support.live import receive
from tests.support.processes import ROOT, Process
from tests.support.readme import (
    FROM_ENVIRONMENT,
    README,
    SNIPPETS,
    STORAGE,
    configure_from_environment,
    paste,
)
from tests.support.waiting import DEADLINE, eventually

START = 30.0
"""Seconds that a program may take to start, or to end."""


class Site(Process):
    """``python app.py`` in a folder, and what people do with it.

    ``forked``: with its imports done, for tests of what it does once it serves.
    """

    def __init__(self, folder: Path, *, forked: bool = False, **env: str) -> None:
        env = {"PYTHONPATH": str(ROOT), "FLASK_RUN_PORT": "0", **env}
        command = ["app.py"] if forked else [sys.executable, "app.py"]
        how = "patched" if forked else ""
        super().__init__(command, folder / "log", env, cwd=folder, forked=how)
        self.start()
        output = self.heard("Serving on", START)
        found = re.search(r"http://\S+", output)
        assert found, output
        self.url = found[0]

    def python(self, code: str) -> None:
        """Run ``code`` in another process of this folder."""
        command = [sys.executable, "-c", code]
        subprocess.run(command, cwd=self._cwd, env=self._env, timeout=START, check=True)

    def post(self, path: str, cookie: str = "", **form: Any) -> tuple[int, str, str]:
        """Return status, body, and the cookie that the answer sets."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"))
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        headers["Cookie"] = cookie or "nobody="
        body = urllib.parse.urlencode(form, doseq=True)
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        said = answer.read().decode()
        connection.close()
        given = answer.getheader("Set-Cookie", "").partition(";")[0]
        return answer.status, said, given

    def login(self, user: str | None) -> str:
        """Return the cookie of somebody who has logged in as ``user``."""
        return "nobody=" if user is None else self.post("/login", name=user)[2]

    def connect(self, path: str, user: str | None = None) -> ClientConnection:
        client = websockets.sync.client.connect(
            self.url.replace("http", "ws") + path,
            additional_headers={"Cookie": self.login(user)},
            compression=None,
        )
        return client.__enter__()


@pytest.fixture
def serve_folder() -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def start(folder: Path, **options: Any) -> Site:
        sites.append(Site(folder, **options))
        return sites[-1]

    yield start
    for site in sites:
        assert site.end() == 0
        assert "Traceback" not in site.log, site.log


@pytest.fixture
def site(tmp_path: Path, serve_folder: Callable[..., Site]) -> Site:
    """Everything that the README shows, pasted from top to bottom."""
    paste(tmp_path)
    return serve_folder(tmp_path, forked=True)


@pytest.fixture
def stored(tmp_path: Path, serve_folder: Callable[..., Site]) -> Site:
    """The same over a file, as it says."""
    paste(tmp_path)
    configure_from_environment(tmp_path)
    url = f"sqlite:///{tmp_path}/chat.db"
    return serve_folder(tmp_path, forked=True, FLASK_WSCHAT_URL=url)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_views_do_what_they_say(site: Site) -> None:
    with site.connect("/echo") as client:
        client.send("hi")
        assert receive(client) == "hi"
    for path in ("/rooms/a", "/halls/a"):
        with site.connect(path) as ann, site.connect(path) as bob:
            for message in ("first", "second"):
                while said_to(bob, ann, message) != message:
                    pass  # bob was not in the room yet
    eventually(lambda: site.log.count("left halls/a 1000") == 2)
    board = [ChatClient(site.connect("/board", user)) for user in ("ann", "bob")]
    for peer in board:
        peer.ask("join", room="a")
    assert board[0].ask("move", room="a", x=1.5, y=2)["ok"]
    moved = {"type": "moved", "room": "a", "from": "ann", "x": 1.5, "y": 2.0}
    assert board[1].expect("moved") == moved
    assert board[0].ask("guess", word="tea")["result"] is True
    error = board[0].ask("move", room="a", x="1", y=2)["error"]
    assert error["message"] == "x: expected float, got str"
    for peer in board:
        peer.close()
    cookie = site.login("ann")
    assert json.loads(site.post("/notify/ann")[1]) == {"reached": 0}
    with site.connect("/echo", "ann") as client:
        client.send("hi")
        assert receive(client) == "hi"
        assert json.loads(site.post("/notify/ann")[1]) == {"reached": 1}
        assert receive(client) == "You have mail"
        assert site.post("/logout", cookie)[0] == 200
        with pytest.raises(ForeignClosed, match="4001"):
            receive(client)
    assert site.post("/logout")[0] == 200
    with pytest.raises(InvalidStatus, match="403"):
        site.connect("/echo", "mallory")


def said_to(hearer: ClientConnection, speaker: ClientConnection, message: str) -> Any:
    """Return what ``hearer`` gets soon of what ``speaker`` says, if anything."""
    speaker.send(message)
    with contextlib.suppress(TimeoutError):
        return hearer.recv(timeout=0.5)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_test_does_what_it_says(tmp_path: Path) -> None:
    paste(tmp_path)
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=START,
    )
    assert "1 passed" in answer.stdout, answer.stdout


def test_the_table_of_settings_is_complete() -> None:
    documented = re.findall(rf"^\| `{PREFIX}(\w+)` \| `?([^|`]+)`? \|", README, re.M)
    assert [name for name, _ in documented] == [f.name for f in fields(Settings)]
    for name, default in documented:
        value = getattr(Settings(), name)
        if value is None:
            assert default.strip() in ("same origin", "no limit")
        else:
            assert default == str(value) or type(value)(default.strip()) == value


def test_the_first_snippet_is_as_short_as_it_says() -> None:
    server, page = SNIPPETS["app.py", "", ""], SNIPPETS["page.html", "", ""]
    assert len([line for line in server.splitlines() if line]) == 11
    assert len(page.splitlines()) == 8


@pytest.mark.browser
@pytest.mark.timeout(60)
def test_the_first_page_works_as_pasted(
    tmp_path: Path, serve_folder: Callable[..., Site], chromium: Browser
) -> None:
    paste(tmp_path, until="page.html")
    site = serve_folder(tmp_path)
    pages = [chromium.new_page() for _ in range(2)]
    for page in pages:
        page.goto(site.url + "/static/page.html")
    pages[0].get_by_role("textbox").fill("ping <b>")
    pages[0].get_by_role("textbox").press("Enter")
    for page in pages:
        expect(page.locator("#log")).to_have_text("ping <b>")
        page.close()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_it_ends_by_ctrl_c_without_a_word(
    tmp_path: Path, serve_folder: Callable[..., Site]
) -> None:
    paste(tmp_path)
    site = serve_folder(tmp_path)
    site.end(signal.SIGINT)
    assert len(site.log.splitlines()) == 1


@pytest.mark.timeout(60)
def test_pywsgi_as_shown(tmp_path: Path) -> None:
    paste(tmp_path, ending="pywsgi")
    path = tmp_path / "app.py"
    code = path.read_text()
    assert "chat.run" not in code
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path.write_text(code.replace("5000)", f"{port})"))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path, env=environ) as own:

        def answers() -> bool:
            try:
                with connect(f"ws://127.0.0.1:{port}/echo") as ws:
                    ws.send("hi")
                    return ws.receive(DEADLINE) == "hi"
            except OSError:
                return False

        eventually(answers, "it answers", START)
        own.terminate()


# ---- the ready-made chat ------------------------------------------------------------


class Place(Protocol):
    """Where people can connect to."""

    def connect(self, path: str, user: str | None = None) -> ClientConnection: ...


def chatting(place: Place, path: str, user: str | None = None) -> ChatClient:
    """Return what the README's browser client does, as a foreign one does it."""
    client = ChatClient(place.connect(path, user))
    assert client.user == user
    return client


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_chat_does_what_it_says(stored: Site) -> None:
    with chatting(stored, "/chat", "ann") as ann:
        page = ann.ask("join", room="Lobby")
        assert ann.ask("say", room="Lobby", data="Hello", mid="a-1")["seq"] == 1
        assert ann.pick("message")["data"] == "Hello"
        ann.ask("inbox")
        with chatting(stored, "/chat", "ben") as ben:
            assert ben.ask("join", room="Lobby")["messages"][0]["data"] == "Hello"
            assert ann.pick("presence")["joined"] == ["ann"]
            assert ann.pick("presence")["joined"] == ["ben"]
            assert ben.ask("tell", to="ann", data="Psst", mid="b-1")["ok"]
            assert ann.pick("direct")["data"] == "Psst"
            reply = ben.ask("vote", poll="Tea", choice="Green")
            assert reply["counts"] == {"Green": 1, "Black": 0}
            assert ann.pick("tally")["total"] == 1
    stored.python(
        """
from app import chat, tea
chat.broadcast("while she is away", room="Lobby")
chat.send_to_user("ann", "this, too")
assert tea.vote("cy", "Black").total == 2
assert tea.close().closed and not tea.reopen().closed
assert tea.tally("ben").mine == "Green"
"""
    )
    with chatting(stored, "/chat", "ann") as ann:
        missed = ann.ask("join", room="Lobby", after=1, epoch=page["epoch"])
        assert missed["recovered"]
        assert [m["data"] for m in missed["messages"]] == ["while she is away"]
        told = ann.ask("inbox")["messages"]
        assert [m["data"] for m in told] == ["Psst", "this, too"]
        again = ann.ask("say", room="Lobby", data="Hello", mid="a-1")
        assert again["seq"] == 1, "said again, and stored once"
    with chatting(stored, "/chat") as nobody:
        assert nobody.ask("join", room="Lobby")["error"]["code"] == "forbidden"


@pytest.mark.timeout(60)
def test_the_hooks_do_what_they_say(site: Site) -> None:
    with chatting(site, "/team") as nobody:
        assert nobody.ask("join", room="Den")["error"]["code"] == "forbidden"
    with chatting(site, "/team", "ann") as ann:
        assert ann.ask("join", room="Den")["ok"]
        for data, allowed in (("x" * 2000, True), ("x" * 2001, False), ({}, False)):
            assert ann.ask("say", room="Den", data=data, mid="m")["ok"] is allowed
        assert not ann.ask("tell", to="ben", data="Psst", mid="m")["ok"]
        assert ann.ask("vote", poll="Tea", choice="Green")["ok"]
        assert ann.ask("vote", poll="x", choice="x")["error"]["code"] == "unknown_poll"
        with chatting(site, "/team", "ben"):
            assert ann.ask("tell", to="ben", data="Psst", mid="m")["ok"]


@pytest.mark.timeout(60)
def test_people_make_polls(site: Site) -> None:
    asked: dict[str, Any] = {"name": "Lunch", "question": "What for lunch?"}
    assert site.post("/polls", **asked)[0] == 401
    cookie = site.login("ann")
    asked |= {"option": ["Soup", "Salad"]}
    status, body, _ = site.post("/polls", cookie, **asked)
    made = {"name": "Lunch", "question": "What for lunch?", "by": "ann"}
    assert status == 200
    assert json.loads(body)["polls"] == [{**made, "options": ["Soup", "Salad"]}]
    with chatting(site, "/chat", "ben") as ben:
        assert ben.ask("vote", poll="Lunch", choice="Soup")["counts"]["Soup"] == 1
        standing = ben.ask("poll", poll="Lunch")
        assert (standing["options"], standing["mine"]) == (["Soup", "Salad"], "Soup")


@pytest.mark.timeout(60)
def test_an_answer_grows(site: Site) -> None:
    with chatting(site, "/chat", "ann") as ann:
        ann.ask("join", room="Lobby")
        assert site.post("/ask", prompt="Tea?")[0] == 401
        assert site.post("/ask", site.login("ann"), prompt="Tea?")[0] == 200
        id = ann.expect("stream")["id"]
        assert ann.expect("append", id=id)["text"] == "You "
        message = ann.expect("message", mid=id)
        assert (message["from"], message["data"]) == ("bot", "You said: Tea? ")


@pytest.mark.timeout(60)
def test_strangers_on_the_plain_routes_do_not_touch_the_chat(site: Site) -> None:
    with (
        site.connect("/rooms/Lobby"),
        site.connect("/halls/Lobby"),
        chatting(site, "/chat", "ann") as ann,
    ):
        assert ann.ask("join", room="Lobby")["ok"]


@pytest.mark.timeout(60)
def test_the_clock_ticks_once_for_all(stored: Site) -> None:
    with chatting(stored, "/clock") as ann, chatting(stored, "/clock", "ben") as ben:
        first = ben.pick("time")["now"]
        while (now := ann.pick("time")["now"]) < first:
            pass
        assert now == first


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_task_is_heard(stored: Site) -> None:
    with chatting(stored, "/chat", "ann") as ann:
        ann.ask("join", room="Lobby")
        stored.python("import tasks; tasks.report('Lobby', 'Done')")
        assert ann.pick("message")["data"] == "Done"
        stored.python("import nightly, sys; assert 'app' not in sys.modules")
        assert ann.pick("message")["data"] == "The report is ready"


@pytest.mark.browser
@pytest.mark.timeout(60)
def test_the_page_of_the_chat_works_as_pasted(stored: Site, chromium: Browser) -> None:
    with chromium.new_context() as one, chromium.new_context() as other:
        pages = [one.new_page(), one.new_page(), other.new_page()]
        pages[0].goto(stored.url + "/static/chat.html")
        expect(pages[0].get_by_placeholder("Your name")).to_be_visible()
        for page, name in zip(pages, ("ann", "ann", "ben"), strict=True):
            page.goto(stored.url + "/login")
            page.get_by_placeholder("Your name").fill(name)
            page.get_by_placeholder("Your name").press("Enter")
            page.wait_for_url("**/chat.html")
        pages[0].get_by_role("textbox").fill("ping <b>")
        pages[0].get_by_role("textbox").press("Enter")
        for page in pages:
            expect(page.locator("#log")).to_have_text("ann: ping <b>")
        stored.python(
            "from app import chat; chat.disconnect_user('ann', 1012, 'come back');"
            "chat.broadcast('pong', room='Lobby'); chat.send_to_user('ann', 'psst')"
        )
        expect(pages[2].locator("#log")).to_have_text("ann: ping <b>server: pong")
        for page in pages[:2]:
            for line in ("ann: ping <b>", "server: pong", "server: psst"):
                expect(page.locator("#log")).to_contain_text(line)


# ---- docs/deploy: what needs no server ----------------------------------------------


def source(pattern: str) -> str:
    """Return the package's files, strings over several lines in one."""
    files = sorted((ROOT / "flask_wschat").rglob(pattern))
    return re.sub(r'"\s+f?"', "", "\n".join(path.read_text() for path in files))


def test_the_first_line_takes_the_address_from_the_environment(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"`{FROM_ENVIRONMENT}` before `WSChat(app)`" in README
    monkeypatch.setenv("FLASK_WSCHAT_URL", "sqlite:///some.db")
    for code in re.findall(r"```python\n(.*?)```", STORAGE, re.S):
        exec(code, {"app": app})
    assert app.config["WSCHAT_URL"] == "sqlite:///some.db"


def test_the_addresses_of_redis_can_be_understood() -> None:
    cells = re.findall(r"^\| (`(?:redis|valkey|unix).*?) \|", STORAGE, re.M)
    urls = [url for cell in cells for url in re.findall(r"`([^`]+)`", cell)]
    assert len(urls) == 11
    for url in urls:
        app = Flask("an_app")
        app.config["WSCHAT_URL"] = url
        WSChat(app)


def test_the_lines_of_the_log_are_the_ones_that_are_written() -> None:
    code = source("*.py")
    rows = STORAGE.partition("| log line |")[2].splitlines()[2:]
    lines = [
        line for row in rows for line in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]
    assert len(lines) >= 30
    for line in lines:
        for words in re.split(r"[:;(]? ?… ?|;", line):
            assert words.strip() in code, line


def test_the_rights_in_redis_are_those_that_are_used() -> None:
    text = (ROOT / "docs" / "deploy" / "redis.conf").read_text()
    [user] = re.findall(r"^user chat (.*)$", text, re.M)
    rights = {word[1:] for word in user.split() if word.startswith("+")}
    used = set(re.findall(r"\bp?call\('(\w+)'", source("*.lua")))
    python = source("backends/redis/*.py")
    used |= set(re.findall(r'(?:Call|_send)\((?:wire, )?"([A-Z]+)"', python))
    scripts = {"eval", "evalsha"}
    assert all(f'"{name.upper()}"' in python for name in scripts)
    opening = {"auth", "client", "select", "role"}  # by redis-py, and for sentinels
    looking = {"info"}  # a doctor's
    assert rights == {name.lower() for name in used} | scripts | opening | looking
