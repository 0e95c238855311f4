"""The demos in a real browser: what people see, do and must not be exposed to."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.demos.browsing import (
    AWAY,
    REFUSED,
    Meet,
    all_delivered,
    choice,
    connected,
    entered,
    say,
    shows_messages,
    shows_vote,
    talk_to,
)
from tests.demos.serving import DemoServer

# A test starts the program and a few windows: seconds, not parts of a second.
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(60)]

XSS = "<img src onerror=bad()>"
"""Markup that runs ``bad`` where it is taken for markup; short enough for a name."""


# ---- the vote -----------------------------------------------------------------------


def test_two_browsers_vote_and_see_each_other(meet: Meet) -> None:
    ada, ben = meet().open("/vote"), meet().open("/vote")
    expect(ada.locator("#online")).to_have_text("2")
    ada.get_by_role("button", name="A team chat").click()
    shows_vote(ben, "A team chat", "1 vote", "100%")
    ben.get_by_role("button", name="A whiteboard").click()
    for page in (ada, ben):
        shows_vote(page, "A team chat", "1 vote", "50%")
        shows_vote(page, "A whiteboard", "1 vote", "50%")
        expect(page.locator("#total")).to_have_text("2")
    expect(ada.locator("[aria-pressed=true]")).to_contain_text("A team chat")
    expect(ben.locator("[aria-pressed=true]")).to_contain_text("A whiteboard")
    # The bar is as long as the share.
    bar = ada.locator(choice(ada, "A whiteboard"))
    assert bar.evaluate(
        "node => getComputedStyle(node).getPropertyValue('--share')"
    ) == ("0.5")


def test_a_vote_can_be_changed_and_is_one_per_browser(meet: Meet) -> None:
    ada = meet()
    first, second = ada.open("/vote"), ada.open("/vote")
    expect(first.locator("#online")).to_have_text("1")
    first.get_by_role("button", name="A team chat").click()
    expect(second.locator("[aria-pressed=true]")).to_contain_text("A team chat")
    second.get_by_role("button", name="A multiplayer game").click()
    for page in (first, second):
        expect(page.locator("[aria-pressed=true]")).to_contain_text("multiplayer game")
        shows_vote(page, "A team chat", "0 votes", "0%")
        shows_vote(page, "A multiplayer game", "1 vote", "100%")
        expect(page.locator("#total")).to_have_text("1")
    first.reload()
    expect(first.locator("[aria-pressed=true]")).to_contain_text("multiplayer game")


def test_a_vote_without_a_connection_is_sent_later(
    meet: Meet, demo: DemoServer
) -> None:
    person = meet()
    person.expected = AWAY
    page = person.open("/vote")
    demo.stop()
    expect(page.locator("#status")).to_have_text("Reconnecting")
    page.get_by_role("button", name="A team chat").click()
    expect(page.locator("#hint")).to_contain_text("is sent when it is back")
    demo.start()
    shows_vote(page, "A team chat", "1 vote", "100%")
    expect(page.locator("#hint")).to_contain_text("You voted for “A team chat”")


def test_the_keyboard_is_enough_to_vote(meet: Meet) -> None:
    page = meet().open("/vote")
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if focused.get_attribute("data-choice") == "A team chat":
            break
    outline = focused.evaluate("node => getComputedStyle(node).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    shows_vote(page, "A team chat", "1 vote", "100%")
    expect(page.locator("#hint")).to_contain_text("You voted for “A team chat”")


# ---- the group chat -----------------------------------------------------------------


def test_a_group_message_arrives_and_is_shown_once(meet: Meet) -> None:
    person = meet()
    ada, ben = person.login("Ada"), meet().login("Ben")
    other_tab = person.open("/group")
    entered(other_tab, "Lobby")
    say(ada, "Hello, is\nanybody here?")
    shows_messages(ben, "Hello, is\nanybody here?")
    say(ben, "I am")
    for page in (ada, other_tab, ben):
        shows_messages(page, "Hello, is\nanybody here?", "I am")
    for page in (ada, other_tab, ben):
        all_delivered(page, 1)
    expect(ben.locator(".message:not(.own) .from")).to_have_text("Ada")
    # Who comes later reads it, too.
    shows_messages(meet().login("Mia"), "Hello, is\nanybody here?", "I am")


def test_people_come_and_go(meet: Meet) -> None:
    person = meet()
    ada, ben = meet().login("Ada"), person.login("Ben")
    expect(ada.locator(".note")).to_have_text("Ben joined")
    expect(ada.locator("#people .name")).to_have_text(["Ada", "Ben"])
    tab = person.open("/group")
    entered(tab, "Lobby")
    tab.close()
    say(ben, "bye")
    shows_messages(ada, "bye")
    expect(ada.locator(".note")).to_have_text("Ben joined")
    ben.close()
    expect(ada.locator(".note")).to_have_text(["Ben joined", "Ben left"])
    expect(ada.locator("#people .name")).to_have_text(["Ada"])


def test_rooms_are_apart_and_can_be_made(meet: Meet) -> None:
    ada, ben = meet().login("Ada"), meet().login("Ben")
    ada.get_by_label("Name of a new room").fill("Tea time")
    ada.keyboard.press("Enter")
    entered(ada, "Tea time")
    say(ada, "Anybody for tea?")
    all_delivered(ada, 1)
    say(ben, "Quiet here")
    shows_messages(ben, "Quiet here")
    ben.locator("#rooms a", has_text="Tea time").click()
    entered(ben, "Tea time")
    shows_messages(ben, "Anybody for tea?")
    ben.go_back()
    entered(ben, "Lobby")
    shows_messages(ben, "Quiet here")


# ---- names and logins --------------------------------------------------------------


def test_a_taken_name_is_refused(meet: Meet) -> None:
    meet().login("Ada")
    other = meet()
    other.expected = REFUSED
    page = other.open("/private/login")
    page.get_by_label("Your name").fill("Ada")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("“Ada” is taken")
    page.get_by_label("Your name").fill("Ada Two")
    page.keyboard.press("Enter")
    expect(page.locator(".me")).to_contain_text("Ada Two")
    connected(page)


def test_logging_out_ends_all_tabs(meet: Meet) -> None:
    person = meet()
    first, second = person.login("Ada", "private"), person.open("/group")
    entered(second, "Lobby")
    first.get_by_role("button", name="Log out").click()
    expect(second.locator("#status")).to_have_text("Closed")
    expect(second.get_by_role("alert")).to_contain_text("You logged out.")
    second.get_by_role("link", name="Log in again").click()
    expect(second.get_by_label("Your name")).to_be_focused()


def test_a_link_to_a_room_leads_there_after_the_login(meet: Meet) -> None:
    person = meet()
    person.expected = REFUSED
    page = person.open("/group#Tea%20time")
    page.get_by_label("Your name").fill("Ada")
    page.keyboard.press("Enter")
    entered(page, "Tea time")
    assert page.url.endswith("/group#Tea%20time")
    # Also where the name was taken first, and after a log out elsewhere.
    other = meet()
    other.expected = REFUSED
    second = other.open("/group#Tea%20time")
    second.get_by_label("Your name").fill("Ada")
    second.keyboard.press("Enter")
    expect(second.get_by_role("alert")).to_contain_text("taken")
    second.get_by_label("Your name").fill("Ben")
    second.keyboard.press("Enter")
    entered(second, "Tea time")
    other.open("/vote").evaluate("fetch('/logout', {method: 'POST'})")
    expect(second.locator("#status")).to_have_text("Closed")
    say(second, "I was about to say")  # it would go nowhere, so it stays
    second.get_by_role("link", name="Log in again").click()
    second.get_by_label("Your name").fill("Ben")
    second.keyboard.press("Enter")
    entered(second, "Tea time")
    # The language is another one, the room and the words are the same.
    second.get_by_role("button", name="中文").click()
    expect(second.get_by_role("button", name="English")).to_be_visible()
    expect(second.get_by_role("heading", level=1)).to_have_text("Tea time")
    expect(second.locator("#words")).to_have_value("I was about to say")


def test_a_browser_without_cookies_says_what_to_do(
    meet: Meet, demo: DemoServer
) -> None:
    person = meet()
    person.expected = AWAY
    vote = person.open("/vote")
    demo.stop()
    person.context.clear_cookies()
    demo.start()
    expect(vote.get_by_role("alert")).to_contain_text("Allow cookies")
    expect(vote.get_by_role("button", name="Try again")).to_be_visible()
    assert person.context.cookies() == []


# ---- all of them --------------------------------------------------------------------


def test_markup_in_a_name_a_message_and_a_room_stays_text(meet: Meet) -> None:
    person = meet()
    ada, ben = person.login(XSS), meet().login("Ben")
    bad: list[str] = []
    for page in (ada, ben):
        page.expose_function("bad", lambda: bad.append("it ran"))
    expect(ben.locator("#people .name").first).to_have_text(XSS)
    say(ada, f"{XSS}<script>bad()</script>")
    shows_messages(ben, f"{XSS}<script>bad()</script>")
    expect(ben.locator(".message .from")).to_have_text(XSS)
    room = "<b onclick=bad()>r</b>"
    ada.get_by_label("Name of a new room").fill(room)
    ada.keyboard.press("Enter")
    entered(ada, room)
    expect(ben.locator(".note")).to_have_text(f"{XSS} left")
    ben.locator("#rooms a", has_text=room).click()
    entered(ben, room)
    private, ben_private = person.open("/private"), ben
    ben_private.goto(ben.url.partition("/group")[0] + "/private")
    connected(ben_private)
    talk_to(private, "Ben")
    say(private, XSS)
    talk_to(ben_private, XSS)
    shows_messages(ben_private, XSS)
    for page in (ada, private, ben_private):
        assert page.locator("main :is(img, script, [onclick])").count() == 0
    assert bad == []


def test_pages_come_back_after_a_restart_of_the_server(
    meet: Meet, demo: DemoServer
) -> None:
    people = [meet(), meet()]
    for person in people:
        person.expected = AWAY
    group = [people[0].login("Ada"), people[1].login("Ben")]
    private = [person.open("/private") for person in people]
    vote = [person.open("/vote") for person in people]
    home = people[0].open("/")
    pages = [*group, *private, *vote, home]
    talk_to(private[0], "Ben")
    talk_to(private[1], "Ada")
    say(group[0], "before")
    shows_messages(group[1], "before")
    demo.stop()
    for page in pages:
        expect(page.locator("#status")).to_have_text("Reconnecting")
    # What is written now waits for the connection.
    say(group[0], "meanwhile")
    expect(group[0].locator(".message[data-state=sending]")).to_have_count(1)
    demo.start()
    for page in pages:
        connected(page)
    shows_messages(group[0], "before", "meanwhile")
    all_delivered(group[0], 2)
    say(group[0], "after")
    shows_messages(group[0], "before", "meanwhile", "after")
    # Whichever page was back first: the other one reads all that came since.
    shows_messages(group[1], "before", "meanwhile", "after")
    expect(private[0].locator("#summary")).to_have_text("Online")
    say(private[0], "psst")
    shows_messages(private[1], "psst")
    vote[0].get_by_role("button", name="A team chat").click()
    shows_vote(vote[1], "A team chat", "1 vote", "100%")
    expect(home.locator("[data-online=private]")).to_have_text("2")


def test_a_message_that_was_under_way_arrives_once(
    meet: Meet, demo: DemoServer
) -> None:
    people = [meet(), meet()]
    for person in people:
        person.expected = AWAY
    ada, ben = people[0].login("Ada"), people[1].login("Ben")
    say(ada, "first")
    shows_messages(ben, "first")
    # The system takes it for a server that will never read it.
    demo.freeze()
    say(ada, "second")
    expect(ada.locator(".message[data-state=sending]")).to_have_count(1)
    demo.kill()
    expect(ada.locator("#status")).to_have_text("Reconnecting")
    demo.start()
    shows_messages(ben, "first", "second")
    shows_messages(ada, "first", "second")
    all_delivered(ada, 2)


@pytest.mark.parametrize("width", [320, 800])
def test_nothing_is_wider_than_the_window(meet: Meet, width: int) -> None:
    person = meet(width=width, height=640)
    pages = [person.open("/"), person.open("/vote"), person.open("/group/login")]
    name = "W" * 24
    group, private = person.login(name), person.open("/private")
    other = meet().login("M" * 24, "private")
    talk_to(other, name)
    words = "w" * 300 + " " + "many words " * 30
    say(other, words)
    talk_to(private, "M" * 24)
    shows_messages(private, words.strip())
    say(group, words)
    all_delivered(group, 1)
    for page in [*pages, group, private]:
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, page.url
    # The composer is in view, not below the fold.
    for page in (group, private):
        expect(page.get_by_role("button", name="Send")).to_be_in_viewport()


@pytest.mark.parametrize("width", [320, 1280])
def test_letters_are_as_large_as_the_browser_is_told(meet: Meet, width: int) -> None:
    person = meet(width=width, height=640)

    def enlarged(path: str) -> Page:
        page = person.open(path)
        sizes = {"fontSizes": {"standard": 32, "fixed": 26}}
        person.context.new_cdp_session(page).send("Page.setFontSizes", sizes)
        return page

    pages = [enlarged("/"), enlarged("/vote"), enlarged("/group/login")]
    person.login("W" * 24)
    group = enlarged("/group")
    say(group, "w" * 100)
    all_delivered(group, 1)
    for page in [*pages, group]:
        size = page.evaluate("getComputedStyle(document.body).fontSize")
        assert size == "32px"
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, (page.url, size)
    # Some lines of what is said can be read at once.
    assert group.locator("#scroll").evaluate("node => node.clientHeight") >= 96


def test_reconnecting_waits_as_documented(meet: Meet) -> None:
    page = meet().open("/")
    waits = page.evaluate(
        """async () => {
          const { backoff } = await import("/_wschat/wschat.js");
          const most = [0, 1, 2, 3, 4, 5, 6, 2000].map((n) => backoff(n, () => 1));
          const some = Array.from({ length: 200 }, () => backoff(3));
          return [most, backoff(9, () => 0), Math.min(...some), Math.max(...some)];
        }"""
    )
    assert waits[:2] == [[500, 1000, 2000, 4000, 8000, 10000, 10000, 10000], 0]
    assert 0 <= waits[2] < 1000 < 3000 < waits[3] <= 4000
    again = page.evaluate(
        """async () => {
          const { shouldReconnect } = await import("/_wschat/wschat.js");
          return [1000, 1001, 1002, 1005, 1006, 1008, 1009, 1011, 1012, 1013,
            3000, 3999, 4000, 4001, 4499, 4500, 4999].filter(shouldReconnect);
        }"""
    )
    refused = {1000, 1008, 4000, 4001, 4499}
    assert not refused & set(again)
    assert len(again) == 12


def test_requests_fail_with_a_reason(meet: Meet) -> None:
    person = meet()
    person.expected = "WebSocket connection to .* failed|status of 404"
    codes = person.open("/").evaluate(
        """async () => {
          const { WSChat } = await import("/_wschat/wschat.js");
          const code = (promise) => promise.then(() => "ok", (error) => error.code);
          const vote = new WSChat("/ws/vote");
          vote.join("vote");
          const poll = "demo";
          const choose = (choice) => code(vote.request("vote", { poll, choice }));
          const early = choose("A team chat");
          const unknown = choose("nothing");
          const big = choose("x".repeat(70000));
          const codes = [await early, await unknown, await big];
          vote.close();
          codes.push(vote.state, await code(vote.request("vote")));
          // Nobody is logged in: the server says so by a final close code.
          const group = new WSChat("/ws/chat");
          const join = group.request("join", { room: "#Lobby" });
          codes.push(await code(join), group.state);
          // Until it is sent it waits.
          const nobody = new WSChat("/no/such/socket");
          const waiting = code(nobody.request("hello", {}, { timeout: 50 }));
          await new Promise((resolve) => setTimeout(resolve, 100));
          nobody.close();
          return [...codes, await waiting];
        }"""
    )
    assert codes == [
        "ok",
        "unknown_choice",
        "full",
        "closed",
        "disconnected",
        "disconnected",
        "closed",
        "disconnected",
    ]
