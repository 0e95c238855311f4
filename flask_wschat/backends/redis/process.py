"""What one process has of Redis: its connections, and what it says when they fail."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ...errors import BackendError
from ...logs import printable
from ..contract import Host
from ..pages import Seen
from .packing import MADE, unpack_publication
from .people import People
from .subscriber import Subscriber, Timings
from .wire import (
    Call,
    Connection,
    LinkError,
    Pipe,
    Reply,
    ReplyError,
    Script,
    as_refusal,
)
from .wishes import Wishes

logger = logging.getLogger("flask_wschat")

_WORDS = {
    "OOM": "its memory is full: raise maxmemory, or lower WSCHAT_HISTORY_SIZE or"
    " WSCHAT_HISTORY_BYTES",
    "READONLY": "it is a read-only replica: WSCHAT_URL must name the primary",
    "LOADING": "it is still loading its data: wait",
    "NOAUTH": "it wants a password: redis://user:password@host in WSCHAT_URL",
    "WRONGPASS": "it refuses the user or the password in WSCHAT_URL",
    "NOPERM": "the user in WSCHAT_URL may not: allow ~wschat:* &wschat:* +@all",
    "MISCONF": "it cannot write to its disk",
    "MASTERDOWN": "it is a replica without its primary",
    "MOVED": "it is a part of a cluster: WSCHAT_URL must name a proxy of the cluster",
}

_PROBED = {"READONLY", "LOADING", "NOAUTH", "WRONGPASS", "MISCONF", "MASTERDOWN"}
"""Those that the subscriber's probe meets, too, and the log has from there."""

_QUIET = 60.0  # seconds without a refusal until the next one is news


class Endpoint(Protocol):
    """Where Redis is, and how its keys are called."""

    @property
    def where(self) -> str: ...
    @property
    def patience(self) -> float: ...
    def check(self) -> None: ...
    def key(self, topic: str, suffix: str) -> bytes: ...
    def script(self, name: str) -> Script: ...
    @property
    def publish(self) -> str: ...
    def channel(self, topic: str) -> bytes: ...
    def connect(self) -> Connection: ...


class Process:
    """What one process has: a connection for commands, one for publications."""

    def __init__(
        self,
        server: Endpoint,
        host: Host | None,
        timings: Timings,
        presence_ttl: float,
    ) -> None:
        self._server = server
        self._timings = timings
        self._host = host
        # gevent's sockets belong to the thread that made them.
        patched = socket.socket.__module__.startswith("gevent")
        self._thread: Callable[[], int] = (
            threading.get_native_id if patched else lambda: 0
        )
        self._patched = patched
        self._pipes: dict[int, Pipe] = {}
        self._lock = threading.Lock()
        self._listening = self._stopping = self._stopped = False
        self._garbage = 0.0
        self._refused: dict[str, float] = {}  # when last, by the refusal's word
        self.seen = Seen()
        self.people = People(self.run, server, presence_ttl)
        self.wishes = Wishes(server.channel)
        self.subscriber = Subscriber(
            self,
            server,
            self.wishes,
            server.key(f"process:{self.people.process}", "probe"),
            timings,
        )

    def listen(self) -> None:
        """Have the connection for publications. Does not wait.

        :raises BackendError: there is no thread, or descriptor, for it; the next one
            who calls tries again.
        """
        if self._listening:
            return
        try:
            with self._lock:
                if self._listening:
                    return
                self.subscriber.prepare()
                self._listening = True
            self._begin(self.subscriber.run)
        except (OSError, RuntimeError) as error:
            self._listening = False
            raise BackendError(f"Redis cannot be listened to: {error}") from error

    def _begin(self, run: Callable[[], None]) -> None:
        if self._patched or self._host is None:
            # Patched, this is a greenlet in the loop that the connections are in: it
            # uses the loop's sockets, and hands on without waking another thread.
            threading.Thread(target=run, name="wschat-redis", daemon=True).start()
        else:
            self._host.start_thread(run)

    def stop(self) -> None:
        """Let go of everything; nothing can be had any more."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = self._listening = True
        if self.subscriber.fault is None:
            self.people.leave()
        self._stopped = True
        self.subscriber.stop()
        for pipe in self._pipes.values():
            pipe.close()

    def run(self, calls: Sequence[Call], *, again: bool) -> list[Reply]:
        """Return the replies to ``calls``, sent in one go.

        ``again``: they may be sent again, though the first ones may have arrived.

        :raises BackendError: one failed, or is not known to have not.
        """
        if self._stopped:
            raise BackendError("the connection to Redis was stopped")
        if self.subscriber.fault is not None:
            raise BackendError(self.subscriber.fault)  # who knows it need not wait
        try:
            return self._run(calls, again)
        except BackendError as error:
            self._note(error)
            raise

    def _run(self, calls: Sequence[Call], again: bool) -> list[Reply]:
        thread = self._thread()
        pipe = self._pipes.get(thread)
        if pipe is None:
            made = Pipe(self._server.connect, self._timings.idle)
            pipe = self._pipes.setdefault(thread, made)
        for last in (False, True):
            try:
                return _replies(pipe, calls)
            except LinkError as error:
                if last or error.silent or (error.sent and not again):
                    raise BackendError(self.words(error)) from error
            except ReplyError as error:
                if last or code_of(error) != "READONLY":
                    raise BackendError(self.words(error)) from error
                pipe.reset()  # there may be a new primary behind the name
        raise AssertionError("unreachable")

    def _note(self, error: BackendError) -> None:
        """Have a refusal in the log, once for as long as it lasts."""
        code = code_of(error.__cause__)
        if code is None or code in _PROBED:
            return
        now = time.monotonic()
        if now - self._refused.get(code, -_QUIET) >= _QUIET:
            logger.error("%s", error)
        self._refused[code] = now

    # -- what the subscriber asks of us

    def published(self, topic: str, payload: bytes) -> None:
        try:
            delivery = unpack_publication(topic, payload)
        except ValueError as error:
            now = time.monotonic()
            if now >= self._garbage:  # who sends one may send many
                self._garbage = now + 1
                logger.warning(
                    "ignored a strange publication to %s: %s",
                    printable(topic),
                    printable(error),
                )
            return
        if delivery.seq:
            self.seen.note(topic, delivery.epoch, delivery.seq)
        if self._host is not None:
            try:
                if delivery.message.event == MADE:
                    # A host that knows nothing of claims need not have it.
                    getattr(self._host, "made", _ignore)(topic)
                else:
                    self._host.deliver(delivery)
            except Exception:
                logger.exception("error in a delivery to %s", topic)

    def lost(self, topics: Sequence[str]) -> None:
        if self._host is not None:
            self._host.lost(topics)

    def probe(self, channel: bytes) -> None:
        # A write, as a replica or one with a full disk would publish all the same.
        self._run(
            [Call("DEL", [channel]), Call(self._server.publish, [channel, b""])], True
        )

    def words(self, error: Exception) -> str:
        if isinstance(error, BackendError):
            return str(error)
        return f"Redis at {self._server.where}{_words(as_refusal(error, True))}"

    def reset(self) -> None:
        for pipe in list(self._pipes.values()):
            pipe.reset()


def _replies(pipe: Pipe, calls: Sequence[Call]) -> list[Reply]:
    """Send ``calls``; send again as a whole the scripts that Redis has not seen.

    :raises LinkError: not all were answered.
    :raises ReplyError: Redis refused one.
    """
    replies = pipe.run(b"".join([call.packed for call in calls]), len(calls))
    unseen = [
        (index, call.whole())
        for index, call in enumerate(calls)
        if call.whole is not None and code_of(replies[index]) == "NOSCRIPT"
    ]
    if unseen:
        more = pipe.run(b"".join([packed for _, packed in unseen]), len(unseen))
        for (index, _), reply in zip(unseen, more, strict=True):
            replies[index] = reply
    for reply in replies:
        if isinstance(reply, ReplyError):
            raise reply
    return replies


def code_of(reply: Reply) -> str | None:
    """Return the word that an error of Redis's begins with, None if it is no error.

    Redis 6.2 puts the error of a command in a script behind words of its own.
    """
    if not isinstance(reply, ReplyError):
        return None
    text = str(reply)
    within = re.search(r"script: \d+: -([A-Z]+) ", text)
    return within[1] if within else text.split(" ", 1)[0]


def _words(error: LinkError | ReplyError) -> str:
    """Return what is the matter with Redis, and the remedy."""
    if isinstance(error, LinkError):
        return f" {error}"
    remedy = _WORDS.get(code_of(error) or "")
    return f" refused: {error}" if remedy is None else f": {remedy} ({error})"


def _ignore(topic: str) -> None:
    pass
