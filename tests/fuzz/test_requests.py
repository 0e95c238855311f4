"""Anything at all as a request to the ready-made chat: a reply, or an end told of."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flask_wschat import ChatListener
from flask_wschat.backends import MemoryBackend
from flask_wschat.chat import fields
from flask_wschat.chat.chat import Chat
from flask_wschat.chat.events import PATIENCE
from flask_wschat.codec import Closed
from flask_wschat.envelope import ErrorCode
from flask_wschat.hub.hub import Hub
from flask_wschat.settings import Settings
from tests.protocol.peers import REQUESTS, VALIDATORS
from tests.support.in_memory import Peer, another

from .budget import budget

CODES = set(ErrorCode.__args__)  # type: ignore[attr-defined]  # a Literal has them
DOCUMENTED = {1002, 1007, 1008, 1009}
"""Close codes that a client can bring about (docs/protocol.md)."""

names = st.sampled_from(["a", "ann", "Tea", "Green", "Lobby"]) | st.text(max_size=12)
numbers = st.integers(-2, 5) | st.integers() | st.floats()
values = st.recursive(
    st.none() | st.booleans() | numbers | names,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
    ),
    max_leaves=6,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(REQUESTS) | values,
        "ref": st.integers(0, 99) | values,
        "room": names | values,
        "to": names | values,
        "data": values,
        "mid": st.sampled_from(["1", "2"]) | values,
        "prev": st.sampled_from(["1", "2"]) | values,
        "poll": st.just("Tea") | values,
        "choice": names | values,
        "after": st.integers(0, 5) | values,
        "before": st.integers(0, 5) | values,
        "limit": st.integers(1, 5) | values,
        "epoch": values,
        "id": names | values,
    },
)
likely = st.fixed_dictionaries(
    {
        "type": st.sampled_from(REQUESTS),
        "ref": st.integers(0, 99),
        "room": st.sampled_from(["a", "Lobby"]),
        "to": st.sampled_from(["ann", "bob"]),
        "data": values,
        "mid": st.sampled_from(["1", "2", "3"]),
        "poll": st.just("Tea"),
        "choice": st.sampled_from(["Green", "Black"]),
        "id": st.sampled_from(["1", "2"]),
    },
    optional={"prev": st.sampled_from(["1", "2"])},
)
texts = st.one_of(
    likely.map(json.dumps),
    requests.map(json.dumps),
    requests.map(lambda request: json.dumps(request, ensure_ascii=False)).filter(
        lambda text: text.isascii() or _has_no_halves(text)
    ),
    values.map(json.dumps),
    st.text(max_size=40),
    st.integers(1, 3000).map(lambda depth: '{"data":' + "[" * depth),
    st.integers(4000, 5000).map(lambda digits: '{"ref":1,"after":%s}' % ("9" * digits)),
)
messages = texts | st.binary(max_size=40)


def _has_no_halves(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


class Room:
    """The ready-made chat with one client, ``ann``, or nobody's name."""

    def __init__(self, user: str | None) -> None:
        self.errors: list[BaseException] = []
        settings = Settings(MAX_MESSAGE=8192, MAX_QUEUE=64 << 10, HISTORY_SIZE=3)
        self.hub = Hub(
            settings,
            MemoryBackend(size=3),
            dumps=json.dumps,
            loads=json.loads,
            report=lambda error, ws=None, event="": self.errors.append(error),
        )
        chat = Chat(self.hub)
        chat.poll("Tea", ["Green", "Black"], None)
        self.ws, self.peer = another(self.hub, user, plain=False)
        listener = ChatListener()
        listener._chat = chat
        listener._begin(self.ws)
        self.ws._listen(listener)
        self.taken = 0
        assert self.new()[0]["type"] == "hello"

    def new(self) -> list[Any]:
        """Return what came since the last call."""
        events = self.peer.events[self.taken :]
        self.taken += len(events)
        return [json.loads(event) for event in events if isinstance(event, str)]

    @property
    def end(self) -> Closed | None:
        events: Peer = self.peer
        return next((e for e in events.events if isinstance(e, Closed)), None)


def check_reply(reply: Any, message: str | bytes) -> None:
    """Fail unless ``reply`` is one to ``message``, as the schema has it."""
    try:
        asked = fields.parse(message)
        ref = fields.ref(asked)
    except fields.RequestError:
        asked, ref = {}, None
    assert reply["ref"] == ref
    name = "error.reply" if not reply["ok"] else f"{asked['type']}.reply"
    errors = [error.message for error in VALIDATORS[name].iter_errors(reply)]
    assert errors == [], (reply, message)
    if not reply["ok"]:
        assert reply["error"]["code"] in CODES - {"internal", "unavailable"}, reply


@budget
@given(st.sampled_from(["ann", None]), st.lists(messages, max_size=12))
def test_each_message_has_one_reply_or_ends_it(
    user: str | None, script: list[str | bytes]
) -> None:
    room = Room(user)
    script *= 3  # so that it is more than the chat is patient with, now and then
    for message in script:
        room.peer.send(message)
        came = room.new()
        assert room.errors == []
        if room.end is not None:
            assert room.end.code in DOCUMENTED
            assert room.end.code != 1008 or len(script) > PATIENCE
            break
        replies = [event for event in came if event["type"] == "reply"]
        assert len(replies) == 1, (message, came)
        check_reply(replies[0], message)
        for event in came:
            if event["type"] != "reply":
                assert not [*VALIDATORS[event["type"]].iter_errors(event)], event
    room.peer.close()
    assert room.hub.count() == 0
    assert room.hub.members.users() == [] and not room.hub.feeds.topics


@budget
@given(messages)
def test_whatever_is_parsed_is_an_object_or_no_request(message: str | bytes) -> None:
    try:
        request = fields.parse(message)
    except fields.RequestError as error:
        assert error.code in ("bad_json", "bad_request")
    else:
        assert isinstance(request, dict) and isinstance(message, str)
        # It is JSON, and all of it.
        assert isinstance(json.loads(message, parse_int=float), dict)
