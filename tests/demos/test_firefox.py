"""The main paths of the demos in Firefox: vote, group chat, private chat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demos.serving import DemoServer, Person
from tests.support.firefox import Firefox, Tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

CONNECTED = "document.getElementById('status')?.textContent === 'Connected'"


@pytest.fixture
def firefox(tmp_path: Path) -> Iterator[Firefox]:
    folder = tmp_path / "firefox"
    folder.mkdir()
    browser = Firefox(folder)
    yield browser
    browser.stop()


def shows(page: Tab, selector: str, words: str) -> None:
    page.until(
        f"[...document.querySelectorAll({selector!r})]"
        f".some((node) => node.textContent === {words!r})"
    )


def send(page: Tab, selector: str, words: str) -> None:
    """Fill in a field, and send its form."""
    page.evaluate(
        f"""((field) => {{
          field.value = {words!r};
          field.dispatchEvent(new Event("input", {{ bubbles: true }}));
          field.form.requestSubmit();
        }})(document.querySelector({selector!r}))"""
    )


def test_firefox_votes_and_talks(firefox: Firefox, demo: DemoServer) -> None:
    vote = firefox.open(f"{demo.url}/vote")
    vote.until(CONNECTED)
    vote.evaluate("document.querySelector('[data-choice=\"A team chat\"]').click()")
    shows(vote, "[data-choice='A team chat'] .percent", "100%")
    ben = Person(demo)
    assert ben.login("Ben") == 302
    group = firefox.open(f"{demo.url}/group")
    group.until("document.getElementById('name') !== null")
    send(group, "#name", "Ada")
    group.until(f"{CONNECTED} && document.getElementById('words') !== null")
    theirs = ben.connect("/ws/chat")
    assert theirs.ask("join", room="#Lobby")["ok"]
    send(group, "#words", "Hello Ben")
    message = theirs.expect("message")
    assert message["data"] == "Hello Ben"
    assert theirs.ask("say", room="#Lobby", data="Hello Ada", mid="1")["ok"]
    for words in ("Hello Ben", "Hello Ada"):
        shows(group, "#scroll .message .body", words)
    private = firefox.open(f"{demo.url}/private")
    private.until(CONNECTED)
    alone = ben.connect("/ws/private")
    assert alone.ask("join", room="private")["ok"]
    assert alone.ask("tell", to=message["from"], data="psst", mid="2")["ok"]
    private.until("document.querySelector('#people a .name')?.textContent === 'Ben'")
    private.evaluate("document.querySelector('#people a').click()")
    shows(private, "#scroll .message .body", "psst")
    # What is written while the server is away is there when it is back.
    demo.stop()
    for page in (vote, group, private):
        page.until("!document.getElementById('connection').hidden")
    send(group, "#words", "Still there?")
    group.until("document.querySelector('[data-state=sending]') !== null")
    demo.start()
    for page in (vote, group, private):
        page.evaluate("document.querySelector('#connection button')?.click()")
        page.until(CONNECTED)
    group.until("document.querySelector('[data-state=sending]') === null")
    shows(group, "#scroll .message .body", "Still there?")
