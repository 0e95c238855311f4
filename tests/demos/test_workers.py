"""The demos over several processes and their ends: nothing missed, nothing twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.demos.browsing import (
    AWAY,
    Meet,
    all_delivered,
    connected,
    entered,
    say,
    shows_messages,
    shows_vote,
    talk_to,
)
from tests.demos.serving import DemoServer
from tests.support.programs import program

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(90),
]


@pytest.fixture
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    ways: dict[str, dict[str, Any]] = {
        "redis": {"workers": 2, "redis": True},
        "file": {"workers": 2},
        "restart": {"url": f"sqlite:///{tmp_path}/demo.db"},
        "memory": {},
    }
    way = getattr(request, "param", "redis")
    if way == "redis":
        program("redis-server", "redis-server", "valkey-server")
    return ways[way]


def apart(
    meet: Meet, demo: DemoServer
) -> tuple[tuple[Page, ...], tuple[Page, ...], int]:
    """Have Ada's pages served by one worker and Ben's by another; return Ben's too."""
    sets = []
    first, second = demo.workers()
    for name, worker in [("Ada", first), ("Ben", second)]:
        person = meet()
        person.expected = AWAY
        with demo.only(worker):
            group = person.login(name)
            sets.append((group, person.open("/private"), person.open("/vote")))
    return sets[0], sets[1], second


@pytest.mark.parametrize("options", ["redis", "file"], indirect=True)
def test_people_of_different_workers_meet(meet: Meet, demo: DemoServer) -> None:
    (group, private, vote), (bens_group, bens_private, bens_vote), _ = apart(meet, demo)
    for page in (group, bens_group):
        expect(page.locator("#people .name")).to_have_text(["Ada", "Ben"])
    for page in (vote, bens_vote):
        expect(page.locator("#online")).to_have_text("2")
    say(group, "Hello Ben")
    shows_messages(bens_group, "Hello Ben")
    say(bens_group, "Hello Ada")
    for page in (group, bens_group):
        shows_messages(page, "Hello Ben", "Hello Ada")
        all_delivered(page, 1)
    group.get_by_label("Name of a new room").fill("Tea time")
    group.keyboard.press("Enter")
    entered(group, "Tea time")
    bens_group.locator("#rooms a", has_text="Tea time").click()
    entered(bens_group, "Tea time")
    say(bens_group, "Milk?")
    shows_messages(group, "Milk?")
    talk_to(private, "Ben")
    talk_to(bens_private, "Ada")
    say(private, "psst")
    shows_messages(bens_private, "psst")
    vote.get_by_role("button", name="A team chat").click()
    bens_vote.get_by_role("button", name="A whiteboard").click()
    for page in (vote, bens_vote):
        shows_vote(page, "A team chat", "1 vote", "50%")
        shows_vote(page, "A whiteboard", "1 vote", "50%")
    # A poll that is made by one worker has the same state on the other.
    first, second = demo.workers()
    for name, words in [("Question", "Tea?"), ("Choice 1", "yes"), ("Choice 2", "no")]:
        vote.get_by_role("textbox", name=name).fill(words)
    with demo.only(first):
        vote.get_by_role("button", name="Make the poll").click()
        connected(vote)
    with demo.only(second):
        bens_vote.goto(vote.url.removesuffix("/present"))
        connected(bens_vote)
    vote.keyboard.press("o")
    bens_vote.get_by_role("button", name="no").click()
    for page in (vote, bens_vote):
        shows_vote(page, "no", "1 vote", "100%")
        expect(page.locator("#online")).to_have_text("2")
    # The name is taken, whichever worker is asked.
    status = meet().context.request.post(
        f"{demo.url}/group/login", form={"name": "Ada"}, max_redirects=0
    )
    assert status.status == 409


def test_both_go_on_when_a_worker_is_killed(meet: Meet, demo: DemoServer) -> None:
    mine, bens, worker = apart(meet, demo)
    (group, private, vote), (bens_group, bens_private, bens_vote) = mine, bens
    talk_to(private, "Ben")
    talk_to(bens_private, "Ada")
    bens_vote.get_by_role("button", name="A whiteboard").click()
    shows_vote(vote, "A whiteboard", "1 vote", "100%")
    words = [f"{number}: {name}" for number in range(15) for name in ("Ada", "Ben")]
    for index, text in enumerate(words):
        if index == 12:
            os.kill(worker, signal.SIGKILL)
        say(bens_group if text.endswith("Ben") else group, text)
        if index % 6 == 0:
            say(private, text)
    for page in (group, bens_group):
        all_delivered(page, 15)
        shown = page.locator("#scroll .message .body")
        expect(shown).to_have_count(30)
        for name in ("Ada", "Ben"):
            theirs = [text for text in words if text.endswith(name)]
            assert [t for t in shown.all_inner_texts() if t.endswith(name)] == theirs
        expect(page.locator("#people .name")).to_have_text(["Ada", "Ben"])
    # Both saw the same order.
    orders = [
        page.locator("#scroll .message .body").all_inner_texts()
        for page in (group, bens_group)
    ]
    assert orders[0] == orders[1]
    shows_messages(bens_private, *words[::6])
    connected(bens_vote)
    vote.get_by_role("button", name="A team chat").click()
    shows_vote(bens_vote, "A team chat", "1 vote", "50%")
    expect(bens_vote.locator("[aria-pressed=true]")).to_contain_text("A whiteboard")


@pytest.mark.parametrize("options", ["restart"], indirect=True)
def test_what_is_written_over_a_restart_is_there_once(
    meet: Meet, demo: DemoServer
) -> None:
    people = [meet(), meet()]
    for person in people:
        person.expected = AWAY
    ada, ben = people[0].login("Ada"), people[1].login("Ben")
    private = [person.open("/private") for person in people]
    talk_to(private[0], "Ben")
    talk_to(private[1], "Ada")
    say(ada, "one")
    shows_messages(ben, "one")
    say(private[0], "psst")
    shows_messages(private[1], "psst")
    demo.kill()
    for page in (ada, ben, *private):
        expect(page.locator("#status")).to_have_text("Reconnecting")
    say(ada, "two")
    say(ada, "three")
    say(ben, "four")
    say(private[0], "again")
    demo.start()
    for page, own in ((ada, 3), (ben, 1), (private[0], 2)):
        all_delivered(page, own)
    shows_messages(private[1], "psst", "again")
    for page in (ada, ben):
        expect(page.locator("#scroll .message .body")).to_have_count(4)
        expect(page.locator("[data-lost]")).to_have_count(0)
    texts = ada.locator("#scroll .message .body").all_inner_texts()
    assert ben.locator("#scroll .message .body").all_inner_texts() == texts
    assert [text for text in texts if text != "four"] == ["one", "two", "three"]


@pytest.mark.parametrize("options", ["memory"], indirect=True)
def test_a_server_without_a_memory_is_said_to_have_lost_it(
    meet: Meet, demo: DemoServer
) -> None:
    people = [meet(), meet()]
    for person in people:
        person.expected = AWAY
    ada, ben = people[0].login("Ada"), people[1].login("Ben")
    vote = people[0].open("/vote")
    vote.get_by_role("button", name="A whiteboard").click()
    shows_vote(vote, "A whiteboard", "1 vote", "100%")
    say(ada, "one")
    shows_messages(ben, "one")
    demo.kill()
    for page in (ada, ben):
        expect(page.locator("#status")).to_have_text("Reconnecting")
    say(ada, "two")
    demo.start()
    for page in (ada, ben):
        shows_messages(page, "one", "two")
        lost = page.get_by_text("The server has lost its history here.")
        expect(lost).to_have_count(1)
        order = page.locator(".message .body, [data-lost]").all_inner_texts()
        assert order == ["one", lost.inner_text(), "two"]
    expect(vote.locator("#hint")).to_contain_text("lost all votes")
    shows_vote(vote, "A whiteboard", "0 votes", "0%")
