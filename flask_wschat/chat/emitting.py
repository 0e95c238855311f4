"""``emit``: an application's own events to many, told once and not kept.

See docs/decisions/51.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .. import envelope
from ..messages import (
    EMITTED,
    EVERYONE,
    Message,
    as_name,
    as_user,
    room_topic,
    shown,
    user_topic,
)
from ..websocket import WebSocket
from .chat import Chat


def emit(
    chat: Chat,
    type: Any,
    fields: Mapping[str, Any],
    *,
    room: Any = None,
    user: Any = None,
    key: Any = None,
    exclude: Any = None,
    sender: str | None = None,
    declared: msgspec.json.Decoder[Any] | None = None,
) -> None:
    """Send an event with ``fields`` to ``room``, to ``user``, or to everyone.

    ``exclude``: a connection that is left out. ``sender``: a user's id, or None.
    ``declared``: reads what the fields are to be.

    :raises TypeError: JSON has no such field, it was declared otherwise, or an argument
        is not what it is to be.
    :raises ValueError: the type or a field's name is the protocol's own, a field is
        nothing that could be read, or both a room and a user are given.
    :raises BackendError: it is not known whether it was sent.
    """
    if not isinstance(type, str):
        raise TypeError(f"an event's type is a text, unlike {shown(type)}")
    type = as_name(type, "an event's type")
    if type in envelope.TYPES:
        raise ValueError(f"{type!r} is the protocol's own: give the event another name")
    if own := fields.keys() & envelope.BESIDE:
        raise ValueError(f"{min(own)!r} is set for you: give the field another name")
    if exclude is not None and not isinstance(exclude, WebSocket):
        raise TypeError(f"exclude is a WebSocket, unlike {shown(exclude)}")
    topic = EVERYONE
    if room is not None:
        if user is not None:
            raise ValueError("an event is for a room or for a user, not for both")
        room = as_name(room, "a room")
        topic = room_topic(room)
    elif user is not None:
        topic = user_topic(as_user(user))
    if key is not None:
        # No name has a line feed, so no other event's key is the same.
        key = f"{topic}\n{type}\n{as_name(key, 'a key')}"
    encoded = chat.encode(fields)
    if declared is not None:
        try:
            declared.decode(encoded)
        except msgspec.ValidationError as error:
            raise TypeError(f"{type!r} is declared otherwise: {error}") from None
    text = envelope.emitted(type, room, sender, encoded)
    left_out = None if exclude is None else exclude.id
    chat.hub.publish(topic, Message(text, key, left_out, event=EMITTED))
