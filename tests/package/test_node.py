"""In Node, without a page: with `ws`, and with the WebSocket that Node itself has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chat_process import ChatServer
from tests.support.npm import node, run
from tests.support.processes import Process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.mark.parametrize("name", ["ws", "its own"])
def test_a_program_is_cut_off_goes_on_and_ends(
    server: ChatServer, project: Path, name: str, tmp_path: Path
) -> None:
    options = []
    if name != "ws" and run(node(), "-p", "typeof WebSocket").strip() == "undefined":
        options = ["--experimental-websocket"]  # before Node 22
    url = f"ws://127.0.0.1:{server.port}/chat?user=ann"
    command = [node(), *options, str(project / "node.js"), url, name]
    program = Process(command, tmp_path / "node.log", cwd=project)
    program.start()
    program.heard("heard first as 1")
    server.kill()
    # Node 20 and 22 never fire `close` where nothing listens, and 10 s are for silence.
    program.heard("state reconnecting 2", 8)
    server.start()
    program.heard("heard last as 2")
    # Nothing that is left keeps it alive: no timer, no listener.
    assert program.wait() == 0
    assert "stored 2" in program.log
    states = [line for line in program.log.splitlines() if line.startswith("state")]
    assert states[:2] == ["state connecting 0", "state open 0"]
    assert states[-2:] == ["state open 0", "state closed 0"]
    assert program.log.count("heard") == 2


def test_a_relative_address_has_nothing_to_stand_on(project: Path) -> None:
    page = project / "relative.js"
    page.write_text(
        """import { WSChat } from "flask-wschat";
        try {
          new WSChat("/chat", { WebSocket: class {} });
        } catch (error) {
          console.log(error.name, error.message);
        }"""
    )
    name, _, message = run(node(), page, cwd=project).partition(" ")
    assert name == "TypeError"
    assert "/chat" in message or "absolute" in message
