"""``wschat.js`` in Chromium: under strict policies, and from another origin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.live import HANDLERS, LiveServer, receive, stop
from tests.support.strict_pages import strict_app

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    app = strict_app()
    server = LiveServer(app, *HANDLERS["ours"])
    yield server
    server.stop()
    stop(app)
    assert "Traceback" not in server.log.getvalue(), server.log.getvalue()


@pytest.fixture
def told() -> list[str]:
    """What the page's console says."""
    return []


@pytest.fixture
def opened(chromium: Browser, told: list[str]) -> Iterator[Page]:
    with chromium.new_context() as context:
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        yield page


@pytest.mark.parametrize("policy", ["strict", "nonce", "dynamic"])
def test_a_strict_policy_needs_no_exception(
    server: LiveServer, opened: Page, told: list[str], policy: str
) -> None:
    opened.goto(f"http://127.0.0.1:{server.port}/{policy}")
    expect(opened).to_have_title("Hello")  # by no string, which they forbid to run
    assert (told, opened.evaluate("refused")) == ([], [])


@pytest.mark.parametrize(
    ("policy", "refused"), [("another", "script-src"), ("offline", "connect-src")]
)
def test_a_policy_that_forbids_it_does(
    server: LiveServer, opened: Page, told: list[str], policy: str, refused: str
) -> None:
    """So the policies of the test above are looked at."""
    with opened.expect_console_message(lambda message: refused in message.text):
        opened.goto(f"http://127.0.0.1:{server.port}/{policy}")
    assert opened.title() == ""


def test_a_page_of_another_origin_may_import_it(
    server: LiveServer, opened: Page, told: list[str]
) -> None:
    opened.goto(f"http://localhost:{server.port}/isolated")
    opened.wait_for_function("document.title")
    assert opened.title() == f"function,true,localhost:{server.port}"
    assert told == []


def test_the_template_of_the_readme_works(
    server: LiveServer, opened: Page, told: list[str]
) -> None:
    opened.goto(f"http://127.0.0.1:{server.port}/readme")
    opened.wait_for_function("!!globalThis.WSChat")
    with server.connect("/rooms/lobby") as client:
        while not opened.locator("#log").text_content():
            client.send("ping <b>")
            receive(client)
    assert (opened.locator("#log").text_content() or "").startswith("ping <b>")
    assert told == []
