"""A client of the ready-made chat, over a foreign library."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from .waiting import DEADLINE

Json = dict[str, Any]


class ChatClient:
    """One open connection. What comes before that which was asked for is kept.

    ``seconds``: as long it waits for anything.
    """

    escapes = False
    """What is not ASCII is sent as ``\\u…``."""

    def __init__(self, client: ClientConnection, seconds: float = DEADLINE) -> None:
        self.client = client
        self.seconds = seconds
        self.events: list[Json] = []
        """What came, and nobody has asked for yet."""
        self._ref = 0
        self.hello = self.hear()
        assert self.hello["type"] == "hello"
        self.user: Any = self.hello["user"]

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def hear(self) -> Json:
        """Return what comes next."""
        message: Json = json.loads(self.client.recv(timeout=self.seconds))
        return message

    def put(self, kind: str, **fields: Any) -> int:
        """Send a request; return its number."""
        self._ref += 1
        request = {"type": kind, "ref": self._ref, **fields}
        self.client.send(json.dumps(request, ensure_ascii=self.escapes))
        return self._ref

    def reply(self, ref: int | None) -> Json:
        """Return the reply to request ``ref``."""
        while (message := self.hear())["type"] != "reply":
            self.events.append(message)
        assert message["ref"] == ref, message
        return message

    def ask(self, kind: str, **fields: Any) -> Json:
        """Send a request; return its reply."""
        return self.reply(self.put(kind, **fields))

    def expect(self, kind: str, **fields: Any) -> Json:
        """Return the next event of a type, with these fields if any; drop others."""
        while True:
            event = self.events.pop(0) if self.events else self.hear()
            if event["type"] == kind and fields.items() <= event.items():
                return event

    def pick(self, kind: str) -> Json:
        """Return the next event of a type; keep others."""
        while True:
            for event in self.events:
                if event["type"] == kind:
                    self.events.remove(event)
                    return event
            self.events.append(self.hear())

    def closed(self) -> tuple[int, str]:
        """Return the code and the reason that the server closes with."""
        with pytest.raises(ConnectionClosed) as end:
            while True:
                self.hear()
        frame = end.value.rcvd
        assert frame is not None, "the stream ended without a close frame"
        return frame.code, frame.reason

    def close(self) -> None:
        self.client.close()
