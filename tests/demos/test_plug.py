"""Pull the plug: sockets cut, frozen and swallowed, and two windows that count."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from example_app import app
from tests.demos.browsing import AWAY, GOOD, Meet, counts, pull
from tests.demos.serving import DemoServer, Person

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(90)]

NOTICED = "The page noticed after"


def test_nothing_is_lost_nor_doubled(meet: Meet, demo: DemoServer) -> None:
    ada = meet()
    ada.expected = AWAY
    page = ada.open("/plug")
    verdict = page.locator("#verdict")
    expect(verdict).to_have_text("Nothing sent yet")
    page.get_by_label("20 a second").check()
    page.get_by_role("button", name="Start").click()
    expect(verdict).to_have_text(f"{GOOD} so far")
    first, second = page.locator(".pane").nth(0), page.locator(".pane").nth(1)
    pull(first, "cut")
    pull(second, "cut")
    for pane in (first, second):
        expect(pane.locator(".seen")).to_contain_text(NOTICED)
    # Each its own; and a reload in the middle of it.
    pull(first, "freeze")
    pull(second, "swallow")
    for pane in (first, second):
        expect(pane.locator(".seen li")).to_have_count(4)
    pull(first, "swallow")
    sent = counts(page)["sent"]
    page.reload()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.get_by_label("20 a second")).to_be_checked()
    assert counts(page)["sent"] >= sent > 100
    page.get_by_role("button", name="Stop").click()
    expect(verdict).to_have_text(GOOD)
    total = counts(page)["sent"]
    assert counts(page)["stored"] == total
    faults = {"under": 0, "missing": 0, "doubled": 0, "disordered": 0}
    for pane in (first, second):
        assert counts(pane) == {"received": total, **faults}
    # What comes twice is counted, and what does not come.
    page.evaluate(
        """() => {
          const { socket, room } = document.getElementById("panes").dataset;
          const { run, sent } = JSON.parse(sessionStorage.plug);
          const joined = new WSChat(socket).join(room);
          for (const n of [-1, 1, 3, 2]) joined.say({ run, n: sent + n });
        }"""
    )
    expect(verdict).to_have_text("Something was lost, doubled or out of order")
    faults |= {"doubled": 1, "disordered": 1}
    for pane in (first, second):
        expect(pane.locator("[data-count=received]")).to_have_text(str(total + 3))
        assert counts(pane) == {"received": total + 3, **faults}
    page.evaluate(
        """() => {
          const kept = JSON.parse(sessionStorage.plug);
          kept.panes[1].received = { upTo: 7, beyond: [9, 12] };
          sessionStorage.plug = JSON.stringify(kept);
          location.reload();
        }"""
    )
    expect(second.locator("[data-count=missing]")).to_have_text("3")
    page.get_by_role("button", name="Count anew").click()
    expect(verdict).to_have_text("Nothing sent yet")


def test_every_demo_has_a_drawer_for_its_own_socket(
    meet: Meet, demo: DemoServer
) -> None:
    ada, ben = meet(), meet(320, 480)
    ada.expected = AWAY
    page, other = ada.open("/vote"), ben.open("/bot")
    page.get_by_text("Pull the plug").click()
    pull(page, "cut")
    expect(page.locator("#plug .seen")).to_contain_text(NOTICED)
    expect(page.locator("#online")).to_have_text("1")
    page.get_by_text("A team chat").click()
    expect(page.locator("#total")).to_have_text("1")
    other.get_by_text("Pull the plug").click()
    expect(other.locator("#plug .drawer")).to_be_visible()
    assert other.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # Nothing is there to be killed here, nor for whom another page has sent.
    someone = Person(demo)
    someone.http("GET", "/plug")
    tab = someone.connect("/ws/plug")
    for what in ("kill", "redis", "", "__init__"):
        assert tab.ask("pull", what=what)["error"]["code"] == "forbidden"
    for each in (page, other):
        expect(each.locator("#status")).to_have_text("Connected")
    # A browser may forbid pages to keep anything.
    ben.context.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', { get() {"
        " throw new DOMException('forbidden', 'SecurityError'); } })"
    )
    ben.open("/plug").close()


def test_strangers_have_no_plug_to_pull(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks(base_url: str, address: str, **more: str) -> tuple[int, bool, bool]:
        client = app.test_client()
        far = {"REMOTE_ADDR": address, **more}
        page = client.get("/plug", base_url=base_url, environ_overrides=far)
        home = client.get("/vote", base_url=base_url, environ_overrides=far)
        return page.status_code, "/plug" in home.text, "plug_panel.js" in home.text

    assert looks("http://127.0.0.1:5000", "127.0.0.1") == (200, True, True)
    assert looks("http://[::1]:5000", "::1") == (200, True, True)
    assert looks("http://localhost:5000", "192.0.2.1") == (404, False, False)
    assert looks("http://192.0.2.9:5000", "127.0.0.1") == (404, False, False)
    by_proxy = {"HTTP_X_FORWARDED_FOR": "192.0.2.1"}
    assert looks("http://localhost", "127.0.0.1", **by_proxy) == (404, False, False)
    monkeypatch.setenv("DEMO_PLUG", "1")
    assert looks("http://192.0.2.9:5000", "192.0.2.1") == (200, True, True)
    # Where it is switched off, there is nothing of it.
    monkeypatch.setenv("DEMO_PLUG", "0")
    server = DemoServer(tmp_path / "log")
    try:
        someone = Person(server)
        status, text = someone.http("GET", "/bot")
        assert status == 200
        assert "plug" not in text
        for path in ("/plug", "/ws/plug"):
            assert someone.http("GET", path)[0] == 404
        answer = someone.connect("/ws/bot").ask("pull", what="cut")
        assert answer["error"]["code"] == "unknown_type"
    finally:
        server.stop()
