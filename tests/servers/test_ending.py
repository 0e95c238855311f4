"""Whatever ends a server's process, its clients are told to come back."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import ClientConnection

from tests.attacks.raw import send_opening
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process
from tests.support.waiting import DEADLINE

from .serving import (
    KINDS,
    OUR_WORKER,
    Kind,
    Server,
    Site,
    closed,
    eventually,
    gunicorn_command,
    receive,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

NAMES = ["run", "plain", "flask", "flask-patched", "gthread", "gevent", "our-worker"]
NAMES.append("sync")
NOTHING = Path(os.devnull)

Gunicorn = Callable[..., tuple[Site, Process]]


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name in NAMES], ids=lambda kind: kind.name
)
@pytest.mark.pain(19)
def test_sigterm_says_1012(kind: Kind, tmp_path: Path) -> None:
    """Each time, whether the frames or the process's end come first."""
    server = Server(kind, tmp_path, (NOTHING, NOTHING))
    paths = ["/listen?user=ann", "/listen", "/room"] + ["/echo"] * (kind.views > 1)
    for _ in range(2):
        server.ensure()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.connect(path)) for path in paths]
            clients[0].send("x")
            assert receive(clients[0]) == "x"
            server.signal(signal.SIGTERM)
            codes = [closed(client)[0] for client in clients]
        assert codes == [1012] * len(paths)
        server.wait()
    if kind.name.startswith("flask"):
        assert server.wait() == -signal.SIGTERM  # as without us


def test_a_program_that_simply_ends_says_1012(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, threading\n"
        "from werkzeug.serving import make_server\n"
        "from tests.servers.app import app, chat\n"
        "from flask_wschat import Listener\n"
        "leave = threading.Event()\n"
        "@chat.listener('/leave')\n"
        "class Leave(Listener):\n"
        "    def on_open(self, ws):\n"
        "        leave.set()\n"
        "server = make_server('127.0.0.1', int(sys.argv[1]), app, threaded=True)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "leave.wait()\n"
    )
    site = Site(free_port())
    command = [sys.executable, str(program), str(site.port)]
    process = Process(command, tmp_path / "log", {"PYTHONPATH": str(ROOT)})
    process.start()
    try:

        def answers() -> bool:
            assert process.running, process.log
            with contextlib.suppress(OSError):
                return site.http("/page")[0] == 200
            return False

        eventually(answers, "the server answers")
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(site.connect(path))
                for path in ("/listen?user=ann", "/listen", "/leave")
            ]
            assert [closed(client)[0] for client in clients] == [1012] * 3
        assert process.wait() == 0
        assert "Traceback" not in process.log, process.log
    finally:
        process.stop()


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name == "flask"], ids=lambda kind: kind.name
)
def test_nobody_is_let_in_who_would_not_be_told(kind: Kind, tmp_path: Path) -> None:
    """Between the last close frame and the end of the process, too."""
    server = Server(kind, tmp_path, (NOTHING, NOTHING))
    for _ in range(3):
        server.ensure()
        said: list[bytes] = []
        inside = threading.Event()
        threads = [
            threading.Thread(target=come_again, args=(server, said, inside))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        assert inside.wait(DEADLINE)
        server.signal(signal.SIGTERM)
        server.wait()
        for thread in threads:
            thread.join()
        let_in = [answer for answer in said if answer.startswith(b"HTTP/1.1 101")]
        assert let_in
        assert [answer for answer in let_in if not answer.endswith(RESTART)] == []


RESTART = b"\x88\x11\x03\xf4service restart"


def come_again(server: Server, said: list[bytes], inside: threading.Event) -> None:
    """Open connections as long as there is a server; collect all that comes of each."""
    with contextlib.suppress(ConnectionError):  # there is none any more
        while True:
            answer = b""
            with server.socket() as sock, contextlib.suppress(ConnectionError):
                send_opening(sock, "/listen", host="localhost")
                while RESTART not in answer and (data := sock.recv(65536)):
                    answer += data
                    inside.set()
            said.append(answer)


WAITS = """
import threading
from flask import Flask
from flask_wschat import Listener, WSChat

app = Flask("waits")
app.config["WSCHAT_DRAIN"] = 3600
chat = WSChat(app)
chat.listener("/listen")(Listener)

@app.get("/page")
def page():
    return "a page"

@chat.route("/wait")
def wait(ws):
    ws.send("waits")
    threading.Event().wait()

if __name__ == "__main__":
    import sys
    chat.run(app, port=int(sys.argv[1]))
"""
SERVES = {
    "run": ["waits.py"],
    "flask": ["-m", "flask", "--app", "waits", "run", "--port"],
}


@pytest.mark.parametrize("then", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("way", SERVES)
def test_a_second_signal_waits_for_nobody(
    way: str, then: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    site = Site(free_port())
    command = [sys.executable, *SERVES[way], str(site.port)]
    env = {"PYTHONPATH": str(ROOT)}
    process = Process(command, tmp_path / "log", env, cwd=tmp_path)
    process.start()
    try:
        eventually(lambda: answers(site, process), "the server answers")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(site.connect("/wait")) for _ in range(2)]
            assert [receive(client) for client in clients] == ["waits"] * 2
            process.signal(signal.SIGTERM)
            assert closed(clients[0])[0] == 1012
            process.signal(then)
            assert closed(clients[1])[0] == 1012
            process.wait()
        assert "Traceback" not in process.log, process.log
    finally:
        process.kill()


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Gunicorn]:
    """Start gunicorn with such a worker and arguments."""
    begun: list[Process] = []

    def start(worker: str, *arguments: str) -> tuple[Site, Process]:
        site = Site(free_port())
        command = gunicorn_command(worker, f"127.0.0.1:{site.port}", *arguments)
        forked = "plain" if worker == "gthread" else ""
        command = command if forked else [sys.executable, *command]
        process = Process(command, tmp_path / "log", {}, forked=forked)
        process.start()
        begun.append(process)
        return site, process

    yield start
    for process in begun:
        process.stop()


def answers(site: Site, process: Process) -> bool:
    assert process.running, process.log
    with contextlib.suppress(OSError):
        return site.http("/page")[0] == 200
    return False


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_few_max_requests_are_warned_of_once(gunicorn: Gunicorn, worker: str) -> None:
    """Each client is a request: a worker's restart makes as many new ones."""
    site, process = gunicorn(worker, "--max-requests", "20", "--threads", "8")
    eventually(lambda: answers(site, process), "the server answers")
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            client = stack.enter_context(site.connect("/listen"))
            client.send("x")
            assert receive(client) == "x"
        assert process.log.count("gunicorn's --max-requests") == 1, process.log


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_a_reload_and_too_many_requests_say_1012(
    gunicorn: Gunicorn, worker: str
) -> None:
    """Each time the next worker takes those who come back."""
    site, process = gunicorn(worker, "--threads", "8", "--max-requests", "12")
    eventually(lambda: answers(site, process), "the server answers")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(site.connect("/listen")) for _ in range(3)]
        process.signal(signal.SIGHUP)
        assert [closed(client)[0] for client in clients] == [1012] * 3
        client = stack.enter_context(reconnected(site))
        for _ in range(12):
            with contextlib.suppress(OSError):
                site.http("/page")
        assert closed(client)[0] == 1012
        stack.enter_context(reconnected(site))
    assert process.end() == 0


def reconnected(site: Site) -> ClientConnection:
    """Return a connection, once there is somebody to take it."""
    found: list[ClientConnection] = []

    def connects() -> bool:
        # Not there, or a worker that ends.
        with contextlib.suppress(OSError, InvalidHandshake):
            found.append(site.connect("/listen"))
        return bool(found)

    eventually(connects, "the next worker")
    return found[0]


def test_our_worker_hears_it_before_it_has_begun(gunicorn: Gunicorn) -> None:
    """A worker that has no handlers yet has its parent's, and would be killed later."""
    _, process = gunicorn(OUR_WORKER, "--graceful-timeout", "60")
    process.heard("Booting worker")
    process.signal(signal.SIGTERM)
    assert process.wait(20) == 0
