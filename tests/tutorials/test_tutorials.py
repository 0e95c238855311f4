"""Programs written for gevent-websocket, each in a process of its own.

Only `WSChat(app)` is added to them. They run under the stock handler and under ours,
and lose a client in each way there is; the others must not notice.
"""

import json
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.client import ClientProtocol
from websockets.sync.client import ClientConnection, connect
from websockets.uri import parse_uri

from tests.servers.serving import NO_CONTROL_SOCKET
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import DEADLINE, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

GUNICORN = [
    *("-m", "gunicorn", *NO_CONTROL_SOCKET, "--log-level=critical"),
    *("-k", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"),
    *("--graceful-timeout", "1"),  # as long as views that never end are waited for
]


class Program(Process):
    """A tutorial's server process."""

    def __init__(self, name: str, handler: str, log: Path) -> None:
        module = f"tests.tutorials.{name}"
        self.gunicorn = handler == "gunicorn"
        self.port = free_port() if self.gunicorn else 0
        command = [*GUNICORN, "-b", f"127.0.0.1:{self.port}", f"{module}:app"]
        if not self.gunicorn:
            command = ["-m", module, handler]
        super().__init__(command, log, forked="patched" if self.gunicorn else "plain")
        self.start()
        if self.gunicorn:
            self.await_port(self.port)
        else:
            self.port = int(self.heard("\n").split()[0])

    def get(self, path: str) -> str:
        """Return the page at ``path``; a server that does not answer is a failure."""
        url = f"http://127.0.0.1:{self.port}{path}"
        with urlopen(url, timeout=DEADLINE) as response:
            text: str = response.read().decode()
            return text

    def connect(self, path: str) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None)

    def leave(self) -> None:
        # gunicorn waits for views on SIGTERM, and the group chat's never end.
        self.end(signal.SIGQUIT if self.gunicorn else signal.SIGTERM)


class Goner:
    """A client on a bare socket, which can therefore end in any way."""

    def __init__(self, program: Program, path: str) -> None:
        self.protocol = ClientProtocol(
            parse_uri(f"ws://127.0.0.1:{program.port}{path}")
        )
        self.socket = socket.create_connection(("127.0.0.1", program.port), DEADLINE)
        self.protocol.send_request(self.protocol.connect())
        self._send()
        while not self.protocol.events_received():
            self.protocol.receive_data(self.socket.recv(4096))
        assert self.protocol.handshake_exc is None

    def _send(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.socket.sendall(data)

    def close(self) -> None:
        """End with the closing handshake, as a browser does."""
        self.protocol.send_close(1000)
        self._send()
        while data := self.socket.recv(4096):
            self.protocol.receive_data(data)
        self.protocol.receive_eof()
        assert self.protocol.close_exc.rcvd is not None
        self.socket.close()

    def reset(self) -> None:
        """End with a TCP reset, as a killed machine's network does."""
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.socket.close()

    def vanish(self) -> None:
        """End without a close frame, as a killed process does."""
        self.socket.close()

    def half_message(self) -> None:
        """End in the middle of a message."""
        self.socket.sendall(b"\x81\xfe\x10\x00\x01\x02\x03\x04abc")
        self.socket.close()


ENDINGS = pytest.mark.parametrize(
    "end",
    [Goner.close, Goner.reset, Goner.vanish, Goner.half_message],
    ids=lambda method: method.__name__,
)
End = Callable[[Goner], None]
Start = Callable[[str], Program]


@pytest.fixture(params=["stock", "wschat", "gunicorn"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Start a tutorial under one of the two handlers, or gunicorn's stock worker."""
    programs: list[Program] = []

    def start(name: str) -> Program:
        log = tmp_path / f"{len(programs)}.log"
        programs.append(Program(name, request.param, log))
        return programs[-1]

    yield start
    for program in programs:
        program.leave()


def test_group_chat_reaches_everyone(start: Start) -> None:
    program = start("group_chat")
    with program.connect("/ws") as ann, program.connect("/ws") as ben:
        eventually(lambda: program.get("/") == "2 sockets so far")
        for number in range(20):
            ann.send(f"ann {number}")
            ben.send(f"ben {number}")
        for client in (ann, ben):
            messages = [client.recv(DEADLINE) for _ in range(40)]
            for name in ("ann", "ben"):
                assert [m for m in messages if str(m).startswith(name)] == [
                    f"{name} {number}" for number in range(20)
                ]


def test_group_chat_plain_request(start: Start) -> None:
    assert start("group_chat").get("/ws") == "This address wants a WebSocket."


@ENDINGS
def test_group_chat_survives_a_lost_client(start: Start, end: End) -> None:
    program = start("group_chat")
    with program.connect("/ws") as ann:
        # Between the others in the list, so that its socket is tried before theirs.
        goner = Goner(program, "/ws")
        eventually(lambda: program.get("/") == "2 sockets so far")
        with program.connect("/ws") as ben:
            eventually(lambda: program.get("/") == "3 sockets so far")
            end(goner)
            for number in range(50):
                ann.send(f"still here {number}")
                # Nothing else comes in between: what the goner's loop still tries to
                # send, the None of its `receive()`, is not a message.
                assert ann.recv(DEADLINE) == f"still here {number}"
                assert ben.recv(DEADLINE) == f"still here {number}"
                assert program.get("/") == "3 sockets so far"


def test_group_chat_loop_that_never_ends_leaves_the_server_time(start: Start) -> None:
    """The views of ten that left loop on, and the others are still served."""
    program = start("group_chat")
    for _ in range(10):
        Goner(program, "/ws").close()
    with program.connect("/ws") as ann:
        eventually(lambda: program.get("/") == "11 sockets so far")
        for number in range(20):
            ann.send(str(number))
            assert ann.recv(DEADLINE) == str(number)


def test_private_chat_reaches_the_addressee_only(start: Start) -> None:
    program = start("private_chat")
    with (
        program.connect("/ws/ann") as ann,
        program.connect("/ws/ben") as ben,
        program.connect("/ws/eve") as eve,
    ):
        eventually(lambda: program.get("/") == "ann ben eve")
        ann.send(json.dumps({"to_user": "ben", "from_user": "ann", "msg": "你好 ☃"}))
        assert json.loads(ben.recv(DEADLINE)) == {"from_user": "ann", "msg": "你好 ☃"}
        ben.send(json.dumps({"to_user": "ann", "from_user": "ben", "msg": "hi"}))
        assert json.loads(ann.recv(DEADLINE)) == {"from_user": "ben", "msg": "hi"}
        # The first that eve gets is her own: the others' went past her.
        eve.send(json.dumps({"to_user": "eve", "from_user": "eve", "msg": "me"}))
        assert json.loads(eve.recv(DEADLINE)) == {"from_user": "eve", "msg": "me"}


@ENDINGS
def test_private_chat_learns_of_a_lost_client(start: Start, end: End) -> None:
    """`receive()` returns None, so the program's own clean-up runs."""
    program = start("private_chat")
    with program.connect("/ws/ann") as ann, program.connect("/ws/ben") as ben:
        goner = Goner(program, "/ws/goner")
        eventually(lambda: program.get("/") == "ann ben goner")
        end(goner)
        eventually(lambda: program.get("/") == "ann ben")
        ann.send(json.dumps({"to_user": "ben", "from_user": "ann", "msg": "gone"}))
        assert json.loads(ben.recv(DEADLINE)) == {"from_user": "ann", "msg": "gone"}


def test_private_chat_view_that_fails_closes_its_socket_only(start: Start) -> None:
    program = start("private_chat")
    with program.connect("/ws/ann") as ann, program.connect("/ws/ben") as ben:
        eventually(lambda: program.get("/") == "ann ben")
        ann.send(json.dumps({"to_user": "nobody", "from_user": "ann", "msg": "?"}))
        eventually(lambda: ended(ann))
        ben.send(json.dumps({"to_user": "ben", "from_user": "ben", "msg": "me"}))
        assert json.loads(ben.recv(DEADLINE)) == {"from_user": "ben", "msg": "me"}


def ended(client: ClientConnection) -> bool:
    """Whether the server has closed; nothing else is expected to arrive."""
    try:
        message = client.recv(timeout=0.05)
    except TimeoutError:
        return False
    except Exception as error:
        assert type(error).__name__.startswith("ConnectionClosed"), error
        return True
    raise AssertionError(f"got {message!r} instead of the end")


def test_voting_counts_for_everyone(start: Start) -> None:
    program = start("voting")
    assert program.get("/ws") == "Rosa: 0, Bruno: 0 (0 watching, 0 removed)"
    with program.connect("/ws") as ann, program.connect("/ws") as ben:
        eventually(lambda: "(2 watching" in program.get("/ws"))
        ann.send("1")
        for client in (ann, ben):
            assert json.loads(client.recv(DEADLINE)) == {"cid": "1", "count": 1}
        ben.send("1")
        for client in (ann, ben):
            assert json.loads(client.recv(DEADLINE)) == {"cid": "1", "count": 2}
        assert program.get("/ws") == "Rosa: 2, Bruno: 0 (2 watching, 0 removed)"


@ENDINGS
def test_voting_removes_a_dead_socket(start: Start, end: End) -> None:
    """Sending to it raises `WebSocketError`, which is what the program catches."""
    program = start("voting")
    goner = Goner(program, "/ws")
    eventually(lambda: "(1 watching" in program.get("/ws"))
    with program.connect("/ws") as ann:
        eventually(lambda: "(2 watching" in program.get("/ws"))
        end(goner)

        count = 0

        def removed() -> bool:
            # The server may learn of the end only after the first vote.
            nonlocal count
            count += 1
            ann.send("2")
            assert json.loads(ann.recv(DEADLINE)) == {"cid": "2", "count": count}
            return "(1 watching, 1 removed)" in program.get("/ws")

        eventually(removed)
        assert program.get("/ws").startswith(f"Rosa: 0, Bruno: {count} ")
