"""The group chat's page: what was read, who types, what fails, and how words look."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.demos.browsing import (
    AWAY,
    all_delivered,
    entered,
    say,
    shows_messages,
)
from tests.demos.browsing import Person as Visitor
from tests.demos.serving import DemoServer, Person, Tab, serving, speaker

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(60)]

XSS = [
    "<img src=x onerror=bad()>",
    "<script>bad()</script>",
    "javascript:bad() data:text/html,<script>bad()</script>",
    'https://example.org/"onmouseover="bad()',
    "{{ 7 * 7 }} ${bad()} &lt;b&gt;",
    "@<b>Ada</b>",
]


BULKY = "\x07" * 1500  # six bytes each on the wire
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """One for all of them: each is in rooms of its own."""
    log = tmp_path_factory.mktemp("talk") / "server.log"
    with serving(log, crowded=True) as server:
        yield server


@pytest.fixture
def ada(chromium: Browser, demo: DemoServer) -> Iterator[Visitor]:
    context: BrowserContext = chromium.new_context(locale="en-GB")
    visitor = Visitor(context, demo.url)
    yield visitor
    context.close()
    visitor.check()


said = iter(range(10**9))


def speak(tab: Tab, room: str, *words: str) -> None:
    for data in words:
        assert tab.ask("say", room=room, data=data, mid=f"m{next(said)}")["ok"]


def go(page: Page, room: str) -> None:
    page.evaluate("room => { location.hash = encodeURIComponent(room) }", room)
    entered(page, room)


def scrolled(page: Page) -> float:
    return float(page.evaluate("document.getElementById('scroll').scrollTop"))


# ---- what was read ------------------------------------------------------------------


def test_what_is_unread_is_counted_in_rooms_that_are_not_open(
    ada: Visitor, demo: DemoServer
) -> None:
    ben = speaker(demo, "Ben", "#Flask", "#Coffee break")
    speak(ben, "#Flask", "before you came")
    page = ada.login("Ada")
    flask, coffee = (
        page.locator("#rooms a", has_text=room) for room in ("Flask", "Coffee break")
    )
    expect(flask.locator(".last")).to_have_text("Ben: before you came")
    expect(flask.locator(".badge")).to_be_hidden()
    speak(ben, "#Flask", "one", "two @Ada", "three")
    speak(ben, "#Coffee break", "one")
    page.get_by_label("Message", exact=True).fill("half a w")
    for _ in range(2):
        expect(flask.locator(".badge")).to_contain_text("@ 3")
        expect(flask.locator(".badge")).to_contain_text("you are mentioned")
        expect(coffee.locator(".badge > :first-child")).to_have_text("1")
        expect(flask.locator(".last")).to_have_text("Ben: three")
        expect(page).to_have_title("(4) Lobby · Flask-WSChat")
        page.reload()
        entered(page, "Lobby")
    # What was not sent is still there.
    expect(page.get_by_label("Message", exact=True)).to_have_value("half a w")
    flask.click()
    entered(page, "Flask")
    expect(page.locator(".line.news")).to_have_text("3 new messages since you left")
    expect(page.locator(".message:has(.line.news) .body")).to_have_text("one")
    expect(page.locator(".calls .body")).to_have_text("two @Ada")
    expect(page.locator(".calls mark")).to_have_text("@Ada")
    expect(flask.locator(".badge")).to_be_hidden()
    expect(page).to_have_title("(1) Flask · Flask-WSChat")
    go(page, "Lobby")
    flask.click()
    entered(page, "Flask")
    expect(page.locator(".message")).to_have_count(4)
    expect(page.locator(".line.news")).to_have_count(0)
    # What another tab reads is read.
    second = ada.open("/group#Coffee%20break")
    expect(second.locator(".line.news")).to_have_text("1 new message since you left")
    expect(coffee.locator(".badge")).to_be_hidden()
    # A day of their own for what was said yesterday.
    page.clock.set_fixed_time(time.time() + 86400)
    page.reload()
    expect(page.locator(".line.day")).to_have_text("yesterday")
    stamp = page.locator(".message .foot time").first
    assert stamp.get_attribute("datetime")
    assert str(time.gmtime().tm_year) in str(stamp.get_attribute("title"))


def test_a_room_is_shown_where_it_was_left(ada: Visitor, demo: DemoServer) -> None:
    cy = speaker(demo, "Cy", "#Left")
    speak(cy, "#Left", *(f"m{number}" for number in range(60)))
    page = ada.login("Ada")
    go(page, "Left")
    expect(page.locator(".message")).to_have_count(60)
    expect(page.locator(".message").last).to_be_in_viewport()
    page.evaluate("document.getElementById('scroll').scrollTop = 500")
    expect(page.locator(".message").last).not_to_be_in_viewport()
    before = scrolled(page)
    go(page, "Lobby")
    speak(cy, "#Left", *(f"n{number}" for number in range(20)))
    go(page, "Left")
    expect(page.locator(".message")).to_have_count(80)
    assert scrolled(page) == before
    expect(page.locator("#newer")).to_be_visible()
    expect(page.locator(".line.news")).to_have_text("20 new messages since you left")
    page.locator("#newer").click()
    expect(page.locator(".message").last).to_be_in_viewport()
    # Read at its end, it begins with what came meanwhile.
    go(page, "Lobby")
    speak(cy, "#Left", *(f"o{number}" for number in range(40)))
    go(page, "Left")
    expect(page.locator(".line.news")).to_have_text("40 new messages since you left")
    expect(page.locator(".line.news")).to_be_in_viewport()
    expect(page.locator(".message").last).not_to_be_in_viewport()
    page.locator("#newer").click()
    expect(page.locator(".message").last).to_be_in_viewport()
    # The same while another tab is looked at.
    page.evaluate(HIDE, True)
    speak(cy, "#Left", *(f"p{number}" for number in range(40)))
    expect(page).to_have_title("(40) Left · Flask-WSChat")
    page.evaluate(HIDE, False)
    expect(page.locator(".message:has(.line.news) .body")).to_have_text("p0")
    expect(page.locator(".line.news")).to_be_in_viewport()
    expect(page).not_to_have_title("Left · Flask-WSChat")
    say(page, "Now I know")
    expect(page).to_have_title("Left · Flask-WSChat")
    expect(page.locator(".line.news")).to_have_count(0)
    expect(page.locator(".message").last).to_be_in_viewport()


# ---- people -------------------------------------------------------------------------


def test_who_comes_and_who_types_is_one_line(ada: Visitor, demo: DemoServer) -> None:
    page = ada.login("Ada")
    go(page, "Crowd")
    say(page, "Is anybody here?")
    all_delivered(page, 1)
    people = [speaker(demo, f"Guest {number}", "#Crowd") for number in range(12)]
    expect(page.locator(".note")).to_have_text("Guest 0 and 11 others joined")
    expect(page.locator(".message").last).to_be_in_viewport()
    expect(page.locator("#people li")).to_have_count(13)
    page.get_by_label("Find somebody").fill("GUEST 1")
    expect(page.locator("#people .name")).to_have_text(
        ["Guest 1", "Guest 10", "Guest 11"]
    )
    page.get_by_role("button", name="Guest 10").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("@Guest 10 ")
    page.get_by_label("Message", exact=True).press_sequentially("hi")
    assert people[10].expect("typing")["room"] == "#Crowd"
    for guest in people[:2]:
        assert guest.ask("typing", room="#Crowd")["ok"]
    expect(page.locator("#typing")).to_have_text("Guest 0 and Guest 1 are typing")
    assert people[2].ask("typing", room="#Crowd")["ok"]
    expect(page.locator("#typing")).to_have_text(
        "Guest 0, Guest 1 and others are typing"
    )
    speak(people[0], "#Crowd", "hello")
    expect(page.locator("#typing")).to_have_text("Guest 1 and Guest 2 are typing")
    expect(page.locator("#typing")).to_be_empty(timeout=10_000)
    for guest in people[3:]:
        guest.close()
    expect(page.locator(".note").last).to_contain_text("and 8 others left")
    page.get_by_label("Find somebody").fill("nobody")
    expect(page.get_by_text("Nobody of this name is here.")).to_be_visible()
    page.locator("#find").fill("")
    # Who is not in the room tells nobody there, and nobody all the time.
    assert people[1].ask("typing", room="#Lobby")["error"]["code"] == "not_joined"
    codes = [
        people[1].ask("typing", room="#Crowd").get("error", {}).get("code")
        for _ in range(6)
    ]
    assert codes[-1] == "rate_limited"
    watch = Person(demo).connect("/ws/rooms")
    assert watch.ask("join", room="#Crowd")["ok"]
    for kind in ("typing", "say"):
        assert not watch.ask(kind, room="#Crowd", data="x", mid="x")["ok"]


# ---- words --------------------------------------------------------------------------


def test_words_of_all_kinds_are_shown_as_they_are(
    ada: Visitor, demo: DemoServer
) -> None:
    eve = speaker(demo, "👨‍👩‍👧", "#Words")
    page = ada.login("Ada")
    go(page, "Words")
    bad: list[str] = []
    page.expose_function("bad", lambda: bad.append("it ran"))
    speak(eve, "#Words", *XSS)
    speak(
        eve, "#Words", "see https://example.org/a_(b).", "\n".join("abcdefghijklmnopq")
    )
    shows_messages(
        page, *XSS, "see https://example.org/a_(b).", "\n".join("abcdefghijklmnopq")
    )
    links = page.locator("#scroll a")
    expect(links).to_have_count(2)
    for link in links.all():
        assert str(link.get_attribute("href")).startswith("https://example.org/")
        assert "noopener" in str(link.get_attribute("rel"))
    assert page.locator("#scroll :is(img, script, b, [onmouseover])").count() == 0
    long = page.locator(".message .body").last
    height = long.evaluate("node => node.clientHeight")
    page.get_by_role("button", name="Show more").click()
    assert long.evaluate("node => node.clientHeight") > height
    expect(page.get_by_role("button", name="Show less")).to_be_focused()
    # The Enter that ends a composition sends nothing.
    words = page.get_by_label("Message", exact=True)
    words.fill("می‌خواهم 你")
    for composing in ("isComposing: true", "keyCode: 229"):
        words.evaluate(
            "node => node.dispatchEvent(new KeyboardEvent('keydown',"
            f" {{ key: 'Enter', bubbles: true, cancelable: true, {composing} }}))"
        )
    expect(words).to_have_value("می‌خواهم 你")
    words.press("Shift+Enter")
    words.press_sequentially("好")
    words.press("Enter")
    own = page.locator(".message.own .body")
    expect(own).to_have_text("می‌خواهم 你\n好", use_inner_text=True)
    expect(own).to_have_attribute("dir", "auto")
    # So much fits into one message.
    words.fill("😀" * 1990)
    expect(page.get_by_text("10 characters left")).to_be_visible()
    words.fill("x" * 2001)
    expect(page.get_by_text("1 character too many")).to_be_visible()
    words.press("Enter")
    expect(page.get_by_text("A message has at most 2,000 characters.")).to_be_visible()
    expect(words).to_have_value("x" * 2001)
    words.fill("x" * 2000)
    words.press("Enter")
    expect(words).to_be_empty()
    all_delivered(page, 2)
    words.evaluate("node => { node.value = 'half \\ud83d'; node.form.requestSubmit() }")
    all_delivered(page, 3)
    expect(own.last).to_have_text("half \ufffd")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert bad == []


# ---- what fails ---------------------------------------------------------------------


def test_what_waits_is_sent_by_the_next_page_and_what_fails_stays(
    ada: Visitor, demo: DemoServer
) -> None:
    ada.expected = AWAY
    bob = speaker(demo, "Bob", "#Waiting")
    page = ada.login("Ada")
    go(page, "Waiting")
    say(page, "first")
    all_delivered(page, 1)
    demo.freeze()
    try:
        say(page, "second")
        expect(page.locator("[data-state=sending] .body")).to_have_text("second")
        page.close()
    finally:
        demo.signal(signal.SIGCONT)
    page = ada.open("/group#Waiting")
    shows_messages(page, "first", "second")
    all_delivered(page, 2)
    # What the server does not take says so, and waits for what I want: these are 8 kB.
    for words in ("third", "fourth"):
        say(page, f"{words} {BULKY}")
    failed = page.locator("[data-state=failed]")
    expect(failed).to_have_count(2)
    expect(failed.first).to_contain_text("Not sent. It is too long.")
    failed.first.get_by_role("button", name="Try again").click()
    expect(failed).to_have_count(2)
    failed.filter(has_text="third").get_by_role("button", name="Discard").click()
    shows_messages(page, "first", "second", f"fourth {BULKY}")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    # Where it is over nothing can be sent, and words stay with who wrote them.
    other = ada.open("/vote")
    other.evaluate("fetch('/logout', { method: 'POST' })")
    expect(page.locator("#status")).to_have_text("Closed")
    say(page, "fifth")
    expect(page.get_by_text("The connection has ended.")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_have_value("fifth")
    expect(failed).to_have_count(1)
    assert [one["data"] for one in bob.ask("history", room="#Waiting")["messages"]] == [
        "first",
        "second",
    ]
