"""What only ``flask run`` has: the reloader, and a certificate made on the spot."""

from __future__ import annotations

import os
import signal
import ssl
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.processes import Process

from .serving import Site, closed, eventually, receive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

PROGRAM = """
from flask import Flask
from flask_wschat import Listener, WSChat

app = Flask(__name__)
chat = WSChat(app)

@chat.listener("/listen")
class Echo(Listener):
    def on_message(self, ws, message):
        ws.send(f"{message}, says version 1")

@chat.route("/echo")
def echo(ws):
    for message in ws:
        ws.send(f"{message}, says version 1")

@app.get("/page")
def page():
    return "a page"
"""


STUBBORN = """
@chat.route("/stubborn")
def stubborn(ws):
    import time
    ws.send("begun")
    while True:
        time.sleep(0.1)
"""


def flask_run(program: Path, port: int, *arguments: str) -> Process:
    command = [sys.executable, "-m", "flask", "--app", str(program), "run"]
    command += ["--port", str(port), *arguments]
    return Process(command, program.with_suffix(".log"), {})


def rewrite(program: Path, text: str) -> None:
    """Put ``text`` in its place, which the old one's ``.pyc`` cannot pass for.

    That goes by the size and the second of the last change, which may be the same.
    """
    new = program.with_suffix(".new")
    new.write_text(text)
    os.utime(new, (2**31, 2**31))
    new.replace(program)


def answers(process: Process, site: Site) -> bool:
    assert process.running, process.log
    try:
        return site.http("/page") == (200, "a page")
    except OSError:
        return False


@pytest.mark.pain(10)
def test_a_reload_says_1012_and_the_new_code_answers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    site = Site(free_port())
    process = flask_run(program, site.port, "--debug")
    process.start()
    try:
        eventually(lambda: answers(process, site), "the server answers")
        with site.connect("/listen") as listener, site.connect("/echo") as view:
            for client in (listener, view):
                client.send("hello")
                assert receive(client) == "hello, says version 1"
            rewrite(program, PROGRAM.replace("version 1", "version 2"))
            assert closed(listener)[0] == 1012
            assert closed(view)[0] == 1012
        eventually(lambda: answers(process, site), "the server is back")
        for path in ("/listen", "/echo"):
            with site.connect(path) as client:
                client.send("hello")
                assert receive(client) == "hello, says version 2"
    finally:
        process.stop()
    assert "Traceback" not in process.log, process.log


def test_a_second_signal_waits_for_no_view(tmp_path: Path) -> None:
    """The first comes in the middle of a view, as there is one thread for all."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + STUBBORN)
    site = Site(free_port())
    process = flask_run(program, site.port, "--without-threads")
    process.start()
    try:
        eventually(lambda: answers(process, site), "the server answers")
        with site.connect("/listen") as listener, site.connect("/stubborn") as view:
            assert receive(view) == "begun"
            process.signal(signal.SIGTERM)
            assert closed(listener)[0] == closed(view)[0] == 1012
            assert process.running
            process.signal(signal.SIGTERM)
            assert process.wait(5) == -signal.SIGTERM
    finally:
        process.stop()


def test_a_certificate_made_on_the_spot(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    site = Site(free_port())
    site.tls = ssl.create_default_context()
    site.tls.check_hostname = False
    site.tls.verify_mode = ssl.CERT_NONE
    process = flask_run(program, site.port, "--cert", "adhoc")
    process.start()
    try:
        eventually(lambda: answers(process, site), "the server answers")
        with site.connect("/listen") as client:
            client.send("x" * (1 << 20))
            assert receive(client) == "x" * (1 << 20) + ", says version 1"
    finally:
        process.stop()
    assert "Traceback" not in process.log, process.log
