"""What the README shows works as shown, and its tables tell the truth."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, expect

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
