"""A client as docs/protocol.md tells how to write one, over a foreign library."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import random
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

Json = dict[str, Any]

DEADLINE = 30.0
"""Seconds that anything may take; reached only by a failure."""

INBOX = ""
"""The name of the feed that is no room's."""

_MAY_PASS = ("unavailable", "not_joined")


class Feed:
    """What one client has seen of a room, or of the inbox."""

    def __init__(self) -> None:
        self.epoch: str | None = None
        self.seq = 0
        self.messages: list[Json] = []
        self.joined = False  # on this connection
        self.present: list[str] = []
        """As the last reply to ``join`` had it."""
        self.resumed = 0
        """Messages that came with a reply."""
        self.gaps = self.jumps = self.repeated = self.unrecovered = 0
        self.streams: dict[str, Json] = {}
        """What grows, by its id: with `n` and `text`."""
        self.holes = 0
        """Pieces that were missing, and asked for."""
        self.discarded: dict[str, str | None] = {}
        """Why, by id; None: it had ended when we came back."""
        self.grew: list[tuple[str, int, str]] = []
        """Each state of what grows that was shown: id, pieces, text."""

    def take(self, message: Json) -> bool:
        """Show ``message``; False: one before it is missing."""
        seq = message["seq"]
        if seq <= self.seq:
            self.repeated += 1
            return True
        if seq > self.seq + 1:
            self.jumps += 1
            return False
        self.seq = seq
        self.messages.append(message)
        self.streams.pop(message["mid"], None)
        return True

    def take_page(self, reply: Json) -> None:
        """Show what a ``join`` was answered."""
        messages = reply["messages"]
        if not reply["recovered"]:
            self.unrecovered += self.epoch is not None
            self.messages, self.seq = [], reply["seq"] - len(messages)
        else:
            self.resumed += len(messages)
        self.epoch = reply["epoch"]
        for message in messages:
            self.take(message)
        for gone in self.streams.keys() - {each["id"] for each in reply["streams"]}:
            del self.streams[gone]
            if all(message["mid"] != gone for message in self.messages):
                self.discarded[gone] = None
        for stream in reply["streams"]:
            self.show(stream)
        self.present = reply.get("present", [])
        self.joined = not reply["more"]

    def show(self, stream: Json) -> None:
        """Show all that there is of what grows."""
        known = {name: stream[name] for name in ("id", "n", "text")}
        self.streams[stream["id"]] = known
        self.grew.append((known["id"], known["n"], known["text"]))

    def append(self, piece: Json) -> bool:
        """Show one piece more; False: one before it is missing."""
        known = self.streams.get(piece["id"])
        if known is None or piece["n"] > known["n"] + 1:
            self.holes += 1
            return False
        if piece["n"] == known["n"] + 1:
            self.show({**known, "n": piece["n"], "text": known["text"] + piece["text"]})
        return True


class Member:
    """One user's client: connects again, resumes, repeats what was not answered."""

    def __init__(
        self, address: str, user: str, rooms: Iterable[str] = (), *, inbox: bool = False
    ) -> None:
        self.user = user
        self.feeds = {room: Feed() for room in rooms}
        if inbox:
            self.feeds[INBOX] = Feed()
        self.passing: list[Json] = []
        """Messages without a number."""
        self.events: list[tuple[float, Json]] = []
        """Presence, tallies and gaps, with the time of their arrival."""
        self.refusals: list[tuple[int, str | None]] = []
        """The status and Retry-After of each opening that was refused."""
        self.errors: list[str] = []
        """The codes of the error replies."""
        self.closes: list[tuple[int, str]] = []
        self.connections = 0
        self.pid = 0
        """The process at the other end."""
        self.returns = True
        """It connects again."""
        self.ready = asyncio.Event()
        self._address = f"{address}?user={quote(user)}"
        self._client: ClientConnection | None = None
        self._asked: dict[int, Callable[[Json | None], None]] = {}
        self._refs = itertools.count(1)
        self._mids = (f"{random.getrandbits(32):x}-{n}" for n in itertools.count(1))
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life

    def start(self) -> None:
        self._spawn(self._run())

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Lose the network: no close frame, no goodbye."""
        if self._client is not None:
            self._client.transport.abort()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition`` holds; it is asked whenever something has come."""
        until = time.monotonic() + DEADLINE
        while not condition():
            self._news.clear()
            left = until - time.monotonic()
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except asyncio.TimeoutError:
                raise AssertionError(f"{self.user}: not in time: {what}") from None

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "error in a client", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _run(self) -> None:
        attempt = 0
        while True:
            begun, wait = time.monotonic(), 0.0
            with contextlib.suppress(OSError, EOFError, InvalidHandshake):
                try:
                    await self._serve(await self._connect())
                except InvalidStatus as error:
                    response = error.response
                    again = response.headers.get("Retry-After")
                    self.refusals.append((response.status_code, again))
                    wait = float(again or 0)
            self._news.set()
            ended = bool(self.closes) and not _comes_back(self.closes[-1][0])
            if ended or not self.returns:
                return
            attempt = 0 if time.monotonic() - begun > 5 else attempt
            await asyncio.sleep(wait + random.uniform(0, min(0.5 * 2**attempt, 10)))
            attempt += 1

    async def _connect(self) -> ClientConnection:
        return await connect(
            self._address,
            compression=None,
            max_size=None,
            max_queue=None,
            ping_interval=None,
            open_timeout=10,
            close_timeout=1,
            proxy=None,
        )

    async def _serve(self, client: ClientConnection) -> None:
        self._client = client
        self.connections += 1
        try:
            for name in self.feeds:
                await self._join(name)
            while True:
                await self._hear(json.loads(await client.recv()))
        except ConnectionClosed as error:
            close = error.rcvd
            self.closes.append((close.code, close.reason) if close else (1006, ""))
        finally:
            self._client = None
            self.ready.clear()
            for feed in self.feeds.values():
                feed.joined = False
            asked, self._asked = self._asked, {}
            for answer in asked.values():
                answer(None)
            await client.close()

    def told(self, kind: str, field: str, value: Any) -> list[float]:
        """Return when events came in whose ``field`` there was ``value``."""
        return [
            at
            for at, event in self.events
            if event["type"] == kind and value in event[field]
        ]

    async def hears(self, kind: str, field: str, value: Any) -> None:
        """Wait for such an event."""
        await self.until(
            lambda: self.told(kind, field, value), f"{kind} with {value} in {field}"
        )

    # -- what comes

    async def _hear(self, message: Json) -> None:
        kind = message["type"]
        if kind == "reply":
            if not message["ok"]:
                self.errors.append(message["error"]["code"])
            answer = self._asked.pop(message["ref"], None)
            if answer is not None:
                answer(message)
        elif kind in ("message", "direct"):
            name = message.get("room", INBOX)
            if message["seq"] == 0:
                self.passing.append(message)
            elif not self.feeds[name].take(message):
                await self._join(name)
        elif kind in ("stream", "append", "discard"):
            await self._hear_of_stream(message)
        elif kind == "process":
            self.pid = message["pid"]
            self._check_ready()
        elif kind != "hello":
            self.events.append((time.monotonic(), message))
            if kind == "gap":
                name = message["room"] or INBOX
                self.feeds[name].gaps += 1
                await self._join(name)
        self._news.set()

    async def _hear_of_stream(self, message: Json) -> None:
        name, id = message["room"] or INBOX, message["id"]
        feed, kind = self.feeds[name], message["type"]
        if kind == "stream":
            feed.show(message)
        elif kind == "discard":
            feed.streams.pop(id, None)
            feed.discarded[id] = message["reason"]
        elif not feed.append(message):

            def answered(reply: Json | None) -> None:
                if reply is not None and reply["ok"]:
                    feed.show(reply)

            fields: Json = {"room": name} if name != INBOX else {}
            await self._put("stream", {**fields, "id": id}, answered)

    async def _join(self, name: str, pause: float = 1.0) -> None:
        """Ask for what comes after that which is here."""
        feed = self.feeds[name]
        feed.joined = False
        self.ready.clear()
        fields: Json = {"room": name} if name != INBOX else {}
        if feed.epoch is not None:
            fields |= {"after": feed.seq, "epoch": feed.epoch}
        kind = "inbox" if name == INBOX else "join"
        await self._put(kind, fields, functools.partial(self._joined, name, pause))

    def _joined(self, name: str, pause: float, reply: Json | None) -> None:
        if reply is None:
            return
        feed = self.feeds[name]
        if reply["ok"]:
            feed.take_page(reply)
            if not feed.joined:
                self._spawn(self._join_later(name, 0, pause))
        else:
            assert reply["error"]["code"] == "unavailable", reply
            self._spawn(self._join_later(name, pause, 2 * pause))
        self._check_ready()

    def _check_ready(self) -> None:
        if all(feed.joined for feed in self.feeds.values()):
            self.ready.set()

    async def _join_later(self, name: str, pause: float, next_pause: float) -> None:
        client = self._client
        await asyncio.sleep(pause)
        if self._client is client and client is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._join(name, next_pause)

    # -- what is asked

    async def ask(self, kind: str, **fields: Any) -> Json | None:
        """Return the reply; None: the connection ended, or ten seconds have passed."""
        answer: asyncio.Future[Json | None] = asyncio.Future()

        def answered(reply: Json | None) -> None:
            if not answer.done():
                answer.set_result(reply)

        if self._client is None:
            return None
        with contextlib.suppress(ConnectionClosed):
            await self._put(kind, fields, answered)
            late = asyncio.get_running_loop().call_later(10, answered, None)
            try:
                return await answer
            finally:
                late.cancel()
        return None

    async def insist(self, kind: str, **fields: Any) -> Json:
        """Ask until it is done; what changes something is the same each time."""
        pause = 1.0
        while True:
            await self.ready.wait()
            reply = await self.ask(kind, **fields)
            if reply is not None and reply["ok"]:
                return reply
            if reply is not None:
                code = reply["error"]["code"]
                assert code in _MAY_PASS, reply
                if code == "unavailable":
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 10)

    async def say(self, room: str, data: Any) -> tuple[str, int]:
        """Return the mid and the number of what is stored now."""
        mid = next(self._mids)
        reply = await self.insist("say", room=room, data=data, mid=mid)
        return mid, reply["seq"]

    async def _put(
        self, kind: str, fields: Json, answer: Callable[[Json | None], None]
    ) -> None:
        if self._client is None:
            answer(None)
            return
        ref = next(self._refs)
        self._asked[ref] = answer
        try:
            await self._client.send(json.dumps({"type": kind, "ref": ref, **fields}))
        except ConnectionClosed:
            self.ready.clear()  # the reader hears of it only later
            raise


def _comes_back(code: int) -> bool:
    """Whether a client connects again after a close with ``code``."""
    return code not in (1000, 1008) and not 4000 <= code <= 4499
