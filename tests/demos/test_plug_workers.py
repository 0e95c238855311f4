"""Pull the plug of a worker, and of Redis: what waits is stored, what died is told."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.demos.browsing import AWAY, Meet
from tests.demos.serving import DemoServer
from tests.support.programs import program

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture
def options() -> dict[str, Any]:
    program("redis-server", "redis-server", "valkey-server")
    return {"workers": 2, "redis": True}


def test_plugs_of_a_worker_and_of_redis(meet: Meet, demo: DemoServer) -> None:
    ada = meet()
    ada.expected = AWAY
    bot, counting = ada.open("/bot"), ada.open("/plug")
    bot.get_by_label("Your question").fill("Who is killed?")
    bot.keyboard.press("Enter")
    expect(bot.locator(".answer")).to_contain_text("I am no model")
    bot.get_by_text("Pull the plug").click()
    bot.get_by_role("button", name="Kill its worker").click()
    expect(bot.locator("#plug .seen")).to_contain_text("The page noticed after")
    # While Redis is away, numbers wait.
    counting.get_by_label("20 a second").check()
    counting.get_by_role("button", name="Start").click()
    expect(counting.locator("[data-count=stored]")).not_to_have_text("0")
    counting.get_by_role("button", name="Stop Redis for 10 s").first.click()
    seen = counting.locator(".seen").first
    expect(seen).to_contain_text("Redis is there again.")
    counting.get_by_role("button", name="Stop", exact=True).click()
    expect(counting.locator("#verdict")).to_have_text("Nothing lost, nothing doubled")
    assert int(counting.locator("[data-count=stored]").inner_text()) > 200
    # What was written by the worker that is gone will not be a message.
    fate = bot.locator(".fate")
    expect(fate).to_contain_text("the process that wrote it has ended", timeout=60_000)
