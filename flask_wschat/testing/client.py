"""A test client: the real handshake, codec, hub and listeners, without a server.

    client = WSChatClient(app)
    with client.connect("/rooms/lobby", user="ann") as ws:
        ws.send("hello")
        ws.assert_received("hello")

Each connection is a socket pair; no port is opened. Users import all of it from
``flask_wschat.testing``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from flask import Flask, got_request_exception
from werkzeug.test import TestResponse

from ..client import Client, open_over
from ..codec import ClientHandshake, read_head
from ..errors import ConnectionClosed, WSChatError
from ..opening.gate import USER
from ..opening.upgrade import OPENED
from ..servers.offers import OFFER, StartResponse, Taken
from ..websocket import WebSocket

TIMEOUT = 5.0
"""Seconds that a test waits for anything unless it says otherwise."""


class Refused(WSChatError):
    """The application refused the socket; ``response`` is its HTTP answer."""

    def __init__(self, response: TestResponse) -> None:
        super().__init__(f"refused: {response.status}: {response.text.strip()[:200]}")
        self.response = response


class WSChatClient:
    """Opens WebSockets to ``app`` in this process.

    ``http`` is the application's own test client; its cookies count for the sockets, so
    that who logs in there is logged in here.
    """

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.http = app.test_client()
        self.errors: list[BaseException] = []
        """What the application's handlers raised and no test has seen yet."""

    @contextlib.contextmanager
    def connect(
        self,
        path: str,
        *,
        user: Any = None,
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        compression: bool = False,
        timeout: float = TIMEOUT,
    ) -> Iterator[WSChatSession]:
        """Open a socket at ``path`` for a ``with`` block, and close it after.

        ``user``: who it is; ``authenticate`` is asked if None. What a handler of the
        application raises meanwhile is raised here.

        :raises Refused: the application answered with HTTP; see its ``response``.
        """
        handshake = ClientHandshake(
            "localhost",
            path,
            headers=headers,
            subprotocols=subprotocols,
            compression=compression,
        )
        ours, theirs = socket.socketpair()
        request = _Request(self, handshake, user, _PairOffer(theirs))
        with ours, got_request_exception.connected_to(self._note, self.app):
            request.start(timeout)
            session = WSChatSession(self, open_over(ours, handshake, timeout))
            request.wait_until_ready(timeout)
            try:
                with session.client:
                    yield session
            except ConnectionClosed:
                self.raise_errors()
                raise
            request.wait(timeout)
            self.raise_errors()

    def raise_errors(self) -> None:
        """Raise what a handler raised, if any did."""
        if self.errors:
            raise self.errors.pop(0)

    def _note(self, sender: Flask, exception: BaseException, **extra: Any) -> None:
        self.errors.append(exception)


class WSChatSession:
    """One open connection, from ``WSChatClient.connect``."""

    def __init__(self, owner: WSChatClient, client: Client) -> None:
        self._owner = owner
        self.client = client
        """The ``flask_wschat.client.Client`` beneath."""

    @property
    def subprotocol(self) -> str | None:
        return self.client.subprotocol

    @property
    def close_code(self) -> int | None:
        return self.client.close_code

    @property
    def close_reason(self) -> str:
        return self.client.close_reason

    def send(self, data: Any) -> None:
        """Send ``str`` as text, ``bytes`` as binary, anything else as JSON."""
        if not isinstance(data, str | bytes):
            data = self._owner.app.json.dumps(data)
        self.client.send(data)

    def receive(self, timeout: float = TIMEOUT) -> str | bytes:
        """Return the next message.

        :raises TimeoutError: none came in time.
        :raises ConnectionClosed: the connection has ended, and no handler's error is
            the reason; such an error is raised itself.
        """
        try:
            return self.client.receive(timeout)
        except ConnectionClosed:
            self._owner.raise_errors()
            raise

    def receive_json(self, timeout: float = TIMEOUT) -> Any:
        """Return the next message, parsed."""
        return self._owner.app.json.loads(self.receive(timeout))

    def assert_received(self, expected: Any, timeout: float = TIMEOUT) -> None:
        """Fail unless the next message is ``expected``: text, bytes, or JSON."""
        got: Any = self.receive(timeout)
        if not isinstance(expected, str | bytes):
            got = self._owner.app.json.loads(got)
        assert got == expected, f"received {got!r}, expected {expected!r}"

    def assert_nothing_received(self) -> None:
        """Fail if the server has sent anything that was not received yet."""
        self.client.ping()  # what was sent before its answer has come before it
        with contextlib.suppress(TimeoutError):
            got = self.receive(0)
            raise AssertionError(f"received {got!r}, expected nothing")

    def assert_closed(
        self, code: int | None = None, timeout: float = TIMEOUT
    ) -> tuple[int, str]:
        """Fail unless the server ends the connection, with ``code`` if that is given.

        Return its code and reason. Messages on the way are dropped.
        """
        until = time.monotonic() + timeout
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.client.receive(until - time.monotonic())
        got = self.client.close_code or 1006
        assert code in (None, got), f"closed with {got}, expected {code}"
        return got, self.client.close_reason

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin and await the closing handshake."""
        self.client.close(code, reason)

    def vanish(self) -> None:
        """End without a word, as a killed browser or a lost network does."""
        self.client.abort()


class _Request:
    """The application's side of a connection, in a thread as long as its view runs."""

    def __init__(
        self,
        client: WSChatClient,
        handshake: ClientHandshake,
        user: Any,
        offer: _PairOffer,
    ) -> None:
        self._offer = offer
        environ = {
            OFFER: offer,
            OPENED: self._opened,
            "SERVER_PROTOCOL": "HTTP/1.1",
        }
        if user is not None:
            environ[USER] = user
        found = read_head(handshake.request())
        assert found is not None
        head, _ = found

        def ask() -> TestResponse:
            return client.http.open(
                head.start[1], headers=head.headers, environ_overrides=environ
            )

        self._ask = ask
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None
        self._response: TestResponse | None = None
        self._socket: WebSocket | None = None

    def start(self, timeout: float) -> None:
        """Run the application until it answers; raise what it refuses with."""
        self._thread.start()
        if not self._offer.decided.wait(timeout):
            raise TimeoutError(f"the application took over {timeout} s to answer")
        if self._offer.taken:
            return
        if self._error is not None:
            raise self._error
        assert self._response is not None
        raise Refused(self._response)

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until ``on_open`` has returned, or the view waits for a message.

        So a test that opened two sockets can rely on both being in their rooms.
        """
        until = time.monotonic() + timeout
        pause = threading.Event()
        while time.monotonic() < until and self._thread.is_alive():
            if self._socket is not None and self._socket._awaited:
                return
            pause.wait(0.001)

    def wait(self, timeout: float) -> None:
        """Wait for the view to end, as it should when its connection has."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the view is still running {timeout} s after the end")

    def _opened(self, ws: WebSocket) -> None:
        self._socket = ws

    def _run(self) -> None:
        try:
            self._response = self._ask()
        except BaseException as error:
            self._error = error
        finally:
            self._offer.close()  # if it was not taken
            self._offer.decided.set()


class _PairOffer:
    """One end of a socket pair, in the place of a server's socket."""

    answered = False
    handler = None
    threads = 0

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.decided = threading.Event()
        self.taken = False

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        self._socket.sendall(response)
        self.taken = True
        self.decided.set()
        # Now the client sends its request, which the application has had already.
        data = b""
        while (found := read_head(data)) is None:
            data += self._socket.recv(1 << 16)
        self._socket.setblocking(False)
        return Taken(self._socket.detach(), data[found[1] :])

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        start_response("101 Switching Protocols", [])
        return ()

    def close(self) -> None:
        self._socket.close()
