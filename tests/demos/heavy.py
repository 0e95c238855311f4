"""What the group chat's page does with very much: numbers, not a verdict.

    python -m tests.demos.heavy [seconds]

Chromium, driven by playwright, against a server of its own. Run it on a quiet machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.demos.browsing import entered
from tests.demos.serving import DemoServer, speaker
from tests.support.chromium import find_chromium

RATE = 60  # messages a second
KEPT = 10_000
PEOPLE = 200

TASKS = """() => {
  window.long = [];
  new PerformanceObserver((list) => {
    window.long.push(...list.getEntries().map(({ duration }) => Math.round(duration)));
  }).observe({ type: "longtask" });
}"""
WATCH = """() => {
  const heard = (window.heard = { added: new Set(), twice: 0, nodes: 0 });
  const log = document.querySelector("#scroll .log");
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) {
      for (const node of addedNodes) {
        const words = node.querySelector?.(".body")?.textContent;
        if (!words?.startsWith("m")) continue;
        if (heard.added.has(words)) heard.twice += 1;
        heard.added.add(words);
      }
    }
    heard.nodes = Math.max(heard.nodes, document.getElementsByTagName("*").length);
  }).observe(log, { childList: true });
}"""


def visitor(
    browser: Browser, demo: DemoServer, name: str
) -> tuple[BrowserContext, Page]:
    context = browser.new_context(viewport={"width": 1100, "height": 700})
    context.request.post(f"{demo.url}/group/login", form={"name": name})
    page = context.new_page()
    page.goto(f"{demo.url}/group")
    entered(page, "Lobby")
    return context, page


def heap(cdp: Any) -> float:
    """Megabytes in use, once what is not is collected."""
    cdp.send("HeapProfiler.collectGarbage")
    return float(cdp.send("Runtime.getHeapUsage")["usedSize"]) / 1e6


def busy(cdp: Any) -> dict[str, float]:
    """Seconds that the page has worked, whatever else the machine was doing."""
    names = ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
    metrics = cdp.send("Performance.getMetrics")["metrics"]
    return {one["name"]: one["value"] for one in metrics if one["name"] in names}


def longest(trace: Path) -> list[float]:
    """Milliseconds of the processor's time that the page's longest tasks took."""
    events = json.loads(trace.read_bytes())["traceEvents"]
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = (
        event["tdur"] / 1000
        for event in events
        if event["name"] == "RunTask"
        and "tdur" in event
        and (event["pid"], event["tid"]) in mains
    )
    return sorted(tasks, reverse=True)[:5]


def at_the_end(page: Page) -> bool:
    return bool(
        page.evaluate(
            "(({ scrollHeight, scrollTop, clientHeight }) =>"
            " scrollHeight - scrollTop - clientHeight < 60)"
            "(document.getElementById('scroll'))"
        )
    )


def flood(browser: Browser, demo: DemoServer, seconds: int) -> None:
    """Many messages while their end is read."""
    ben = speaker(demo, "Ben", "group", "#Lobby")
    context, page = visitor(browser, demo, "Ada")
    cdp = context.new_cdp_session(page)
    page.evaluate(TASKS)
    page.evaluate(WATCH)
    cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
    heaps, count, before = [heap(cdp)], RATE * seconds, busy(cdp)
    trace = Path(tempfile.gettempdir(), f"heavy-{os.getpid()}.json")
    timeline = ["disabled-by-default-devtools.timeline"]
    browser.start_tracing(page=page, path=trace, categories=timeline)
    begun = time.monotonic()
    for number in range(1, count + 1):
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        answer = ben.ask("say", room="#Lobby", data=f"m{number}", mid=f"m{number}")
        assert answer["ok"], answer
        if number % (RATE * 10) == 0:
            heaps.append(heap(cdp))
    took = time.monotonic() - begun
    page.wait_for_function("n => window.heard.added.has('m' + n)", arg=count)
    browser.stop_tracing()
    used = {name: value - before[name] for name, value in busy(cdp).items()}
    heard = page.evaluate("({...heard, added: heard.added.size})")
    print(f"flood: {count} messages in {took:.1f} s")
    print(
        f"  shown {heard['added']}, twice {heard['twice']}, at its end",
        at_the_end(page),
    )
    print(f"  most nodes {heard['nodes']}, heap MB", *(f"{size:.2f}" for size in heaps))
    print("  tasks over 50 ms:", page.evaluate("long") or "none")
    print(
        "  ms of work for each message:",
        *(f"{name[:-8]} {1000 * value / count:.2f}" for name, value in used.items()),
    )
    tasks = longest(trace)
    print(
        "  longest tasks, ms of work, with those of heap():",
        *(f"{task:.0f}" for task in tasks),
    )
    trace.unlink()
    context.close()


def long_room(browser: Browser, demo: DemoServer) -> None:
    """A room of 10,000 messages: how soon it is open, and read up to its first."""
    ben = speaker(demo, "Cy", "group", "#Flask")
    for begun in range(1, KEPT, 200):
        words = [f"m{number}" for number in range(begun, begun + 200)]
        asked = [ben.put("say", room="#Flask", data=word, mid=word) for word in words]
        assert all(ben.reply(ref)["ok"] for ref in asked)
    context, page = visitor(browser, demo, "Dan")
    page.evaluate(TASKS)
    took = page.evaluate(
        """(last) => new Promise((done) => {
          const begun = performance.now();
          const look = () => document.querySelector("#scroll .log").lastElementChild
            ?.querySelector(".body")?.textContent === last
            ? done(performance.now() - begun) : requestAnimationFrame(look);
          location.hash = "Flask";
          look();
        })""",
        f"m{KEPT}",
    )
    print(f"room of {KEPT}: open after {took:.0f} ms,", at_the_end(page))
    start = time.monotonic()
    most = page.evaluate(
        """async () => {
          const scroll = document.getElementById("scroll");
          const first = () => scroll.querySelector(".body").textContent;
          let most = 0;
          for (let still = 0; first() !== "m1" && still < 120;) {
            const before = first();
            scroll.scrollTop = 1;
            await new Promise(requestAnimationFrame);
            still = before === first() ? still + 1 : 0;
            most = Math.max(most, scroll.querySelectorAll(".message").length);
          }
          return [most, first()];
        }"""
    )
    took = time.monotonic() - start
    print(f"  read up to {most[1]} in {took:.1f} s, at most {most[0]} in the page")
    print("  tasks over 50 ms:", page.evaluate("long") or "none")
    context.close()


def crowd(browser: Browser, demo: DemoServer) -> None:
    """Many people who come while somebody reads."""
    ben = speaker(demo, "Eve", "group", "#Coffee break")
    context, page = visitor(browser, demo, "Fay")
    page.evaluate("location.hash = 'Coffee break'")
    entered(page, "Coffee break")
    for number in range(30):
        assert ben.ask(
            "say", room="#Coffee break", data=f"m{number}", mid=f"m{number}"
        )["ok"]
    people = [
        speaker(demo, f"Guest {number}", "group", "#Coffee break")
        for number in range(PEOPLE)
    ]
    page.wait_for_function(
        "n => document.getElementById('summary').textContent.startsWith(n)",
        arg=str(PEOPLE + 2),
    )
    notes = page.locator("#scroll .note").all_inner_texts()
    last = page.locator("#scroll .message").last
    box, view = last.bounding_box(), page.locator("#scroll").bounding_box()
    assert box and view
    seen = view["y"] <= box["y"] <= view["y"] + view["height"]
    print(f"crowd: {PEOPLE} came; {len(notes)} lines about it:", notes[:3])
    print(
        "  the last message is in view:",
        seen,
        "· people listed:",
        page.locator("#people li").count(),
    )
    print("  and:", page.locator("#others").inner_text())
    context.close()
    del people


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    os.environ["FLASK_WSCHAT_HISTORY_SIZE"] = str(KEPT)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        demo = DemoServer(Path(folder) / "log", crowded=True, started_anew=True)
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox"]
        )
        try:
            flood(browser, demo, seconds)
            long_room(browser, demo)
            crowd(browser, demo)
        finally:
            browser.close()
            demo.stop()


if __name__ == "__main__":
    main()
