"""The dashboard as it is seen: three workers under load, two of them killed."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client
from flask import Flask
from playwright.sync_api import Browser, Locator, Page, Route, expect
from websockets.exceptions import ConnectionClosed

from flask_wschat import WSChat
from tests.servers.serving import APP, OUR_WORKER, gunicorn_command
from tests.support.axe import SMALL, look
from tests.support.chat_client import ChatClient
from tests.support.live import stop
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.redis_server import RedisServer
from tests.support.waiting import LONG

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

WORKERS = 3
SOON = 5_000
"""Milliseconds within which the page is right after a worker was killed."""
PEOPLE = ["Ada", "Ben", "<b>Mia</b>", "مريم", "李雷", "a\u202edA", "Zo\u200be"]


class Board:
    """Three workers, those who are connected to them, and the page."""

    def __init__(self, folder: Path, url: str) -> None:
        self.port = free_port()
        self.url = url
        self.refusing = folder / "refusing"
        command = gunicorn_command(OUR_WORKER, f"127.0.0.1:{self.port}")
        command = ["tests.operate.board_app:app" if c == APP else c for c in command]
        command += ["--config", "python:tests.processes.imports"]
        command += ["--workers", str(WORKERS)]
        env = {"WSCHAT_URL": url, "REFUSING": str(self.refusing)}
        self.master = Process(command, folder / "log", env, forked="patched")
        self.people: list[ChatClient] = []
        self.errors: list[str] = []

    def start(self) -> None:
        self.master.start()
        self.master.await_port(self.port)

    def stop(self) -> None:
        self.leave()
        self.master.stop()

    def leave(self) -> None:
        for person in self.people:
            person.close()
        self.people.clear()

    def come(self, user: str, *rooms: str) -> ChatClient:
        client = websockets.sync.client.connect(
            f"ws://127.0.0.1:{self.port}/chat?user={user}",
            proxy=None,
            compression=None,
            ping_interval=None,
        )
        person = ChatClient(client.__enter__(), LONG)
        for room in rooms:
            person.ask("join", room=room)
        self.people.append(person)
        return person

    def asked(self) -> Any:
        """What ``chat.stats`` and the commands say of all workers, elsewhere."""
        app = Flask("elsewhere")
        app.config["WSCHAT_URL"] = self.url
        stats = WSChat(app).stats(everywhere=True)
        stop(app)
        return stats

    def open(self, page: Page) -> Page:
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                self.errors.append(message.text) if message.type == "error" else None
            ),
        )
        page.goto(f"http://127.0.0.1:{self.port}/admin/live")
        expect(page.locator("#status")).to_have_text("Live")
        return page

    def check(self) -> None:
        away = "ERR_CONNECTION_RE|closed before a response|status of (426|403)"
        assert [text for text in self.errors if not re.search(away, text)] == []


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with RedisServer() as redis:
        board = Board(tmp_path_factory.mktemp("board"), redis.url)
        try:
            board.start()
            yield board
        finally:
            board.stop()


def rows(page: Page) -> dict[str, list[str]]:
    """What stands in the table, by worker."""
    found = page.locator("#workers tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    return {row[0].split()[0]: row[1:] for row in found if row[2].isdecimal()}


def worker(page: Page, name: str) -> Locator:
    return page.locator("#workers tbody tr", has_text=name)


def end_of(person: ChatClient) -> tuple[int, str]:
    """Return the code and reason of the close frame, whatever comes before it."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            person.hear()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def connections(page: Page) -> int:
    return int(rows(page)["All"][1])


def listed(page: Page, what: str, name: str) -> Locator:
    words = page.locator(".name", has_text=re.compile(f"^{re.escape(name)}[0-9]"))
    return page.locator(f"[data-list={what}] .list > li", has=words)


def test_people_are_found_told_and_disconnected(
    chromium: Browser, board: Board
) -> None:
    """By keyboard and mouse, in any script; and no page of it keeps anybody out."""
    context = chromium.new_context(locale="en-GB")
    people = {name: board.come(name, "Lobby", "Tea & <i>more</i>") for name in PEOPLE}
    twin = board.come("Ada")
    page = board.open(context.new_page())
    for name in PEOPLE:
        seen = re.sub("[\u200b\u202e]", lambda c: ascii(c[0])[1:-1], name)
        expect(listed(page, "users", seen)).to_have_count(1)
    expect(listed(page, "users", "Ada")).to_contain_text("2 connections")
    expect(listed(page, "rooms", "Tea & <i>more</i>")).to_contain_text("7 users")
    search = page.locator("[data-list=users] input")
    search.fill("mi")
    expect(page.locator("[data-list=users] .list > li")).to_have_count(1)
    expect(listed(page, "users", "<b>Mia</b>")).to_be_visible()
    search.fill("")
    said, dialog = page.locator("#said"), page.locator("#dialog")
    # A message to a user, then to a room.
    people["Ben"].ask("inbox")
    listed(page, "users", "Ben").get_by_role("button", name="Send").click()
    expect(dialog).to_be_visible()
    found = look(page, themes=False)
    page.keyboard.type("  ")
    dialog.get_by_role("button", name="Send").click()
    expect(dialog.locator(".error")).to_have_text("Write something first.")
    page.keyboard.type("Hello <Ben>")
    dialog.get_by_role("button", name="Send").click()
    expect(said).to_have_text("Sent to Ben.")
    assert people["Ben"].expect("direct")["data"] == "Hello <Ben>"
    listed(page, "rooms", "Lobby").get_by_role("button", name="Send").click()
    page.keyboard.type("Tea is ready")
    dialog.get_by_role("button", name="Send").click()
    expect(said).to_have_text("Sent to Lobby.")
    assert people["مريم"].expect("message")["data"] == "Tea is ready"
    # One connection of two, then the user.
    ada = listed(page, "users", "Ada")
    ada.get_by_role("button", name="Connections").click()
    expect(ada.locator(".more li")).to_have_count(2)
    expect(ada.locator(".more")).to_contain_text("/chat from 127.0.0.1")
    expect(ada.locator(".more")).to_contain_text("in Lobby, Tea & <i>more</i>")
    found += look(page)
    one = ada.locator(".more li", has_text="Lobby")
    one.get_by_role("button").click()
    page.keyboard.press("Escape")  # it is not done before it is confirmed
    expect(dialog).to_be_hidden()
    assert people["Ada"].ask("ping")["ok"]
    one.get_by_role("button").click()
    dialog.get_by_role("button", name="Disconnect").click()
    expect(said).to_have_text("Ada: 1 connection closed.")
    assert end_of(people["Ada"])[0] == 4000
    assert twin.ask("ping")["ok"]
    # Who comes meanwhile takes no place from where the keyboard is.
    button = listed(page, "users", "李雷").get_by_role("button", name="Disconnect")
    button.focus()
    others = [board.come("李雷") for _ in range(3)]
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(listed(page, "users", "李雷")).to_contain_text("4 connections")
    expect(button).to_be_focused()
    # A key that is held asks, and does not answer.
    for _ in range(3):
        page.keyboard.down("Enter")
    expect(dialog).to_contain_text("4 connections close")
    page.keyboard.up("Enter")
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
    assert people["李雷"].ask("ping")["ok"]
    button.click()
    page.keyboard.type("Good night")
    page.keyboard.press("Enter")
    expect(said).to_have_text("李雷: 4 connections closed.")
    for person in (people["李雷"], *others):
        assert end_of(person) == (4000, "Good night")
    expect(listed(page, "users", "李雷")).to_have_count(0)
    expect(page.locator("[data-list=users] h2")).to_be_focused()
    # A minute in which it slept is as wide as one in which it did not.
    drawn = page.locator("[data-figure=connections] .line")
    page.evaluate("{ const now = Date.now; Date.now = () => now() + 60_000; }")
    expect(drawn).to_have_attribute("d", re.compile(r"[LM][1-5]\d \S+M1[01]\d [^M]+$"))
    # A small window, and fingers.
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    found += [*look(page, themes=False), *page.evaluate(SMALL)]
    # It stops where it may not go on.
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#status")).to_have_text("Paused")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#status")).to_have_text("Live")
    board.refusing.touch()
    expect(page.locator("#status")).to_contain_text("You may not see this any more")
    expect(page.get_by_text("Ben", exact=True)).to_be_hidden()
    found += look(page, themes=False)
    board.refusing.unlink()
    context.close()
    board.leave()
    board.check()
    assert not found, "\n".join(found)


def test_it_says_why_it_cannot_work(chromium: Browser, board: Board) -> None:
    """In a frame, whose headers an application has replaced; and behind a proxy."""
    page = chromium.new_page()
    base = f"http://127.0.0.1:{board.port}"
    html = page.request.get(f"{base}/admin/live").text()
    pages = {
        "live": html,
        "away": html.replace(base, "http://10.0.0.5").replace("/socket", "/nothing"),
        "framed": "<title>Framed</title><iframe src=live></iframe>",
    }

    def answer(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        route.fulfill(body=pages[name], content_type="text/html; charset=utf-8")

    page.route("**/admin/*", answer)
    page.goto(f"{base}/admin/framed")
    said = page.frame_locator("iframe").locator("#status")
    expect(said).to_have_text("This page works in no frame: open it by itself.")
    page.goto(f"{base}/admin/away")
    expect(page.locator("#status")).to_contain_text(
        "the server believes to be http://10.0.0.5. Behind a proxy it needs ProxyFix"
    )
    page.close()


def test_it_is_right_soon_after_a_worker_was_killed(
    chromium: Browser, board: Board
) -> None:
    page = board.open(chromium.new_page(locale="en-GB"))
    hint = page.locator("#workers-hint")
    expect(hint).to_have_text("3 workers")
    for number in range(30):
        board.come(f"user{number}", "Lobby")
    total = page.locator("#workers tr.total td").nth(1)
    expect(total).to_have_text("31")
    for killed in range(2):
        before = rows(page)
        # The one that serves the page is the last: it is the one to come back then.
        names = sorted(set(before) - {"All"}, key=lambda name: int(before[name][1]))
        name = names[-1]
        lost = int(before[name][1])
        left = connections(page)
        os.kill(int(name.partition(":")[2]), signal.SIGKILL)
        begun = time.monotonic()
        gone = worker(page, name).locator(".tag")
        expect(gone).to_have_text("gone", timeout=SOON)
        expect(total).to_have_text(re.compile(f"^({left - lost}|{left - lost + 1})$"))
        assert time.monotonic() - begun < SOON / 1000, killed
        expect(page.locator("#news")).to_have_text(f"Worker {name} is gone.")
        expect(hint).to_have_text("3 workers")  # the new one is there
        new = set(rows(page)) - set(before)
        assert len(new) == 1, new
    asked = board.asked()["total"]
    assert asked["connections"] == connections(page)
    expect(worker(page, name)).to_have_count(0, timeout=3 * SOON)  # of them ten
    board.check()
