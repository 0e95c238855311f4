"""``flask wschat``: what its commands do to servers, and say."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import signal
import ssl
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from flask_wschat.cli import wschat
from tests.servers.serving import NO_CONTROL_SOCKET
from tests.support.chat_client import ChatClient
from tests.support.operated import create_app
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.redis_server import RedisServer
from tests.support.waiting import DEADLINE, LONG, eventually

pytestmark = pytest.mark.timeout(60)

OPERATED = ["-m", "flask", "--app", "tests.support.operated"]


class Server(Process):
    """``flask wschat run`` in a process of its own."""

    def __init__(self, folder: Path, *options: str, forked: str = "", **env: str):
        self.port = free_port()
        options = ("wschat", "run", "--port", str(self.port), *options)
        command = [*([] if forked else [sys.executable]), *OPERATED, *options]
        given = {
            **dict.fromkeys(n for n in os.environ if n.startswith("FLASK_")),
            **env,
        }
        super().__init__(command, folder / f"log-{self.port}", given, forked=forked)
        self.tls: ssl.SSLContext | None = None
        self.start()

    def connect(self, path: str) -> ClientConnection:
        scheme = "ws" if self.tls is None else "wss"
        url = f"{scheme}://127.0.0.1:{self.port}{path}"
        return connect(url, ssl=self.tls, proxy=None).__enter__()

    def get(self, path: str) -> Any:
        scheme = "http" if self.tls is None else "https"
        url = f"{scheme}://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=DEADLINE, context=self.tls) as answer:
            return json.load(answer)


Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(*options: str, **env: str) -> Server:
        servers.append(Server(tmp_path_factory.mktemp("server"), *options, **env))
        servers[-1].await_port(servers[-1].port)
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
        assert "Traceback" not in server.log, server.log


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('stored')}/chat.db"


@pytest.fixture(scope="module")
def server(serve: Serve, url: str) -> Server:
    return serve(forked="patched", WSCHAT_URL=url)


@pytest.fixture(scope="module")
def app(url: str) -> Iterator[Flask]:
    """The application in another process than the server's: this one."""
    app = create_app(url)
    yield app
    app.extensions["wschat.hub"].stop()


Command = Callable[..., Result]


def commander(app: Flask) -> Command:
    # click before 8.2 gives both streams as one, unless it is told not to.
    apart = "mix_stderr" in inspect.signature(CliRunner).parameters
    runner = app.test_cli_runner(**({"mix_stderr": False} if apart else {}))

    def command(*words: str, **options: Any) -> Result:
        return runner.invoke(wschat, words, **options)

    return command


@pytest.fixture
def command(app: Flask) -> Command:
    return commander(app)


def test_people_are_looked_at_and_spoken_to(server: Server, command: Command) -> None:
    server.get("/_wschat/ready")  # it opens the file
    for room, says in ([], "no users; who"), (["x"], "no users in 'x'; who"):
        done = command("who", *room)
        assert (done.stdout, done.stderr[: len(says)]) == ("", says)
    with (
        ChatClient(server.connect("/chat?user=ann")) as ann,
        ChatClient(server.connect("/chat?user=ben")) as ben,
    ):
        ann.ask("join", room="Lobby")
        ann.ask("inbox")
        ben.ask("ping")
        assert command("who").stdout == "ann\nben\n"
        assert command("who", "Lobby").stdout == "ann\n"
        assert json.loads(command("who", "--json").stdout) == [
            {"user": "ann"},
            {"user": "ben"},
        ]
        done = command("broadcast", "Tea?", "--room", "Lobby")
        assert done.stdout == "published to 'Lobby', number: 1\n"
        assert ann.pick("message")["data"] == "Tea?"
        command("broadcast", '{"a": [1]}', "--room", "Lobby", "--data-json")
        assert ann.pick("message")["data"] == {"a": [1]}
        done = command("broadcast", "soon", "--room", "Lobby", "--no-keep")
        assert done.stdout == "published to 'Lobby'\n"
        assert ann.pick("message")["data"] == "soon"
        done = command("send", "ann", "-", input="from a pipe\n")
        assert done.stdout == "sent to 'ann', connections: 1\n"
        assert ann.pick("direct")["data"] == "from a pipe"
        done = command("kick", "ann", "--code", "4001", "--reason", "enough")
        assert done.stdout == "closed those of 'ann', connections: 1\n"
        with pytest.raises(ConnectionClosed, match=r"4001.*enough"):
            ann.pick("never")
    for words in (("send", "zoe", "x"), ("kick", "zoe")):
        assert command(*words).stdout.endswith("'zoe', connections: 0\n")


def test_the_same_mid_is_stored_once(command: Command, server: Server) -> None:
    for _ in range(2):
        done = command("broadcast", "x", "--room", "Once", "--mid", "job-7")
        assert done.stdout == "published to 'Once', number: 1\n"


def test_a_history_is_printed(server: Server, app: Flask, command: Command) -> None:
    chat = app.extensions["wschat"]
    with app.app_context():
        for data in ("one\nline\t\x1b[2J", b"\x00\xff", {"ä": 1}, "gone"):
            chat.broadcast(data, room="Past")
        chat.delete("Past", 4)
    rows = [line.split("\t") for line in command("history", "Past").stdout.splitlines()]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("1", "", "one\\nline\\t\\x1b[2J"),
        ("2", "", '{"base64": "AP8="}'),
        ("3", "", '{"ä": 1}'),
        ("4", "", "(deleted)"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", rows[0][1])
    found = json.loads(command("history", "Past", "--after", "2", "--json").stdout)
    assert [(row["seq"], row["data"]) for row in found] == [(3, {"ä": 1}), (4, None)]
    assert found[1]["deleted"]
    assert command("history", "Past", "--limit", "1").stdout.startswith("4\t")
    assert command("history", "Nowhere").stdout == ""


def test_a_history_is_followed(
    server: Server, command: Command, tmp_path: Path, url: str
) -> None:
    name = "Now '\N{RIGHT-TO-LEFT OVERRIDE}"
    words = ["wschat", "history", name, "--follow"]
    env = {"WSCHAT_URL": url}
    follower = Process([*OPERATED, *words], tmp_path / "log", env, forked="plain")
    follower.start()
    try:
        for data in ("one\n", "two"):
            done = command("broadcast", data, "--room", name)
            assert done.stdout.startswith("published to 'Now '\\u202e', number: ")
            follower.heard(f"\t\t{data.strip()}")
        assert follower.log.splitlines()[0].endswith("\tone\\n")
        assert follower.end(signal.SIGINT) == 0
    finally:
        follower.stop()
    assert "Traceback" not in follower.log


def test_a_ticket_lets_in_once(server: Server, command: Command) -> None:
    ticket = command("ticket", "cy").stdout.strip()
    with ChatClient(server.connect(f"/chat?ticket={ticket}")) as cy:
        assert cy.user == "cy"
    with pytest.raises(InvalidStatus, match="401"):
        server.connect(f"/chat?ticket={ticket}")
    assert command("ticket", "cy", "--seconds", "1e9").exit_code == 2
    keyless = create_app()
    keyless.secret_key = None
    done = commander(keyless)("ticket", "cy")
    assert (done.exit_code, "SECRET_KEY" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("send", "", "x"), "a user"),
        (("broadcast", "x", "--room", "r" * 256), "255"),
        (("broadcast", "{", "--data-json"), "DATA is no JSON"),
        (("broadcast", "x", "--mid", "m"), "mid is for what is kept"),
        (("kick", "ann", "--code", "1006"), "1006"),
        (("history", "Lobby", "--limit", "0"), "--limit"),
        (("who", "a", "b"), "unexpected extra argument"),
    ],
    ids=" ".join,
)
def test_a_wrong_usage_is_2(command: Command, words: list[str], says: str) -> None:
    done = command(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        *(("who",), ("history", "Lobby"), ("send", "ann", "x")),
        *(("broadcast", "x"), ("kick", "ann")),
    ],
    ids=" ".join,
)
def test_memory_is_out_of_reach(words: list[str]) -> None:
    done = commander(create_app())(*words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "sqlite:////path/chat.db or redis://host:6379/0" in done.stderr


def test_a_storage_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    fresh = create_app(f"sqlite:///{tmp_path}/other.db")
    fault = f"there is no {tmp_path}/other.db: no server has used it"
    done = commander(fresh)("who")
    assert (done.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert done.stderr.startswith(f"Error: {fault}")
    done = commander(fresh)("broadcast", "Welcome", "--room", "Lobby")
    assert done.stdout == "published to 'Lobby', number: 1\n"
    assert done.stderr.startswith(f"Warning: {fault}")
    fresh.extensions["wschat.hub"].stop()
    gone = create_app(f"redis://127.0.0.1:{free_port()}/0")
    done = commander(gone)("send", "ann", "x")
    gone.extensions["wschat.hub"].stop()
    assert (done.exit_code, type(done.exception)) == (1, SystemExit), done.stderr


ROUTES = """\
/chat\tChat\tchat\twschat.v1.json\t10 50\tmove\t
/board/<int:game>\tBoard\tevents\twschat.v1.json\t\tturn\t
/in/plain\tinside.Plain\tlistener\t\t\t\t
/echo\techo\tview\tv1 v2\t\t\t
/other\tother\tother\t\t\t\t
"""


def test_routes_are_listed(command: Command) -> None:
    assert command("routes").stdout == ROUTES
    rows = json.loads(command("routes", "--json").stdout)
    assert rows[0] == {
        "rule": "/chat",
        "endpoint": "Chat",
        "kind": "chat",
        "subprotocols": ["wschat.v1.json"],
        "limit": [10, 50],
        "events": ["move"],
        "host": None,
    }


def completed(app: Flask, *words: str) -> list[str]:
    """Return what a shell is offered for the last of ``words``."""
    *before, last = words
    info = ScriptInfo(create_app=lambda: app)
    complete = ShellComplete(wschat, {"obj": info}, "wschat", "_WSCHAT_COMPLETE")
    return [item.value for item in complete.get_completions(list(before), last)]


def test_names_are_completed(server: Server, app: Flask) -> None:
    with (
        ChatClient(server.connect("/chat?user=dan")),
        ChatClient(server.connect("/chat?user=dora")),
        ChatClient(server.connect("/chat?user=d%E2%80%AEx")),
    ):
        assert completed(app, "kick", "d") == ["dan", "dora"]
        assert completed(app, "send", "do") == ["dora"]
    assert "broadcast" in completed(app, "b")
    assert completed(create_app(), "kick", "d") == []


def test_it_runs_patched_from_its_first_line(serve: Serve, url: str) -> None:
    server = serve("--no-access-log", WSCHAT_URL=url)
    assert server.get("/about") == {"pid": server.id, "patched": True, "debug": False}
    with server.connect("/echo") as client:
        client.send("hi")
        assert client.recv(DEADLINE) == "hi"
    assert server.end() == 0
    assert server.log.splitlines()[1:] == []


def test_it_speaks_tls(serve: Serve, pair: tuple[Path, Path], url: str) -> None:
    certificate, key = map(str, pair)
    server = serve("--cert", certificate, "--key", key, forked="patched")
    server.tls = ssl.create_default_context(cafile=certificate)
    assert server.get("/about")["patched"]
    with server.connect("/echo") as client:
        client.send("x" * 100_000)
        assert client.recv(DEADLINE) == "x" * 100_000
    assert f"Serving on https://127.0.0.1:{server.port}" in server.log


def test_workers_are_gunicorns(serve: Serve) -> None:
    with RedisServer() as redis:
        given = " ".join(NO_CONTROL_SOCKET)
        server = serve(
            *("--workers", "2"), WSCHAT_URL=redis.url, GUNICORN_CMD_ARGS=given
        )
        pids: set[int] = set()

        def both() -> bool:
            pids.add(server.get("/about")["pid"])
            return len(pids) == 2

        eventually(both, lambda: server.log, LONG)
        assert all(server.get("/about")["patched"] for _ in range(4))
        app = create_app(redis.url)
        with ChatClient(server.connect("/chat?user=ann")) as ann:
            ann.ask("inbox")
            command = commander(app)
            assert command("who").stdout == "ann\n"
            assert command("send", "ann", "hi").stdout.endswith("connections: 1\n")
            assert ann.pick("direct")["data"] == "hi"
        app.extensions["wschat.hub"].stop()
        assert "GET /about" in server.log
        assert "memory://" not in server.log
        assert server.end() == 0


def test_a_certificate_that_does_not_fit_ends_it(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    certificate = str(pair[0])
    server = Server(
        tmp_path, "--cert", certificate, "--key", certificate, forked="patched"
    )
    assert server.wait() == 1
    assert f"the key {certificate}: " in server.log
    assert "They are two files in PEM" in server.log


@pytest.mark.parametrize("given", ["adhoc", ("only.pem",)], ids=str)
def test_a_certificate_is_two_files(given: Any) -> None:
    app = create_app()
    with pytest.raises(TypeError, match="two files"):
        app.extensions["wschat"].run(app, port=0, ssl_context=given, patch=False)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--cert", __file__], 2, "--cert and --key go together"),
        (["--workers", "2", "--debug"], 2, "--workers is for production"),
        (["--workers", "0"], 2, "--workers"),
        (["--port", "70000"], 2, "--port"),
        (["--workers", "2"], 1, "give it by --app"),
    ],
    ids=str,
)
def test_what_cannot_be_run(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "0")
    done = command("run", *words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in done.stderr


def test_a_program_is_not_run_where_it_is_only_loaded(tmp_path: Path, url: str) -> None:
    (tmp_path / "app.py").write_text(
        "from tests.support.operated import create_app\n"
        "app = create_app()\n"
        "app.extensions['wschat'].run(app, port=0)\n"
        "@app.cli.command()\n"
        "def serve(): app.extensions['wschat'].run(port=-1)\n"
    )
    says = {}
    for words in (["wschat", "routes"], ["serve"]):
        program = Process(
            ["-m", "flask", *words],
            *(tmp_path / words[0], {"FLASK_APP": None, "WSCHAT_URL": url}),
            cwd=tmp_path,
            forked="patched",
        )
        program.start()
        program.wait()
        says[words[0]] = program.log
    assert "chat.run is ignored where the flask command" in says["wschat"]
    assert ROUTES in says["wschat"]
    assert "ValueError: a port is" in says["serve"]


@pytest.mark.parametrize("missing", ["gunicorn", "packaging.version"])
def test_workers_need_gunicorn(
    command: Command, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delitem(sys.modules, "gunicorn.workers.ggevent", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    done = command("run", "--workers", "2")
    assert done.exit_code == 1
    assert done.stderr == (
        'Error: --workers needs gunicorn: pip install "gunicorn[gevent]"\n'
    )


def test_a_file_that_is_broken_is_waited_for(tmp_path: Path) -> None:
    """In the process that a reloader has begun, which begins it anew after a 3."""
    app = tmp_path / "app.py"
    app.write_text("this is (\n")
    server = Process(
        ["-m", "flask", "wschat", "run", "--reload", "--port", "0"],
        tmp_path / "log",
        {"WERKZEUG_RUN_MAIN": "true", "FLASK_DEBUG": None, "FLASK_APP": None},
        cwd=tmp_path,
        forked="patched",
    )
    server.start()
    try:
        server.heard("Waiting until a file changes")
        assert "SyntaxError" in server.log
        for number in range(10):  # it may not have looked at the files yet
            app.write_text(f"app = {number}\n")
            with contextlib.suppress(AssertionError):
                assert server.wait(3) == 3
                break
        assert not server.running
    finally:
        server.stop()
