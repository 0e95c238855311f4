"""What the ready-made chat sends, word by word: ``docs/protocol.md`` as code.

Each function returns the JSON text of one message, in the order of that page. Nothing
else in the package spells a field of them, but a poll its standing;
``docs/protocol/wschat.v1.schema.json`` is what their tests hold them to.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from .messages import ANONYMOUS, Entry, Grown, Message, room_of, user_of
from .rate import Bucket

PROTOCOL = "wschat.v1.json"
"""The WebSocket subprotocol."""

TYPES = frozenset(
    {
        *("join", "inbox", "leave", "say", "tell", "history", "who", "vote", "poll"),
        *("ping", "stream", "stop", "hello", "reply", "message", "direct", "deleted"),
        *("append", "discard", "presence", "tally", "gap"),
    }
)
"""What messages of the protocol's own are called, in either direction."""

BESIDE = frozenset(("type", "room", "from"))
"""What an event of an application has beside its own fields."""

ErrorCode = Literal[
    "bad_json",
    "bad_request",
    "unknown_type",
    "unauthorized",
    "forbidden",
    "not_joined",
    "out_of_order",
    "too_many",
    "too_big",
    "rate_limited",
    "unavailable",
    "unknown_poll",
    "unknown_stream",
    "unknown_choice",
    "poll_closed",
    "internal",
]

_quoted = json.encoder.encode_basestring
_encode: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode
_encode_fast = msgspec.json.Encoder().encode
_SHORT = 400  # characters that are looked through faster than they are made
_has_exponent = re.compile(r"e(?<=[0-9]e)").search


def encode(value: Any) -> str:
    """Return a value as JSON, as compact as it can be.

    :raises ValueError: JSON has no such number, or the nesting is too deep.
    """
    try:
        text = _encode_fast(value).decode()
    except TypeError:  # a text of a class of its own, for example
        return _encode(value)
    # In a fifth of the time, but to the letter the same: NaN is null to msgspec, which
    # writes 1e16 and 0.00001 where Python has 1e+16 and 1e-05.
    if "null" in text or "0.0000" in text or len(text) > _SHORT or _has_exponent(text):
        return _encode(value)
    return text


def encoder(dumps: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return what makes JSON of an application's values, as compact as it can be.

    ``dumps``, the application's own, is asked for those that are no types of JSON, nor
    any that msgspec knows. It raises ``TypeError`` where nobody knows one, and
    ``ValueError`` where JSON has no such thing.
    """

    def known(value: Any) -> msgspec.Raw:
        if isinstance(value, msgspec.Raw):  # what this has made stood for a key
            raise TypeError("JSON has no such key in an object")
        return msgspec.Raw(dumps(value).encode())

    to_bytes = msgspec.json.Encoder(enc_hook=known).encode
    options: Any = {"enc_hook": lambda value: None, "str_keys": True}

    def encode(value: Any) -> str:
        try:
            text = to_bytes(value).decode()
            if "null" in text and not _is_finite(msgspec.to_builtins(value, **options)):
                raise ValueError("JSON has no NaN and no infinity (RFC 8259 §6)")
            return text
        except UnicodeEncodeError:
            words = "half a surrogate pair cannot be sent as text (RFC 6455 §5.6)"
            raise ValueError(words) from None
        except RecursionError:
            raise ValueError("this is nested too deeply for JSON") from None

    return encode


def _is_finite(value: Any) -> bool:
    """Whether there is no number in it that msgspec writes as null."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return True


def quote(text: str | None) -> str:
    """Return what ``encode`` does, of None at a twentieth of its cost.

    python -m timeit -s "from flask_wschat import envelope as e" "e.quote('ann')"
    """
    return "null" if text is None else _quoted(text)


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


def rate(bucket: Bucket | None) -> dict[str, float] | None:
    """Return what fills ``bucket`` as one of the limits in ``hello``."""
    if bucket is None:
        return None
    per_second, burst = bucket.rate
    return {"per_second": per_second, "burst": burst}


def reply(ref: int, **result: Any) -> str:
    """Return the reply to a request that is done; for ``leave`` and ``ping`` all of it.

    ``vote`` and ``poll`` have the fields of a standing as their result.
    """
    return encode({"type": "reply", "ref": ref, "ok": True, **result})


def result(ref: int, result: str) -> str:
    """Return the reply to an event of the application's; ``result``: its JSON."""
    return f'{{"type":"reply","ref":{ref},"ok":true,"result":{result}}}'


def stored(ref: int, seq: int, at: float) -> str:
    """Return the reply to ``say`` and ``tell``.

    It is the most frequent one; by ``encode`` it would cost several times as much:
    python -m timeit -s "from flask_wschat import envelope as e" "e.stored(1, 2, 3.5)"
    """
    return f'{{"type":"reply","ref":{ref},"ok":true,"seq":{seq},"at":{at}}}'


def page(
    epoch: str, seq: int, tag: str, messages: str, *, recovered: bool, more: bool
) -> str:
    """Return what is the same in the replies to all who ask for a page.

    ``messages`` are texts that ``message`` has returned, with commas between them.
    """
    fields = {
        "epoch": epoch,
        "seq": seq,
        "tag": tag,
        "recovered": recovered,
        "more": more,
    }
    return f'{encode(fields)[1:-1]},"messages":[{messages}]'


def read(ref: int, page: str, streams: str, people: str = "") -> str:
    """Return the reply to ``join``, with what ``people`` returned, or to ``inbox``.

    ``streams``: texts that ``stream`` has returned, with commas between them.
    """
    head = f'{{"type":"reply","ref":{ref},"ok":true,{page}'
    return f'{head},"streams":[{streams}]{people}}}'


def history(ref: int, epoch: str, seq: int, messages: str) -> str:
    """Return the reply to ``history``; ``messages`` as in ``page``."""
    return f'{reply(ref, epoch=epoch, seq=seq)[:-1]},"messages":[{messages}]}}'


def people(count: int, present: Sequence[str] | None) -> str:
    """Return who is in a room as more fields of the reply to ``join``.

    None: they are too many for names.
    """
    if present is None:
        return f',"count":{count}'
    return f',"count":{count},"present":{encode(present)}'


def who(ref: int, present: Sequence[str], count: int, more: bool) -> str:
    """Return the reply to ``who``."""
    return reply(ref, present=present, count=count, more=more)


def refusal(
    ref: int | None, code: ErrorCode, why: str, *, retry_after: float | None = None
) -> str:
    """Return the reply to a request that is not done; ``retry_after``: seconds."""
    if not why.isascii():  # an application's words may have half a surrogate pair
        why = why.encode(errors="replace").decode()
    error: dict[str, Any] = {"code": code, "message": why}
    if retry_after is not None:
        error["retry_after"] = retry_after
    return encode({"type": "reply", "ref": ref, "ok": False, "error": error})


def message(
    topic: str, said: Entry | Message, seq: int, at: float, tag: str = ""
) -> str:
    """Return a ``message``, or in the topic of a user a ``direct``."""
    data, sender = said.data, said.sender
    if isinstance(data, bytes):
        body = encode(base64.b64encode(data).decode()) + ',"binary":true'
    else:
        body = data if said.json else quote(data)
    if sender is not None and sender.startswith(ANONYMOUS):
        sender = None
    room = room_of(topic)
    user = None if room is not None else user_of(topic)
    if user is None:
        head = f'{{"type":"message","room":{quote(room)},"from":{quote(sender)}'
    else:
        to = user if said.to is None else said.to
        head = f'{{"type":"direct","from":{quote(sender)},"to":{quote(to)}'
    if isinstance(said, Entry) and said.deleted:
        body += ',"deleted":true'
    mark = f',"tag":{quote(tag)}' if tag else ""
    return f'{head},"seq":{seq},"data":{body},"at":{at},"mid":{quote(said.mid)}{mark}}}'


def deleted(topic: str, seq: int) -> str:
    """Return the news that the message ``seq`` was taken back."""
    return f'{{"type":"deleted","room":{quote(room_of(topic))},"seq":{seq}}}'


def stream(topic: str, grown: Grown) -> str:
    """Return how a growing message stands: it begins, or this is all of it so far."""
    return f'{{"type":"stream",{_grown(topic, grown)}}}'


def standing(ref: int, topic: str, grown: Grown) -> str:
    """Return the reply to ``stream``, with the same fields."""
    return f'{{"type":"reply","ref":{ref},"ok":true,{_grown(topic, grown)}}}'


def _grown(topic: str, grown: Grown) -> str:
    head = f'"room":{quote(room_of(topic))},"id":{quote(grown.id)}'
    sender, at, n, text = quote(grown.sender), grown.at, grown.n, quote(grown.text)
    return f'{head},"from":{sender},"at":{at},"n":{n},"text":{text}'


def append(topic: str, id: str, n: int, text: str) -> str:
    """Return the next piece of a growing message."""
    head = f'{{"type":"append","room":{quote(room_of(topic))},"id":{quote(id)}'
    return f'{head},"n":{n},"text":{quote(text)}}}'


def discard(topic: str, id: str, reason: str) -> str:
    """Return the news that a growing message will not become one."""
    head = f'{{"type":"discard","room":{quote(room_of(topic))},"id":{quote(id)}'
    return f'{head},"reason":{quote(reason)}}}'


def emitted(type: str, room: str | None, sender: str | None, own: str) -> str:
    """Return an event of an application; ``own``: its fields, as a JSON object."""
    head = f'{{"type":{quote(type)},"room":{quote(room)},"from":{quote(sender)}'
    return f"{head}}}" if own == "{}" else f"{head},{own[1:]}"


def presence(room: str, joined: Sequence[str], left: Sequence[str]) -> str:
    """Return the news of who came and went."""
    return encode({"type": "presence", "room": room, "joined": joined, "left": left})


def presence_count(room: str, count: int) -> str:
    """Return the news of how many are there, where they are too many for names."""
    return encode({"type": "presence", "room": room, "count": count})


def presence_all(room: str, present: Sequence[str]) -> str:
    """Return the news of who is there, for who knew the number alone."""
    news = {"type": "presence", "room": room, "count": len(present)}
    return encode({**news, "present": present})


def tally(poll: str, standing: Mapping[str, Any]) -> str:
    """Return the news of how a poll stands, with its fields."""
    return encode({"type": "tally", "poll": poll, **standing})


def tally_version(text: str | bytes) -> int:
    """Return the version of the poll in what ``tally`` returned."""
    version: int = json.loads(text)["version"]
    return version


def gap(topic: str, spread: float = 0) -> str:
    """Return the word that messages of ``topic`` were missed: read it again.

    ``spread``: seconds over which all who are told this should do so.
    """
    word = {"type": "gap", "room": room_of(topic)}
    return encode({**word, "spread": spread} if spread else word)
