"""What all pages have: the header, and the banner while there is no connection."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.demos.browsing import AWAY, Meet, connected
from tests.demos.serving import DemoServer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(60)]


def test_a_banner_tells_of_a_lost_connection(meet: Meet, demo: DemoServer) -> None:
    person = meet()
    person.expected = AWAY
    page = person.open("/vote")
    status, banner = page.locator("#status"), page.locator("#connection")
    expect(banner).to_be_hidden()
    # What is read out is the header's status, once for each change.
    page.evaluate(
        """() => {
          window.said = [];
          const node = document.getElementById("status");
          new MutationObserver(() => said.push(node.textContent))
            .observe(node, { subtree: true, childList: true, characterData: true });
        }"""
    )
    demo.stop()
    expect(banner).to_contain_text(re.compile(r"Attempt [3-9] in \d s"))
    expect(status).to_have_text("Reconnecting")
    assert banner.locator("[aria-live], [role=status], [role=alert]").count() == 0
    assert page.evaluate("said") == ["Reconnecting"]
    person.context.set_offline(True)
    expect(banner).to_contain_text("This device is offline.")
    person.context.set_offline(False)
    expect(banner).to_contain_text("Attempt")
    banner.get_by_role("button", name="Try now").focus()
    demo.start()
    # It may be faster by itself.
    page.evaluate("document.querySelector('#connection:not([hidden]) button')?.click()")
    connected(page)
    expect(banner).to_be_hidden()
    expect(page.locator("#main")).to_be_focused()
    assert page.evaluate("said") == ["Reconnecting", "Connected"]


def test_a_final_end_says_what_to_do_in_chinese_too(meet: Meet) -> None:
    person = meet(locale="zh-CN")
    vote = person.context.new_page()
    vote.goto(person.url + "/vote")
    expect(vote.locator("html")).to_have_attribute("lang", "zh")
    expect(vote.locator("#status")).to_have_text("已连接")
    vote.get_by_role("button", name="English").click()
    connected(vote)
    assert vote.url == person.url + "/vote"
    vote.get_by_role("button", name="中文").click()
    page = person.context.new_page()
    page.goto(person.url + "/private/login")
    page.get_by_label("你的名字").fill("王小明")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("已连接")
    vote.evaluate("fetch('/logout', {method: 'POST'})")
    expect(page.get_by_role("alert")).to_have_text("你已退出登录。")
    page.get_by_role("link", name="重新登录").click()
    expect(page.get_by_label("你的名字")).to_be_focused()


@pytest.mark.parametrize("options", [{"host": "0.0.0.0"}], ids=["hall"])
def test_a_page_shows_its_code_for_phones(meet: Meet, demo: DemoServer) -> None:
    page = meet(width=320).open("/bot?a=1")
    page.evaluate("location.hash = 'here'")
    page.get_by_role("button", name="Open this page on a phone").click()
    told = page.locator("#far")
    expect(told.get_by_role("img")).to_be_visible()
    link = told.get_by_role("link")
    expect(link).to_have_text(re.compile(rf"^http://[\d.]+:{demo.port}/bot\?a=1#here$"))
    address = link.inner_text()
    assert "127.0.0.1" not in address
    page.keyboard.press("Escape")
    expect(told).to_be_hidden()
    # A phone gets in by it.
    phone = meet().context.new_page()
    phone.goto(address)
    connected(phone)
