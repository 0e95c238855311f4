"""The schema of the ready-made chat: ``docs/protocol/wschat.v1.schema.json``.

    python -m flask_wschat.documents.protocol >docs/protocol/wschat.v1.schema.json

See docs/decisions/52.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ..chat import wire
from ..chat.fields import Epoch
from ..chat.listener import ChatListener
from .requests import request
from .schema import Definitions, Schema

NAMES: dict[type, str] = {
    # A request may have the name of what a server sends.
    **{
        kind: f"{name}.event" if name in wire.REPLIES else name
        for name, kind in wire.SENT.items()
    },
    wire.Emitted: "emitted",
    wire.Limits: "limits",
    wire.Rate: "rate",
    wire.Error: "error",
    wire.Refusal: "error.reply",
}
_WORDS = (
    "Each message of the protocol, one by one in $defs; protocol.md says what they"
    " mean. Fields that are not listed are to be ignored."
)


def schema() -> Schema:
    """Return the schema of all that a client and a server may say."""
    defs = Definitions(NAMES)
    for kind in wire.SENT.values():
        defs.refer(kind)
    defs.refer(wire.Emitted)
    defs.all["emitted"]["additionalProperties"] = True
    defs.refer(wire.Ref)
    defs.refer(Epoch)
    handlers = ChatListener._handlers
    requests = {name: request(defs, handlers[name]) for name in wire.REPLIES}
    defs.all["presence"]["oneOf"] = [
        {"required": ["joined", "left"]},
        {"required": ["count"]},
    ]
    replies = {f"{name}.reply": wire.REPLIES[name] for name in requests}
    found = {name: _reply(defs, name, kind) for name, kind in replies.items()}
    defs.refer(wire.Refusal)
    defs.all |= requests
    defs.all["client"] = {
        "description": "What a client sends.",
        "oneOf": defs.refs(requests),
    }
    defs.all |= found
    defs.all["reply"] = {
        "description": "The one answer to each request; which of these, tells the"
        " request with the same ref.",
        "anyOf": defs.refs([*replies, "error.reply"]),
    }
    defs.all["server"] = {
        "description": "What a server sends.",
        "anyOf": defs.refs(
            [*(NAMES[kind] for kind in wire.SENT.values()), "reply", "emitted"]
        ),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:wschat:v1",
        "title": "wschat.v1.json",
        "description": _WORDS,
        "anyOf": defs.refs(["client", "server"]),
        "$defs": defs.all,
    }


def _reply(defs: Definitions, name: str, kind: Any) -> Schema:
    found = defs.struct(kind)
    return {**found, "description": f"To {name.removesuffix('.reply')}."}


def text() -> str:
    """Return the file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
