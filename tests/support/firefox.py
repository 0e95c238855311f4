"""Firefox as Debian has it, told what to do by WebDriver BiDi.

Playwright drives a Firefox of its own only, which no system has.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from .processes import Process
from .programs import program
from .waiting import LONG, eventually

# It neither calls home nor draws, and one process has all pages.
_PREFERENCES = {
    "app.update.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.sessionstore.resume_from_crash": False,
    "browser.startup.homepage": "about:blank",
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.ipc.processCount": 1,
    "dom.ipc.processPrelaunch.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "fission.autostart": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}


class Firefox:
    """A Firefox without a screen, with a profile in ``folder``."""

    def __init__(self, folder: Path) -> None:
        path = program("firefox-esr", "firefox-esr", "firefox")
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
                 for name, value in _PREFERENCES.items())  # fmt: skip
        (folder / "user.js").write_text("".join(lines))
        command = [path, "--headless", "--no-remote", "--remote-debugging-port=0"]
        env = {"HOME": str(folder), "DISPLAY": None, "MOZ_CRASHREPORTER_DISABLE": "1"}
        self._process = Process(
            [*command, "--profile", str(folder)], folder / "firefox.log", env
        )
        self._process.start()
        said = self._process.heard("WebDriver BiDi listening on ")
        (address,) = re.findall(r"listening on (ws://\S+)", said)
        self._numbers = itertools.count(1)
        self._socket = connect(
            f"{address}/session", compression=None, max_size=None, ping_interval=None
        ).__enter__()
        self.ask("session.new", capabilities={})

    def ask(self, method: str, **parameters: Any) -> Any:
        """Return the result of a command."""
        number = next(self._numbers)
        self._socket.send(
            json.dumps({"id": number, "method": method, "params": parameters})
        )
        answer = json.loads(self._socket.recv(LONG))
        assert answer["id"] == number, "no events are asked for"
        assert answer["type"] == "success", answer
        return answer["result"]

    def open(self, url: str) -> Tab:
        """Return a new tab, with the page at ``url`` loaded."""
        tab = Tab(self, self.ask("browsingContext.create", type="tab")["context"])
        tab.do("navigate", url=url, wait="complete")
        return tab

    def stop(self) -> None:
        try:
            self.ask("browser.close")
            self._process.wait()
        finally:
            self._socket.__exit__(None, None, None)
            self._process.kill()


class Tab:
    """A page. What it evaluates comes back through JSON."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox = firefox
        self._context = context

    def evaluate(self, expression: str) -> Any:
        """Return what ``expression`` is, or what it promises."""
        answer = self._firefox.ask(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        value = answer["result"].get("value")  # None where there is no JSON of it
        return value and json.loads(value)

    def do(self, method: str, **parameters: Any) -> None:
        self._firefox.ask(
            f"browsingContext.{method}", context=self._context, **parameters
        )

    def reload(self) -> None:
        self.do("reload", wait="complete")

    def until(self, condition: str) -> None:
        """Wait until ``condition`` holds there."""
        eventually(lambda: self.evaluate(condition), condition, LONG)

    def close(self) -> None:
        self.do("close")
