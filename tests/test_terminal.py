"""``python -m flask_wschat connect`` as its users have it: a process, a pipe, a tty."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.server
from websockets.exceptions import ConnectionClosed as ForeignClosed
from websockets.sync.server import ServerConnection
from websockets.typing import Subprotocol

from flask_wschat.__main__ import main
from flask_wschat.codec import encode_frame
from flask_wschat.terminal.frames import frames
from tests.support.processes import hearing_interrupts
from tests.support.waiting import DEADLINE, eventually

Call = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "flask_wschat", "connect"]
# A terminal of its own, so that Ctrl-C comes as a signal.
ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Server:
    """A foreign server that answers, and does what some messages say."""

    def __init__(self) -> None:
        self.clients: list[ServerConnection] = []
        self.received: list[str | bytes] = []
        self.closes: list[int] = []
        self._server = websockets.sync.server.serve(
            self._handle,
            "127.0.0.1",
            0,
            select_subprotocol=lambda _, offered: (
                Subprotocol("v1") if offered else None
            ),
        )
        self.port = self._server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _handle(self, ws: ServerConnection) -> None:
        self.clients.append(ws)
        try:
            while True:
                message = ws.recv(DEADLINE)
                self.received.append(message)
                self._answer(ws, str(message))
        except (ForeignClosed, TimeoutError):
            if ws.protocol.close_rcvd is not None:
                self.closes.append(ws.protocol.close_rcvd.code)

    def _answer(self, ws: ServerConnection, message: str) -> None:
        command, _, argument = message.partition(" ")
        if command == "close":
            ws.close(int(argument), "as you wish")
        elif command == "binary":
            ws.send(bytes(range(int(argument))))
        elif command == "header":
            assert ws.request is not None
            ws.send(str(ws.request.headers.get(argument)))
        elif command == "clear":
            ws.send("\x1b[2Jcleared\x07")
        elif command == "drop":
            ws.socket.shutdown(socket.SHUT_RDWR)
        elif command != "hush":
            ws.send(f"got {message}")

    def push(self, message: str) -> None:
        """Send to the first client, unasked."""
        eventually(lambda: self.clients)
        self.clients[0].send(message)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(DEADLINE)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def run(
    *arguments: str, stdin: bytes | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with ``stdin`` piped in."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin or b"",
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=DEADLINE,
    )
    return subprocess.CompletedProcess(
        arguments, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command within this process, which is quicker."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            main(["connect", *arguments])
            code: Any = 0
        except SystemExit as end:
            code = end.code
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return call


class TestOneShot:
    def test_the_reply_is_all_of_stdout(self, server: Server) -> None:
        done = run(server.url, "-m", "hällo", "-m", "again")
        assert (done.stdout, done.stderr, done.returncode) == (
            "got hällo\ngot again\n",
            "",
            0,
        )
        assert server.received == ["hällo", "again"]

    def test_binary_replies_are_hex(self, call: Call, server: Server) -> None:
        done = call(server.url, "-m", "binary 3")
        assert done.stdout == "binary, 3 bytes: 00 01 02\n"

    def test_headers_origin_and_subprotocol(self, call: Call, server: Server) -> None:
        done = call(
            server.url,
            *("-H", "X-Name: Ada: Countess", "--origin", "http://there"),
            *("--subprotocol", "v0", "--subprotocol", "v1", "--no-compression"),
            *("-m", "header X-Name", "-m", "header Origin"),
            *("-m", "header Sec-WebSocket-Protocol"),
            *("-m", "header Sec-WebSocket-Extensions"),
        )
        assert done.stdout == "Ada: Countess\nhttp://there\nv0, v1\nNone\n"

    def test_waiting_for_more(self, call: Call, server: Server) -> None:
        done = call(server.url, "-m", "first", "--wait", "inf", "-m", "close 1000")
        assert done.returncode == 1  # no reply to the second
        assert done.stdout == "got first\n"
        done = call(server.url, "-m", "first", "--wait", "0.05")
        assert (done.stdout, done.returncode) == ("got first\n", 0)

    def test_no_reply(self, call: Call, server: Server) -> None:
        done = call(server.url, "-m", "hush", "--timeout", "0.2")
        assert done.returncode == 1
        assert done.stderr == (
            "Error: no message within 0.2 s; --timeout gives longer\n"
        )
        done = call(server.url, "-m", "close 4001")
        assert done.returncode == 1
        assert done.stderr == "Error: connection closed: 4001 as you wish\n"

    def test_a_text_must_be_text(self, call: Call, server: Server) -> None:
        done = call(server.url, "-m", "\udcff")
        assert done.returncode == 2
        assert "surrogates not allowed" in done.stderr

    def test_frames(self, server: Server) -> None:
        done = run(server.url, "-m", "hello", "--frames", "--no-compression")
        assert done.stdout == "got hello\n"
        sent, received, *closes = done.stderr.splitlines()
        assert re.fullmatch(
            r"> fin=1 rsv=000 opcode=text mask=1 length=5  81 85( [0-9a-f]{2}){9}", sent
        )
        assert received == (
            "< fin=1 rsv=000 opcode=text mask=0 length=9"
            "  81 09 67 6f 74 20 68 65 6c 6c 6f"
        )
        assert [line[:44] for line in closes] == [
            "> fin=1 rsv=000 opcode=close mask=1 length=2",
            "< fin=1 rsv=000 opcode=close mask=0 length=2",
        ]


class TestPipe:
    def test_each_line_is_a_message(self, server: Server) -> None:
        done = run(server.url, "--wait", "0.3", stdin=b"one\n\ntwo\r\nlast")
        assert done.stdout == "got one\ngot \ngot two\ngot last\n"
        assert done.stderr == "connected\nclosed: 1000\n"
        assert done.returncode == 0
        assert server.received == ["one", "", "two", "last"]

    def test_many_lines(self, server: Server) -> None:
        lines = [f"line {number}" for number in range(3000)]
        done = run(server.url, stdin="\n".join(lines).encode())
        assert done.stdout.splitlines() == [f"got {line}" for line in lines]
        assert done.returncode == 0

    def test_it_ends_soon_after_the_input(self, server: Server) -> None:
        start = time.monotonic()
        assert run(server.url, "--wait", "0").returncode == 0
        assert time.monotonic() - start < 3

    @pytest.mark.parametrize(
        ("lines", "code"),
        [
            (b"close 1000\n", 0),
            (b"close 1001\n", 0),
            (b"close 1011\n", 1),
            (b"close 4000\n", 1),
            (b"drop\n", 1),
            (b"fine\n\xff\nmore\n", 2),
        ],
        ids=str,
    )
    def test_exit_codes(self, server: Server, lines: bytes, code: int) -> None:
        done = run(server.url, "--wait", "inf", stdin=lines)
        assert done.returncode == code, done.stderr
        assert b"more" not in b"".join(str(m).encode() for m in server.received)

    def test_there_may_be_no_stdin(self, server: Server) -> None:
        command = " ".join([*COMMAND, server.url, "--wait", "0", "<&-"])
        done = subprocess.run(
            command, shell=True, cwd=ROOT, capture_output=True, timeout=DEADLINE
        )
        assert done.returncode == 0
        assert done.stderr.decode() == "connected\nclosed: 1000\n"

    def test_without_stdin_messages_come(self, server: Server) -> None:
        command = " ".join([*COMMAND, server.url, "--wait", "inf", "<&-"])
        with subprocess.Popen(
            command, shell=True, cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            for word in ("one", "two"):
                server.push(word)
                assert process.stdout is not None
                assert process.stdout.readline().decode() == f"{word}\n"
            server.clients[0].close()
            assert process.wait(DEADLINE) == 0

    def test_input_may_come_slowly(self, server: Server) -> None:
        with hearing_interrupts():
            process = subprocess.Popen(
                [*COMMAND, server.url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
            )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            for word in (b"one", b"two"):
                process.stdin.write(word + b"\n")
                process.stdin.flush()
                assert process.stdout.readline() == b"got " + word + b"\n"
            server.push("unasked")
            assert process.stdout.readline() == b"unasked\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 1
        eventually(lambda: server.closes == [1001])

    def test_who_reads_may_leave(self, server: Server) -> None:
        process = subprocess.Popen(
            [*COMMAND, server.url, "--wait", "inf"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got one\n"
        process.stdout.close()
        process.stdin.write(b"two\n")
        process.stdin.flush()
        assert process.wait(DEADLINE) == 1
        process.stdin.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        process.stderr.close()


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "code", "says"),
        [
            ((), 2, "Missing argument 'URL'"),
            (("http://127.0.0.1",), 2, "ws://host[:port]/path or wss://… is expected"),
            (("ws://127.0.0.1:1/", "-H", "nothing"), 2, "'Name: value' is expected"),
            (("ws://127.0.0.1:1/", "-H", "Host: x"), 2, "by the handshake itself"),
            (
                ("ws://127.0.0.1:1/", "--wait", "-1"),
                2,
                "'--wait': -1.0 is not in the range",
            ),
            (("ws://127.0.0.1:1/", "--timeout", "0"), 2, "0.0 is not in the range"),
            (("ws://127.0.0.1:1/",), 1, "is the server running"),
            (("ws://no.such.host.invalid/",), 1, "is the host's name right?"),
        ],
        ids=str,
    )
    def test_what_cannot_be(
        self, call: Call, arguments: tuple[str, ...], code: int, says: str
    ) -> None:
        done = call(*arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert says in done.stderr

    @pytest.mark.parametrize(
        ("answer", "code", "says"),
        [
            (
                b"HTTP/1.1 403 Forbidden",
                1,
                "403 Forbidden; say who you are, with --ticket",
            ),
            (b"HTTP/1.1 404 Not Found", 1, "look at the URL"),
            (b"HTTP/1.1 301 Moved\r\nLocation: wss://x/", 1, "redirects to wss://x/"),
            (b"garbage", 1, "not HTTP"),
            (None, 1, "the handshake in time; --timeout gives longer"),
        ],
        ids=str,
    )
    def test_what_is_refused(
        self, call: Call, answer: bytes | None, code: int, says: str
    ) -> None:
        done = threading.Event()

        def serve() -> None:
            with listener.accept()[0] as sock:
                sock.recv(4096)
                if answer is None:
                    done.wait(DEADLINE)
                else:
                    sock.sendall(answer + b"\r\n\r\n")

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
            ended = call(url, "--timeout", "0.3")
            done.set()
            thread.join(DEADLINE)
        assert says in ended.stderr
        assert ended.returncode == code

    def test_tls_where_there_is_none(self, call: Call, server: Server) -> None:
        done = call(f"wss://127.0.0.1:{server.port}/")
        assert done.returncode == 1
        assert "is it ws:// rather than wss://?" in done.stderr

    def test_without_a_command_it_says_what_there_is(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            main([])
        told = "".join(capsys.readouterr())
        assert "  connect  Talk to a WebSocket server." in told
        assert "flask wschat --help" in told


class Terminal:
    """The command on a terminal of 40 columns, and someone who sits there."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 40, 0, 0))
        self._before = termios.tcgetattr(slave)
        # What says how wide another terminal is, as pytest-xdist does to its workers.
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.slave = slave
        with hearing_interrupts():
            self.process = subprocess.Popen(
                [sys.executable, "-c", ON_A_TERMINAL, *COMMAND, *arguments],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=ROOT,
                env={**kept, "TERM": "xterm", "NO_COLOR": "1", **environment},
                start_new_session=True,
            )
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, *texts: str) -> None:
        """Wait until ``texts`` are shown, after what was waited for before.

        In any order: a message and the next prompt come from two threads. What is typed
        before the prompt is the terminal's to edit, not ours.
        """
        until = time.monotonic() + DEADLINE
        while not all(text in self.shown for text in texts):
            left = until - time.monotonic()
            assert left > 0, (texts, self.shown)
            if select.select([self._master], [], [], left)[0]:
                self.shown += self._decoder.decode(os.read(self._master, 4096))
        end = max(self.shown.index(text) + len(text) for text in texts)
        self.shown = self.shown[end:]

    def end(self) -> int:
        """Return the exit code; the terminal is as it was before."""
        code = self.process.wait(DEADLINE)
        assert termios.tcgetattr(self.slave) == self._before
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self._master)
        os.close(self.slave)


class TestTerminal:
    @pytest.fixture
    def terminal(self, server: Server) -> Iterator[Terminal]:
        terminal = Terminal(server.url)
        yield terminal
        terminal.close()

    def test_a_conversation(self, terminal: Terminal, server: Server) -> None:
        terminal.wait_for("connected, Ctrl-D closes")
        terminal.wait_for("> ")
        terminal.type("hello\r")
        terminal.wait_for("< got hello", "> ")
        terminal.type("\r")  # nothing to send
        terminal.wait_for("> ")
        terminal.type("\x1b[A\x7f!\r")  # up, backspace: from the history
        terminal.wait_for("< got hell!", "> ")
        assert server.received == ["hello", "hell!"]
        terminal.type("\x04")
        terminal.wait_for("closed")
        assert terminal.end() == 0
        eventually(lambda: server.closes == [1000])

    def test_messages_come_above_what_is_typed(
        self, terminal: Terminal, server: Server
    ) -> None:
        terminal.wait_for("> ")
        terminal.type("half")
        terminal.wait_for("half")
        server.push("news\nin two lines")
        terminal.wait_for("\r\x1b[K< news\r\nin two lines\r\n> half")
        terminal.type(" a line\r")
        terminal.wait_for("< got half a line")

    def test_a_server_does_not_command_the_terminal(self, terminal: Terminal) -> None:
        terminal.wait_for("> ")
        terminal.type("clear\r")
        terminal.wait_for("< \\x1b[2Jcleared\\x07")

    def test_ctrl_c(self, terminal: Terminal, server: Server) -> None:
        terminal.wait_for("> ")
        terminal.type("hal")
        terminal.wait_for("hal")
        terminal.type("\x03")
        assert terminal.end() == 1
        assert server.received == []

    def test_the_server_may_end_it(self, terminal: Terminal) -> None:
        terminal.wait_for("> ")
        terminal.type("close 4000\r")
        terminal.wait_for("Error: connection closed: 4000 as you wish")
        assert terminal.end() == 1

    @pytest.mark.parametrize(
        ("environment", "coloured"),
        [
            ({"NO_COLOR": ""}, True),
            ({}, False),
            ({"NO_COLOR": "", "TERM": "dumb"}, False),
        ],
        ids=["xterm", "NO_COLOR", "dumb"],
    )
    def test_colours(
        self, server: Server, environment: dict[str, str], coloured: bool
    ) -> None:
        terminal = Terminal(server.url, "-m", "hello", "--frames", **environment)
        try:
            terminal.wait_for("> fin=1")
            terminal.wait_for(
                "\x1b[36mgot hello\x1b[0m" if coloured else "\ngot hello\r"
            )
            assert terminal.end() == 0
        finally:
            terminal.close()


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_frames_are_found_however_the_bytes_come(step: int) -> None:
    lines: list[str] = []
    show = frames(lines.append)
    data = b"".join(
        [
            encode_frame(1, b"a" * 10, fin=False),
            encode_frame(0, b"b" * 200),
            encode_frame(2, b"c" * 70_000, mask=b"mask"),
            encode_frame(9, b""),
            b"\xf3\x00",
        ]
    )
    for start in range(0, len(data), step):
        show("received", data[start : start + step])
        show("sent", b"")
    assert [line.split("  ")[0] for line in lines] == [
        "< fin=0 rsv=000 opcode=text mask=0 length=10",
        "< fin=1 rsv=000 opcode=continuation mask=0 length=200",
        "< fin=1 rsv=000 opcode=binary mask=1 length=70000",
        "< fin=1 rsv=000 opcode=ping mask=0 length=0",
        "< fin=1 rsv=111 opcode=0x3 mask=0 length=0",
    ]
    assert lines[1].endswith("80 7e 00 c8" + " 62" * 20 + " …")
    assert lines[3].endswith("  89 00")
