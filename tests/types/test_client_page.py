"""docs/client.md: each snippet is compiled, and runs where it says it does."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.npm import MODULES, compiled, needs_npm, node, run
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process
from tests.support.waiting import LONG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

PAGE = (ROOT / "docs" / "client.md").read_text()
TYPES = ROOT / "flask_wschat" / "static" / "wschat.d.ts"
SNIPPETS = re.findall(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page shows, saved as it says: what is for one file stands in order."""
    needs_npm()
    folder = tmp_path_factory.mktemp("client")
    for name, text in SNIPPETS:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(text + "\n")
    modules = folder / "node_modules"
    modules.mkdir()
    (modules / "flask-wschat").symlink_to(ROOT)
    for name in ("ws", "@types"):
        (modules / name).symlink_to(MODULES / name)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


class Site(Process):
    """``python app.py``, over a file, so that it may begin again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        env = {
            "PYTHONPATH": str(ROOT),
            "FLASK_RUN_PORT": str(self.port),
            "FLASK_SECRET_KEY": "the same after a restart",
            "FLASK_WSCHAT_URL": f"sqlite:///{folder}/chat.db",
        }
        log = folder / "log"
        super().__init__(["app.py"], log, env, cwd=folder, forked="patched")
        self.start()

    def start(self) -> None:
        super().start()
        self.await_port(self.port)


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    site = Site(folder)
    yield site
    site.stop()
    assert "Traceback" not in site.log, site.log


def test_every_snippet_is_tried() -> None:
    assert PAGE.count("```") == 2 * len(SNIPPETS)


def project(folder: Path, file: str, **options: Any) -> str:
    """Return what the compiler has against one of the files."""
    told = {"paths": {"/_wschat/wschat.js": [str(TYPES)]}, **options}
    config = {"compilerOptions": told, "files": [file]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    return compiled(folder)


SCRIPT = {"allowJs": True, "checkJs": True, "noImplicitAny": False}


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("static/page.js", SCRIPT),
        ("node.mjs", {**SCRIPT, "lib": ["es2022"], "types": ["node"]}),
        ("vite.config.js", SCRIPT),
        ("static/typed.ts", {}),
        ("static/global.d.ts", {}),
    ],
)
def test_it_compiles(folder: Path, file: str, options: dict[str, Any]) -> None:
    if "chat.js" in (folder / file).read_text():
        command = [sys.executable, "-m", "flask", "wschat", "types"]
        (folder / "static" / "chat.ts").write_text(run(*command, cwd=folder))
    assert project(folder, file, **options) == ""


@pytest.fixture
def page(chromium: Browser, site: Site) -> Iterator[Page]:
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(1000 * LONG)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(site.url)
    yield page
    context.close()
    assert errors == []


@pytest.mark.browser
def test_the_page_does_what_it_says(page: Page, site: Site) -> None:
    for words in (
        "Connected",
        "1 here: ann",
        "ann to ben: Hello Ben",
        "ann waves with the right hand",
        "Green 1, Black 0, mine Green",
        "assistant: You asked: Is it time for tea?",
        "0.10",
        "ann: In time",
    ):
        expect(page.get_by_text(words, exact=True).first).to_be_visible()
    expect(page.locator("pre")).to_have_text(re.compile(r"^You asked: "))
    line = page.locator("input")
    line.fill("Tea?")
    line.press("Enter")
    expect(page.get_by_text("ann: Tea?")).to_be_visible()
    expect(page.get_by_text("Stored as number")).to_be_visible()
    site.kill()
    expect(page.get_by_text("Not connected,")).to_be_visible()
    line.fill("Still there?")
    line.press("Enter")
    expect(page.get_by_text("Still there?")).to_be_visible()
    page.get_by_role("button", name="Try now").click()
    site.start()
    expect(page.get_by_text("ann: Still there?")).to_have_count(1)
    expect(page.get_by_text("Connected")).to_be_visible()


def test_node_does_what_it_says(folder: Path, site: Site) -> None:
    person = build_opener(HTTPCookieProcessor(CookieJar()))
    person.open(site.url)
    ticket = person.open(Request(f"{site.url}ticket", method="POST")).read().decode()
    address = site.url.replace("http", "ws") + "chat"
    told = run(node(), "node.mjs", address, ticket, cwd=folder)
    assert re.fullmatch(r"Stored as number \d+\n", told)
