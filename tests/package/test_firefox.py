"""In Firefox, by the page alone: no build step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.chat_process import ChatServer
from tests.support.firefox import Firefox, Tab
from tests.support.live import HANDLERS, LiveServer, stop
from tests.support.network import Network
from tests.support.strict_pages import strict_app

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

JOIN = """
(() => {
  const chat = (window.chat = new WSChat("/chat?user=ann", { outbox: "localStorage" }));
  window.heard = [];
  window.thrown = [];
  window.onerror = (message) => thrown.push(message);
  window.onunhandledrejection = ({ reason }) => thrown.push(String(reason));
  window.states = [];
  // Told at each attempt, too.
  chat.onState(({ state }) => states.at(-1) === state || states.push(state));
  const name = (sessionStorage.room ??= crypto.randomUUID());
  window.room = chat.join(name, { onMessage: ({ data }) => heard.push(data) });
})()
"""


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    firefox = Firefox(tmp_path_factory.mktemp("firefox"))
    yield firefox
    firefox.stop()


@pytest.fixture
def page(server: ChatServer, firefox: Firefox) -> Iterator[Tab]:
    page = firefox.open(server.url)
    page.evaluate(JOIN)
    yield page
    page.close()


def test_a_page_that_is_cut_off_says_the_rest_later_and_reads_on(
    server: ChatServer, page: Tab
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
    assert page.evaluate("thrown") == []


def test_a_handler_that_throws_is_reported_and_stops_nothing_else(page: Tab) -> None:
    page.evaluate("void chat.on('message', () => { throw new Error('a mistake') })")
    page.evaluate("void chat.on('message', () => { window.heardToo = true })")
    page.evaluate("room.say('a')")
    page.until("heard.includes('a')")
    page.until("window.heardToo")
    assert page.evaluate("room.say('b').then(() => chat.state)") == "open"
    page.until("heard.includes('b')")
    assert page.evaluate("thrown") == ["Error: a mistake"] * 2


def test_what_was_not_acknowledged_is_said_after_a_reload(
    server: ChatServer, page: Tab
) -> None:
    page.evaluate("room.say('before')")
    server.kill()
    page.evaluate("void ['a', 'b', 'c'].map((data) => room.say(data).catch(() => {}))")
    server.start()
    page.reload()
    page.evaluate(JOIN)
    page.until("heard.length == 4")
    assert page.evaluate("heard") == ["before", "a", "b", "c"]
    page.until("chat.waiting.length == 0 && localStorage.length == 0")


def test_a_connection_without_a_network_is_known_and_recovers(
    server: ChatServer, firefox: Firefox
) -> None:
    with Network(server.port) as network:
        page = firefox.open(f"http://127.0.0.1:{network.port}/")
        page.evaluate(JOIN)
        page.evaluate("room.say('before')")
        page.evaluate("void chat.onState(() => { window.changed = performance.now() })")
        network.vanish()
        begun = page.evaluate("performance.now()")
        page.until("chat.state == 'reconnecting'")
        assert page.evaluate("changed") - begun < 12_000
        page.evaluate("void room.say('after')")
        network.set()
        page.until("heard.length == 2")
        assert page.evaluate("heard") == ["before", "after"]
        page.close()


WORKER = """
new Promise((resolve, reject) => {
  const worker = new Worker("/static/worker.js", { type: "module" });
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = reject;
})
"""


def test_a_worker_talks_for_its_page(page: Tab) -> None:
    assert page.evaluate(WORKER) == ["from a worker"]


def test_strict_policies_need_no_exception(firefox: Firefox) -> None:
    app = strict_app()
    strict = LiveServer(app, *HANDLERS["ours"])
    try:
        for policy in ("strict", "nonce", "dynamic"):
            page = firefox.open(f"http://127.0.0.1:{strict.port}/{policy}")
            page.until("document.title == 'Hello'")
            assert page.evaluate("refused") == []
            page.close()
    finally:
        strict.stop()
        stop(app)
