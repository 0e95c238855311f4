"""Signals and access lines of real servers: each connection's end is told of once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from tests.servers.serving import APP, OUR_WORKER, gunicorn_command
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import LONG, eventually

TOLD = "tests.operate.told"
THREADS = ("--threads", "8")


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[tuple[Process, int]]:
    port = free_port()
    if kind == "run":
        command = ["-m", TOLD, str(port)]
    else:
        worker = {"gthread": "gthread", "ours": OUR_WORKER}[kind]
        threads = THREADS if kind == "gthread" else ()
        command = gunicorn_command(worker, f"127.0.0.1:{port}", *threads)
        command = [f"{TOLD}:app" if part == APP else part for part in command]
    forked = "plain" if kind == "gthread" else "patched"
    process = Process(command, folder / "log", forked=forked)
    process.start()
    try:
        process.await_port(port)
        yield process, port
    finally:
        process.stop()


@pytest.mark.parametrize("kind", ["run", "gthread", "ours"])
def test_each_end_is_told_of_once_also_where_the_process_ends(
    kind: str, tmp_path: Path
) -> None:
    with serving(kind, tmp_path) as (process, port):

        def open_it(path: str, user: str, *words: str) -> ClientConnection:
            url = f"ws://127.0.0.1:{port}{path}?user={user}"
            client = websockets.sync.client.connect(url, close_timeout=0.5).__enter__()
            for word in words:
                client.send(word)
                assert client.recv(LONG) == word
            return client

        paths = ("/listen", "/view", "/old")
        gone = [open_it(path, f"gone{path[1:]}", "a") for path in paths]
        for client in gone:
            client.close(4000)
        with pytest.raises(InvalidStatus, match="404"):
            open_it("/nowhere%1B", "bob&ticket=s3cret")
        here = [open_it(path, f"here{path[1:]}", "a") for path in paths]
        hang = [open_it(path, f"hang{path[1:]}", "hang") for path in paths[:2]]
        hang[1].close()
        eventually(lambda: "disconnected hangview" in process.log)
        process.end()
        log = process.log
        for client in (*here, hang[0]):
            client.close()
    told = re.findall(r"^told (\w+) (\w+) ?(\w*)$", log, re.MULTILINE)
    for state, code in (("gone", "4000"), ("here", "1012")):
        for path in paths:
            user = f"{state}{path[1:]}"
            assert [(n, w) for n, u, w in told if u == user] == [
                *(("connected", ""), ("message", "a"), ("disconnected", code))
            ], log
    for user in ("hanglisten", "hangview"):
        ends = [w for n, u, w in told if (n, u) == ("disconnected", user)]
        assert ends == ["1012" if user == "hanglisten" else "1000"], log
    access = re.findall(
        r"INFO in access: (127.0.0.1) \"(.+)\" (\d+) (\d+\.\d{4})$", log, re.M
    )
    lines = [(line, status) for _, line, status, _ in access]
    assert lines.count(("GET /view?user=goneview HTTP/1.1", "101")) == 1
    assert "s3cret" not in " ".join(line for line, _ in lines)
    assert ("GET /nowhere%1B?user=bob&ticket=… HTTP/1.1", "404") in lines
    assert lines.count(("WebSocket /view closed", "4000")) == 1
    assert lines.count(("WebSocket /view closed: service restart", "1012")) == 1
    assert sum(status == "101" for _, status in lines) == 8
