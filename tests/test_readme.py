"""What the README shows works as shown, and its tables tell the truth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import pytest
from flask import Flask, session
from playwright.sync_api import Browser, expect
from websockets.sync.client import ClientConnection

from flask_wschat import WSChat
from flask_wschat.settings import PREFIX, Settings

from .conftest import DEADLINE, Serve, eventually
from .test_extension import receive

README = (Path(__file__).parent.parent / "README.md").read_text()
SNIPPETS = dict(
    re.findall(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", README, re.DOTALL)
)
PRELUDE = """
from flask import Flask
from flask_wschat import WSChat
app = Flask("readme")
app.secret_key = "x"
chat = WSChat(app)
"""

FROM_ENVIRONMENT = "app.config.from_prefixed_env()"


@pytest.fixture
def readme_app() -> Flask:
    """An app with every snippet that needs one."""
    space: dict[str, object] = {}
    code = [PRELUDE, *(SNIPPETS[n] for n in ("route", "listener", "authenticate"))]
    exec("\n".join(code), space)
    app = space["app"]
    assert isinstance(app, Flask)
    return app


def test_the_views_do_what_they_say(
    readme_app: Flask, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(readme_app)
    with server.connect("/echo") as client:
        client.send("hi")
        assert receive(client) == "hi"
    with server.connect("/rooms/a") as ann:
        ann.send("first")
        with server.connect("/rooms/a") as bob:
            ann.send("second")
            while (got := receive(bob)) == "first":
                pass  # it was still under way when bob came
            assert got == "second"
    printed = ""

    def left() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return printed.count("left a 1000") == 2

    eventually(left)
    client_of_app = readme_app.test_client()
    assert client_of_app.post("/notify/ann").json == {"reached": 0}
    assert client_of_app.post("/logout").status_code == 200


def test_the_test_does_what_it_says(readme_app: Flask) -> None:
    chat = readme_app.extensions["wschat"]
    space: dict[str, Any] = {"app": readme_app, "chat": chat}
    exec(SNIPPETS["testing"], space)
    space["test_a_room"]()


def test_the_table_of_settings_is_complete() -> None:
    documented = re.findall(rf"^\| `{PREFIX}(\w+)` \| `?([^|`]+)`? \|", README, re.M)
    assert [name for name, _ in documented] == [f.name for f in fields(Settings)]
    for name, default in documented:
        value = getattr(Settings(), name)
        if value is None:
            assert default.strip() in ("same origin", "no limit")
        else:
            assert type(value)(default.strip()) == value


def test_the_first_snippet_is_as_short_as_it_says() -> None:
    assert len([line for line in SNIPPETS["app.py"].splitlines() if line]) == 11
    assert len(SNIPPETS["page.html"].splitlines()) == 8


@pytest.fixture
def pasted(tmp_path: Path) -> Iterator[str]:
    """The address of ``app.py``, run as pasted."""
    (tmp_path / "app.py").write_text(SNIPPETS["app.py"])
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "page.html").write_text(SNIPPETS["page.html"])
    root = str(Path(__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env={**os.environ, "FLASK_RUN_PORT": "0", "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        yield found[0]
        process.terminate()
        process.wait(DEADLINE)


@pytest.mark.browser
@pytest.mark.timeout(30)
def test_the_page_works_as_pasted(pasted: str, chromium: Browser) -> None:
    pages = [chromium.new_page() for _ in range(2)]
    for page in pages:
        page.goto(pasted + "/static/page.html")
    pages[0].get_by_role("textbox").fill("ping <b>")
    pages[0].get_by_role("textbox").press("Enter")
    for page in pages:
        expect(page.locator("#log")).to_have_text("ping <b>")


def test_pywsgi_as_shown(app: Flask) -> None:
    code = SNIPPETS["pywsgi"].replace("5000", "0")
    code = code.replace("server.serve_forever()", "server.start(); server.stop()")
    WSChat(app)
    exec(code, {"app": app})


# ---- the ready-made chat ------------------------------------------------------------

Json = dict[str, Any]


class Server(Protocol):
    def connect(self, path: str, **options: Any) -> ClientConnection: ...


class ChatClient:
    """What the README's browser client does, over a foreign library."""

    def __init__(
        self, server: Server, app: Flask, path: str, user: str | None = None
    ) -> None:
        self._connection = server.connect(
            path, additional_headers={"Cookie": cookie(app, user)}
        )
        self._ref = 0
        self.events: list[Json] = []
        assert self._next()["user"] == user

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def ask(self, kind: str, **fields: Any) -> Json:
        """Return the reply; what comes before it is among ``events``."""
        self._ref += 1
        self._connection.send(json.dumps({"type": kind, "ref": self._ref, **fields}))
        while (message := self._next())["type"] != "reply":
            self.events.append(message)
        assert message["ref"] == self._ref
        return message

    def close(self) -> None:
        self._connection.close()

    def await_event(self, kind: str) -> Json:
        """Return the next event of this ``kind`` that nobody has asked for yet."""
        while True:
            for event in self.events:
                if event["type"] == kind:
                    self.events.remove(event)
                    return event
            self.events.append(self._next())

    def _next(self) -> Json:
        message: Json = json.loads(receive(self._connection))
        return message


def cookie(app: Flask, user: str | None) -> str:
    """Return the header of somebody who has logged in as ``user``."""
    with app.test_request_context():
        if user is not None:
            session["user"] = user
        response = app.make_response("")
        app.session_interface.save_session(app, session._get_current_object(), response)  # type: ignore[attr-defined]
    return response.headers.get("Set-Cookie", "nobody=").partition(";")[0]


def chat_code(configure: str, *names: str) -> str:
    """Return an app with these snippets; ``configure`` comes before ``WSChat(app)``."""
    prelude = PRELUDE.replace("chat = ", f"{configure}\nchat = ")
    return "\n".join([prelude, *(SNIPPETS[name] for name in names)])


@pytest.fixture
def chat_space(tmp_path: Path) -> dict[str, Any]:
    """What the snippets of the ready-made chat have made, over a file."""
    url = f"sqlite:///{tmp_path}/chat.db"
    space: dict[str, Any] = {}
    configure = f'app.config["WSCHAT_URL"] = {url!r}'
    exec(chat_code(configure, "authenticate", "chat", "hooks"), space)
    space["url"] = url
    return space


def test_the_chat_does_what_it_says(chat_space: dict[str, Any], serve: Serve) -> None:
    app = chat_space["app"]
    server = serve(app)
    with ChatClient(server, app, "/chat", "ann") as ann:
        page = ann.ask("join", room="Lobby")
        assert ann.ask("say", room="Lobby", data="Hello", mid="a-1")["seq"] == 1
        assert ann.await_event("message")["data"] == "Hello"
        ann.ask("inbox")
        with ChatClient(server, app, "/chat", "ben") as ben:
            assert ben.ask("join", room="Lobby")["messages"][0]["data"] == "Hello"
            assert ann.await_event("presence")["joined"] == ["ann"]
            assert ann.await_event("presence")["joined"] == ["ben"]
            assert ben.ask("tell", to="ann", data="Psst", mid="b-1")["ok"]
            assert ann.await_event("direct")["data"] == "Psst"
            reply = ben.ask("vote", poll="Tea", choice="Green")
            assert reply["counts"] == {"Green": 1, "Black": 0}
            assert ann.await_event("tally")["total"] == 1
    chat, tea = chat_space["chat"], chat_space["tea"]
    chat.broadcast("while she is away", room="Lobby")
    chat.send_to_user("ann", "this, too")
    with ChatClient(server, app, "/chat", "ann") as ann:
        missed = ann.ask("join", room="Lobby", after=1, epoch=page["epoch"])
        assert missed["recovered"]
        assert [m["data"] for m in missed["messages"]] == ["while she is away"]
        told = ann.ask("inbox")["messages"]
        assert [m["data"] for m in told] == ["Psst", "this, too"]
        again = ann.ask("say", room="Lobby", data="Hello", mid="a-1")
        assert again["seq"] == 1, "said again, and stored once"
    assert tea.vote("cy", "Black").total == 2
    assert tea.close().closed and not tea.reopen().closed
    assert tea.tally("ben").mine == "Green"


def test_the_hooks_do_what_they_say(chat_space: dict[str, Any], serve: Serve) -> None:
    app = chat_space["app"]
    server = serve(app)
    with ChatClient(server, app, "/team") as nobody:
        assert nobody.ask("join", room="Den")["error"]["code"] == "forbidden"
    with ChatClient(server, app, "/team", "ann") as ann:
        assert ann.ask("join", room="Den")["ok"]
        for data, allowed in (("x" * 2000, True), ("x" * 2001, False), ({}, False)):
            assert ann.ask("say", room="Den", data=data, mid="m")["ok"] is allowed
        assert not ann.ask("tell", to="ben", data="Psst", mid="m")["ok"]
        assert ann.ask("vote", poll="Tea", choice="Green")["ok"]
        assert ann.ask("vote", poll="x", choice="x")["error"]["code"] == "unknown_poll"
        with ChatClient(server, app, "/team", "ben"):
            assert ann.ask("tell", to="ben", data="Psst", mid="m")["ok"]


def test_a_task_is_heard(
    chat_space: dict[str, Any], serve: Serve, tmp_path: Path
) -> None:
    """It runs in a process of its own, with the app as it imports it there."""
    app = chat_space["app"]
    server = serve(app)
    (tmp_path / "app.py").write_text(chat_code(FROM_ENVIRONMENT, "chat"))
    (tmp_path / "tasks.py").write_text(SNIPPETS["tasks.py"])
    with ChatClient(server, app, "/chat") as ann:
        ann.ask("join", room="Lobby")
        subprocess.run(
            [sys.executable, "-c", "import tasks; tasks.report('Lobby', 'Done')"],
            cwd=tmp_path,
            env={
                **os.environ,
                "FLASK_WSCHAT_URL": chat_space["url"],
                "PYTHONPATH": str(Path(__file__).parent.parent),
            },
            timeout=2 * DEADLINE,
            check=True,
        )
        assert ann.await_event("message")["data"] == {"text": "Done"}


@pytest.mark.browser
@pytest.mark.timeout(30)
def test_the_page_of_the_chat_works_as_pasted(
    chat_space: dict[str, Any], serve: Serve, chromium: Browser
) -> None:
    app, chat = chat_space["app"], chat_space["chat"]
    app.add_url_rule("/chat.html", view_func=lambda: SNIPPETS["chat.html"])
    server = serve(app)
    url = server.url("/chat.html").replace("ws://", "http://")
    with chromium.new_context() as context:
        name, _, value = cookie(app, "ann").partition("=")
        context.add_cookies([{"name": name, "value": value, "url": url}])
        pages = [context.new_page() for _ in range(2)]
        for page in pages:
            page.goto(url)
        pages[0].get_by_role("textbox").fill("ping <b>")
        pages[0].get_by_role("textbox").press("Enter")
        for page in pages:
            expect(page.locator("#log")).to_have_text("ann: ping <b>")
        chat.disconnect_user("ann", 1012, "come back")
        chat.broadcast("pong", room="Lobby")
        for page in pages:
            expect(page.locator("#log")).to_have_text("ann: ping <b>null: pong")


# ---- docs/deploy: what needs no server ----------------------------------------------

ROOT = Path(__file__).parent.parent
STORAGE = (ROOT / "docs" / "deploy" / "storage.md").read_text()


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
    assert len(urls) == 8
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
    used = set(re.findall(r"redis\.call\('(\w+)'", source("*.lua")))
    python = source("redis*.py")
    used |= set(re.findall(r'(?:Call|_send)\((?:wire, )?"([A-Z]+)"', python))
    scripts = {"eval", "evalsha"}
    assert all(f'"{name.upper()}"' in python for name in scripts)
    opening = {"auth", "client", "select"}  # by redis-py
    assert rights == {name.lower() for name in used} | scripts | opening
