"""What travels between the processes that share a backend, and what they keep."""

from __future__ import annotations

from typing import NamedTuple


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
    """The sender's id for it: what makes a repeated one the same."""
    event: str | None = None
    """Not a message, but news of this kind ("presence", "tally") for the ready-made
    chat alone; ``data`` is its JSON text."""
    to: str | None = None
    """The user it was told to, where that is not whose topic it is."""


class Entry(NamedTuple):
    """One message of a topic's history."""

    seq: int
    """Counts 1, 2, 3 … in each topic."""
    data: str | bytes
    at: float
    """When it was stored, in seconds since 1970."""
    sender: str | None = None
    mid: str | None = None
    json: bool = False
    to: str | None = None


class Delivery(NamedTuple):
    """A publication as it reaches a process."""

    topic: str
    message: Message
    seq: int = 0
    """Its number in the topic's history; 0: it is not kept."""
    at: float = 0.0
    epoch: str = ""
    """Whose numbers they are; "" where ``seq`` is 0."""


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


class Tally(NamedTuple):
    """How a poll stands."""

    counts: dict[str, int]
    """By choice; a choice that nobody has made may be missing."""
    version: int
    """Grows with each change: the higher of two is the newer."""
    closed: bool
    mine: str | None = None
    """The choice of the voter who was asked about."""
