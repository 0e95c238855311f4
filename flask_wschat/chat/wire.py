"""What the ready-made chat sends, as types: for documents, not for sending.

``envelope`` writes these messages as text, which is several times faster; the tests
hold that to the schema that is made of what stands here. What it is asked say the hints
of its requests. See docs/decisions/52.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from ..envelope import ErrorCode
from .fields import MAX_INTEGER, Data, Epoch, Mid, Name, Seq, Tag, User

# Titles as in `fields`.
Ref = Annotated[
    int,
    Meta(
        title="ref",
        description="Chosen by the client; echoed in the reply.",
        ge=0,
        le=MAX_INTEGER,
    ),
]
At = Annotated[
    float,
    Meta(
        title="at",
        description="When it was stored, in seconds since 1970.",
        ge=0,
    ),
]
Users = Annotated[
    list[User],
    Meta(
        title="users",
        description="User ids, each once.",
        extra_json_schema={"uniqueItems": True},
    ),
]
Sender = User | None
# Literal has no booleans before msgspec 0.20.
_True = Annotated[bool, Meta(extra_json_schema={"const": True})]
_False = Annotated[bool, Meta(extra_json_schema={"const": False})]
Counts = Annotated[
    dict[str, Annotated[int, Meta(ge=0)]],
    Meta(title="counts", description="Votes by choice: every option of the poll."),
]
Total = Annotated[int, Meta(title="total", description="The sum of them.", ge=0)]
Count = Annotated[
    int, Meta(title="count", description="Users who are in a room.", ge=0)
]
Version = Annotated[
    int,
    Meta(
        title="version",
        description="Grows with each change of the poll: the higher of two is the"
        " newer.",
        ge=0,
    ),
]
Pieces = Annotated[
    int,
    Meta(
        title="n",
        description="Pieces of a growing message: they count 1, 2, 3 and so on.",
        ge=0,
        le=MAX_INTEGER,
    ),
]
Text = Annotated[str, Meta(title="text", description="Of a growing message.")]
_Positive = Annotated[int, Meta(ge=1)]
_Place = Annotated[Name | None, Meta(description="null: the inbox.")]


class Rate(Struct):
    """A limit of requests."""

    per_second: Annotated[float, Meta(gt=0)]
    burst: _Positive


class Limits(Struct, kw_only=True):
    """What the server takes; of rooms and inboxes only where it has some."""

    message: Annotated[
        int,
        Meta(
            description="Bytes of a whole message; more ends the connection with 1009.",
            ge=1,
        ),
    ]
    data: (
        Annotated[
            int, Meta(description="Bytes of data, as compact JSON in UTF-8.", ge=1)
        ]
        | UnsetType
    ) = UNSET
    depth: Annotated[
        int,
        Meta(
            description="Arrays and objects within each other in data, at most.", ge=1
        ),
    ]
    name: (
        Annotated[int, Meta(description="Characters of a name.", ge=1)] | UnsetType
    ) = UNSET
    mid: Annotated[int, Meta(description="Characters of a mid.", ge=1)] | UnsetType = (
        UNSET
    )
    page: (
        Annotated[int, Meta(description="Messages in one reply, at most.", ge=1)]
        | UnsetType
    ) = UNSET
    rooms: (
        Annotated[int, Meta(description="Rooms of one connection, at most.", ge=1)]
        | UnsetType
    ) = UNSET
    new_rooms: (
        Annotated[
            Rate | None,
            Meta(description="Rooms and inboxes that you may begin; null: no limit."),
        ]
        | UnsetType
    ) = UNSET
    rate: Annotated[
        Rate | None, Meta(description="Requests a second, and at once; null: no limit.")
    ]


class Hello(Struct, tag="hello"):
    """The first message of each connection."""

    protocol: Literal[1]
    id: Annotated[str, Meta(description="Of this connection.", min_length=1)]
    user: Annotated[
        User | None,
        Meta(
            description="Who the server takes you for; null: somebody without a user"
            " id."
        ),
    ]
    ping: Annotated[
        float, Meta(description="Seconds between the server's pings.", gt=0)
    ]
    limits: Limits


class _Said(Struct, kw_only=True, rename={"sender": "from"}):
    seq: Seq
    sender: Annotated[
        Sender,
        Meta(description="A user id; null: the application, or somebody without one."),
    ]
    data: Data
    at: At
    mid: Mid | None
    tag: Tag | UnsetType = UNSET
    binary: (
        Annotated[_True, Meta(description="data is binary data, in base64.")]
        | UnsetType
    ) = UNSET


class Message(_Said, kw_only=True, tag="message"):
    """A message in a room."""

    room: Annotated[Name | None, Meta(description="null: to everybody.")]
    deleted: (
        Annotated[
            _True,
            Meta(description="It was taken back: data, from and mid are null."),
        ]
        | UnsetType
    ) = UNSET


class Direct(_Said, kw_only=True, tag="direct"):
    """A message to one user."""

    to: User


class Deleted(Struct, tag="deleted"):
    """A message was taken back."""

    room: Name
    seq: Seq


class Presence(Struct, tag="presence"):
    """Users came into a room or left it."""

    room: Name
    joined: Users | UnsetType = UNSET
    left: Users | UnsetType = UNSET
    count: Count | UnsetType = UNSET
    present: Users | UnsetType = UNSET


class _Standing(Struct, kw_only=True):
    counts: Counts
    total: Total
    closed: bool
    version: Version


class Tally(_Standing, tag="tally"):
    """How a poll stands now."""

    poll: Name


class Gap(Struct, tag="gap"):
    """Messages may be missing: join again."""

    room: _Place
    spread: (
        Annotated[float, Meta(description="Seconds; wait a random part of it.", gt=0)]
        | UnsetType
    ) = UNSET


class Emitted(Struct, rename={"sender": "from"}):
    """An event of the application, with fields of its own."""

    type: Annotated[str, Meta(min_length=1, max_length=255)]
    room: Name | None
    sender: User | None


class _Growing(Struct, kw_only=True, rename={"sender": "from"}):
    room: _Place
    id: Mid
    sender: Annotated[User | None, Meta(description="As in message.")]
    at: At
    n: Pieces
    text: Text


class Stream(_Growing, tag="stream"):
    """A message begins to grow, or this is all of it so far."""


class Append(Struct, tag="append"):
    """A piece more of a growing message."""

    room: _Place
    id: Mid
    n: Pieces
    text: Text


class Discard(Struct, tag="discard"):
    """A growing message will not become one."""

    room: _Place
    id: Mid
    reason: Annotated[str, Meta(description="Why; for users or not, as it was given.")]


class Done(Struct, tag="reply"):
    """A request was done; there is nothing more to say."""

    ref: Ref
    ok: _True


class _Page(Done, tag="reply"):
    epoch: Epoch
    seq: Seq
    tag: Tag
    recovered: bool
    more: bool


class JoinReply(_Page, kw_only=True, tag="reply"):
    """To join."""

    messages: list[Message]
    streams: list[Stream]
    count: Count | UnsetType = UNSET
    present: Users | UnsetType = UNSET


class InboxReply(_Page, kw_only=True, tag="reply"):
    """To inbox."""

    messages: list[Direct]
    streams: list[Stream]


class Stored(Done, tag="reply"):
    """To say and tell: it is stored."""

    seq: Seq
    at: At


class HistoryReply(Done, tag="reply"):
    """To history."""

    epoch: Epoch
    seq: Seq
    messages: list[Message]


class WhoReply(Done, tag="reply"):
    """To who."""

    present: Users
    count: Count
    more: bool


class VoteReply(_Standing, tag="reply"):
    """To vote: it counts."""

    ref: Ref
    ok: _True


class PollReply(VoteReply, kw_only=True, tag="reply"):
    """To poll."""

    mine: Annotated[Name | None, Meta(description="null: you have not voted.")]
    options: Annotated[
        list[Name],
        Meta(
            title="options",
            description="What can be voted for, in order.",
            min_length=2,
            extra_json_schema={"uniqueItems": True},
        ),
    ]


class StreamReply(_Growing, tag="reply"):
    """To stream: all of it so far."""

    ref: Ref
    ok: _True


class Error(Struct):
    """Why a request was not done."""

    code: ErrorCode
    message: Annotated[
        str, Meta(description="For people who write clients; English.", min_length=1)
    ]
    retry_after: (
        Annotated[float, Meta(description="Seconds to wait.", ge=0)] | UnsetType
    ) = UNSET


class Refusal(Struct, tag="reply"):
    """To a request that was not done."""

    ref: Annotated[Ref | None, Meta(description="null: it had none that can be read.")]
    ok: _False
    error: Error


SENT: dict[str, type[Struct]] = {
    "hello": Hello,
    "message": Message,
    "direct": Direct,
    "deleted": Deleted,
    "stream": Stream,
    "append": Append,
    "discard": Discard,
    "presence": Presence,
    "tally": Tally,
    "gap": Gap,
}
"""What comes unasked, by its type."""

REPLIES: dict[str, type[Struct]] = {
    "join": JoinReply,
    "inbox": InboxReply,
    "leave": Done,
    "say": Stored,
    "tell": Stored,
    "history": HistoryReply,
    "who": WhoReply,
    "vote": VoteReply,
    "poll": PollReply,
    "stream": StreamReply,
    "stop": Done,
    "ping": Done,
}
"""To each request that is done, by its type."""
