"""docs/operate: each command on the page prints what stands there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from websockets.sync.client import connect

from flask_wschat.cli import wschat
from tests.support.chat_client import ChatClient
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process

FOLDER = ROOT / "docs" / "operate"
PAGE = (FOLDER / "cli.md").read_text()
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
FIRST, *SHOWN = [
    (command, output)
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.S)
    for command, output in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block, re.M)
]


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """That of a server of the page's application, with two people in a room."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (tmp_path / "app.py").write_text(code)
    port = free_port()
    url = f"sqlite:///{tmp_path}/chat.db"
    monkeypatch.setenv("FLASK_WSCHAT_URL", url)
    env = {"FLASK_RUN_PORT": str(port), "FLASK_DEBUG": None, "FLASK_APP": None}
    command = ["-m", "flask", "wschat", "run"]
    server = Process(command, tmp_path / "log", env, cwd=tmp_path, forked="patched")
    server.start()
    try:
        server.await_port(port)
        people = []
        for name, data in (("ann", "Tea?"), ("ben", "Coffee")):
            at = f"ws://127.0.0.1:{port}/chat?user={name}"
            opened = connect(at, compression=None, proxy=None)
            people.append(ChatClient(opened.__enter__()))
            people[-1].ask("join", room="Lobby")
            people[-1].ask("say", room="Lobby", data=data, mid=name)
        yield port
        assert server.log.startswith(given(dict(SHOWN)["flask wschat run"], port))
        for client in people:
            client.close()
    finally:
        server.stop()


def given(text: str, port: int) -> str:
    return text.replace(":5000", f":{port}")


def run(runner: FlaskCliRunner, line: str, port: int) -> str:
    """Return what a line of the page prints on a terminal."""

    def substituted(match: re.Match[str]) -> str:
        return run(runner, match[1], port).strip()

    line = re.sub(r"\$\((.*?)\)", substituted, given(line, port))
    name, tool, *words = shlex.split(line)
    assert (name, tool) == ("flask", "wschat")
    return str(runner.invoke(wschat, words).output)


def test_each_command_prints_what_the_page_says(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # as on a terminal
        "click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False
    )
    monkeypatch.setenv("NO_COLOR", "1")
    app = loaded(tmp_path)
    runner = app.test_cli_runner()
    for line, output in SHOWN:
        if line != "flask wschat run":
            printed = run(runner, line, port)
            printed = re.sub(TIME, "THEN", printed)
            assert printed == re.sub(TIME, "THEN", given(output, port)), line
    app.extensions["wschat.hub"].stop()
    assert len(SHOWN) > 10


def test_memory_is_refused_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, output = FIRST
    setting, _, line = line.partition(" ")
    monkeypatch.setenv(*setting.split("="))
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (tmp_path / "app.py").write_text(code)
    assert run(loaded(tmp_path).test_cli_runner(), line, 0) == output


def loaded(folder: Path) -> Flask:
    names: dict[str, Any] = {"__name__": "app"}
    exec((folder / "app.py").read_text(), names)
    app: Flask = names["app"]
    return app


def test_every_command_is_on_the_page() -> None:
    table = PAGE.partition("| Command |")[2].partition("\n\n")[0]
    told = re.findall(r"`(\w+)`\]?", "".join(re.findall(r"^\|([^|]*)\|", table, re.M)))
    assert set(told) == set(wschat.commands)


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda p: p.name)
def test_headings_that_are_linked_are_there(page: Path) -> None:
    for path, anchor in re.findall(r"\]\(([^)#:]*)#([\w-]+)\)", page.read_text()):
        text = ((page.parent / path) if path else page).read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.M)
        found = [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
        assert anchor in found, (path, anchor)


def test_the_index_names_real_commands() -> None:
    index = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"`flask wschat (\w+)", index))
    assert named <= set(wschat.commands) and len(named) > 5
