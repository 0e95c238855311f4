"""The private chat: what people see of each other, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.demos.browsing import (
    AWAY,
    Meet,
    all_delivered,
    connected,
    listed,
    say,
    shows_messages,
    talk_to,
)
from tests.demos.serving import DemoServer, Person, Tab, serving
from tests.support.waiting import eventually

# Sockets and pages in turns, all of one server: each test has people of its own.
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(60)]

XSS = "<img src onerror=bad()>"
RECEIPTS = "receipts of "


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    log = tmp_path_factory.mktemp("private") / "server.log"
    with serving(log, crowded=True) as server:
        yield server


def go_online(someone: Person, name: str = "") -> Tab:
    if name:
        assert someone.login(name) == 302
    tab = someone.connect("/ws/private")
    assert tab.ask("join", room="private")["ok"]
    assert tab.ask("inbox")["ok"]
    return tab


def direct(tab: Tab, heard: list[dict[str, object]] | None = None) -> list[object]:
    messages = [*(heard or []), *tab.heard()]
    return [(m["from"], m["to"], m["data"]) for m in messages if m["type"] == "direct"]


def shows_fates(page: Page, *fates: str) -> None:
    own = page.locator("#scroll .message.own")
    expect(own).to_have_count(len(fates))
    for index, fate in enumerate(fates):
        expect(own.nth(index)).to_have_attribute("data-state", fate.lower())
        expect(own.nth(index).locator(".foot .hidden")).to_have_text(fate)


def hide(page: Page, hidden: bool) -> None:
    """Have the page taken for one that nobody sees, or sees again."""
    page.evaluate(
        """hidden => {
          const seen = { value: hidden, configurable: true };
          Object.defineProperty(document, "hidden", seen);
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def told_all(page: Page) -> None:
    """Wait until the server has the receipt that all which came was read."""
    page.wait_for_function(
        """() => {
          const { me } = document.getElementById("chat").dataset;
          const { people } = JSON.parse(localStorage.getItem(`private ${me}`));
          const told = Object.values(people).map(({ told }) => told);
          return told.every(([got, read]) => got && got === read);
        }"""
    )


# ---- over the socket ----------------------------------------------------------------


def test_a_private_message_reaches_only_its_addressee(demo: DemoServer) -> None:
    ada, ben, mia = Person(demo), Person(demo), Person(demo)
    tabs = [go_online(ada, "Ada"), go_online(ada), go_online(ben, "Ben")]
    tabs += [go_online(ben), go_online(mia, "Mia")]
    told = (tabs[0].user, tabs[2].user, "psst")
    answer, heard = tabs[0].ask_and_hear("tell", to=told[1], data="psst", mid="m1")
    assert answer["ok"]
    assert direct(tabs[0], heard) == [told]
    assert [direct(tab) for tab in tabs[1:]] == [[told], [told], [told], []]
    # Who comes later finds it.
    for tab in tabs[2:4]:
        tab.close()
    eventually(lambda: tabs[0].ask("who", room="private")["count"] == 2)
    tabs.append(go_online(ben))
    assert [m["data"] for m in tabs[-1].ask("inbox")["messages"]] == ["psst"]
    for tab in tabs:
        tab.close()


def test_a_receipt_waits_for_the_sender_and_is_nobody_elses(demo: DemoServer) -> None:
    one, other = Person(demo), Person(demo)
    uma, vic = go_online(one, "Uma"), go_online(other, "Vic")
    user = uma.user
    uma.close()
    assert vic.ask("receipt", to=user, got="m2", read="m1", by=user)["ok"]
    uma = go_online(one)
    (receipt,) = uma.ask("join", room=RECEIPTS + user)["messages"]
    assert receipt["data"] == {"by": vic.user, "got": "m2", "read": "m1"}
    assert receipt["from"] is None
    refused = vic.ask("join", room=RECEIPTS + user)
    assert refused["error"]["code"] == "forbidden"
    assert not uma.ask("say", room=RECEIPTS + user, data="hi", mid="1")["ok"]
    for wrong in (
        {"to": user, "got": "x" * 65, "read": ""},
        *({"to": to, "got": "m1", "read": ""} for to in ("Uma", "x" * 25 + user[-9:])),
        {"to": user, "got": 1, "read": ""},
        {"to": user, "got": "m1"},
        {"to": user + "\n", "got": "m1", "read": ""},
    ):
        assert vic.ask("receipt", **wrong)["error"]["code"] == "bad_request"
    nobody = "\x00" + user
    refused = vic.ask("receipt", to=nobody, got="m1", read="")
    assert refused["error"]["code"] == "forbidden"
    assert vic.ask("typing", to=nobody)["error"]["code"] == "forbidden"
    # It is told to the other one, who types, and to nobody else.
    assert vic.ask("typing", to=user)["ok"]
    assert uma.expect("typing")["from"] == vic.user
    for tab in (uma, vic):
        tab.close()


# ---- in a browser -------------------------------------------------------------------


def test_a_private_message_is_for_one_person_in_all_their_tabs(meet: Meet) -> None:
    people = {name: meet() for name in ("Ann", "Bob", "Cat")}
    ann, bob, cat = (person.login(name, "private") for name, person in people.items())
    ann_too, bob_too = people["Ann"].open("/private"), people["Bob"].open("/private")
    talk_to(ann, "Bob")
    talk_to(ann_too, "Bob")
    say(ann, "Only for you")
    expect(listed(bob, "Ann")).to_contain_text("1 unread message")
    expect(bob.get_by_text("New message from Ann")).to_have_role("status")
    expect(bob).to_have_title("(1) Private chat · Flask-WSChat")
    expect(bob_too).to_have_title("(1) Private chat · Flask-WSChat")
    shows_fates(ann, "Delivered")
    shows_fates(ann_too, "Delivered")
    # What is read in one tab is so in the others.
    talk_to(bob_too, "Ann")
    for page in (bob, bob_too):
        expect(page).to_have_title("Private chat · Flask-WSChat")
        expect(listed(page, "Ann").locator(".badge")).to_be_hidden()
    shows_fates(ann, "Read")
    shows_fates(ann_too, "Read")
    talk_to(bob, "Ann")
    for page in (ann, ann_too, bob, bob_too):
        shows_messages(page, "Only for you")
    say(bob_too, "Thank you")
    for page in (ann, ann_too, bob, bob_too):
        shows_messages(page, "Only for you", "Thank you")
    all_delivered(ann, 1)
    # Cat hears what is for her, and nothing of what was before.
    talk_to(ann, "Cat")
    say(ann, "Hello Cat")
    expect(listed(cat, "Ann")).to_contain_text("1 unread message")
    talk_to(cat, "Ann")
    shows_messages(cat, "Hello Cat")
    talk_to(cat, "Bob")
    shows_messages(cat)
    # A reload shows the same conversation, and asks for nothing to be read again.
    bob.reload()
    shows_messages(bob, "Only for you", "Thank you")
    expect(bob).to_have_title("Private chat · Flask-WSChat")


def test_what_became_of_a_message_is_learnt_after_an_absence(meet: Meet) -> None:
    people = [meet(), meet()]
    dee, eli = people[0].login("Dee", "private"), people[1].login("Eli", "private")
    talk_to(dee, "Eli")
    expect(dee.locator("#summary")).to_have_text("Online")
    eli.close()
    expect(dee.get_by_text("Eli is offline. What you write now waits")).to_be_visible()
    say(dee, "Are you there?")
    say(dee, "It is urgent")
    shows_fates(dee, "Sent", "Sent")
    dee.reload()
    shows_fates(dee, "Sent", "Sent")
    # Their page has it while nobody looks at it, and the sender is away.
    url = dee.url
    dee.goto("about:blank")
    eli = people[1].open("/private")
    expect(eli).to_have_title("(2) Private chat · Flask-WSChat")
    eli.reload()
    expect(eli).to_have_title("(2) Private chat · Flask-WSChat")
    expect(listed(eli, "Dee").locator(".last")).to_have_text("It is urgent")
    dee.goto(url)
    shows_fates(dee, "Delivered", "Delivered")
    # A page that is open, but that nobody sees, does not read.
    hide(eli, True)
    talk_to(eli, "Dee")
    say(dee, "Hello?")
    shows_fates(dee, "Delivered", "Delivered", "Delivered")
    expect(eli).to_have_title("(3) Private chat · Flask-WSChat")
    dee.goto("about:blank")
    hide(eli, False)
    expect(eli.locator(".news")).to_have_text("3 new messages since you left")
    expect(eli).to_have_title("Private chat · Flask-WSChat")
    say(eli, "Here I am")
    all_delivered(eli, 1)
    told_all(eli)
    eli.close()
    dee.goto(url)
    shows_fates(dee, "Read", "Read", "Read")
    shows_messages(dee, "Are you there?", "It is urgent", "Hello?", "Here I am")


def test_words_not_sent_stay_with_whom_they_are_for(meet: Meet) -> None:
    fay = meet().login("Fay", "private")
    for name in ("Gil", "Hal"):
        meet().login(name, "private")
    words = fay.get_by_label("Message", exact=True)
    talk_to(fay, "Gil")
    words.fill("I love y")
    talk_to(fay, "Hal")
    expect(words).to_have_value("")
    words.fill("About the budget")
    fay.reload()
    expect(words).to_have_value("About the budget")
    talk_to(fay, "Gil")
    expect(words).to_have_value("I love y")
    words.press("End")
    words.type("ou")
    words.press("Enter")
    shows_messages(fay, "I love you")
    expect(words).to_have_value("")
    talk_to(fay, "Hal")
    expect(words).to_have_value("About the budget")
    shows_messages(fay)
    fay.go_back()
    expect(words).to_have_value("")
    fay.reload()
    expect(words).to_have_value("")


def test_the_newest_conversation_is_first_and_stays_under_the_hand(meet: Meet) -> None:
    ida = meet().login("Ida", "private")
    others = {name: meet().login(name, "private") for name in ("Jon", "Kim", "Lea")}
    names = ida.locator("#people .name")
    expect(names).to_have_text(["Jon", "Kim", "Lea"])
    for name in ("Jon", "Lea"):
        talk_to(others[name], "Ida")
        say(others[name], f"I am {name}")
        expect(listed(ida, name).locator(".last")).to_have_text(f"I am {name}")
    expect(names).to_have_text(["Lea", "Jon", "Kim"])
    expect(ida.locator("#people .heading")).to_have_text("Online now")
    expect(ida).to_have_title("(2) Private chat · Flask-WSChat")
    # Whoever has just aimed at somebody hits that one.
    link = listed(ida, "Jon")
    ida.keyboard.press("Tab")
    link.focus()
    say(others["Lea"], "Hello?")
    expect(listed(ida, "Lea")).to_contain_text("2 unread messages")
    say(others["Jon"], "Hello!")
    expect(link.locator(".last")).to_have_text("Hello!")
    expect(link).to_be_focused()
    expect(names).to_have_text(["Lea", "Jon", "Kim"])
    others["Kim"].close()
    expect(names).to_have_text(["Lea", "Jon"])
    expect(link).to_be_focused()
    ida.keyboard.press("Enter")
    shows_messages(ida, "I am Jon", "Hello!")
    expect(link).to_be_focused()
    ida.get_by_label("Message", exact=True).focus()
    expect(names).to_have_text(["Jon", "Lea"])
    # Who types is seen to.
    others["Jon"].get_by_label("Message", exact=True).type("w")
    expect(ida.locator("#typing")).to_have_text("Jon is typing")
    expect(link.locator(".last")).to_have_text("typing…")
    say(others["Jon"], "what?")
    expect(ida.locator("#typing")).to_have_text("")


def test_people_of_one_name_are_told_apart_and_markup_stays_text(
    meet: Meet, demo: DemoServer
) -> None:
    moe = meet().login("Moe", "private")
    bad: list[str] = []
    moe.expose_function("bad", lambda: bad.append("it ran"))
    me = moe.locator("#chat").get_attribute("data-me")
    users = []
    for words in ("the first", XSS):
        tab = go_online(Person(demo), XSS)
        assert tab.ask("tell", to=me, data=words, mid="1")["ok"]
        expect(moe.locator("#people .last").first).to_have_text(words)
        users.append(tab.user)
        if len(users) == 1:
            expect(moe.locator("#people .name")).to_have_text([XSS])
            # What somebody sends without our page may be any JSON.
            odd = [{"toString": 1, "valueOf": 1}, None, [1, [2]], "hello"]
            for data in odd:
                tab.ask("tell", to=me, data=data, mid=str(data))
        tab.ask("typing", to=me)
        tab.close()
        expect(moe.locator("#people .offline")).to_have_count(len(users))
    tags = [user.rpartition("#")[2][:4] for user in users]
    expect(moe.locator("#people .name")).to_have_text(
        [f"{XSS} {tags[1]}", f"{XSS} {tags[0]}"]
    )
    listed(moe, f"{XSS} {tags[0]}").click()
    expect(moe.get_by_role("heading", level=1)).to_have_text(f"{XSS} {tags[0]}")
    expect(moe.locator("#scroll .message .body").last).to_have_text("hello")
    listed(moe, f"{XSS} {tags[1]}").click()
    shows_messages(moe, XSS)
    moe.reload()
    connected(moe)
    shows_messages(moe, XSS)
    assert moe.locator("main :is(img, script, [onclick])").count() == 0
    assert bad == []


def test_many_people_are_found_by_name(meet: Meet, demo: DemoServer) -> None:
    nia = meet(width=320, height=560).login("Nia", "private")
    expect(nia.get_by_label("Find a person")).to_be_hidden()
    tabs = [go_online(Person(demo), f"Person {n}") for n in range(9)]
    nia.get_by_label("Find a person").fill("on 7")
    expect(nia.locator("#people .name")).to_have_text(["Person 7"])
    nia.get_by_label("Find a person").fill("Zoe")
    expect(nia.get_by_text("Nobody here is called that.")).to_be_visible()
    nia.get_by_label("Find a person").fill("person 3")
    nia.keyboard.press("Enter")
    expect(nia.get_by_role("heading", level=1)).to_have_text("Person 3")
    # On a phone the list comes back with the focus where it was.
    nia.get_by_role("button", name="Back to people").focus()
    nia.keyboard.press("Enter")
    expect(listed(nia, "Person 3")).to_be_focused()
    for tab in tabs:
        tab.close()


def test_many_unread_messages_make_few_receipts(meet: Meet, demo: DemoServer) -> None:
    person, sender = meet(), Person(demo)
    pia = person.login("Pia", "private")
    me = pia.locator("#chat").get_attribute("data-me")
    tab = go_online(sender, "Quin")
    assert tab.ask("join", room=RECEIPTS + tab.user)["ok"]
    say_hello = tab.ask("tell", to=me, data="m0", mid="m0")
    assert say_hello["ok"]
    talk_to(pia, "Quin")
    say(pia, "Go on")  # who gets no answer may not fill an inbox
    hide(pia, True)
    for number in range(1, 60):
        assert tab.ask("tell", to=me, data=f"m{number}", mid=f"m{number}")["ok"]
    expect(pia).to_have_title("(59) Private chat · Flask-WSChat")
    hide(pia, False)
    pia.get_by_role("button", name="New messages").click()
    expect(pia).to_have_title("Private chat · Flask-WSChat")
    receipts: list[dict[str, str]] = []
    while not receipts or receipts[-1]["read"] != "m59":
        message = tab.expect("message")
        receipts.append(message["data"])
    assert len(receipts) <= 8
    tab.close()


def test_what_was_under_way_when_a_page_was_left_is_told_once(meet: Meet) -> None:
    tia, uli = meet().login("Tia", "private"), meet().login("Uli", "private")
    talk_to(tia, "Uli")
    talk_to(uli, "Tia")
    say(tia, "one")
    shows_fates(tia, "Read")
    # From here on nothing that Tia's page sends arrives.
    tia.evaluate("document.querySelector('#plug [data-pull=swallow]').click()")
    expect(tia.locator("#plug .seen")).not_to_have_text("")
    say(tia, "two")
    expect(tia.locator(".message[data-state=sending]")).to_have_count(1)
    expect(tia.get_by_text("The server does not answer just now.")).to_be_visible()
    tia.reload()
    shows_fates(tia, "Read", "Read")
    for page in (tia, uli):
        shows_messages(page, "one", "two")


def test_an_inbox_that_lost_its_history_says_so(
    meet: Meet, demo: DemoServer, tmp_path: Path
) -> None:
    person = meet()
    person.expected = AWAY
    ray = person.login("Ray", "private")
    sam = meet()
    sam.expected = AWAY
    sams = sam.login("Sam", "private")
    talk_to(ray, "Sam")
    say(ray, "one")
    talk_to(sams, "Ray")
    shows_fates(ray, "Read")
    demo.kill()
    expect(ray.locator("#status")).to_have_text("Reconnecting")
    say(ray, "two")
    demo.start()
    connected(ray)
    shows_messages(sams, "one", "two")
    shows_fates(ray, "Read", "Read")
    for page in (ray, sams):
        lost = page.get_by_text("The server has lost its history here.")
        expect(lost).to_have_count(1)
        order = page.locator(".message .body, [data-lost]").all_inner_texts()
        assert order == ["one", lost.inner_text(), "two"]
    # After a reload, what is lost cannot be shown any more.
    demo.kill()
    expect(ray.locator("#status")).to_have_text("Reconnecting")
    demo.start()
    ray.reload()
    expect(ray.get_by_text("Some of what was said before is lost")).to_be_visible()
    ray.get_by_role("button", name="OK").click()
    ray.reload()
    connected(ray)
    expect(ray.locator("#alone, #people a").first).to_be_visible()
    expect(ray.locator("#lost")).to_be_hidden()
