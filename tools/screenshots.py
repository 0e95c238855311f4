"""Make the pictures in docs/images from the running demos: python -m tools.screenshots

With --all also those of phones and of the dark theme, into a folder of your choice.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.demos.serving import DemoServer
from tests.support.chromium import ARGUMENTS, find_chromium
from tests.support.processes import ROOT

IMAGES = ROOT / "docs" / "images"
GROUP = [
    ("Ada", "Morning! Does anybody know how the deploy went?"),
    ("Ben", "Went out at nine. No errors since."),
    ("Ben", "The dashboard is on the big screen, come and look."),
    ("Mia", "Great work, both of you!"),
    ("Ada", "Then I'm off to get coffee. Anything for you?"),
    ("Mia", "A flat white, please."),
]
PRIVATE = [
    ("Ada", "Mia", "Is the surprise for Ben ready?"),
    ("Mia", "Ada", "The cake arrives at three. Not a word!"),
    ("Ben", "Ada", "Why is everybody whispering?"),
    ("Ada", "Mia", "Perfect.\nI'll keep him busy until then."),
    ("Mia", "Ada", "He is walking towards your desk right now."),
]
VOTES = [0, 1, 1, 0, 1, 2, 1, 3, 1, 0, 2, 1]


class Studio:
    """Windows of different people, sizes and themes."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self.url = url

    def window(self, width: int = 1100, height: int = 700, theme: str = "") -> Page:
        page = self.browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if theme == "dark" else "light",
            locale="en-GB",
        )
        page.set_default_timeout(10_000)
        return page

    def open(self, page: Page, path: str) -> Page:
        page.goto(self.url + path)
        expect(page.locator("#status")).to_have_text("Connected")
        return page

    def login(self, page: Page, name: str) -> Page:
        self.open(page, "/group/login")
        page.get_by_label("Your name").fill(name)
        page.keyboard.press("Enter")
        expect(page.locator("#summary")).to_contain_text("here")
        return page


def shoot(page: Page, path: Path) -> None:
    page.evaluate("document.activeElement.blur()")
    # Bars and dots move; the picture is of where they get to.
    page.evaluate("Promise.all(document.getAnimations().map((a) => a.finish?.()))")
    page.screenshot(path=path, animations="disabled")
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


def say(page: Page, words: str) -> None:
    own = page.locator(".message.own[data-state=delivered]")
    count = own.count()
    page.get_by_label("Message", exact=True).fill(words)
    page.keyboard.press("Enter")
    expect(own).to_have_count(count + 1)


def picture_home(studio: Studio, page: Page, path: Path) -> None:
    shoot(studio.open(page, "/"), path)
    page.close()


def picture_all(
    studio: Studio, folder: Path, looks: list[tuple[int, int, str]]
) -> None:
    """One picture of each demo in each look."""
    voters = [studio.open(studio.window(), "/vote") for _ in VOTES]
    for page, vote in zip(voters, VOTES, strict=True):
        page.locator("[data-choice]").nth(vote).click()
    for look in looks:
        page = studio.open(studio.window(*look), "/vote")
        page.locator("[data-choice]").nth(1).click()
        expect(page.locator("[aria-pressed=true]")).to_have_count(1)
        shoot(page, folder / name_of("vote", look))
        voters.append(page)

    people = {name: studio.login(studio.window(), name) for name in ("Ada", "Ben")}
    people["Mia"] = studio.login(studio.window(), "Mia")
    for name, words in GROUP:
        say(people[name], words)
    for look in looks:
        resize(people["Ada"], look)
        shoot(people["Ada"], folder / name_of("group", look))

    for page in people.values():
        studio.open(page, "/private")
    for author, to, words in PRIVATE:
        page = people[author]
        # Also where the list is out of sight: on a phone, in a conversation.
        page.locator("#people a", has_text=to).evaluate("link => link.click()")
        expect(page.locator("#summary")).to_have_text("online")
        say(page, words)
    expect(people["Ada"].locator(".message")).to_have_count(4)
    for look in looks:
        resize(people["Ada"], look)
        shoot(people["Ada"], folder / name_of("private", look))
    for look in looks:
        picture_home(studio, studio.window(*look), folder / name_of("home", look))


def resize(page: Page, look: tuple[int, int, str]) -> None:
    width, height, theme = look
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")


def name_of(demo: str, look: tuple[int, int, str]) -> str:
    width, _, theme = look
    return (
        "-".join(filter(None, [demo, "phone" if width < 500 else "", theme])) + ".png"
    )


def main() -> None:
    folder, looks = IMAGES, [(1100, 760, "")]
    if "--all" in sys.argv:
        folder = Path(sys.argv[-1])
        looks += [(1100, 760, "dark"), (360, 740, ""), (360, 740, "dark")]
    folder.mkdir(parents=True, exist_ok=True)
    path = find_chromium()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        server = DemoServer(Path(temporary) / "server.log")
        try:
            browser = playwright.chromium.launch(
                executable_path=path, args=[*ARGUMENTS, "--hide-scrollbars"]
            )
            picture_all(Studio(browser, server.url), folder, looks)
            browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
