"""What people do in a real browser, and what they see."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.demos.serving import DEADLINE

# What Chromium reports of a server that is away, and of a form that was refused. 426 is
# the answer to the question by HTTP why a socket did not open, asked of one that ends.
AWAY = (
    "ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|closed before a response|status of 426"
)
REFUSED = r"status of 409"

expect.set_options(timeout=DEADLINE * 1000)


class Person:
    """Somebody with a browser of their own; each tab is a page of it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.errors: list[str] = []
        self.expected = "$^"

    def open(self, path: str) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(DEADLINE * 1000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                self.errors.append(message.text) if message.type == "error" else None
            ),
        )
        page.goto(self.url + path, wait_until="commit")
        connected(page)
        return page

    def login(self, name: str, to: str = "group") -> Page:
        answer = self.context.request.post(
            f"{self.url}/{to}/login", form={"name": name}, max_redirects=0
        )
        assert answer.status == 302
        page = self.open(f"/{to}")
        if to == "group":
            entered(page, "Lobby")
        return page

    def check(self) -> None:
        errors = [text for text in self.errors if not re.search(self.expected, text)]
        assert errors == []


Meet = Callable[..., Person]


def connected(page: Page) -> None:
    expect(page.locator("#status")).to_have_text("Connected")


def entered(page: Page, room: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(room)
    expect(page.locator("#summary")).to_contain_text("here")


def say(page: Page, words: str) -> None:
    page.get_by_label("Message", exact=True).fill(words)
    page.keyboard.press("Enter")


def talk_to(page: Page, name: str) -> None:
    listed(page, name).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


def listed(page: Page, name: str) -> Locator:
    """Somebody in the list of the private chat."""
    named = page.locator(".name", has_text=re.compile(f"^{re.escape(name)}$"))
    return page.locator("#people a", has=named)


def shows_messages(page: Page, *words: str) -> None:
    expect(page.locator("#scroll .message .body")).to_have_text(list(words))


def all_delivered(page: Page, count: int) -> None:
    own = page.locator("#scroll .message.own")
    stored = ":is([data-state=sent], [data-state=delivered], [data-state=read])"
    expect(page.locator(f"#scroll .message.own{stored}")).to_have_count(count)
    expect(own).to_have_count(count)


def choice(page: Page, name: str) -> str:
    """The selector of a choice of the vote."""
    return f'[data-choice="{name}"]'


def shows_vote(page: Page, name: str, votes: str, percent: str) -> None:
    button = page.locator(choice(page, name))
    expect(button.locator(".votes")).to_have_text(votes)
    expect(button.locator(".percent")).to_have_text(percent)


GOOD = "Nothing lost, nothing doubled"


def pull(place: Page | Locator, what: str) -> None:
    """Press a button of the plug, in a page or a window of it."""
    place.locator(f"[data-pull={what}]").click()


def counts(page: Page | Locator) -> dict[str, int]:
    """What a window of /plug has counted, or the page of what is sent."""
    shown = page.locator("[data-count]").all()
    return {str(n.get_attribute("data-count")): int(n.inner_text()) for n in shown}
