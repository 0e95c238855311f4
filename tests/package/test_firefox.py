"""In Firefox, by the page alone: no build step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chat_process import ChatServer
from tests.support.firefox import Firefox, Tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

PAGES = Path(__file__).parent / "pages"

JOIN = """
(() => {
  const chat = (window.chat = new WSChat("/chat?user=ann"));
  window.heard = [];
  window.states = [];
  // Told at each attempt, too.
  chat.onState(({ state }) => states.at(-1) === state || states.push(state));
  window.room = chat.join("Lobby", { onMessage: ({ data }) => heard.push(data) });
})()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    folder = tmp_path_factory.mktemp("server")
    server = ChatServer(folder, f"sqlite:///{folder / 'chat.db'}", PAGES)
    yield server
    server.check()


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    firefox = Firefox(tmp_path_factory.mktemp("firefox"))
    yield firefox
    firefox.stop()


@pytest.fixture
def page(server: ChatServer, firefox: Firefox) -> Iterator[Tab]:
    firefox.errors.clear()
    page = firefox.open(server.url)
    page.evaluate(JOIN)
    yield page
    page.close()


def test_a_page_that_is_cut_off_says_the_rest_later_and_reads_on(
    server: ChatServer, page: Tab, firefox: Firefox
) -> None:
    assert page.evaluate("room.say({ n: 1 })")["seq"] == 1
    server.kill()
    page.until("chat.state == 'reconnecting'")
    page.evaluate("void (window.said = room.say({ n: 2 }))")
    server.start()
    assert page.evaluate("said")["seq"] == 2
    page.until("heard.length == 2")
    assert page.evaluate("heard") == [{"n": 1}, {"n": 2}]
    states = ["connecting", "open", "reconnecting", "open"]
    assert page.evaluate("states") == states
    assert firefox.errors == []


def test_a_handler_that_throws_is_reported_and_stops_nothing_else(
    page: Tab, firefox: Firefox
) -> None:
    page.evaluate("void chat.on('message', () => { throw new Error('a mistake') })")
    page.evaluate("void (window.after = chat.on('message', () => window.heardToo = 1))")
    page.evaluate("room.say('a')")
    page.until("heard.includes('a')")
    page.until("window.heardToo")
    assert page.evaluate("room.say('b').then(() => chat.state)") == "open"
    assert firefox.errors[:1] == ["Error: a mistake"]


WORKER = """
new Promise((resolve, reject) => {
  const worker = new Worker("/static/worker.js", { type: "module" });
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = reject;
})
"""


def test_a_worker_talks_for_its_page(page: Tab) -> None:
    assert page.evaluate(WORKER) == ["from a worker"]
