"""The one connection on which publications come, watched and made anew when it fails.

A thread, or in a process patched by gevent a greenlet, owns the connection: it alone
reads and writes there, and is woken through a pair of sockets. So TLS, which two
threads must not read and write at once, is safe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ...errors import BackendError
from .wire import Arg, Connection, LinkError, ReplyError, Wire, as_refusal, pack
from .wishes import Wishes

logger = logging.getLogger("flask_wschat")
_random = random.Random()  # the application's own may be seeded

_CHUNK = 500  # channels in one command
_WINDOW = 20 * _CHUNK  # asked for at once: Redis buffers the answers, and not too many
_RETRY_FIRST = 0.1  # seconds until the second attempt to connect


class Timings(NamedTuple):
    """Seconds."""

    probe: float = 1.5
    """Between two publications of a process to itself."""
    deaf: float = 4.0
    """Without one of them coming back until the connection counts as dead."""
    answer: float = 3.0
    """Redis has for an answer."""


class Server(Protocol):
    """Where to connect; see ``Address``."""

    @property
    def where(self) -> str: ...
    @property
    def patience(self) -> float: ...
    def connect(self) -> Connection: ...
    def check(self) -> None: ...


class Owner(Protocol):
    """Whose connection it is; called in the connection's thread."""

    def published(self, topic: str, payload: bytes) -> None:
        """This came in ``topic``."""

    def lost(self, topics: Sequence[str]) -> None:
        """What came in ``topics`` was missed for a while, which is over."""

    def probe(self, channel: bytes) -> None:
        """Publish something to ``channel``, by another connection.

        :raises BackendError: Redis cannot serve us now.
        """

    def words(self, error: Exception) -> str:
        """Return what is wrong, and the remedy."""

    def reset(self) -> None:
        """Trust no other connection to the same Redis."""


class _Deaf(LinkError):
    """Nothing comes over an open connection."""


class Subscriber:
    """The connection, from ``run`` to ``stop``; ``place`` is its name in ``wishes``."""

    _letter = ""  # before the names of commands

    def __init__(
        self,
        owner: Owner,
        server: Server,
        wishes: Wishes,
        probe: bytes,
        timings: Timings,
        place: str = "",
    ) -> None:
        self.timings = timings
        self.fault: str | None = None
        """Why nothing can be had, and the remedy."""
        self.deaf = False
        """That is so as nothing comes, though Redis may answer."""
        self._owner = owner
        self._server = server
        self._wishes = wishes
        self._probe = probe
        self._place = place
        letter = self._letter.lower().encode()
        self._kinds = (letter + b"message", letter + b"subscribe")
        self._asked_for = 0  # channels that are not confirmed yet
        self._probing = False  # its channel was asked for
        self._stopped = False
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._ear: socket.socket
        self._bell: socket.socket | None = None
        self._rung = False
        self._up = False  # the first probe of this connection came back
        self._gone: float | None = None  # since when there is no connection
        self._next_probe = self._heard = 0.0
        self._asked: float | None = None

    def fault_at(self, key: Arg | None) -> str | None:
        """Why nothing can be had where ``key`` is."""
        return self.fault

    def subscribe(self, topics: Sequence[str]) -> None:
        """Want ``topics`` and wait for Redis to say that they will come.

        :raises BackendError: it did not; they are wanted all the same.
        """
        waiter = self._wishes.add(topics)
        if not waiter.left:
            return
        self.wake()
        # Who comes while nothing can be had need not wait to learn it.
        if self.fault is None and waiter.done.wait(self.timings.answer):
            return
        self._wishes.give_up(topics, waiter)
        if waiter.left:
            raise BackendError(self.fault or self._owner.words(TimeoutError()))

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """Want ``topics`` no more."""
        self._wishes.drop(topics)
        self.wake()

    def wake(self) -> None:
        """Have a look at what is wanted."""
        if self._bell is not None and not self._rung:
            self._rung = True
            with contextlib.suppress(OSError):  # full: it is awake; closed: it ended
                self._bell.send(b"\0")

    def prepare(self) -> None:
        """Make ready for ``run``, which is about to begin."""
        if self._bell is not None:  # it did not: there was no thread for it
            self._bell.close()
            self._ear.close()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)

    def stop(self) -> None:
        """End, and wait a second for it."""
        self._stopped = True
        self.wake()
        if self._bell is not None:
            self._ended.wait(1.0)

    # -- its thread

    def run(self) -> None:
        """Keep the connection until ``stop``."""
        attempt = 0
        while self._goes_on():
            wire = None
            try:
                wire = Wire(self._server.connect())
                self._serve(wire)
            except Exception as error:
                attempt = 0 if self._up else attempt + 1
                self._went(error)
            finally:
                if os.getpid() == self._pid:
                    self._wishes.begin(self._place)
                    if wire is not None:
                        wire.close()
            longest = min(_RETRY_FIRST * 2 ** min(attempt, 9), self._server.patience)
            self._rest(longest * _random.uniform(0.5, 1))
        if os.getpid() != self._pid:
            return
        assert self._bell is not None
        self._bell.close()
        self._ear.close()
        self._ended.set()

    def _goes_on(self) -> bool:
        """Whether nobody said stop, and this is not the copy of a greenlet in a fork,
        which would take from the connection what is for its own process."""
        return not self._stopped and os.getpid() == self._pid

    def _rest(self, seconds: float) -> None:
        poller = _poller(self._ear)
        until = time.monotonic() + seconds
        while self._goes_on() and (left := until - time.monotonic()) > 0:
            ready = poller.poll(left * 1000)
            if self._goes_on():
                self._hear_bell(ready)

    def _serve(self, wire: Wire) -> None:
        """Subscribe to all that is wanted; read until something fails."""
        self._up = False
        self._asked = None
        self._heard = time.monotonic()
        self._next_probe = float("inf")  # until its channel is confirmed, as the last
        wire.sock.settimeout(0)
        self._asked_for = 0
        self._probing = False
        self._choose_probe()
        self._send_changes(wire)
        poller = _poller(self._ear, wire.sock)
        while self._goes_on():
            now = time.monotonic()
            if now >= self._next_probe:
                self._next_probe = now + self.timings.probe
                self._server.check()
                self._owner.probe(self._probe)
                now = time.monotonic()  # that may have taken long
                self._asked = self._asked or now
            wait = min(self._next_probe, self._deaf_at()) - now
            ready = poller.poll(max(wait, 0) * 1000)
            if not self._goes_on():
                return
            if ready:
                self._hear_bell(ready)
                self._send_changes(wire)
                self._read(wire)
            elif time.monotonic() >= self._deaf_at():
                raise _Deaf("does not deliver", sent=True, silent=True)

    def _deaf_at(self) -> float:
        """Return when silence is deafness.

        Not before a probe has had some time, as the process may have had none itself.
        """
        if self._asked is None and self._next_probe < float("inf"):
            return float("inf")  # nothing is to be heard: who was stopped asks first
        deaf = self.timings.deaf
        return max(self._heard + deaf, (self._asked or self._heard) + deaf / 4)

    def _read(self, wire: Wire) -> None:
        try:
            replies = wire.receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        lost = []
        message, subscribe = self._kinds
        for reply in replies:
            if isinstance(reply, ReplyError):
                self._refused(reply)
                continue
            try:
                kind, channel, payload = reply
            except (TypeError, ValueError):
                raise LinkError("sends what is no publication", sent=True) from None
            if kind == message and channel != self._probe:
                topic = self._wishes.name(channel, self._place)
                if topic is not None:
                    self._owner.published(topic, payload)
            elif kind == message:
                self._heard, self._asked = time.monotonic(), None
                self._came()
            elif kind != subscribe:
                self._ended_there(channel)
            elif channel == self._probe:
                self._next_probe = time.monotonic()
            else:
                self._asked_for -= 1
                topic = self._wishes.confirm(channel, self._place)
                if topic is not None:
                    lost.append(topic)
        if self._asked_for:
            self._heard = time.monotonic()  # a crowd may take longer than a probe
        if lost:
            self._owner.lost(lost)

    def _refused(self, error: ReplyError) -> None:
        """Deal with an error in an answer.

        :raises ReplyError: that ends the connection.
        """
        raise error

    def _ended_there(self, channel: bytes) -> None:
        """Deal with the end of a subscription."""

    def _send_changes(self, wire: Wire) -> None:
        """Ask for as much as Redis can buffer answers of, which bring us here again."""
        dropped, fresh = self._wishes.changes(
            max(_WINDOW - self._asked_for, 0), self._place
        )
        self._send(wire, "UNSUBSCRIBE", dropped)
        self._asked_for += len(fresh)
        self._send(wire, "SUBSCRIBE", fresh)
        if not self._probing and self._asked_for < _WINDOW:
            self._probing = True  # as the last: it comes once all are confirmed
            self._send(wire, "SUBSCRIBE", [self._probe])

    def _send(self, wire: Wire, command: str, channels: list[bytes]) -> None:
        for start in range(0, len(channels), _CHUNK):
            groups = self._groups(channels[start : start + _CHUNK])
            packed = b"".join([pack(self._letter + command, *g) for g in groups])
            wire.sock.settimeout(self.timings.answer)
            wire.sock.sendall(packed)
            wire.sock.settimeout(0)

    def _groups(self, channels: list[bytes]) -> list[list[bytes]]:
        """Return those that may be in one command together."""
        return [channels]

    def _choose_probe(self) -> None:
        """Have a channel that comes by this connection.

        :raises LinkError: there is none.
        """

    def _hear_bell(self, ready: list[tuple[int, int]]) -> None:
        # Whoever has set ``_rung`` may not have sent the byte yet: it is heard later.
        if any(each == self._ear.fileno() for each, _ in ready):
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(64)
            self._rung = False  # before a look at what is wanted, not after

    # -- what is said of it

    def _went(self, error: Exception) -> None:
        if self._stopped:
            return
        known = isinstance(error, BackendError | LinkError | ReplyError | OSError)
        if not known:
            logger.error("error in the connection to Redis", exc_info=error)
        words = self._owner.words(error)
        self._owner.reset()
        self.deaf = isinstance(error, _Deaf)
        if self._gone is None:
            self._gone = time.monotonic()
            logger.error("%s; trying again", words)
        # One that was good and ended may be back at once; anything else is a fault.
        cause = error.__cause__ if isinstance(error, BackendError) else error
        refusal = as_refusal(cause or error, sent=True)
        if not self._up or not isinstance(refusal, LinkError) or refusal.silent:
            self.fault = words
        self._up = False

    def _came(self) -> None:
        if self._up:
            return
        self._up = True
        self.fault = None
        self.deaf = False
        if self._gone is not None:
            seconds = time.monotonic() - self._gone
            where = self._server.where
            logger.warning("Redis at %s is back after %.1f s", where, seconds)
            self._gone = None


def _poller(*sockets: socket.socket) -> Any:
    poller = select.poll()
    for each in sockets:
        poller.register(each, select.POLLIN)
    return poller
