"""What the chat pages do with much, and with somebody in the middle of something."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.demos.browsing import (
    Meet,
    all_delivered,
    entered,
    say,
)
from tests.demos.serving import DemoServer, Tab, speaker

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

SHOWN = 300
"""Messages in the page while its end is read, at most; static/talk.js."""
MOST = 600
"""The same while somebody reads further up."""
BURST = 20
"""Messages said at a time."""


@pytest.fixture
def options() -> dict[str, Any]:
    return {"crowded": True}


def speak(tab: Tab, first: int, last: int, room: str = "#Lobby") -> None:
    for begun in range(first, last + 1, BURST):
        words = [f"m{number}" for number in range(begun, min(begun + BURST, last + 1))]
        asked = [tab.put("say", room=room, data=word, mid=word) for word in words]
        assert all(tab.reply(ref)["ok"] for ref in asked)


def shown(page: Page) -> list[str]:
    texts: list[str] = page.locator("#scroll .message .body").all_text_contents()
    return texts


def ends_with(page: Page, words: str) -> None:
    expect(page.locator("#scroll .message .body").last).to_have_text(words)


def scroll(page: Page, where: str) -> None:
    page.evaluate(f"document.getElementById('scroll').scrollTop = {where}")


# ---- many messages ------------------------------------------------------------------


def test_a_long_room_costs_no_more_than_a_short_one(
    meet: Meet, demo: DemoServer
) -> None:
    """Many messages: some hundred nodes, and changes to a few of them."""
    ada, ben = meet().login("Ada"), speaker(demo, "Ben", "group", "#Lobby")
    speak(ben, 1, 400)
    ends_with(ada, "m400")
    ada.evaluate(
        """() => {
          const counts = (window.counts = { style: 0, nodes: 0, most: 0 });
          const log = document.querySelector("#scroll .log");
          const toggle = DOMTokenList.prototype.toggle;
          DOMTokenList.prototype.toggle = function (...given) {
            counts.style += 1;
            return toggle.apply(this, given);
          };
          new MutationObserver((changes) => {
            for (const { addedNodes } of changes) counts.nodes += addedNodes.length;
            counts.most = Math.max(counts.most, log.children.length);
          }).observe(log, { childList: true });
        }"""
    )
    speak(ben, 401, 1400)
    ends_with(ada, "m1400")
    counts = ada.evaluate("counts")
    assert counts["most"] <= SHOWN
    assert counts["nodes"] == 1000
    assert counts["style"] <= 4 * 1000
    assert shown(ada) == [f"m{n}" for n in range(1401 - SHOWN, 1401)]
    # The end is in view all the time.
    expect(ada.locator("#newer")).to_be_hidden()
    expect(ada.locator("#scroll .message").last).to_be_in_viewport()


def test_who_reads_upwards_gets_what_is_kept(meet: Meet, demo: DemoServer) -> None:
    ben = speaker(demo, "Ben", "group", "#Lobby")
    speak(ben, 1, 300)
    ada = meet().login("Ada")
    ends_with(ada, "m300")
    assert len(shown(ada)) == 100  # the page it began with
    first = ada.locator("#scroll .message").first
    for count in (150, 200, 250, 256):  # that many the server keeps
        ada.locator("#scroll").hover()
        scroll(ada, "1")
        expect(ada.locator("#scroll .message")).to_have_count(count)
        # What was read stays where it was.
        expect(first).not_to_be_in_viewport()
    assert shown(ada) == [f"m{n}" for n in range(45, 301)]
    # What comes meanwhile does not move it.
    before = ada.evaluate("document.getElementById('scroll').scrollTop")
    speak(ben, 301, 302)
    expect(ada.locator("#newer")).to_be_visible()
    assert ada.evaluate("document.getElementById('scroll').scrollTop") == before
    ada.locator("#newer").click()
    ends_with(ada, "m302")
    expect(ada.locator("#scroll .message").last).to_be_in_viewport()
    assert ada.evaluate("document.activeElement.id") == "scroll"


def test_a_flood_while_somebody_reads_above_it(meet: Meet, demo: DemoServer) -> None:
    ada, ben = meet().login("Ada"), speaker(demo, "Ben", "group", "#Lobby")
    speak(ben, 1, 200)
    ends_with(ada, "m200")
    scroll(ada, "document.getElementById('scroll').scrollHeight / 2")
    seen = ada.evaluate("document.getElementById('scroll').scrollTop")
    speak(ben, 201, 2700)
    expect(ada.locator("#scroll .message")).to_have_count(MOST - 1)  # and a note
    assert ada.evaluate("document.getElementById('scroll').scrollTop") == seen
    # Read downwards nothing is left out, though the page holds a part of it only.
    got: list[str] = []
    for _ in range(90):
        part = shown(ada)
        got += part[part.index(got[-1]) + 1 :] if got else part
        assert len(part) <= MOST
        if got[-1] == "m2700":
            break
        scroll(ada, "1e9")
        ada.wait_for_function(
            "last => document.querySelector('#scroll .log').lastElementChild"
            ".querySelector('.body')?.textContent !== last",
            arg=part[-1],
        )
    assert got == [f"m{n}" for n in range(1, 2701)]
    # And upwards again, from what the page has kept: 2000 above the 300 at its end.
    for _ in range(80):
        scroll(ada, "1")
        ada.wait_for_timeout(50)
        if shown(ada)[0] == "m401":
            break
    assert shown(ada)[0] == "m401"
    assert len(shown(ada)) <= MOST
    say(ada, "mine")
    ends_with(ada, "mine")
    assert shown(ada)[-2] == "m2700"


# ---- in the middle of something -----------------------------------------------------


def test_words_not_sent_stay_in_their_room(meet: Meet) -> None:
    ada = meet().login("Ada")
    words = ada.get_by_label("Message", exact=True)
    words.fill("For the lobby only")
    ada.locator("#rooms a", has_text="Flask").click()
    entered(ada, "Flask")
    expect(words).to_have_value("")
    words.fill("draft")
    ada.go_back()
    entered(ada, "Lobby")
    expect(words).to_have_value("For the lobby only")


def test_the_focus_stays_in_the_list_of_rooms(meet: Meet, demo: DemoServer) -> None:
    ada = meet().login("Ada")
    link = ada.locator("#rooms a", has_text="Flask")
    link.focus()
    ben = speaker(demo, "Ben", "group", "#Flask")
    expect(link.locator(".count")).to_have_text("1 here")
    expect(link).to_be_focused()
    assert ben.ask("join", room="#Tea time")["ok"]
    expect(ada.locator("#rooms a", has_text="Tea time")).to_be_visible()
    expect(link).to_be_focused()
    ada.keyboard.press("Enter")
    entered(ada, "Flask")
    expect(link).to_be_focused()


def test_a_message_of_mine_among_many_is_shown_once(
    meet: Meet, demo: DemoServer
) -> None:
    ada, ben = meet().login("Ada"), speaker(demo, "Ben", "group", "#Lobby")
    for number in range(5):
        say(ada, f"mine {number}")
        speak(ben, 10 * number, 10 * number + 9)
    all_delivered(ada, 5)
    expect(ada.locator("#scroll .message")).to_have_count(55)
