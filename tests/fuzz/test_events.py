"""Any JSON to any event of an application: a reply, or an end that is documented."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from flask_wschat import ChatListener, event
from flask_wschat import envelope as words
from flask_wschat.backends import MemoryBackend
from flask_wschat.chat import fields
from flask_wschat.chat.chat import Chat
from flask_wschat.hub.hub import Hub
from flask_wschat.settings import Settings
from tests.support.in_memory import another

from .budget import budget

DOCUMENTED = {1002, 1007, 1008, 1009}
"""Close codes that a client can bring about (docs/protocol.md)."""


class Level(enum.Enum):
    EASY = "easy"
    HARD = "hard"


@dataclasses.dataclass
class Point:
    x: float
    y: int = 0


class Card(TypedDict, total=False):
    suit: Literal["clubs", "hearts"] | None
    point: Point


class Tree(msgspec.Struct):
    a: list[Tree] = []
    b: dict[int, bool] | None = None


class Anything(ChatListener):
    """Says again what it was sent."""

    anonymous = "say"

    @event
    def whatever(self, data: Any) -> Any:
        return data

    @event
    def plain(
        self, data: str = "", a: int = 0, b: float = 0, x: bool | None = None
    ) -> Any:
        return [data, a, b, x]

    @event
    def bounded(
        self,
        *,
        data: Annotated[str, msgspec.Meta(min_length=2, pattern="^[a-z]*$")] = "aa",
        a: Annotated[int, msgspec.Meta(ge=-5, multiple_of=2)],
        b: Annotated[tuple[float, ...], msgspec.Meta(max_length=2)] = (),
    ) -> Any:
        return [data, a, b]

    @event
    def made(self, data: Point | None, a: Card, b: Tree, x: Level) -> Any:
        return [data, a, b, x]

    @event
    def odd(
        self,
        data: datetime.datetime | int,
        a: decimal.Decimal,
        b: uuid.UUID | None = None,
        x: tuple[int, str] | None = None,
        y: bytes = b"",
        z: set[int] | None = None,
    ) -> Any:
        return [data, a, b, x, y, z]

    @event
    def nothing(self) -> None: ...


names = st.sampled_from(["a", "b", "x", "suit", "point", "1"]) | st.text(max_size=9)
edges = [2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**308, 10**400]
numbers = st.one_of(
    st.integers(-9, 9),
    st.sampled_from([sign * edge for edge in edges for sign in (1, -1)]),
    st.integers(),
    st.floats(),
    st.sampled_from([1e16, 1e-5, 5e-324, 1.7976931348623157e308, -0.0, 1e15]),
)
likely = st.sampled_from(
    [
        *("easy", "clubs", {"x": 1}, {"a": [{}]}, {"suit": None}, {"b": {"1": True}}),
        *("2026-02-03T04:05:06Z", "1.5", str(uuid.UUID(int=1)), [1, "a"], "aGk="),
        *("aa", [], {}, [{}], "null", "\ud800", "a\udfff", "\0", "\u2028"),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | numbers | names | likely,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
    ),
    max_leaves=6,
)
EVENTS = ("whatever", "plain", "bounded", "made", "odd", "nothing")
requests = st.fixed_dictionaries(
    {"type": st.sampled_from(EVENTS), "ref": st.integers(0, 9)},
    optional={name: values for name in ("data", "a", "b", "x", "y", "z", "more")},
)
repeated = st.tuples(requests, values).map(
    # The last of two counts, for all who read it.
    lambda two: f'{json.dumps(two[0])[:-1]},"data":{json.dumps(two[1])}}}'
)
deep = st.tuples(st.sampled_from(EVENTS), st.integers(150, 260), st.sampled_from("[{"))


def nested(kind: str, depth: int, bracket: str) -> str:
    data = "[" * depth + "]" * depth
    if bracket == "{":
        data = '{"a":' * depth + "1" + "}" * depth
    return f'{{"type":"{kind}","ref":1,"data":{data}}}'


messages = st.one_of(
    requests.map(json.dumps),
    requests.map(json.dumps).map(lambda text: text.replace('"', "'", 1)),
    repeated,
    deep.map(lambda given: nested(*given)),
    st.integers(300, 5000).map(
        lambda digits: f'{{"type":"plain","ref":1,"a":{"7" * digits}}}'
    ),
    st.sampled_from(
        ["NaN", "-Infinity", "1e999", "-1e999", "1E400", "01", "1.", "\t"]
    ).map(lambda text: f'{{"type":"whatever","ref":1,"data":[{text}]}}'),
    st.binary(max_size=9),
)


class Room:
    """One client, ``ann``, of a class of events."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.hub = Hub(
            Settings(MAX_MESSAGE=8192, RATE_LIMIT=None),
            MemoryBackend(),
            dumps=json.dumps,
            loads=json.loads,
            report=lambda error, ws=None, event="": self.errors.append(error),
        )
        self.ws, self.peer = another(self.hub, "ann", plain=False)
        listener = Anything()
        listener._chat = Chat(self.hub)
        listener._begin(self.ws)
        self.ws._listen(listener)
        self.taken = 1  # hello

    def new(self) -> list[Any]:
        events = self.peer.events[self.taken :]
        self.taken += len(events)
        return [
            event if not isinstance(event, str) else json.loads(event)
            for event in events
        ]


@budget
@given(st.lists(messages, max_size=12))
def test_each_message_has_one_reply_or_ends_it(script: list[str | bytes]) -> None:
    room = Room()
    for message in script:
        room.peer.send(message)
        came = room.new()
        assert room.errors == [], message
        if any(not isinstance(event, dict) for event in came):
            assert came[-1].code in DOCUMENTED
            break
        (reply,) = came
        assert reply["type"] == "reply"
        try:
            request = fields.parse(message)
        except fields.RequestError as error:
            assert (reply["ref"], reply["error"]["code"]) == (None, error.code)
            continue
        assert reply["ref"] == fields.ref(request)
        if not reply["ok"]:
            assert reply["error"]["code"] == "bad_request"
            assert len(reply["error"]["message"]) <= 300
        elif request["type"] == "whatever":
            assert same(reply.get("result"), request["data"])
    room.peer.close()
    assert room.hub.count() == 0


def same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are the same, numbers also in their types."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@budget
@given(requests.map(json.dumps) | repeated | values.map(json.dumps))
def test_what_is_parsed_is_what_python_parses(text: str) -> None:
    try:
        found = fields.parse(text)
    except fields.RequestError:
        try:
            read = json.loads(text)
        except ValueError:
            return
        # There is no object, or what is not JSON, but to Python.
        assert not isinstance(read, dict) or "NaN" in text or "Infinity" in text
    else:
        if type(found) is not fields.Strange:
            # Of 309 digits and more an integer is what it is to JavaScript.
            assert same(found, json.loads(text, parse_int=fields._integer))


@budget
@given(values)
def test_what_is_encoded_is_to_the_letter_what_json_writes(value: Any) -> None:
    def by_json() -> str:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )

    try:
        expected = by_json()
        expected.encode()
    except ValueError:
        try:
            words.encode(value).encode()
        except ValueError:
            return
        raise AssertionError(value) from None
    assert words.encode(value) == expected
    assert same(json.loads(words.encoder(json.dumps)(value)), json.loads(expected))


@budget
@given(values)
def test_no_number_that_json_has_not_is_sent(value: Any) -> None:
    def finite(value: Any) -> bool:
        if isinstance(value, float):
            return math.isfinite(value)
        inner = value.values() if isinstance(value, dict) else value
        return not isinstance(value, dict | list) or all(map(finite, inner))

    try:
        words.encoder(json.dumps)(value)
    except ValueError as error:
        assert not finite(value) or "surrogate" in str(error)
    else:
        assert finite(value)
