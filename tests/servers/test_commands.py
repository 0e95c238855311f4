"""The commands in the README and in docs/deploy start a server that works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets.sync.client
from gevent.pywsgi import WSGIServer

import flask_wschat.client
from flask_wschat import WSChat

from ..test_readme import README, SNIPPETS
from .serving import DEADLINE, Process, eventually, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

DEPLOY = (Path(__file__).parents[2] / "docs" / "deploy" / "README.md").read_text()
STARTS = r"(?:gunicorn|flask|python) .*\b(?:app:app|run --debug|run|adhoc|app\.py)"
COMMANDS = sorted(
    set(re.findall(rf"`({STARTS})`", README))
    | set(re.findall(rf"^    ({STARTS}) *(?:#.*)?$", DEPLOY, re.M))
)


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) >= 12
    assert sum("gunicorn" in command for command in COMMANDS) >= 8


class Started(Process):
    """A command of the documentation, in a folder with the README's ``app.py``."""

    def __init__(self, command: str, folder: Path) -> None:
        self.port = free_port()
        self.path = folder / "chat.sock"
        self.secure = "cert" in command
        words = shlex.split(command)
        words[0] = {"python": sys.executable}.get(
            words[0], str(Path(sys.executable).with_name(words[0]))
        )
        self.unix = "unix:" in command
        if "gunicorn" in command:
            place = f"unix:{self.path}" if self.unix else f"127.0.0.1:{self.port}"
            if "-b" in words:
                words[words.index("-b") + 1] = place
            else:
                words += ["-b", place]
            words += ["--no-control-socket"]
        root = str(Path(__file__).parents[2])
        env = {
            **os.environ,
            "FLASK_RUN_PORT": str(self.port),
            "PYTHONPATH": root,
            "PWD": str(folder),
        }
        super().__init__(["env", "-C", str(folder), *words], folder / "log", env)

    def is_up(self) -> bool:
        assert self.running, self.log
        if self.unix:
            return self.path.exists()
        try:
            socket.create_connection(("127.0.0.1", self.port), DEADLINE).close()
        except ConnectionRefusedError:
            return False
        return True


@pytest.fixture(params=COMMANDS)
def running(
    request: pytest.FixtureRequest, tmp_path: Path, pair: tuple[Path, Path]
) -> Iterator[Started]:
    (tmp_path / "app.py").write_text(SNIPPETS["app.py"])
    shutil.copy(pair[0], tmp_path / "fullchain.pem")
    shutil.copy(pair[1], tmp_path / "privkey.pem")
    server = Started(request.param, tmp_path)
    server.start()
    try:
        eventually(server.is_up, "the server listens")
        yield server
    finally:
        server.stop()


def test_a_command_serves_the_app(running: Started) -> None:
    if running.secure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        url = f"wss://127.0.0.1:{running.port}/rooms/a"
        with flask_wschat.client.connect(url, ssl_context=context) as secure:
            secure.send("hello")
            assert secure.receive(DEADLINE) == "hello"
        return
    if running.unix:
        connection = websockets.sync.client.unix_connect(
            str(running.path), "ws://localhost/rooms/a"
        )
    else:
        connection = websockets.sync.client.connect(
            f"ws://127.0.0.1:{running.port}/rooms/a", proxy=None
        )
    with connection as client:
        client.send("hello")
        assert client.recv(DEADLINE) == "hello"


def test_the_python_of_the_deploy_page_runs(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it in one program, with the servers started instead of served for ever."""
    from flask import Flask

    code = "\n".join(re.findall(r"```python\n(.*?)```", DEPLOY, re.S))
    code = code.replace("serve_forever()", "start()").replace("8443", "0")
    code = code.replace("/run/chat/", f"{tmp_path}/")
    code = code.replace("fullchain.pem", str(pair[0]))
    code = code.replace("privkey.pem", str(pair[1]))
    started: list[WSGIServer] = []
    start = WSGIServer.start

    def note(server: WSGIServer) -> None:
        started.append(server)
        start(server)

    monkeypatch.setattr(WSGIServer, "start", note)
    app = Flask("deployed")
    WSChat(app)
    exec(code, {"app": app})
    assert len(started) == 2
    for server in started:
        server.stop()
