"""The commands in the README and in docs/deploy start a server that works."""

from __future__ import annotations

import contextlib
import json
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
from flask import Flask
from gevent.pywsgi import WSGIServer
from websockets.sync.client import ClientConnection

import flask_wschat.client
from flask_wschat import WSChat
from tests.support.chat_client import ChatClient
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.readme import README, STORAGE, configure_from_environment, paste
from tests.support.redis_server import RedisServer

from .serving import DEADLINE, NO_CONTROL_SOCKET, Site, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

FOLDER = Path(__file__).parents[2] / "docs" / "deploy"
DEPLOY = (FOLDER / "README.md").read_text()
STARTS = r"(?:gunicorn|flask|python) .*\b(?:app:app|run --debug|run|adhoc|app\.py)"


def in_systemd() -> str:
    """Return the command of the unit on the page."""
    [found] = re.findall(r"^ExecStart=/\S+/(.*?[^\\])$", DEPLOY, re.M | re.S)
    return re.sub(r"\s*\\\s+", " ", found)


def in_docker() -> str:
    """Return the command of the image."""
    text = (FOLDER / "Dockerfile").read_text().replace("\\\n", "")
    return shlex.join(json.loads(text.partition("\nCMD ")[2]))


SHARING = sorted(
    set(
        re.findall(
            r"^    (FLASK_WSCHAT_URL=.* app:app)$", README + DEPLOY + STORAGE, re.M
        )
    )
)
# The others, which those do not start as well.
COMMANDS = sorted(
    (
        set(re.findall(rf"`({STARTS})`", README))
        | set(re.findall(rf"^    ({STARTS}) *(?:#.*)?$", DEPLOY, re.M))
        | {in_systemd(), in_docker()}
    )
    - {command.partition(" ")[2] for command in SHARING}
)


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) >= 12
    assert sum("gunicorn" in command for command in COMMANDS) >= 8
    assert sum("=sqlite:" in command for command in SHARING) >= 3
    assert sum("=redis:" in command for command in SHARING) >= 2
    assert in_systemd() in COMMANDS and in_docker().endswith("app:app")


class Started(Process):
    """A command of the documentation, in a folder with the README's ``app.py``."""

    def __init__(self, command: str, folder: Path, **env: str) -> None:
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
            if "-w" in words:  # one is beside another as each of four
                words[words.index("-w") + 1] = "2"
            words += NO_CONTROL_SOCKET
        root = str(Path(__file__).parents[2])
        env |= {
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
    paste(tmp_path, until="app.py")
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


# ---- with several workers -----------------------------------------------------------


class SetUpAsShown(RedisServer):
    """With docs/deploy/redis.conf, on another port, and with somebody who may look."""

    def __init__(self) -> None:
        admin = "user admin on >admin ~* &* +@all"
        lines = (FOLDER / "redis.conf").read_text().splitlines()
        super().__init__(*(line for line in lines if line), admin)
        self.url = f"redis://admin:admin@127.0.0.1:{self.port}/0"


@pytest.fixture
def redis_as_shown() -> Iterator[RedisServer]:
    with SetUpAsShown() as server:
        yield server


@contextlib.contextmanager
def publisher(url: str) -> Iterator[WSChat]:
    """Yield what a process has that serves nobody."""
    app = Flask("a_task")
    app.config["WSCHAT_URL"] = url
    chat = WSChat(app)
    yield chat
    chat._hub().backend.stop()


def with_the_address(
    command: str, url: str, folder: Path
) -> tuple[str, dict[str, str]]:
    """Return a command that shares as it says, but in the test's own place."""
    assignment, _, command = command.partition(" ")
    given = assignment.partition("=")[2]
    if given.startswith("redis:"):
        return command, {"FLASK_WSCHAT_URL": given.replace("127.0.0.1:6379", url)}
    return command, {"FLASK_WSCHAT_URL": given.replace("/var/lib/chat", str(folder))}


@pytest.mark.parametrize("command", SHARING)
def test_all_workers_are_one_chat(
    command: str, tmp_path: Path, redis_as_shown: RedisServer
) -> None:
    paste(tmp_path)
    configure_from_environment(tmp_path)
    place = f"127.0.0.1:{redis_as_shown.port}"
    command, env = with_the_address(command, place, tmp_path)
    url = env["FLASK_WSCHAT_URL"].replace("///chat.db", f"///{tmp_path}/chat.db")
    server = Started(command, tmp_path, **env)
    server.start()
    try:
        eventually(server.is_up, "the server listens")
        with publisher(url) as chat:
            talk(Site(server.port), chat)
            lunch = chat.poll("Lunch", ["soup", "salad"], lasts=60)
            assert lunch.vote("ann", "soup").total == 1 and chat.polls() == [lunch]
            assert lunch.delete() and chat.polls() == []
    finally:
        server.stop()
    assert all("[INFO]" in line for line in server.log.splitlines()), server.log
    with redis_as_shown.client() as client:
        assert client.acl_log() == []
        assert bool(client.keys()) is url.startswith("redis:")


class LoggedIn:
    """Connects people who have the README's cookie."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._app = Flask("who_signs_cookies")
        self._app.secret_key = "change me"

    def connect(self, path: str, user: str | None = None) -> ClientConnection:
        client = self._app.test_client()
        with client.session_transaction() as session:
            session["user"] = user
        cookie = client.get_cookie("session")
        assert cookie is not None
        headers = {"Cookie": f"session={cookie.value}"}
        return self._site.connect(path, additional_headers=headers)


def talk(site: Site, chat: WSChat) -> None:
    """Let people talk, and hear what another process says, all in one order."""
    names = [f"user{number}" for number in range(8)]
    people = LoggedIn(site)
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(ChatClient(people.connect("/chat", name)))
            for name in names
        ]
        for client in clients:
            client.ask("inbox")
            epoch = client.ask("join", room="Lobby")["epoch"]
        for name, client in zip(names, clients, strict=True):
            assert client.ask("say", room="Lobby", data=name, mid="m")["ok"]
            assert client.ask("vote", poll="Tea", choice="Green")["ok"]
        assert chat.broadcast("a task", room="Lobby") == 9
        said = [*names, "a task"]
        for client in clients:
            heard = [client.pick("message") for _ in said]
            assert [message["seq"] for message in heard] == list(range(1, 10))
            assert [message["data"] for message in heard] == said
        eventually(lambda: chat.online("Lobby") == names, "all are seen")
        chat.send_to_user(names[0], "psst")
        assert clients[0].pick("direct")["data"] == "psst"
        missed = clients[0].ask("join", room="Lobby", after=7, epoch=epoch)
        assert [message["data"] for message in missed["messages"]] == said[7:]
        assert clients[0].ask("poll", poll="Tea")["total"] == 8
        assert chat.delete("Lobby", 1)
        assert clients[0].pick("deleted")["seq"] == 1
    eventually(lambda: chat.online("Lobby") == [], "all have left")
