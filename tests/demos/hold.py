"""Three browsers write to each other while something breaks: what is lost, what twice?

    python -m tests.demos.hold [restart] [kill] [worker] [hole] [freeze]

In the rooms and in private, by the pages' own composers. Each takes about a minute.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.demos.browsing import Person, say, talk_to
from tests.demos.serving import DemoServer
from tests.support import chromium as installed

MESSAGES = 50  # of each person in each conversation; a server keeps 256 of an inbox
PAUSE = 0.2  # seconds between two of them
PATIENCE = 120.0  # seconds until all of them must be there

BODIES = """() => [...document.querySelectorAll("#scroll .message .body")]
  .map((node) => node.textContent)"""
FATES = """() => [...document.querySelectorAll("#scroll .message.own")]
  .map((node) => node.dataset.state)"""
STATES = """() => {
  const status = document.getElementById("status");
  window.states = new Set();
  new MutationObserver(() => states.add(status.dataset.state))
    .observe(status, { attributes: true });
}"""

Break = Callable[[DemoServer, list[Page], int], None]


def restart(server: DemoServer, pages: list[Page], number: int) -> None:
    if number in (10, 25, 40):
        server.interrupt()
        server.start()


def kill(server: DemoServer, pages: list[Page], number: int) -> None:
    if number in (10, 25, 40):
        server.kill()
        server.start()


def worker(server: DemoServer, pages: list[Page], number: int) -> None:
    if number in (10, 20, 30, 40):
        os.kill(server.workers()[number // 10 % 2], signal.SIGKILL)


def hole(server: DemoServer, pages: list[Page], number: int) -> None:
    """What one page sends, and what it is sent, is taken and never comes."""
    if number % 15 == 5:
        page = pages[number // 15 * 3]
        page.evaluate("document.querySelector('#plug [data-pull=swallow]').click()")


def freeze(server: DemoServer, pages: list[Page], number: int) -> None:
    if number == 10:
        server.freeze()
    if number == 40:
        server.signal(signal.SIGCONT)
    if 10 <= number < 40:
        time.sleep(4 / 3)  # 40 seconds in all


BREAKS: dict[str, Break] = {
    one.__name__: one for one in (restart, kill, worker, hole, freeze)
}


def judge(shown: list[str], names: list[str]) -> str:
    """Say what is wrong with what a page shows, "" if nothing is."""
    for name in names:
        theirs = [int(text.split()[1]) for text in shown if text.startswith(name)]
        if missing := set(range(MESSAGES)) - set(theirs):
            return f"of {name} are missing: {sorted(missing)}"
        if len(theirs) > MESSAGES:
            return f"of {name} came twice: {len(theirs) - MESSAGES}"
        if theirs != sorted(theirs):
            return f"of {name} in another order: {theirs}"
    return ""


def exchange(browser: Browser, server: DemoServer, broken: Break) -> None:
    people = {
        n: Person(browser.new_context(), server.url) for n in ("Ada", "Ben", "Cy")
    }
    rooms = {name: person.login(name) for name, person in people.items()}
    tabs = [("Ada", "Ben"), ("Ben", "Ada"), ("Ada", "Cy"), ("Cy", "Ada")]
    private = [people[name].open("/private") for name, _ in tabs]
    for (_, other), page in zip(tabs, private, strict=True):
        talk_to(page, other)
    writers = [*rooms.items()]
    writers += [(name, page) for (name, _), page in zip(tabs, private, strict=True)]
    pages = [page for _, page in writers]
    for page in pages:
        page.evaluate(STATES)
    for number in range(MESSAGES):
        broken(server, pages, number)
        for name, page in writers:
            say(page, f"{name} {number}")
        time.sleep(PAUSE)
    expected = [[*people]] * len(rooms) + [list(tab) for tab in tabs]
    began = time.monotonic()
    while True:
        wrong = [
            judge(page.evaluate(BODIES), names)
            for page, names in zip(pages, expected, strict=True)
        ]
        fates = [page.evaluate(FATES) for page in pages]
        known = all(set(own) == {"sent"} for own in fates[: len(rooms)])
        known = known and all(set(own) == {"read"} for own in fates[len(rooms) :])
        waited = time.monotonic() - began
        if (known and not any(wrong)) or waited > PATIENCE:
            break
        time.sleep(0.2)
    for (name, page), what, own in zip(writers, wrong, fates, strict=True):
        states = " ".join(page.evaluate("[...states]"))
        told = {fate: own.count(fate) for fate in set(own)}
        path = page.url.removeprefix(server.url).partition("%")[0]
        print(f"  {name:4}{path:14}{what or 'all, once, in order'}; {told}; {states}")
    print(f"  all was known {waited:.1f} s after the last one was written")
    for person in people.values():
        person.context.close()


def main(names: list[str]) -> None:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=installed.find_chromium(), args=installed.ARGUMENTS
        )
        for name in names or BREAKS:
            url = f"sqlite:///{folder}/{name}.db"
            server = DemoServer(
                Path(folder, name + ".log"),
                workers=2 if name == "worker" else 1,
                url=url,
                crowded=True,
                started_anew=True,
            )
            print(f"{name}:")
            try:
                exchange(browser, server, BREAKS[name])
            finally:
                server.stop()
            if "Traceback" in server.log:
                print(server.log)


if __name__ == "__main__":
    main(sys.argv[1:])
