"""The vote: polls that people make, from the form to the result and its end."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.demos.browsing import AWAY, Meet, connected, shows_vote
from tests.demos.serving import DemoServer, Person, Tab, serving

pytestmark = pytest.mark.slow

XSS = "<img src onerror=bad()>\"'"
FAMILY = "می\u200cخواهم 👨\u200d👩\u200d👧"  # noqa: RUF001


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """A server for all who need no browser; each test has its own people."""
    log = tmp_path_factory.mktemp("vote") / "server.log"
    with serving(log, crowded=True) as server:
        yield server


def voter(server: DemoServer) -> Person:
    someone = Person(server)
    assert someone.http("GET", "/vote")[0] == 200
    return someone


def form(question: str, *options: str, hide: bool = False) -> list[tuple[str, str]]:
    fields = [("question", question), *(("option", option) for option in options)]
    return fields + [("hide", "on")] * hide


def make(maker: Person, *options: str, hide: bool = False) -> str:
    """Return the id of a new poll."""
    status, body = maker.http("POST", "/vote", form("Tea?", *options, hide=hide))
    assert status == 302
    (id,) = set(re.findall(r"/vote/(\w+)/present", body))
    return str(id)


def online(someone: Person, id: str) -> Tab:
    tab = someone.connect("/ws/vote")
    assert tab.ask("join", room=f"poll/{id}")["ok"]
    return tab


def refusal(answer: dict[str, Any]) -> str:
    assert not answer["ok"]
    return str(answer["error"]["code"])


def of_type(heard: list[Any], kind: str) -> list[Any]:
    return [message for message in heard if message["type"] == kind]


# ---- the form -----------------------------------------------------------------------


def test_what_is_wrong_is_said_beside_it_and_nothing_typed_is_lost(
    hall: DemoServer,
) -> None:
    ada = voter(hall)
    for typed, field, words in [
        (form("", "yes", "no"), "q-wrong", "What is the question?"),
        (form("x" * 141, "yes", "no"), "q-wrong", "It has 141 characters"),
        (form("a\u202eb?", "yes", "no"), "q-wrong", "cannot be shown"),
        (form("\u3164", "yes", "no"), "q-wrong", "cannot be shown"),
        (form("Tea?", "yes", " "), "wrong2", "at least two choices"),
        (form("Tea?"), "wrong1", "at least two choices"),
        (form("Tea?", "yes", "y" * 81), "wrong2", "It has 81 characters"),
        (form("Tea?", "yes", "no", " Yes "), "wrong3", "this one above"),
        (form("Tea?", *"abcdefghi"), "wrong9", "Eight choices"),
        (form(XSS, "yes", "yes"), "wrong2", "this one above"),
    ]:
        status, body = ada.http("POST", "/vote", typed)
        assert status == 400, typed
        (said,) = re.findall(rf'id="{field}">(.*?)<', body)
        assert words in said
        assert body.count(" autofocus") == 1
        assert body.count("aria-invalid") == 1
        assert XSS not in body
        for name, value in typed:
            shown = value.replace("&", "&amp;").replace("<", "&lt;")
            shown = shown.replace(">", "&gt;").replace('"', "&#34;")
            assert f'value="{shown.replace(chr(39), "&#39;")}"' in body, name
    # Whoever sends thousands gets no page of them.
    status, body = ada.http("POST", "/vote", form("Tea?", *["x"] * 5000))
    assert (status, body.count('name="option"')) == (400, 9)
    # Another page cannot make one in somebody's name, nor can who has no cookie.
    status, body = Person(hall).http("POST", "/vote", form("Tea?", "yes", "no"))
    assert (status, "keeps no cookie" in body) == (400, True)
    assert voter(hall).connect("/ws/vote").ask("polls")["result"]["polls"] == []


def test_polls_are_listed_bounded_and_gone(hall: DemoServer) -> None:
    ada, ben = voter(hall), voter(hall)
    watch = ben.connect("/ws/vote")
    assert watch.ask("join", room="vote")["ok"]
    first = make(ada, "yes", "no", "")
    second = make(ada, FAMILY, "中文", hide=True)
    news = of_type(watch.heard(), "listed")
    assert [row["poll"] for row in news] == [first, second]
    rows = watch.ask("polls")["result"]["polls"]
    assert [(row["poll"], row["total"]) for row in rows] == [(second, None), (first, 0)]
    for page in ("", "/present"):
        status, body = ben.http("GET", f"/vote/{second}{page}")
        assert status == 200
        assert FAMILY in body
        assert "data-to" not in body
        # No phone can open a link to this machine's own address: so say what helps.
        assert ("make demo HOST=0.0.0.0" in body) == (page == "/present")
        assert ben.http("GET", f"/vote/{second.upper()}{page}")[0] == 200
        assert ben.http("GET", f"/vote/nowhere{page}")[0] == 404
        assert ben.http("GET", f"/vote/{'x' * 200}{page}")[0] == 404
        assert ben.http("GET", f"/vote/demo{page}")[0] == 404
    for _ in range(8):
        make(ada, "yes", "no")
    status, body = ada.http("POST", "/vote", form("Tea?", "yes", "no"))
    assert (status, "Delete one" in body) == (409, True)
    mine = online(ada, first)
    for row in watch.ask("polls")["result"]["polls"]:
        assert mine.ask("steer", poll=row["poll"], to="delete")["ok"]
    assert of_type(watch.heard(), "listed")[-1]["state"]["deleted"]
    assert watch.ask("polls")["result"]["polls"] == []
    assert ben.http("GET", f"/vote/{first}")[0] == 404
    for kind, fields in [("look", {}), ("choose", {"choice": "yes"})]:
        assert refusal(mine.ask(kind, poll=first, **fields)) == "forbidden"
    for room in (f"poll/{first}", f"results/{first}", "poll/", "other"):
        assert refusal(watch.ask("join", room=room)) == "forbidden"


# ---- the rules ----------------------------------------------------------------------


def test_nobody_hears_what_is_hidden(hall: DemoServer) -> None:
    ada, ben = voter(hall), voter(hall)
    id = make(ada, "yes", "no", hide=True)
    mine, theirs = online(ada, id), online(ben, id)
    assert mine.ask("join", room=f"results/{id}")["ok"]
    early = theirs.ask("choose", poll=id, choice="yes")
    assert refusal(early) == "forbidden"
    assert mine.ask("steer", poll=id, to="open")["ok"]
    answer, heard = theirs.ask_and_hear("choose", poll=id, choice="yes")
    assert answer.keys() == {"type", "ref", "ok"}
    tally = mine.expect("tally")
    assert (tally["total"], tally["counts"]) == (1, {"yes": 1, "no": 0})
    assert refusal(theirs.ask("join", room=f"results/{id}")) == "forbidden"
    assert refusal(theirs.ask("poll", poll=id)) == "not_joined"
    assert refusal(theirs.ask("vote", poll=id, choice="no")) == "not_joined"
    assert refusal(mine.ask("vote", poll=id, choice="no")) == "forbidden"
    assert theirs.ask("look", poll=id)["result"]["mine"] == "yes"
    assert of_type(heard + theirs.heard(), "tally") == []
    assert mine.ask("steer", poll=id, to="reveal")["ok"]
    assert theirs.ask("join", room=f"results/{id}")["ok"]
    assert theirs.ask("poll", poll=id)["counts"] == {"yes": 1, "no": 0}
    assert mine.ask("steer", poll=id, to="delete")["ok"]


def test_only_its_maker_steers_and_no_vote_comes_late(hall: DemoServer) -> None:
    ada, ben = voter(hall), voter(hall)
    id = make(ada, "yes", "no")
    mine, theirs = online(ada, id), online(ben, id)
    for to in ("open", "close", "reveal", "delete"):
        assert refusal(theirs.ask("steer", poll=id, to=to)) == "forbidden"
    assert refusal(mine.ask("steer", poll=id, to="burn")) == "bad_request"
    assert refusal(mine.ask("steer", poll=id, to="open", seconds=7)) == "bad_request"
    assert mine.ask("steer", poll=id, to="open", seconds=60)["ok"]
    state = theirs.expect("message")["data"]
    now = theirs.ask("look", poll=id)["result"]["now"]
    assert 55 < state["ends"] - now <= 60
    assert theirs.ask("choose", poll=id, choice="yes")["ok"]
    assert theirs.ask("choose", poll=id, choice="no")["ok"]
    assert refusal(theirs.ask("choose", poll=id, choice="maybe")) == "forbidden"
    assert mine.ask("steer", poll=id, to="close")["ok"]
    assert refusal(theirs.ask("choose", poll=id, choice="yes")) == "forbidden"
    assert mine.ask("steer", poll=id, to="open")["ok"]
    assert theirs.ask("look", poll=id)["result"]["mine"] == "no"
    # Who comes later finds the state in the room.
    later = voter(hall).connect("/ws/vote")
    messages = later.ask("join", room=f"poll/{id}")["messages"]
    assert messages[-1]["data"] == {"opened": True, "ends": None, "revealed": True}
    assert (
        refusal(later.ask("say", room=f"poll/{id}", data="x", mid="1")) == "forbidden"
    )
    assert mine.ask("steer", poll=id, to="delete")["ok"]


# ---- in browsers --------------------------------------------------------------------


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"url": f"sqlite:///{tmp_path}/demo.db"}


@pytest.mark.browser
@pytest.mark.timeout(60)
def test_a_poll_from_its_making_to_its_end(meet: Meet, demo: DemoServer) -> None:
    ada, ben = meet(1280, 720), meet(320, 640)
    ada.expected = ben.expected = AWAY
    stage, ballot = ada.open("/vote"), ben.open("/vote")

    # Rows come and go by keys alone, and Enter does not send half a poll.
    stage.get_by_role("textbox", name="Question").fill(XSS)
    stage.get_by_role("textbox", name="Choice 1").fill(XSS)
    stage.keyboard.press("Enter")
    stage.keyboard.type(FAMILY)
    second = stage.get_by_role("textbox", name="Choice 2")
    half = {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True}
    second.dispatch_event("keydown", half)  # of an input method: it takes a word
    expect(second).to_be_focused()
    stage.keyboard.press("Enter")
    stage.keyboard.type("neither")
    stage.keyboard.press("Enter")
    expect(stage.get_by_role("textbox", name="Choice 4")).to_be_focused()
    stage.keyboard.press("Tab")
    stage.keyboard.press("Enter")
    expect(stage.get_by_role("textbox", name="Choice 3")).to_be_focused()
    stage.get_by_label("Hide the results").check()
    stage.get_by_role("button", name="Make the poll").dblclick()
    expect(stage.get_by_role("heading", level=1)).to_have_text(XSS)
    expect(stage.locator("#phase")).to_have_text("Not open yet")

    # It is in the list of who had that open before; the link leads to it.
    row = ballot.locator("#polls li")
    expect(row).to_contain_text("results hidden")
    expect(row).to_have_count(1)
    row.get_by_role("link").click()
    expect(ballot.locator("#hint")).to_contain_text("not begun yet")
    expect(stage.locator("#online")).to_have_text("2")
    stage.keyboard.press("o")
    button = ballot.get_by_role("button", name=FAMILY)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(stage.locator("#total")).to_have_text("1")
    for page in (stage, ballot):
        expect(page.locator(".percent:visible, .track:visible")).to_have_count(0)

    # A server that is slow to answer leaves nobody in doubt.
    demo.freeze()
    ballot.get_by_role("button", name="neither").click()
    expect(ballot.locator("#hint")).to_have_text("Your vote is on its way …")
    demo.signal(signal.SIGCONT)
    expect(ballot.locator("#hint")).to_contain_text("You voted for “neither”")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")

    # The countdown goes on for all, though nothing is there to count.
    stage.keyboard.press("1")
    for place in ("#phase", "#said"):
        expect(ballot.locator(place)).to_contain_text("seconds left")
    demo.stop()
    expect(ballot.locator("#status")).to_have_text("Reconnecting")
    ballot.get_by_role("button", name="neither").click()
    expect(ballot.locator("#hint")).to_contain_text("is sent when it is back")
    demo.start()
    connected(ballot)
    expect(ballot.locator("[aria-pressed=true]")).to_contain_text("neither")
    expect(ballot.locator("#hint")).to_contain_text("You voted for “neither”")
    for page in (stage, ballot):
        expect(page.locator("#phase")).to_have_text("Vote closed")
        expect(page.locator("#said")).to_have_text("")
    expect(ballot.locator("[aria-disabled=true]")).to_have_count(3)
    late = voter(demo)
    tab = online(late, stage.url.split("/")[-2])
    choose = {"poll": stage.url.split("/")[-2], "choice": "neither"}
    assert refusal(tab.ask("choose", **choose)) == "forbidden"

    # Revealed for all, and for who comes again.
    connected(stage)
    stage.keyboard.press("r")
    for page in (stage, ballot):
        shows_vote(page, "neither", "1 vote", "100%")
        expect(page.locator("#phase")).to_have_text(re.compile("Result|closed"))
    ballot.reload()
    shows_vote(ballot, "neither", "1 vote", "100%")
    expect(ballot.locator("#said")).to_have_text("“neither” leads: 100% of the votes.")
    assert ballot.evaluate("document.body.scrollWidth") <= 320

    stage.once("dialog", lambda dialog: dialog.accept())
    stage.get_by_role("button", name="Delete").click()
    expect(stage.locator("#none")).to_be_visible()
    expect(ballot.locator("#hint")).to_contain_text("This poll is gone")
