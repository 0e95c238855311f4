"""docs/recipes/ai-chat.md, saved and started as it says, in a real browser."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.ports import free_port
from tests.support.processes import ROOT, Process
from tests.support.waiting import LONG

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

RECIPE = (ROOT / "docs" / "recipes" / "ai-chat.md").read_text()
FILES = dict(re.findall(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", RECIPE, re.DOTALL))
WHOLE = 8 * "You asked: Why? And this is a long answer to it. "

Open = Callable[[], Page]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture(params=["python app.py", "four workers"])
def url(saved: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    port = free_port()
    redis = None
    if request.param == "python app.py":
        assert request.param in RECIPE
        command = [sys.executable, "app.py"]
        env = {"FLASK_RUN_PORT": str(port)}
    else:
        redis = request.getfixturevalue("redis")
        arguments = "-w 4 -k flask_wschat.gunicorn.Worker app:app"
        assert f"gunicorn {arguments}" in RECIPE
        command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}"]
        command += arguments.split()
        env = {"FLASK_WSCHAT_URL": redis.url, "FLASK_SECRET_KEY": "one for all"}
    server = Process(command, saved / "log", env, cwd=saved)
    server.start()
    try:
        server.await_port(port)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def tab(chromium: Browser, url: str) -> Iterator[Open]:
    """Open a tab of one person's browser; nothing may fail in it."""
    context = chromium.new_context()
    errors: list[str] = []

    def tab() -> Page:
        page = context.new_page()
        page.set_default_timeout(1000 * LONG)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield tab
    context.close()
    assert errors == []


def ask(page: Page) -> None:
    page.get_by_label("Your question").fill("Why?")
    page.keyboard.press("Enter")


def test_an_answer_grows_in_each_tab_and_through_a_reload(tab: Open) -> None:
    first, second = tab(), tab()
    ask(first)
    for page in (first, second):
        lines = page.locator("#talk p")
        expect(lines.first).to_have_text(re.compile(r"^\w+: Why\?$"))
        expect(lines.nth(1)).to_have_text(re.compile("assistant: You asked: .*…$"))
    first.reload()
    lines = first.locator("#talk p")
    expect(lines.nth(1)).to_have_text(re.compile("assistant: You asked: .*…$"))
    for page in (first, second):
        expect(page.locator("#talk p").nth(1)).to_have_text(f"assistant: {WHOLE}")
        expect(page.locator("#talk p")).to_have_count(2)
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    first.reload()
    expect(first.locator("#talk p").nth(1)).to_have_text(f"assistant: {WHOLE}")


def test_it_is_stopped_from_another_tab(tab: Open) -> None:
    first, second = tab(), tab()
    ask(first)
    expect(second.locator("#talk p").nth(1)).to_have_text(re.compile("asked: .*…$"))
    second.get_by_role("button", name="Stop").click()
    for page in (first, second):
        line = page.locator("#talk p").nth(1)
        expect(line).to_have_text(re.compile(r"assistant: You asked: [^…]*$"))
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
        assert line.inner_text() != f"assistant: {WHOLE.strip()}"
