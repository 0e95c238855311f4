"""Make the pictures in docs/images from the running demos: make screenshots

By hand, ``python -m tools.screenshots --all FOLDER`` makes those of phones, too. It
takes Pillow for the animation.
"""

from __future__ import annotations

import importlib
import io
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.demos.serving import DemoServer
from tests.support.chromium import ARGUMENTS, find_chromium
from tests.support.processes import ROOT

Image: Any = importlib.import_module("PIL.Image")  # only the pictures need it

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
QUESTION = "What would you build first?"
OPTIONS = ["A live dashboard", "A team chat", "A game for many", "A whiteboard"]

UNPLUG = "document.querySelector('#plug')?.remove()"  # one picture is of that
LIGHT, DARK, PHONE = (1100, 760, ""), (1100, 760, "dark"), (360, 740, "")


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
        page.evaluate(UNPLUG)
        return page

    def login(self, page: Page, name: str) -> Page:
        self.open(page, "/group/login")
        page.get_by_label("Your name").fill(name)
        page.keyboard.press("Enter")
        expect(page.locator("#summary")).to_contain_text("here")
        page.evaluate(UNPLUG)
        return page


def shoot(page: Page, path: Path) -> None:
    page.evaluate("document.activeElement.blur()")
    # Bars and dots move: the picture is of where they get to.
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    picture.convert("RGB").quantize(256, dither=0).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


def say(page: Page, words: str) -> None:
    own = page.locator(".message.own:not([data-state=sending])")
    count = own.count()
    page.get_by_label("Message", exact=True).fill(words)
    page.keyboard.press("Enter")
    expect(own).to_have_count(count + 1)


def make_poll(studio: Studio, page: Page) -> str:
    """Return the path of a poll that ``page`` has made."""
    fields = [("question", QUESTION), *(("option", option) for option in OPTIONS)]
    made = page.context.request.post(
        f"{studio.url}/vote",
        data=urlencode(fields),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    return made.url.removeprefix(studio.url).removesuffix("/present")


def voters(studio: Studio, path: str) -> Iterator[Callable[[], None]]:
    """What each of some people does to vote there."""
    for vote in VOTES:
        page = studio.open(studio.window(), path)
        yield page.locator("[data-choice]").nth(vote).click


def picture_vote(studio: Studio) -> Iterator[Page]:
    host = studio.open(studio.window(), "/vote")
    path = make_poll(studio, host)
    studio.open(host, path + "/present")
    host.locator("[data-to=open]").first.click()
    for vote in voters(studio, path):
        vote()
    expect(host.locator("#total")).to_have_text(str(len(VOTES)))
    yield host


def picture_group(studio: Studio) -> Iterator[Page]:
    people = {n: studio.login(studio.window(), n) for n in ("Ada", "Ben", "Mia")}
    for name, words in GROUP:
        say(people[name], words)
    yield people["Ada"]
    for page in people.values():
        studio.open(page, "/private")
    for author, to, words in PRIVATE:
        page = people[author]
        # Also where the list is out of sight: on a phone, in a conversation.
        page.locator("#people a", has_text=to).evaluate("link => link.click()")
        expect(page.locator("h1")).to_have_text(to)
        say(page, words)
    expect(people["Ada"].locator(".message")).to_have_count(4)
    expect(people["Ada"].locator(".message.own[data-state=read]")).to_have_count(2)
    yield people["Ada"]


def picture_bot(studio: Studio) -> Iterator[Page]:
    page = studio.open(studio.window(), "/bot")
    page.locator("main input, main textarea").first.fill("Why is the sky blue?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.locator("main")).to_contain_text("A real model goes where I stand")
    yield page


def picture_others(studio: Studio) -> Iterator[Page]:
    protocol = studio.open(studio.window(), "/protocol")
    protocol.get_by_role("button", name="Send", exact=True).first.click()
    expect(protocol.locator("#frames > li")).to_have_count(2)
    yield protocol
    plug = studio.open(studio.window(), "/plug")
    plug.get_by_role("button", name="Start").click()
    expect(plug.locator("[data-count=sent]")).to_have_text(re.compile(r"\d\d"))
    plug.get_by_role("button", name="Cut the socket").first.click()
    expect(plug.locator("main")).to_contain_text("connected again")
    yield plug
    yield studio.open(studio.window(), "/")


def picture_dashboard(studio: Studio) -> Iterator[Page]:
    """Of several workers, after some time in which people have talked."""
    page = studio.window(1280, 900)
    page.goto(studio.url + "/admin/live")
    names = ("Ada", "Ben", "Mia", "Noor", "Tom")
    people = [studio.login(studio.window(), name) for name in names]
    for _ in range(5):
        studio.open(studio.window(), "/vote")
    for second in range(60):
        for person in people[: 1 + second // 15]:
            person.get_by_label("Message", exact=True).fill("Hello")
            person.keyboard.press("Enter")
        page.wait_for_timeout(200 + 15 * (second % 20))
    expect(page.locator("#status")).to_have_text("Live")
    page.evaluate("scrollTo(0, 0)")
    yield page


def picture_all(studio: Studio, folder: Path, looks: list[Look]) -> None:
    """One picture of each demo in each look."""
    pages = chain(
        picture_vote(studio),
        picture_group(studio),
        picture_bot(studio),
        picture_others(studio),
    )
    for name in ("vote", "group", "private", "bot", "protocol", "plug", "home"):
        page = next(pages)
        for look in looks:
            resize(page, look)
            shoot(page, folder / name_of(name, look))


def film(studio: Studio, path: Path) -> None:
    """A vote on the big screen, and on one of the phones that take part in it."""
    host = studio.open(studio.window(1180, 660), "/vote")
    poll = make_poll(studio, host)
    studio.open(host, poll + "/present")
    phone = studio.open(studio.window(340, 660), poll)
    others = list(voters(studio, poll))
    frames, durations = [], []

    def shot(milliseconds: int) -> None:
        frame = Image.new("RGB", (1540, 660), "#d9d5ca")
        for page, x in (host, 0), (phone, 1200):
            picture = Image.open(io.BytesIO(page.screenshot()))
            frame.paste(picture.convert("RGB"), (x, 0))
        frames.append(frame.resize((1026, 440), Image.Resampling.LANCZOS))
        durations.append(milliseconds)

    def after(step: Callable[[], None], hold: int) -> None:
        step()
        for _moving in range(4):
            shot(70)
        shot(hold)

    shot(1200)
    after(host.locator("[data-to=open]").first.click, 900)
    for number, vote in enumerate(others):
        if number == 3:
            after(phone.locator("[data-choice]").nth(1).click, 900)
        after(vote, 250)
    after(host.locator("[data-to=close]").click, 3000)
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=durations,
        loop=0, quality=75, method=6, minimize_size=True,
    )  # fmt: skip
    print(f"{path.name}: {path.stat().st_size // 1000} kB, {len(frames)} frames")


Look = tuple[int, int, str]


def resize(page: Page, look: Look) -> None:
    width, height, theme = look
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")


def name_of(demo: str, look: Look) -> str:
    width, _, theme = look
    return (
        "-".join(filter(None, [demo, "phone" if width < 500 else "", theme])) + ".png"
    )


def main() -> None:
    folder, looks = IMAGES, [LIGHT]
    if "--all" in sys.argv:
        folder = Path(sys.argv[-1])
        looks += [DARK, PHONE, (360, 740, "dark")]
    folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=20_000)
    path = find_chromium()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        server = DemoServer(Path(temporary) / "server.log")
        try:
            browser = playwright.chromium.launch(
                executable_path=path, args=[*ARGUMENTS, "--hide-scrollbars"]
            )
            studio = Studio(browser, server.url)
            picture_all(studio, folder, looks)
            film(studio, folder / "demos.webp")
            server.stop()
            server = DemoServer(Path(temporary) / "workers.log", workers=3)
            for page in picture_dashboard(Studio(browser, server.url)):
                for look in [(1280, 900, look[2]) for look in looks[:2]]:
                    resize(page, look)
                    shoot(page, folder / name_of("dashboard", look))
            browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
