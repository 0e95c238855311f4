"""Publishing into the memory of a process that nobody is connected to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import ROOT, Process

APP = """
import sys, types
from flask import Flask
from flask_wschat import WSChat
from flask_wschat.testing import WSChatClient

app = Flask("an_app")
app.config["WSCHAT_URL"] = "memory://"
chat = WSChat(app)
poll = chat.poll("Tea", ["Green", "Black"])
chat.route("/")(lambda ws: ws.receive())
app.get("/tell", endpoint="tell")(lambda: str(chat.broadcast("hi", room="a")))
"""
WARNING = "published to memory://, which is of this process alone"


Run = Callable[[str], str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """What the log of a program with an app, and some code, says on its end."""

    def log(code: str) -> str:
        env = {"PYTEST_CURRENT_TEST": None, "PYTHONPATH": str(ROOT)}
        process = Process(["-c", APP + code], tmp_path / "log", env, forked="plain")
        process.start()
        assert process.wait() == 0, process.log
        return process.log

    return log


@pytest.mark.parametrize(
    "publish",
    [
        'chat.broadcast("hi")',
        'chat.broadcast("hi", room="a")',
        'chat.send_to_user("ann", "hi")',
        'poll.vote("ann", "Green")',
    ],
)
def test_a_script_is_warned_once_that_nobody_hears_it(run: Run, publish: str) -> None:
    log = run(f"for _ in range(3):\n    {publish}")
    assert log.count(WARNING) == 1
    assert "WSCHAT_URL" in log


@pytest.mark.parametrize(
    "kind",
    [
        'sys.ps1 = ">>> "',
        'sys.modules["celery"] = types.SimpleNamespace(current_task=object())',
        'sys.modules["rq"] = types.SimpleNamespace(get_current_job=object)',
    ],
)
def test_a_task_or_a_prompt_is_warned_at_once(run: Run, kind: str) -> None:
    """Also where it never comes to the program's end, as in a killed worker."""
    log = run(f"""
{kind}
chat.broadcast("hi")
chat.broadcast("hi")
import os
os._exit(0)
""")
    assert log.count(WARNING) == 1


@pytest.mark.parametrize(
    "code",
    [
        "",
        'chat.broadcast("first")\nwith WSChatClient(app).connect("/"):\n    pass',
        'chat.broadcast("first")\napp.test_client().get("/tell")',
        'app.test_client().get("/tell")',
        'app.testing = True\nchat.broadcast("hi")',
        'sys.modules["celery"] = types.SimpleNamespace(current_task=None)\n'
        'sys.modules["rq"] = types.SimpleNamespace()\n'
        'with WSChatClient(app).connect("/"):\n    chat.broadcast("hi")',
    ],
)
def test_who_serves_is_not_warned(run: Run, code: str) -> None:
    assert run(code) == ""


def test_a_file_is_shared_so_nobody_is_warned(run: Run, tmp_path: Path) -> None:
    code = f"""
other = Flask("another")
other.config["WSCHAT_URL"] = "sqlite:///{tmp_path}/chat.db"
WSChat(other).broadcast("hi")
"""
    assert run(code) == ""
