"""What travels between the processes that share a backend, and what they keep."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One publication: what the members of a topic get.

    ``data``: a text (``str``) or binary (``bytes``) message. ``key``: replaces an
    unsent message with the same key. ``exclude``: the id of a connection that is left
    out. ``close_code``: not a message, but an order to close with ``data`` as reason.
    """

    data: str | bytes
    key: str | None = None
    exclude: str | None = None
    close_code: int | None = None


class Entry(NamedTuple):
    """One message of a room's history; ``at`` is in seconds since 1970."""

    seq: int
    data: str | bytes
    at: float
