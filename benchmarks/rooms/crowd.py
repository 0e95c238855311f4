"""Thousands of clients of the ready-made chat in one thread, as cheap as can be.

They speak docs/protocol.md as wschat.js does: come back after a random time, resume
with what they have, wait a random part of a gap's spread, give up a request after ten
seconds and then the connection. Frames are read by hand, and left unread where nobody
asks what is in them, as what is measured is the servers, on the same machine.
"""

from __future__ import annotations

import base64
import errno
import heapq
import itertools
import json
import random
import resource
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

Json = dict[str, Any]

PATIENCE = 10.0
"""Seconds until a request without an answer is given up: as in wschat.js."""
FIRST, CAP = 0.5, 10.0
"""Seconds: see FIRST and CAP in wschat.js."""
OPENING = 256
"""Connections that are opened at the same time."""
LOOK = 0.01
"""Seconds between two looks at what is waited for."""
SOURCES = 20
"""Loopback addresses that the connections come from."""
PASSING = ("unavailable", "rate_limited", "internal", "not_joined")

_BIND_ADDRESS_NO_PORT = 24
"""Of Linux: a port is one of each pair of addresses, not of all of them."""
_BODY = b'{"type":"%s"'
_REPLY, _MESSAGE, _PRESENCE, _TALLY = (
    _BODY.replace(b"%s", kind) for kind in (b"reply", b"message", b"presence", b"tally")
)
_KEY = base64.b64encode(bytes(16)).decode()


def allow_descriptors() -> None:
    """Let this program, and what it starts, have as many as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass
class View:
    """What a client shows, from a point at which it was told that it begins anew."""

    epoch: str
    first: int
    """The number before its first message."""
    messages: list[Json] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    """When it was told that something may be missing, and it was not."""


class Member:
    """One client, in one room."""

    __slots__ = (
        *("crowd", "user", "room", "address", "sock", "open", "joined", "wanted"),
        *("epoch", "seq", "tag", "attempt", "tries", "rest", "asked", "opened_at"),
        *("views", "roster", "tallies", "hears", "born", "life", "news", "counted"),
    )

    def __init__(
        self, crowd: Crowd, user: str, room: str, port: int, source: str
    ) -> None:
        self.crowd = crowd
        self.user = user
        self.room = room
        self.address = (port, source)
        self.sock: socket.socket | None = None
        self.open = False
        self.joined = False
        self.wanted = True
        """It is to be in the room."""
        self.epoch: str | None = None
        self.seq = 0
        self.tag = ""
        self.attempt = 0
        self.tries = 0
        self.rest = b""
        self.asked: dict[int, Callable[[Json | None], None]] = {}
        self.opened_at = 0.0
        self.views: list[View] = []
        self.roster: set[str] = set()
        self.tallies: list[Json] = []
        self.hears = crowd.hears
        self.born = 0.0
        self.life = 0
        """Counts connections: what waits for one that has ended is void."""
        self.news: list[Json] = []
        self.counted = False

    # -- the connection

    def connect(self) -> None:
        port, source = self.address
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
        self.life += 1
        self.sock, self.open, self.rest = sock, False, b""
        self.born = time.monotonic()
        self.crowd.opening += 1
        code = sock.connect_ex(("127.0.0.1", port))
        self.crowd.watch(sock, self)
        if code not in (0, errno.EINPROGRESS):
            self.lost("connect")
            return
        self.crowd.later(PATIENCE, self._still_opening, self.life)

    def greet(self) -> None:
        """Send the opening request: the connection stands."""
        self.crowd.read_only(self)
        path = f"{self.crowd.path}?user={quote(self.user)}"
        head = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.address[0]}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {_KEY}\r\n\r\n"
        )
        self._put(head.encode())

    def _still_opening(self, life: int) -> None:
        if life == self.life and not self.open and self.sock is not None:
            self.crowd.count["openings given up"] += 1
            self.lost("opening")

    def cut(self) -> None:
        """Lose the network, without a goodbye; and come back."""
        if self.sock is not None:
            linger = b"\1\0\0\0\0\0\0\0"
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.lost("cut")

    def close(self) -> None:
        """Be gone for good."""
        self.wanted = False
        self._drop()

    def _drop(self) -> None:
        if self.sock is not None:
            self.crowd.forget(self)
            self.sock.close()
            self.sock = None
        self._away()
        self.life += 1
        asked, self.asked = self.asked, {}
        for answer in asked.values():
            answer(None)

    def lost(self, why: str) -> None:
        """The connection has ended: come back after a time."""
        self.crowd.count[f"ends: {why}"] += 1
        if self.opened_at and time.monotonic() - self.opened_at > 5:
            self.attempt = 0
        self.opened_at = 0.0
        self._drop()
        if self.crowd.returns:
            wait = random.random() * min(CAP, FIRST * 2**self.attempt)
            self.attempt += 1
            self.crowd.later(wait, self._come_back, self.life)

    def _come_back(self, life: int) -> None:
        if life == self.life and self.sock is None:
            self.crowd.queue(self)

    def _away(self) -> None:
        if self.joined:
            self.joined = False
            self.crowd.joined -= 1

    def _put(self, data: bytes) -> None:
        if self.sock is None:
            return
        try:
            if self.sock.send(data) != len(data):
                raise BlockingIOError
        except BlockingIOError:
            self.crowd.count["sends refused by the kernel"] += 1
            self.lost("full")
        except OSError:
            self.lost("reset")

    def read(self) -> None:
        """Take what has come."""
        assert self.sock is not None
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            self.lost("reset")
            return
        if not data:
            self.lost("closed")
            return
        if self.rest:
            data = self.rest + data
        if not self.open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.rest = data
                return
            status = data[9:12].decode("latin-1")
            if status != "101":
                self.crowd.count[f"refused with {status}"] += 1
                self.lost("refused")
                return
            self.open, self.opened_at = True, time.monotonic()
            self.crowd.opening -= 1
            data = data[end + 4 :]
            if self.wanted and self.crowd.joins:
                self.join()
        self._frames(data)

    def _frames(self, data: bytes) -> None:
        at, size, life = 0, len(data), self.life
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if size < start + length:
                break
            opcode = data[at] & 15
            at = start + length
            if opcode == 1:
                self._hear(data[start:at])
            elif opcode == 8:
                code = int.from_bytes(data[start : start + 2], "big")
                self.lost(str(code))
            elif opcode == 9:
                self._put(_framed(data[start:at], 10))
            if self.life != life:
                return
        self.rest = data[at:]

    # -- what is asked

    def ask(
        self, kind: str, answer: Callable[[Json | None], None], **fields: Any
    ) -> None:
        """Send a request; ``answer`` gets the reply, or None: it is not known."""
        if self.sock is None or not self.open:
            self.crowd.later(0.05, _unanswered, answer)
            return
        ref = next(self.crowd.refs)
        self.asked[ref] = answer
        request = {"type": kind, "ref": ref, **fields}
        life = self.life
        self.crowd.later(PATIENCE, self._overdue, (ref, life))
        self._put(_framed(json.dumps(request).encode(), 1))

    def _overdue(self, which: tuple[int, int]) -> None:
        ref, life = which
        if life == self.life and ref in self.asked:
            self.crowd.count["time-outs"] += 1
            self.lost("time-out")

    def join(self, _: object = None) -> None:
        """Ask for what comes after that which is here."""
        self._away()
        fields: Json = {"room": self.room}
        if self.epoch is not None:
            fields |= {"after": self.seq, "epoch": self.epoch}
            if self.tag:
                fields["tag"] = self.tag
        self.ask("join", self._answered, **fields)

    def leave(self) -> None:
        """Go out of the room, and stay connected; until it is said, again and again."""
        self.wanted = False
        self._away()
        life = self.life

        def again(_: object) -> None:
            if life == self.life and not self.wanted:
                self.leave()

        def left(reply: Json | None) -> None:
            if reply is not None and not reply["ok"]:
                self.crowd.later(0.2, again, None)

        self.ask("leave", left, room=self.room)

    def _join_again(self, life: int) -> None:
        if life == self.life and self.wanted and self.open:
            self.join()

    def _answered(self, reply: Json | None) -> None:
        if reply is None or not self.wanted:
            return
        if not reply["ok"]:
            error = reply["error"]
            self.crowd.count[error["code"]] += 1
            wait = random.random() * min(CAP, FIRST * 2**self.tries)
            self.tries += 1
            wait = max(wait, error.get("retry_after", 0.0))
            self.crowd.later(wait, self._join_again, self.life)
            return
        self.tries = 0
        self._page(reply)
        if reply["more"]:
            self.join()
        elif not self.joined:
            self.joined = True
            self.crowd.joined += 1
            self.crowd.comings.append(time.monotonic())
            if not self.counted:
                self.counted = True
                self.crowd.entered += 1

    # -- what comes

    def _page(self, reply: Json) -> None:
        messages = reply["messages"]
        if self.epoch is None or not reply["recovered"]:
            if self.epoch is not None:
                self.crowd.count["not recovered"] += 1
            self.seq = reply["seq"] - len(messages)
            if self.hears:
                self.views.append(View(reply["epoch"], self.seq))
                self.views[-1].told.append(time.monotonic())
        elif messages:
            self.crowd.count["read again"] += len(messages)
        self.epoch = reply["epoch"]
        for message in messages:
            self._message(message["seq"], message)
        if not reply["more"]:
            self.seq = reply["seq"]
        if messages or reply.get("tag"):
            self.tag = reply.get("tag") or messages[-1].get("tag", "")
        if self.hears and "present" in reply:
            self.roster = set(reply["present"])

    def _message(self, seq: int, message: Json) -> None:
        if seq == 0:
            return
        if seq <= self.seq:
            self.crowd.count["repeated"] += 1
        elif seq > self.seq + 1:
            self.crowd.count["jumps"] += 1
            self.join()
        else:
            self.seq = seq
            self.tag = message.get("tag", "")
            if self.hears and self.views:
                self.views[-1].messages.append(message)

    def _hear(self, body: bytes) -> None:
        if not self.hears:
            if body.startswith(_MESSAGE):
                if not self.joined:
                    return
                at = body.find(b'"seq":') + 6
                seq = int(body[at : body.find(b",", at)])
                if seq == self.seq + 1 and b'"tag":' not in body:
                    self.seq = seq
                    return
            elif body.startswith((_PRESENCE, _TALLY)):
                self.crowd.presence += 1
                return
        message = json.loads(body)
        kind = message["type"]
        if kind == "reply":
            answer = self.asked.pop(message["ref"], None)
            if answer is not None:
                answer(message)
        elif kind == "message":
            if self.joined:
                self._message(message["seq"], message)
        elif kind == "gap":
            self.crowd.count["gaps"] += 1
            self._away()
            if self.views:
                self.views[-1].told.append(time.monotonic())
            spread = message.get("spread") or 0.0
            self.crowd.later(random.random() * spread, self._join_again, self.life)
        elif kind == "presence":
            if message["room"] == self.room:
                self.roster |= set(message.get("joined", ()))
                self.roster -= set(message.get("left", ()))
        elif kind == "tally":
            self.tallies.append(message)
        else:
            self.news.append(message)

    # -- what it does for long

    def say(
        self,
        data: Any,
        mid: str,
        done: Callable[[Json], None],
        attempt: int = 0,
    ) -> None:
        """Say it until it is acknowledged, with the same ``mid`` each time."""
        self.insist("say", done, attempt, room=self.room, data=data, mid=mid)

    def insist(
        self, kind: str, done: Callable[[Json], None], attempt: int = 0, **fields: Any
    ) -> None:
        """Ask until the reply is ``ok``."""

        def again(_: object = None) -> None:
            self.insist(kind, done, attempt + 1, **fields)

        def answered(reply: Json | None) -> None:
            if reply is not None and reply["ok"]:
                done(reply)
                return
            if reply is not None:
                code = reply["error"]["code"]
                self.crowd.count[code] += 1
                assert code in PASSING, reply
            wait = (0.5 + random.random()) * min(2.0, 0.1 * 2**attempt)
            self.crowd.later(wait, again, None)

        if (self.joined or kind != "say") and self.open:
            self.ask(kind, answered, **fields)
        else:
            self.crowd.later(0.05, lambda _: self.insist(kind, done, **fields), None)


class Crowd:
    """All the members, and the loop in which they live.

    :param path: where the chat is served
    :param hears: they keep what they are sent
    """

    def __init__(self, path: str = "/chat", *, hears: bool = False) -> None:
        self.path = path
        self.hears = hears
        self.joins = True
        """They enter their room as soon as they are connected."""
        self.returns = True
        """They come back when their connection has ended."""
        self.members: list[Member] = []
        self.comings: list[float] = []
        """When one of them came into its room, or back."""
        self.count: Counter[str] = Counter()
        self.opening = self.joined = self.entered = self.presence = 0
        self.refs = itertools.count(1)
        self._numbers = itertools.count()
        self._waiting: list[Member] = []
        self._epoll = select.epoll()
        self._by_fd: dict[int, Member] = {}
        self._timers: list[tuple[float, int, Callable[[Any], None], Any]] = []

    def add(
        self,
        count: int,
        ports: Sequence[int],
        room: str = "Lobby",
        user: str | None = None,
    ) -> None:
        """Let so many more come, to the ports in turn; users of their own, or one."""
        for number in range(len(self.members), len(self.members) + count):
            port = ports[number % len(ports)]
            source = f"127.0.0.{2 + number % SOURCES}"
            member = Member(self, user or f"user {number}", room, port, source)
            self.members.append(member)
            self.queue(member)

    def queue(self, member: Member) -> None:
        self._waiting.append(member)

    def later(self, seconds: float, do: Callable[[Any], None], what: Any) -> None:
        """Call ``do(what)`` after so many seconds."""
        entry = (time.monotonic() + seconds, next(self._numbers), do, what)
        heapq.heappush(self._timers, entry)

    def watch(self, sock: socket.socket, member: Member) -> None:
        self._by_fd[sock.fileno()] = member
        self._epoll.register(sock, select.EPOLLOUT)

    def read_only(self, member: Member) -> None:
        assert member.sock is not None
        self._epoll.modify(member.sock, select.EPOLLIN)

    def forget(self, member: Member) -> None:
        assert member.sock is not None
        if not member.open:
            self.opening -= 1
        member.open = False
        self._epoll.unregister(member.sock)
        del self._by_fd[member.sock.fileno()]

    def run(self, until: Callable[[], object], seconds: float) -> float | None:
        """Live until ``until`` holds; return the seconds, None: not in that time."""
        began = looked = time.monotonic()
        while True:
            now = time.monotonic()
            if now - looked >= LOOK:
                looked = now
                if until():
                    return now - began
                if now - began > seconds:
                    return None
            while self._timers and self._timers[0][0] <= now:
                _, _, do, what = heapq.heappop(self._timers)
                do(what)
            while self._waiting and self.opening < OPENING:
                self._waiting.pop(0).connect()
            wait = LOOK
            if self._timers:
                wait = max(min(wait, self._timers[0][0] - now), 0.0)
            for fd, event in self._epoll.poll(wait, 256):
                member = self._by_fd.get(fd)
                if member is None:
                    continue
                if event & select.EPOLLOUT and not event & select.EPOLLHUP:
                    member.greet()
                else:
                    member.read()

    def rest(self, seconds: float) -> None:
        """Live for so long."""
        end = time.monotonic() + seconds
        self.run(lambda: time.monotonic() >= end, seconds + 1)

    def all_have(self, seq: int, epoch: str | None = None) -> bool:
        """Whether all are in the room and have this message."""
        return self.joined == len(self.members) and all(
            m.seq >= seq and (epoch is None or m.epoch == epoch) for m in self.members
        )

    def close(self) -> None:
        self.returns = False
        for member in self.members:
            member.close()
        self._epoll.close()


def _unanswered(answer: Callable[[Json | None], None]) -> None:
    answer(None)


def _framed(body: bytes, opcode: int) -> bytes:
    """Return a client's frame; with a mask of zeros, which leaves the body as it is."""
    length = len(body)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    else:
        head = bytes((0x80 | opcode, 0xFE)) + length.to_bytes(2, "big")
    return head + bytes(4) + body
