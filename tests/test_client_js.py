"""``wschat.js``: step by step in node, and in Chromium against servers that die."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.chat_process import ChatServer
from tests.support.programs import program

ROOT = Path(__file__).parents[1]

JOIN = """
user => new Promise((resolve) => {
  const shown = (window.shown = []), resets = (window.resets = []);
  window.chat = new WSChat("/chat?user=" + user);
  window.states = [];
  chat.onState(({ state }) => states.push(state));
  window.room = chat.join("Lobby", {
    onMessage: (message) => shown.push(message),
    onReset: (messages) => { resets.push(messages.length); resolve(); },
  });
  window.inbox = chat.inbox({ onMessage: (message) => shown.push(message) });
  window.failed = [];
  window.say = (from, to) => {
    window.said = 0;
    for (let n = from; n < to; n++) {
      room.say(n).then(() => said++, (error) => failed.push(error.code));
    }
  };
})
"""


@pytest.mark.timeout(60)
def test_the_client_step_by_step() -> None:
    node = program("nodejs", "node")
    files = (ROOT / "tests" / "js").glob("*.test.mjs")  # no folder, since Node 21
    answer = subprocess.run(
        [node, "--test", *sorted(map(str, files))],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


# ---- in a browser -------------------------------------------------------------------

browser = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]


def marked(function: Callable[..., None]) -> Callable[..., None]:
    for mark in browser:
        function = mark(function)
    return function


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str], ChatServer]]:
    servers: list[ChatServer] = []

    def start(url: str) -> ChatServer:
        servers.append(ChatServer(tmp_path, url))
        return servers[-1]

    yield start
    for server in servers:
        server.check()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[[ChatServer, str], Page]]:
    """Open a page that joins the Lobby as a user."""
    context = chromium.new_context()
    # The first waits only, as nobody else comes back here.
    context.add_init_script("Math.random = () => 0.1")
    errors: list[str] = []

    def visit(server: ChatServer, user: str) -> Page:
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_function("!!window.WSChat")
        page.evaluate(JOIN, user)
        return page

    yield visit
    context.close()
    assert errors == []


def shown(page: Page) -> list[tuple[int, str, Any]]:
    found: list[list[Any]] = page.evaluate(
        "shown.map(({ seq, from, data }) => [seq, from, data])"
    )
    return [(seq, sender, data) for seq, sender, data in found]


@marked
def test_each_message_once_and_in_order_though_the_server_is_killed(
    started: Callable[[str], ChatServer],
    visit: Callable[[ChatServer, str], Page],
    tmp_path: Path,
) -> None:
    server = started(f"sqlite:///{tmp_path / 'chat.db'}")
    names = ["ann", "ben", "cy"]
    pages = [visit(server, name) for name in names]
    each = 120
    for part in range(4):
        for page in pages:
            page.evaluate("([from, to]) => say(from, to)", [part * 30, part * 30 + 30])
        # In the middle of it: some are stored, some on their way, some not sent.
        pages[part % 3].wait_for_function("said >= 3")
        if part < 3:
            server.kill()
            server.start()
    for page in pages:
        page.wait_for_function(f"shown.length >= {3 * each}")
        page.wait_for_function("said >= 30")
    logs = [shown(page) for page in pages]
    assert logs[0] == logs[1] == logs[2]
    assert [seq for seq, _, _ in logs[0]] == list(range(1, 3 * each + 1))
    for name in names:
        words = [data for _, sender, data in logs[0] if sender == name]
        assert words == list(range(each))
    for page in pages:
        assert page.evaluate("[failed, resets]") == [[], [0]]
        assert page.evaluate("states").count("open") >= 2


@marked
def test_a_history_that_is_gone_is_a_reset(
    started: Callable[[str], ChatServer], visit: Callable[[ChatServer, str], Page]
) -> None:
    server = started("memory://")
    ann, ben = visit(server, "ann"), visit(server, "ben")
    ann.evaluate("say(0, 2)")
    ben.wait_for_function("shown.length == 2")
    epoch = ben.evaluate("room.epoch")
    server.kill()
    server.start()
    ben.wait_for_function("resets.length == 2")
    ann.evaluate("say(2, 3)")
    ben.wait_for_function("shown.length == 3")
    assert shown(ben)[-1] == (1, "ann", 2)
    assert ben.evaluate("room.epoch") != epoch
    ben.wait_for_function("room.present.join() == 'ann,ben'")


@marked
def test_what_is_told_waits_for_who_is_away(
    started: Callable[[str], ChatServer], visit: Callable[[ChatServer, str], Page]
) -> None:
    server = started("memory://")
    ann = visit(server, "ann")
    assert ann.evaluate("chat.tell('ben', {text: 'psst'})")["seq"] == 1
    ben = visit(server, "ben")
    ben.wait_for_function("shown.length == 1")
    assert shown(ben) == [(1, "ann", {"text": "psst"})]
    assert ben.evaluate("chat.hello.user") == "ben"
    ben.evaluate("room.leave()")
    ann.wait_for_function("room.present.join() == 'ann'")
