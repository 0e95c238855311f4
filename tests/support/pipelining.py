"""A client that waits for no reply before it says the next thing, as simple as the
protocol's page ("Once") lets one be."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .chat_client import ChatClient, Json
from .waiting import LONG

_PASS = ("unavailable", "rate_limited", "internal")


class _Item:
    """One thing that is to be said."""

    def __init__(self, mid: str, data: Any) -> None:
        self.mid = mid
        self.data = data
        self.ref: int | None = None  # under way
        self.later = 0.0  # not to be sent before


class Pipeline:
    """Says things in one place, ``say`` in a room or ``tell`` to a user, in order.

    ``connect`` opens a connection; ``name`` is what its mids begin with; ``place`` is
    ``{"room": …}`` or ``{"to": …}``; ``window``: so many are under way at most.
    """

    def __init__(
        self,
        connect: Callable[[], ChatClient],
        name: str,
        place: Json,
        *,
        window: int = 20,
    ) -> None:
        self.refused: Counter[str] = Counter()
        """Error replies, by their code."""
        self.stored: dict[str, int] = {}
        """Numbers by mid."""
        self.given_up: list[Any] = []
        """The data of those that were refused for good."""
        self.sent = 0
        self.connections = 0
        self._connect = connect
        self._name = name
        self._window = window
        self._place = place
        self._kind = "say" if "room" in place else "tell"
        self._peer: ChatClient | None = None
        self._items: list[_Item] = []

    def run(self, data: Iterable[Any], seconds: float = LONG) -> Pipeline:
        """Say ``data``; return when each is stored, or given up."""
        first = len(self.stored) + len(self.given_up)
        items = [_Item(f"{self._name}-{n}", each) for n, each in enumerate(data, first)]
        self._items = items
        until = time.monotonic() + seconds
        while self._items:
            assert time.monotonic() < until, f"not in time: {self.refused}"
            try:
                if self._peer is None:
                    self._begin()
                self._send()
                self._hear()
            except (OSError, EOFError, ConnectionClosed, InvalidHandshake):
                self._lose()
        return self

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def cut(self) -> None:
        """Lose the connection, with all that was not read."""
        if self._peer is not None:
            with contextlib.suppress(OSError):
                self._peer.client.close_socket()

    # -- within

    def _begin(self) -> None:
        peer = self._connect()
        self.connections += 1
        if self._kind == "say":
            reply = ChatClient.ask(peer, "join", **self._place)
            if not reply["ok"]:  # the storage is away
                time.sleep(0.05)
                raise EOFError
        self._peer = peer

    def _lose(self) -> None:
        if self._peer is not None:
            self.cut()
            self._peer = None
        time.sleep(0.02)
        for item in self._items:
            item.ref = None

    def _send(self) -> None:
        """Send what is not under way, in order; each behind what has no reply yet."""
        assert self._peer is not None
        now, before, under_way = time.monotonic(), None, 0
        for item in self._items:
            if under_way >= self._window:
                break
            if item.ref is None:
                if item.later > now:
                    break  # those behind it wait for it
                fields = {"data": item.data, "mid": item.mid, **self._place}
                if before is not None:
                    fields["prev"] = before.mid
                item.ref = self._peer.put(self._kind, **fields)
                self.sent += 1
            before, under_way = item, under_way + 1

    def _hear(self) -> None:
        assert self._peer is not None
        wait = 10.0
        if all(item.ref is None for item in self._items):
            wait = max(self._items[0].later - time.monotonic(), 0) + 0.001
        try:
            message = json.loads(self._peer.client.recv(timeout=wait))
        except TimeoutError:
            if wait == 10.0:
                raise  # no answer: as a lost connection
            return
        if message["type"] != "reply":
            return
        (item,) = (i for i in self._items if i.ref == message["ref"])
        item.ref = None
        if message["ok"]:
            self.stored[item.mid] = message["seq"]
            self._items.remove(item)
            return
        error = message["error"]
        self.refused[error["code"]] += 1
        if error["code"] == "rate_limited":
            self._window = 1  # or all under way would be over it, and the end 1008
        if error["code"] in _PASS:
            pause = error.get("retry_after", 0.05)
            item.later = time.monotonic() + pause
        elif error["code"] != "out_of_order":
            self.given_up.append(item.data)
            self._items.remove(item)
