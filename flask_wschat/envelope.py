"""What the ready-made chat sends, word by word: ``docs/protocol.md`` as code.

Each function returns the JSON text of one message, in the order of that page. Nothing
else in the package spells a field of them; ``docs/protocol/wschat.v1.schema.json`` is
what their tests hold them to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from .messages import ANONYMOUS, Entry, Message, room_of, user_of

PROTOCOL = "wschat.v1.json"
"""The WebSocket subprotocol."""

ErrorCode = Literal[
    "bad_json",
    "bad_request",
    "unknown_type",
    "unauthorized",
    "forbidden",
    "not_joined",
    "too_many",
    "too_big",
    "rate_limited",
    "unavailable",
    "unknown_poll",
    "unknown_choice",
    "poll_closed",
    "internal",
]

encode: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode
"""Return a value as JSON, as compact as it can be.

:raises ValueError: JSON has no such number, or the nesting is too deep.
"""


def hello(id: str, user: str | None, *, ping: float, limits: Mapping[str, Any]) -> str:
    """Return what is sent first: who the client is, and what it may do."""
    return encode(
        {
            "type": "hello",
            "protocol": 1,
            "id": id,
            "user": user,
            "ping": ping,
            "limits": limits,
        }
    )


def reply(ref: int, result: Mapping[str, Any]) -> str:
    """Return the reply to a request that is done, with the fields of its result."""
    return encode({"type": "reply", "ref": ref, "ok": True, **result})


def stored(ref: int, seq: int, at: float) -> str:
    """Return the reply to ``say`` and ``tell``.

    It is the most frequent one; by ``encode`` it would cost several times as much:
    python -m timeit -s "from flask_wschat import envelope as e" "e.stored(1, 2, 3.5)"
    """
    return f'{{"type":"reply","ref":{ref},"ok":true,"seq":{seq},"at":{at}}}'


def page(ref: int, result: Mapping[str, Any], messages: Iterable[str]) -> str:
    """Return the reply to ``join``, ``inbox`` and ``history``.

    ``messages`` are texts of ``message``, each encoded once for all that is done to it.
    """
    return f'{reply(ref, result)[:-1]},"messages":[{",".join(messages)}]}}'


def refusal(
    ref: int | None, code: ErrorCode, why: str, *, retry_after: float | None = None
) -> str:
    """Return the reply to a request that is not done; ``retry_after``: seconds."""
    error: dict[str, Any] = {"code": code, "message": why}
    if retry_after is not None:
        error["retry_after"] = retry_after
    return encode({"type": "reply", "ref": ref, "ok": False, "error": error})


def message(topic: str, said: Entry | Message, seq: int, at: float) -> str:
    """Return a ``message``, or in the topic of a user a ``direct``."""
    data, sender = said.data, said.sender
    if isinstance(data, bytes):
        body = encode(base64.b64encode(data).decode()) + ',"binary":true'
    else:
        body = data if said.json else encode(data)
    if sender is not None and sender.startswith(ANONYMOUS):
        sender = None
    user = user_of(topic)
    if user is None:
        head = f'{{"type":"message","room":{encode(room_of(topic))}'
        head += f',"from":{encode(sender)}'
    else:
        to = user if said.to is None else said.to
        head = f'{{"type":"direct","from":{encode(sender)},"to":{encode(to)}'
    return f'{head},"seq":{seq},"data":{body},"at":{at},"mid":{encode(said.mid)}}}'


def presence(room: str, joined: Sequence[str], left: Sequence[str]) -> str:
    """Return the news of who came and went."""
    return encode({"type": "presence", "room": room, "joined": joined, "left": left})


def tally(poll: str, standing: Mapping[str, Any]) -> str:
    """Return the news of how a poll stands, with its fields."""
    return encode({"type": "tally", "poll": poll, **standing})


def tally_version(text: str | bytes) -> int:
    """Return the version of the poll in what ``tally`` returned."""
    version: int = json.loads(text)["version"]
    return version


def gap(topic: str) -> str:
    """Return the word that messages of ``topic`` were missed: read it again."""
    return encode({"type": "gap", "room": room_of(topic)})
