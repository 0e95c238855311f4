"""Publishing into the memory of a process that nobody is connected to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


def run(code: str) -> str:
    """Return what the log of a program with an app, and ``code``, says on its end."""
    env = {**os.environ}
    del env["PYTEST_CURRENT_TEST"]
    answer = subprocess.run(
        [sys.executable, "-c", APP + code],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout in ("", "told\n")
    return answer.stderr


@pytest.mark.parametrize(
    "publish",
    [
        'chat.broadcast("hi")',
        'chat.broadcast("hi", room="a")',
        'chat.send_to_user("ann", "hi")',
        'poll.vote("ann", "Green")',
    ],
)
def test_a_script_is_warned_once_that_nobody_hears_it(publish: str) -> None:
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
def test_a_task_or_a_prompt_is_warned_at_once(kind: str) -> None:
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
def test_who_serves_is_not_warned(code: str) -> None:
    assert run(code) == ""


def test_a_file_is_shared_so_nobody_is_warned(tmp_path: object) -> None:
    code = f"""
other = Flask("another")
other.config["WSCHAT_URL"] = "sqlite:///{tmp_path}/chat.db"
WSChat(other).broadcast("hi")
"""
    assert run(code) == ""
