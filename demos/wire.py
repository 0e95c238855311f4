"""Wires: what passes between a browser and the server, to be watched and spoilt.

``app.wsgi_app = Wires(app.wsgi_app, ("/ws/",))`` gives the application one end of a
pair of sockets in place of the real one, for WebSockets whose path begins so. A thread
for each, or a greenlet where gevent has patched threads, passes on the bytes between
the other end and the browser. A listener finds its own in
``request.environ["demo.wire"]``; there is none where the server itself speaks TLS, as
those bytes say nothing. All other requests are left alone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Literal

from flask_wschat.servers.offers import (
    OFFER,
    NoDescriptors,
    Offer,
    StartResponse,
    Taken,
    find_offer,
)
from flask_wschat.transports.tls import TLSSocket

WIRE = "demo.wire"
MOST = 64 * 1024
"""Bytes that a wire holds in each direction; what is behind them waits to be read."""
LONGEST = 120.0
"""Seconds that it can be frozen, or swallow."""
PATIENCE = 30.0
"""Seconds that one direction outlives the other, or that a side takes nothing."""

Direction = Literal["received", "sent"]
"""As the server sees it."""
Tap = Callable[[Direction, bytes], bytes | None]

logger = logging.getLogger(__name__)


class Wires:
    """WSGI middleware: WebSockets whose path begins with one of ``paths`` have one."""

    def __init__(self, wsgi_app: Any, paths: tuple[str, ...]) -> None:
        self.wsgi_app = wsgi_app
        self.paths = paths

    def __call__(
        self, environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        if "HTTP_UPGRADE" in environ and environ["PATH_INFO"].startswith(self.paths):
            offer = find_offer(environ, start_response)
            if offer is not None:
                environ[WIRE] = wire = Wire()
                environ[OFFER] = WiredOffer(offer, wire, environ)
        answer: Iterable[bytes] = self.wsgi_app(environ, start_response)
        return answer


class WiredOffer:
    """A server's offer of its socket that is taken up with a wire in between."""

    def __init__(self, offer: Offer, wire: Wire, environ: dict[str, Any]) -> None:
        self.answered, self.handler = offer.answered, offer.handler
        self.threads = offer.threads
        self._offer, self._wire, self._environ = offer, wire, environ

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        try:
            ours, apps = socket.socketpair()
        except OSError as error:
            raise NoDescriptors from error
        with contextlib.ExitStack() as undo:
            undo.enter_context(ours)
            undo.enter_context(apps)
            taken = self._offer.accept(response, closed)
            if isinstance(taken.sock, TLSSocket):
                del self._environ[WIRE]
                return taken
            number = taken.sock if isinstance(taken.sock, int) else taken.sock.detach()
            peer = undo.enter_context(socket.socket(fileno=number))
            apps.setblocking(False)
            self._wire._start(peer, ours, response, taken.received)
            undo.pop_all()
        return Taken(apps.detach(), b"")

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        return self._offer.answer(start_response)


class Wire:
    """One connection's. Any thread may call its methods, also once it ended."""

    answer = b""
    """The server's 101, as it was sent."""

    def __init__(self) -> None:
        self._taps: list[Tap] = []
        self._lock = threading.Lock()
        self._ends: tuple[socket.socket, ...] = ()
        self._is_cut = threading.Event()
        self._frozen_until = 0.0
        self._is_hole = False
        self._end_of_hole: threading.Timer | None = None

    def tap(self, told: Tap) -> None:
        """Have ``told("received" or "sent", data)`` called with all that comes.

        In the wire's thread, before it is passed on; what it returns, if anything, is
        passed on instead. To miss nothing, call this before the socket opens: in a
        ``before_request``, or one of its route's ``decorators``.
        """
        self._taps.append(told)

    def cut(self) -> None:
        """Reset the connection, for both sides: nobody says goodbye."""
        self._is_cut.set()
        with self._lock, contextlib.suppress(OSError):
            for end in self._ends:  # whoever waits for something wakes up
                end.shutdown(socket.SHUT_RD)

    def freeze(self, seconds: float) -> None:
        """Hold what comes for so long; then it goes on, and nothing is missing."""
        self._frozen_until = monotonic() + min(max(seconds, 0.0), LONGEST)

    def swallow(self, seconds: float) -> None:
        """Take what comes and pass nothing on, nor that anybody has gone.

        After that the wire is cut, as frames would be missing their beginnings.
        """
        seconds = min(max(seconds, 0.0), LONGEST)
        with self._lock:
            if not self._ends or self._end_of_hole is not None:
                return
            self._is_hole = True
            self._end_of_hole = threading.Timer(seconds, self.cut)
            self._end_of_hole.daemon = True
            self._end_of_hole.start()

    def _start(
        self, peer: socket.socket, ours: socket.socket, answer: bytes, received: bytes
    ) -> None:
        self.answer = answer
        self._ends = peer, ours
        for end in self._ends:
            end.setblocking(False)
        threading.Thread(
            target=self._run, args=(received,), name=WIRE, daemon=True
        ).start()

    def _run(self, received: bytes) -> None:
        peer, ours = self._ends
        try:
            self._relay(peer, ours, received)
        except OSError:
            self._is_cut.set()  # one side has reset it: so does the other learn of it
        except Exception:
            logger.exception("a wire broke")
        with self._lock:
            self._ends = ()
            if self._end_of_hole is not None:
                self._end_of_hole.cancel()
            if self._is_cut.is_set():
                with contextlib.suppress(OSError):
                    now = struct.pack("ii", 1, 0)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            peer.close()
            ours.close()

    def _relay(self, peer: socket.socket, ours: socket.socket, first: bytes) -> None:
        ways = [_Way("received", peer, ours), _Way("sent", ours, peer)]
        if first:
            ways[0].held = self._pass("received", first)
        while not all(way.over for way in ways):
            if not _wait(ways):
                return
            for way in ways:
                if data := way.read():
                    way.held = self._pass(way.name, data)
            # After it is read: what came since somebody froze it must not slip through.
            while (left := self._frozen_until - monotonic()) > 0:
                if self._is_cut.wait(left):
                    return
                for way in ways:
                    way.moved = monotonic()
            if self._is_cut.is_set():  # that woke us, and ended what is read
                return
            for way in ways:
                way.write(hole=self._is_hole)

    def _pass(self, direction: Direction, data: bytes) -> bytes:
        for told in list(self._taps):
            try:
                data = told(direction, data) or data
            except Exception:
                self._taps.remove(told)  # it only watches: nobody else shall notice
                logger.exception("a tap failed, and is not told any more")
        return data


class _Way:
    """One direction: at most one read is held, and until it is gone nothing is read."""

    def __init__(
        self, name: Direction, source: socket.socket, sink: socket.socket
    ) -> None:
        self.name, self.source, self.sink = name, source, sink
        self.held = b""
        self.ended = False  # nothing more comes
        self.over = False  # and that was told
        self.moved = monotonic()

    def read(self) -> bytes:
        if self.held or self.ended:
            return b""
        try:
            data = self.source.recv(MOST)
        except BlockingIOError:
            return b""
        self.ended, self.moved = not data, monotonic()
        return data

    def write(self, *, hole: bool) -> None:
        if self.over:
            return
        if hole:
            self.held, self.over = b"", self.ended
            return
        try:
            if self.held:
                self.held = self.held[self.sink.send(self.held) :]
                self.moved = monotonic()
            if self.ended and not self.held:
                self.sink.shutdown(socket.SHUT_WR)
                self.over = True
        except BlockingIOError:
            pass
        except OSError:
            # It takes no more; what it has sent before is still to be passed on.
            self.held, self.ended, self.over = b"", True, True


def _wait(ways: list[_Way]) -> bool:
    """Wait until a way can go on; False: none did for as long as we have patience."""
    wanted: dict[int, int] = {}
    deadline = math.inf
    for way in ways:
        if way.held or way.over:
            deadline = min(deadline, way.moved + PATIENCE)
        if way.held:
            number, event = way.sink.fileno(), select.POLLOUT
        elif not way.ended:
            number, event = way.source.fileno(), select.POLLIN
        else:
            continue
        wanted[number] = wanted.get(number, 0) | event
    poll = select.poll()
    for number, events in wanted.items():
        poll.register(number, events)
    if deadline == math.inf:
        return bool(poll.poll())
    return bool(poll.poll(max(deadline - monotonic(), 0) * 1000))
