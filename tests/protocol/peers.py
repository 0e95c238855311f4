"""The schema of docs/protocol, and foreign clients that hold both sides to it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema

from flask_wschat.chat.listener import ChatListener
from tests.support.chat_client import ChatClient, Json
from tests.support.live import LiveServer

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocol.md").read_text()
SCHEMA = json.loads((DOCS / "protocol" / "wschat.v1.schema.json").read_text())
DEFS: dict[str, Any] = SCHEMA["$defs"]

REQUESTS = (
    "join",
    "inbox",
    "leave",
    "say",
    "tell",
    "history",
    "who",
    "vote",
    "poll",
    "stream",
    "stop",
    "ping",
)
EVENTS = (
    "hello",
    "message",
    "direct",
    "deleted",
    "stream",
    "append",
    "discard",
    "presence",
    "tally",
    "gap",
)
ENVELOPE = {"type", "ref", "ok"}


def strict() -> Json:
    """The messages as the wire must be today: no field beyond those listed."""
    definitions = copy.deepcopy(DEFS)
    for definition in definitions.values():
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
    return definitions


VALIDATORS = {
    name: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": defs})
    for defs in [strict()]
    for name in DEFS
}


def definition(event: str) -> str:
    """Return what the schema calls an event; a request has the name of one."""
    return f"{event}.event" if event in REQUESTS else event


def check(name: str, message: Json) -> Json:
    """Return ``message``; it is what the schema calls ``name``, and no more."""
    errors = [error.message for error in VALIDATORS[name].iter_errors(message)]
    assert errors == [], (name, message)
    return message


class Chat(ChatListener):
    """Some things are not allowed, and one fails."""

    def can_join(self, user: str | None, room: str) -> bool:
        return room != "Cellar"

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        if data == "fail":
            raise LookupError("the application's own")
        return bool(data != "rude")

    def can_tell(self, user: str | None, to: str) -> bool:
        return to != "the boss"


class Peer(ChatClient):
    """One connection of a foreign client; all it sends and gets is checked."""

    def __init__(self, server: LiveServer, user: str = "") -> None:
        # It would stop reading, and so not see the end, where much is unread.
        super().__init__(server.connect(f"/chat?user={user}", max_queue=None))

    def hear(self) -> Json:
        message = super().hear()
        if message["type"] != "reply":
            kind = definition(message["type"])
            check(kind if kind in DEFS else "emitted", message)
        return message

    def ask(self, kind: str, **fields: Any) -> Json:
        """Return the reply to a request that the schema allows."""
        request = {"type": kind, "ref": self._ref + 1, **fields}
        check(kind, request)
        return check(f"{kind}.reply", super().ask(kind, **fields))

    def fail(self, kind: str, **fields: Any) -> Json:
        """Return the error of a request."""
        reply = check("error.reply", super().ask(kind, **fields))
        error: Json = reply["error"]
        return error


Meet = Callable[..., Peer]
"""Connect as a user, into a room if one is named."""
