"""Pull the plug for long, and often: ``python -m tests.demos.pulled`` takes minutes.

Two windows count, at 20 numbers a second, over black holes, killed workers, a Redis
that is stopped, a server that stands still for 40 s, and reloads in the middle of it.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.demos.browsing import GOOD, counts, pull
from tests.demos.serving import DemoServer
from tests.support.chromium import ARGUMENTS, find_chromium

ROUNDS = 10
STILL = 40.0  # seconds

Trouble = Callable[[Page, DemoServer], None]


def seen(page: Page) -> list[str]:
    return page.locator(".pane .seen li").all_inner_texts()


def all_is_well(page: Page) -> None:
    for state in page.locator(".pane .state").all():
        expect(state).to_have_text("Connected", timeout=90_000)
    # What has waited comes at once; the server keeps 256 messages of a room.
    for under in page.locator("[data-count=under]").all():
        expect(under).to_have_text(re.compile("^[0-3]$"), timeout=90_000)


def one_by_one(what: str, rounds: int, pause: float = 1.0) -> Trouble:
    def trouble(page: Page, server: DemoServer) -> None:
        for number in range(rounds):
            all_is_well(page)
            pull(page.locator(".pane").nth(number % 2), what)
            words = re.compile("noticed|there again|It goes on|connection to pull")
            last = page.locator(".pane").nth(number % 2).locator(".seen li").last
            expect(last).to_have_text(words, timeout=90_000)
            page.wait_for_timeout(1000 * pause)
            if number % 3 == 2:
                page.reload()

    return trouble


def both(what: str, rounds: int) -> Trouble:
    def trouble(page: Page, server: DemoServer) -> None:
        for _ in range(rounds):
            all_is_well(page)
            for pane in page.locator(".pane").all():
                pull(pane, what)
            page.wait_for_timeout(500)
            page.reload()  # who comes now has sockets of its own

    return trouble


def stand_still(page: Page, server: DemoServer) -> None:
    server.freeze()
    page.wait_for_timeout(1000 * STILL)
    server.signal(signal.SIGCONT)


def go_through(browser: Browser, name: str, trouble: Trouble, **options: Any) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        server = DemoServer(Path(folder) / "log", started_anew=not options, **options)
        page = browser.new_page()
        try:
            page.goto(f"{server.url}/plug")
            page.get_by_label("20 a second").check()
            page.get_by_role("button", name="Start").click()
            page.wait_for_timeout(1000)
            began = time.monotonic()
            trouble(page, server)
            all_is_well(page)
            took = time.monotonic() - began
            page.locator("#start").click()
            expect(page.locator("#verdict")).not_to_contain_text(
                "so far", timeout=90_000
            )
            verdict = page.locator("#verdict").inner_text()
            print(f"{name}: {took:.0f} s: {verdict}")
            for pane in page.locator(".pane").all():
                print(f"    {counts(pane)}")
            print("    " + "\n    ".join(seen(page)), flush=True)
            return verdict == GOOD
        finally:
            page.close()
            server.stop()
            if "Traceback" in server.log:
                print(server.log)


def main() -> None:
    troubles: list[tuple[str, Trouble, dict[str, Any]]] = [
        ("cut", one_by_one("cut", ROUNDS), {}),
        ("frozen", one_by_one("freeze", 4), {}),
        ("swallowed", one_by_one("swallow", 4), {}),
        ("swallowed, and reloaded", both("swallow", 4), {}),
        ("the server stands still", stand_still, {}),
        ("killed, on a file", one_by_one("kill", ROUNDS), {"workers": 2}),
        (
            "killed, on Redis",
            one_by_one("kill", ROUNDS),
            {"workers": 2, "redis": True},
        ),
        ("Redis stopped", one_by_one("redis", 3, 2.0), {"workers": 2, "redis": True}),
    ]
    wanted = sys.argv[1:]
    with sync_playwright() as play:
        program = find_chromium()
        browser = play.chromium.launch(executable_path=program, args=ARGUMENTS)
        good = [
            go_through(browser, name, trouble, **options)
            for name, trouble, options in troubles
            if not wanted or any(name.startswith(each) for each in wanted)
        ]
        browser.close()
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
