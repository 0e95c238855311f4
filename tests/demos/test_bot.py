"""Ask the bot: an answer grows on everybody's page, through a reload, until Stop."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.demos.browsing import Meet
from tests.demos.serving import DemoServer, Person

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

LAST = "and can be read for a day."
WORDS = "Is <b>👨‍👩‍👧</b> {one} family?"


TWICE = "for (const n of [1, 2]) document.getElementById('ask').requestSubmit()"


def ask(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def test_an_answer_grows_for_everybody_through_a_reload_until_stop(
    meet: Meet, demo: DemoServer
) -> None:
    ada, ben = meet().open("/bot"), meet(320).open("/bot")
    expect(ada.locator("#online")).to_have_text("2")
    ask(ada, WORDS)
    grows = [page.locator("#talk li .answer").first for page in (ada, ben)]
    for answer in grows:
        expect(answer).to_contain_text(f"“{WORDS}” is a good question.")
        expect(answer).to_have_attribute("aria-busy", "true")
    expect(ada.get_by_label("Your question")).to_be_focused()
    expect(ada.locator("#said")).to_have_text("The bot writes its answer.")
    # Who comes in the middle has all of it so far.
    before = grows[0].inner_text()
    ada.reload()
    expect(grows[0]).to_contain_text(before.split("\n\n")[0])
    expect(grows[0]).to_have_attribute("aria-busy", "true")
    # Another question meanwhile grows beside it, and only who asked may stop it.
    ask(ben, "And this?")
    expect(ben.get_by_role("button", name="Stop")).to_have_count(1)
    stop = ben.locator("#talk li").nth(1).get_by_role("button", name="Stop")
    stop.focus()
    expect(ben.locator(".answer").nth(1)).to_contain_text("I am no model")
    ben.keyboard.press("Enter")
    expect(stop).to_have_count(0)
    expect(ben.get_by_label("Your question")).to_be_focused()
    stopped = ben.locator(".answer").nth(1).inner_text()
    assert LAST not in stopped
    expect(ben.locator("#said")).to_have_text(re.compile("And this?"))
    # It ends the same on both pages, its spaces and lines kept, and stays.
    for answer in grows:
        expect(answer).to_contain_text(LAST)
        expect(answer).to_have_attribute("aria-busy", "false")
    assert "\n        for piece in model(prompt):\n" in grows[0].inner_text()
    ben.reload()
    for page in (ada, ben):
        expect(page.locator("#talk .question")).to_have_text([WORDS, "And this?"])
        texts = page.locator("#talk .answer").all_inner_texts()
        assert texts == [grows[0].inner_text(), stopped]
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(wide)


def test_it_says_what_is_too_much(meet: Meet, demo: DemoServer) -> None:
    ada, ben = meet().open("/bot"), meet().open("/bot")
    for question in ("1", "2", "3"):
        ada.get_by_label("Your question").fill(question)
        ada.evaluate(TWICE)  # asks once
        expect(ada.get_by_label("Your question")).to_have_value("")
    ask(ada, "4")
    note = ada.locator("#note")
    expect(note).to_contain_text("Three questions at once, then one in five seconds.")
    expect(ada.get_by_label("Your question")).to_have_value("4")
    ask(ben, "5")
    expect(ben.locator("#talk li")).to_have_count(4)
    ask(ben, "6")
    expect(ben.locator("#note")).to_contain_text("writes four answers already")
    expect(ben.get_by_label("Your question")).to_have_value("6")
    # What no page of ours would ask.
    person = Person(demo)
    person.http("GET", "/bot")
    tab = person.connect("/ws/bot")
    assert tab.ask("join", room="bot")["ok"]
    for question in ("", "   ", "x" * 301):
        answer = tab.ask("ask", question=question)
        assert "1 to 300 characters" in answer["error"]["message"]
    expect(ben.locator("#talk li")).to_have_count(4)
    assert not tab.ask("say", room="bot", data="I am the bot", mid="m")["ok"]
    assert not tab.ask("join", room="#Lobby")["ok"]
    assert not tab.ask("vote", poll="demo", choice="A whiteboard")["ok"]
