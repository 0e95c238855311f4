"""``wschat.js`` in Chromium, with a bad network between it and the server."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.chat_process import ChatServer
from tests.support.network import Network

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

VISIT = """
([user, hidden]) => new Promise((resolve) => {
  if (hidden) Object.defineProperty(document, "hidden", { value: true });
  Object.assign(window, { shown: [], states: [], stored: [], failed: [] });
  window.chat = new WSChat("/chat?user=" + user, { outbox: "localStorage" });
  chat.onState(({ state }) => states.push([state, performance.now()]));
  const reading = {
    onMessage: ({ data }) => shown.push(data),
    onReset: (messages) => resolve(shown.push(...messages.map(({ data }) => data))),
  };
  window.room = chat.join("Lobby", reading);
  window.say = (...said) => Promise.all(
    said.map((data) =>
      room.say(data).then(() => stored.push(data), ({ code }) => failed.push(code))),
  );
})
"""
SAY = "(said) => void say(...said)"
REPORT = (
    "JSON.stringify({ states, shown, stored, failed, waiting: chat.waiting.length })"
)

Visit = Callable[..., Page]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ChatServer]:
    server = ChatServer(tmp_path, f"sqlite:///{tmp_path}/chat.db")
    yield server
    server.check()


@pytest.fixture
def networks(server: ChatServer) -> Iterator[Callable[[], Network]]:
    """Make ways to the server, each of its own kind."""
    made: list[Network] = []

    def make() -> Network:
        made.append(Network(server.port))
        return made[-1]

    yield make
    for network in made:
        network.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context()
    context.set_default_timeout(40_000)
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert errors == []


@pytest.fixture
def visit(context: BrowserContext) -> Visit:
    def visit(
        network: Network, user: str, page: Page | None = None, hidden: bool = False
    ) -> Page:
        page = page or context.new_page()
        page.goto(f"http://127.0.0.1:{network.port}/")
        page.wait_for_function("!!window.WSChat")
        page.evaluate(VISIT, [user, hidden])
        return page

    return visit


def wait(page: Page, condition: str) -> None:
    try:
        page.wait_for_function(condition)
    except Exception as error:
        raise AssertionError(f"{condition}: {page.evaluate(REPORT)}") from error


def seconds(page: Page, begun: float) -> float:
    """Return how long after ``begun``, a time of the page, it knew that it was lost."""
    wait(page, "states.some(([state]) => state === 'reconnecting')")
    known: float = page.evaluate(
        "states.find(([state]) => state === 'reconnecting')[1]"
    )
    return (known - begun) / 1000


def test_a_dead_network_is_known_and_pages_come_back(
    networks: Callable[[], Network], visit: Visit
) -> None:
    good, dead, asleep, forgotten = (networks() for _ in range(4))
    ben = visit(good, "ben")
    pages = {
        visit(dead, "ann"): 10,
        visit(forgotten, "cy"): 10,
        visit(asleep, "dan", hidden=True): 40,
    }
    begun = [page.evaluate("performance.now()") for page in pages]
    dead.vanish()
    asleep.vanish()
    forgotten.lose()
    ben.evaluate(SAY, [1, 2, 3])
    for (page, most), since in zip(pages.items(), begun, strict=True):
        known = seconds(page, since)
        assert known < most, f"{known:.1f} s of {most}: {page.evaluate(REPORT)}"
        for network in (dead, asleep):
            if most == 40 or network is dead:
                network.set()
    for page in pages:
        wait(page, "shown.length === 3")
        assert page.evaluate("shown") == [1, 2, 3]
        page.evaluate("room.leave()")


def test_a_hundred_milliseconds_away(
    networks: Callable[[], Network], visit: Visit
) -> None:
    network = networks()
    ann = visit(network, "ann")
    network.set(delay=50)
    took: float = ann.evaluate(
        """async (said) => {
          const begun = performance.now();
          await say(...said);
          return performance.now() - begun;
        }""",
        list(range(50)),
    )
    wait(ann, "shown.length >= 50")
    assert ann.evaluate("[shown, stored]") == [list(range(50))] * 2
    assert took < 1000, f"50 says in {took:.0f} ms"


def test_cuts_at_any_moment(networks: Callable[[], Network], visit: Visit) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    near, far = networks(), networks()
    ann, ben = visit(near, "ann"), visit(far, "ben")
    near.set(delay=5)
    for part in range(0, 200, 20):
        ann.evaluate(SAY, list(range(part, part + 20)))
        time.sleep(chance.random() / 10)
        chance.choice((near, far)).cut()
    for page in (ann, ben):
        wait(page, "shown.length >= 200")
        report = f"{seed=} {page.evaluate(REPORT)}"
        assert page.evaluate("shown") == list(range(200)), report
    wait(ann, "stored.length === 200")
    assert ann.evaluate("[failed, chat.waiting, localStorage.length]") == [[], [], 0]


def test_a_server_that_stands_still(
    server: ChatServer, networks: Callable[[], Network], visit: Visit
) -> None:
    network = networks()
    ann, ben = visit(network, "ann"), visit(network, "ben")
    ann.evaluate(SAY, list(range(10)))
    server.signal(signal.SIGSTOP)
    try:
        ann.evaluate(SAY, list(range(10, 30)))
        for page in (ann, ben):
            wait(page, "chat.state === 'reconnecting'")
        ann.evaluate(SAY, list(range(30, 40)))
    finally:
        server.signal(signal.SIGCONT)
    for page in (ann, ben):
        wait(page, "shown.length >= 40")
        assert page.evaluate("shown") == list(range(40)), page.evaluate(REPORT)
    wait(ann, "stored.length === 40")
    assert ann.evaluate("[failed, chat.waiting, localStorage.length]") == [[], [], 0]


def test_what_was_not_acknowledged_is_sent_after_a_reload(
    server: ChatServer, networks: Callable[[], Network], visit: Visit
) -> None:
    good, bad = networks(), networks()
    ben = visit(good, "ben")
    ann, tab = visit(bad, "ann"), visit(bad, "ann")

    def say_and_leave() -> None:
        ann.evaluate(SAY, ["a", "b", "c"])
        tab.evaluate(SAY, ["x", "y", "z"])
        wait(tab, "localStorage.length === 6")
        ann.goto("about:blank")

    def comes(count: int) -> list[str]:
        visit(bad, "ann", ann)
        wait(ben, f"shown.length >= {count}")
        for page in (ann, tab):
            wait(page, "chat.waiting.length === 0 && localStorage.length === 0")
        found: list[str] = ben.evaluate("shown")
        assert len(found) == count, found
        return found

    bad.set(up=False)  # it never gets there
    say_and_leave()
    bad.cut()
    bad.set()
    found = comes(6)
    server.signal(signal.SIGSTOP)  # it gets there, and nobody hears of it
    try:
        say_and_leave()
    finally:
        server.signal(signal.SIGCONT)
    again = comes(12)[6:]
    for said in (found, again):
        assert [data for data in said if data in "abc"] == ["a", "b", "c"]
        assert [data for data in said if data in "xyz"] == ["x", "y", "z"]
    assert ben.evaluate("failed") == tab.evaluate("failed") == []
