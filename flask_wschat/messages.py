"""What travels between the processes that share a backend, and what they keep."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import msgspec

EVERYONE = "all"
"""The topic of every connection."""
OPERATE = "operate"
"""The topic, and the event, of what operators ask of all processes; what these answer
has topics that begin with it."""
_ROOM, _USER = "room:", "user:"  # begin the topics of rooms and users

PRESENCE = "presence"
"""The event of a message that is ``News``."""

ANONYMOUS = "\0"
"""Begins the ``sender`` of those without a user id: a connection's, as the scope of its
``mid`` alone."""

LONGEST_NAME = 255
"""Characters of the name of a room, a user or a key."""
LONGEST_MID = 64
"""Characters of a message's id."""

DELETED = "deleted"
"""The ``event`` that a message was taken back, whose number is the ``data``."""

EMITTED = "emit"
"""The event of what is told once and not kept; ``data`` is all of it, as it is sent."""

STREAM, APPEND, DISCARD, STOP = "stream", "append", "discard", "stop"
"""Events with a ``growth``: a message begins to grow; a piece more, ``data``; it will
not become one, and why; somebody wants its writer to stop. See ``Backend.publish``."""

_JOINER = re.compile("(?<=[^\\s\u200c\u200d])[\u200c\u200d](?=[^\\s\u200c\u200d])")
_UNFIT = ("Cc", "Cs", "Zl", "Zp")  # control characters, half a pair, ends of lines


def room_topic(room: str) -> str:
    """Return the topic of a room."""
    return _ROOM + room


def user_topic(user: str) -> str:
    """Return the topic of a user: of all their connections, and of their inbox."""
    return _USER + user


def room_of(topic: str) -> str | None:
    """Return the room that ``topic`` is of; None: it is none's."""
    return topic[len(_ROOM) :] if topic.startswith(_ROOM) else None


def user_of(topic: str) -> str | None:
    """Return the user whom ``topic`` is of; None: it is nobody's."""
    return topic[len(_USER) :] if topic.startswith(_USER) else None


def as_name(value: Any, what: str) -> str:
    """Return ``value`` as the name of ``what``, such as "a room": a plain text.

    A text as it is; an integer, and an object whose class defines ``__str__``, by that.
    Anything else would be one name for many things, or another one each time.

    :raises TypeError: it is none of these.
    :raises ValueError: the text is empty or too long, has more than one line, a control
        character or half a surrogate pair: no backend could keep it.
    """
    # Not type(): a LocalProxy, such as current_user, has that of what it stands for.
    kind = value.__class__
    if issubclass(kind, str):
        text = value if type(value) is str else "".join(value)
    elif issubclass(kind, int) and not issubclass(kind, bool):
        text = str(int(value))
    elif kind.__str__ is object.__str__ or issubclass(kind, bytes | bytearray):
        raise TypeError(
            f"{what} must be a text, an integer, or an object whose class defines"
            f" __str__, such as a UUID; not {shown(value)} ({kind.__name__})"
        )
    else:
        text = "".join(str(value))
    if not 1 <= len(text) <= LONGEST_NAME:
        raise ValueError(
            f"{what} must have 1 to {LONGEST_NAME} characters, unlike {shown(text)}"
        )
    if not text.isprintable() and any(map(_is_unfit, text)):
        raise ValueError(
            f"{what} must be one line of text, without control characters or half"
            f" surrogate pairs, unlike {shown(text)}"
        )
    return text


def as_user(value: Any, what: str = "a user id") -> str:
    """Return ``value`` as a user's id; as ``as_name``, but that 0 is nobody's.

    :raises TypeError: it is None, for example: not a user.
    :raises ValueError: it is no text that can be an id.
    """
    name = as_name(value, what)
    if name == "0" and not isinstance(value, str):
        raise ValueError(f"{what} must tell a user from others, unlike 0")
    return name


def as_count(value: Any, what: str) -> int:
    """Return ``value`` as a plain integer: an IntEnum is no number to every backend.

    :raises TypeError: it is no integer.
    :raises ValueError: it is negative.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is an integer, unlike {shown(value)}")
    if value < 0:
        raise ValueError(f"{what} is 0 or more, unlike {value}")
    return int(value)


def as_mid(value: Any) -> str:
    """Return ``value`` as a message's id; as ``as_name``.

    :raises TypeError: it is nothing that tells one message from others.
    :raises ValueError: its text is empty, too long or has what cannot be seen.
    """
    mid = as_name(value, "mid")
    if len(mid) > LONGEST_MID or not is_printable(mid) or mid != mid.strip():
        raise ValueError(
            f"mid must be 1 to {LONGEST_MID} printable characters without space around"
            f" them, unlike {shown(mid)}"
        )
    return mid


def is_printable(text: str) -> bool:
    """Whether there is nothing in it that cannot be seen.

    Between two characters a joiner or non-joiner can: Persian words are spelt with it,
    and families of emoji are made by it.
    """
    return text.isprintable() or _JOINER.sub("", text).isprintable()


def _is_unfit(char: str) -> bool:
    return unicodedata.category(char) in _UNFIT


def shown(value: Any) -> str:
    """Return what a message of ours shows of any value, also of one without a repr."""
    try:
        text = repr(value)
    except Exception:  # of its class, or nested too deeply
        text = object.__repr__(value)
    return text if len(text) <= 50 else text[:50] + "\u2026"


class Growth(NamedTuple):
    """Which step of a growing message this is."""

    id: str
    """The ``mid`` of the message that it becomes."""
    n: int = 0
    """Pieces with this one: they count 1, 2, 3 …; 0 where there are none yet."""
    asker: str | None = None
    """The user who asked for it; with ``STREAM``."""
    ttl: float = 0.0
    """Seconds without a step of its writer after which that is taken for dead: with
    ``STREAM``. With ``DISCARD``, not 0: it is for such a one alone."""
    began: float = 0.0
    """The ``at`` of the receipt of its ``STREAM``: with ``APPEND`` and ``DISCARD``, not
    0, it is for that one alone, and for none that another writer has begun since."""


class Grown(NamedTuple):
    """A growing message as it stands."""

    id: str
    sender: str | None
    at: float
    """When it began, in seconds since 1970."""
    n: int
    text: str
    asker: str | None = None


class Message(NamedTuple):
    """One publication: what the members of a topic get."""

    data: str | bytes
    """A text (``str``) or binary (``bytes``) message."""
    key: str | None = None
    """Replaces an unsent message with the same key."""
    exclude: str | None = None
    """The id of a connection that is left out."""
    close_code: int | None = None
    """Not a message, but an order to close with ``data`` as the reason."""
    json: bool = False
    """``data`` is the JSON text of a value, not a text of its own."""
    sender: str | None = None
    """The user who said it; None: the application."""
    mid: str | None = None
    """The sender's id for it: what makes a repeated one the same (see
    docs/decisions/16)."""
    event: str | None = None
    """Not a message, but news of this kind ("presence", "tally", ``DELETED``) for the
    ready-made chat alone; ``data`` is its JSON text."""
    to: str | None = None
    """The user it was told to, where that is not whose topic it is."""
    plain: bool = False
    """Also for plain connections, though a client of the ready-made chat said it."""
    growth: Growth | None = None
    """A step of a growing message, as ``event`` says; without one its end: this is the
    message that it has become."""
    prev: str | None = None
    """The ``mid`` of the sender's message that has to be stored before it. For the
    storage alone: not all deliver it. See docs/decisions/55."""


class Entry(NamedTuple):
    """One message of a topic's history."""

    seq: int
    """Counts 1, 2, 3 … in each topic."""
    data: Any
    """``str`` or ``bytes``, the text of the value where ``json``; but the value itself
    in what ``chat.history`` returns."""
    at: float
    """When it was stored, in seconds since 1970."""
    sender: str | None = None
    mid: str | None = None
    json: bool = False
    to: str | None = None
    tag: str = ""
    """A word that tells it from another one with the same number, which may come where
    a storage has lost messages; "": such a storage loses none."""
    deleted: bool = False
    """It was taken back: ``data`` is ``null``, its number remains."""


def size_of(data: str | bytes) -> int:
    """Return how many bytes ``data`` has, a text in UTF-8."""
    if isinstance(data, str) and not data.isascii():
        return len(data.encode())
    return len(data)


class Delivery(NamedTuple):
    """A publication as it reaches a process."""

    topic: str
    message: Message
    seq: int = 0
    """Its number in the topic's history; 0: it is not kept."""
    at: float = 0.0
    epoch: str = ""
    """Whose numbers they are; "" where ``seq`` is 0."""
    tag: str = ""
    """As in ``Entry``."""
    before: str = ""
    """The tag of the message before it; "": there was none, or it had none."""


class Receipt(NamedTuple):
    """What became of a publication."""

    seq: int
    """0: it is not kept."""
    at: float
    epoch: str
    fresh: bool = True
    """False: the same ``mid`` was stored before, as ``seq``; nothing was delivered."""


class Page(NamedTuple):
    """A part of a topic's history."""

    epoch: str
    """Changes when the numbers begin anew: what was known of the old ones is void."""
    seq: int
    """The newest number given out, 0 if none was."""
    entries: list[Entry]
    """Ascending."""
    recovered: bool = False
    """``after`` and ``epoch`` were given, and nothing after ``after`` is missing:
    ``entries`` are the first that follow it."""
    plain: bool = False
    """The topic was claimed for plain connections."""
    tag: str = ""
    """That of the message with the number ``seq``."""
    streams: Sequence[Grown] = ()
    """The messages that grow in the topic now, in the order in which they began."""


class Attendance(NamedTuple):
    """Who is in a topic, as of one moment."""

    version: int
    """How many times they have changed; see ``News``. 0: it is not counted."""
    users: dict[str, int]
    """Each user's connections in all processes, as these have told."""
    here: dict[str, int]
    """Of them those in this process, as it has told."""


class News(msgspec.Struct):
    """One change of who is in a room."""

    joined: list[str]
    left: list[str]
    version: int
    """That of an ``Attendance`` with this change; the one before it was without."""
    first: bool = False
    """Nobody was there before: the numbers begin anew, higher than ever."""

    def as_message(self) -> Message:
        try:
            text = msgspec.json.encode(self).decode()
        except UnicodeEncodeError:  # half a surrogate pair in a name
            text = json.dumps(msgspec.structs.asdict(self))
        return Message(text, event=PRESENCE)

    @classmethod
    def of(cls, message: Message) -> News:
        """Return what ``as_message`` has made.

        :raises ValueError: it has not, but another version of this program perhaps.
        """
        try:
            try:
                return _NEWS.decode(message.data)
            except msgspec.DecodeError:  # that, or half a pair, which only json reads
                return msgspec.convert(json.loads(message.data), cls)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"no news of who is there: {error}") from None


_NEWS = msgspec.json.Decoder(News)


class Tally(NamedTuple):
    """How a poll stands."""

    counts: dict[str, int]
    """By choice; a choice that nobody has made may be missing."""
    version: int
    """Grows with each change: the higher of two is the newer."""
    closed: bool
    mine: str | None = None
    """The choice of the voter who was asked about."""


class MadePoll(NamedTuple):
    """A poll made while the application runs, as it is stored."""

    name: str
    id: str
    """Another one each time that a poll of the name is made."""
    text: str
    """What can be voted for, and all else that is said of it."""
    at: float
    """When it was made, in seconds since 1970."""


def as_message(data: Any, dumps: Callable[[Any], str]) -> str | bytes:
    """Return what goes over the wire for ``data``: JSON unless it is text or bytes.

    :raises TypeError: JSON has no such thing.
    :raises ValueError: nor a number, a depth or a circle like that.
    """
    if isinstance(data, str):
        return data if type(data) is str else "".join(data)
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    return as_json(data, dumps)


def as_publication(data: Any, key: Any, dumps: Callable[[Any], str]) -> Message:
    """Return ``data``, which a user's code publishes, as a ``Message``.

    :raises TypeError: JSON has no such thing, or ``key`` is no name.
    :raises ValueError: ``data`` is nothing that all receivers could read.
    """
    key = None if key is None else as_name(key, "a key")
    wire = as_message(data, dumps)
    if isinstance(wire, str) and not wire.isascii():
        try:
            wire.encode()
        except UnicodeEncodeError:
            words = "half a surrogate pair cannot be sent as text (RFC 6455 §5.6)"
            raise ValueError(words) from None
    is_json = not isinstance(data, str | bytes | bytearray | memoryview)
    return Message(wire, key, json=is_json)


def as_json(data: Any, dumps: Callable[[Any], str]) -> str:
    """Return ``data`` as JSON, as ``as_message`` does.

    A number that JSON has not would make the whole message unreadable; and kept in a
    room it would be a part of every page.
    """
    try:
        text = dumps(data)
        if "NaN" in text or "Infinity" in text:  # as a number, or within a text
            json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("this is nested too deeply for JSON") from None
    return text


def from_json(text: str | bytes, loads: Callable[[str | bytes], Any]) -> Any:
    """Return the value that ``text``, a peer's, is the JSON of.

    :raises ValueError: it is not JSON, has a number that JSON has not, or is nested
        too deeply to be read here.
    """
    try:
        value = loads(text)
        words = text if isinstance(text, str) else text.decode("utf-8", "replace")
        if "NaN" in words or "Infinity" in words:  # as a number, or within a text
            json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("this is nested too deeply for JSON") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259 §6), and browsers cannot read it")
