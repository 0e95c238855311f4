"""axe-core on every page of the demos, in each theme and state; small windows too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.demos.browsing import AWAY, REFUSED, Person, all_delivered, say, talk_to
from tests.demos.serving import DemoServer, serving
from tests.support.axe import SMALL, look

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

PAGES = ["/", "/vote", "/bot", "/protocol", "/plug", "/nowhere"]

# What has letters and none of them Chinese; code, rooms and a frame's fields may.
ENGLISH = """() => {
  const texts = [document.title];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement: node, data } = walker.currentNode;
    const aside = "script, pre, code, noscript, [lang=en], .brand";
    if (!node.closest(aside)) texts.push(data.trim());
  }
  for (const name of ["aria-label", "placeholder", "alt", "title"])
    for (const node of document.querySelectorAll(`[${name}]`))
      texts.push(node.getAttribute(name));
  return texts
    .filter((text) => !/^(Lobby|Flask|Coffee break)( · |$)/.test(text))
    .filter((text) => !/^(FIN|RSV\\d|MASK|readyState|0x. .*)$/.test(text))
    .filter((text) => /[A-Za-z]{3}/.test(text) && !/[\\u4e00-\\u9fff]/.test(text))
    .map((text) => `English: ${text}`);
}"""

# All that a first visit loads, in bytes.
WEIGHT = """() => ["navigation", "resource"]
  .flatMap((type) => performance.getEntriesByType(type))
  .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0)"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    with serving(tmp_path_factory.mktemp("axe") / "server.log") as server:
        yield server


def test_no_page_keeps_anybody_out(chromium: Browser, server: DemoServer) -> None:
    found = []
    ada, ben = (
        Person(chromium.new_context(locale="en-GB"), server.url) for _ in range(2)
    )
    ada.expected = f"{AWAY}|{REFUSED}|status of 404"
    for path in PAGES:
        page = ada.open(path)
        found += look(page)
        page.close()
    group = ada.login("Ada")
    private, theirs = ada.open("/private"), ben.login("Ben", "private")
    talk_to(private, "Ben")
    talk_to(theirs, "Ada")
    say(private, "Hello Ben")
    say(theirs, "Hello Ada")
    all_delivered(private, 1)
    found += look(private)
    say(group, "Hello all")
    all_delivered(group, 1)
    login = theirs.context.new_page()
    login.goto(f"{server.url}/group/login")
    found += look(login, themes=False)
    login.get_by_label("Your name").fill("Ada")
    login.keyboard.press("Enter")
    expect(login.get_by_role("alert")).to_be_visible()
    found += look(login)
    # A poll before, while and after it is open: on the big screen, and for others.
    made = ada.context.request.post(
        f"{server.url}/vote",
        data="question=Tea?&option=Green&option=Black",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    here = made.url.removeprefix(server.url)
    present, ballot = ada.open(here), ada.open(here.removesuffix("/present"))
    for phase, button in ("pending", ""), ("open", "open"), ("closed", "close"):
        if button:
            present.locator(f"[data-to={button}]").first.click()
        for page in (present, ballot):
            expect(page.locator(f"main [data-phase={phase}]")).to_have_count(1)
            found += look(page)
        if phase == "open":
            ballot.locator("[data-choice=Green]").click()
    # Without a connection, and after one that nobody gives back.
    vote = ada.open("/vote")
    server.stop()
    for page in (group, vote):
        expect(page.locator("#connection")).to_be_visible()
    say(group, "And now?")
    expect(group.locator(".message[data-state=sending]")).to_have_count(1)
    found += look(group) + look(vote)
    ada.context.clear_cookies()
    server.start()
    expect(vote.get_by_role("alert")).to_be_visible()
    expect(group.locator(".message[data-state=failed]")).to_have_count(1)
    found += look(vote) + look(group)
    for person in (ada, ben):
        person.context.close()
    ada.check()
    assert not found, "\n".join(found)


def test_a_small_window_shows_all_in_chinese(
    chromium: Browser, server: DemoServer
) -> None:
    found = []
    ada = Person(
        chromium.new_context(
            locale="zh-CN",
            viewport={"width": 320, "height": 640},
            has_touch=True,
            is_mobile=True,
        ),
        server.url,
    )
    login = ada.context.request.post(f"{server.url}/group/login", form={"name": "阿达"})
    assert login.ok
    page = ada.context.new_page()
    page.on("pageerror", lambda error: ada.errors.append(str(error)))
    for path in [*PAGES, "/group", "/private", "/group/login"]:
        page.goto(server.url + path)
        expect(page.locator("#status")).to_have_text("已连接")
        if (weight := page.evaluate(WEIGHT)) > 100_000:
            found.append(f"{path}: {weight} bytes")
        found += look(page, themes=False)
        for fault in (*page.evaluate(ENGLISH), *page.evaluate(SMALL)):
            found.append(f"{path}: {fault}")
        # As it is at 400 % in a window of 1280 by 1024, and on a phone that lies.
        for width, height in (320, 256), (640, 320):
            page.set_viewport_size({"width": width, "height": height})
            if page.evaluate("document.documentElement.scrollWidth") > width:
                found.append(f"{path}: wider than {width}")
        page.set_viewport_size({"width": 320, "height": 640})
    ada.context.close()
    ada.check()
    assert not found, "\n".join(found)
