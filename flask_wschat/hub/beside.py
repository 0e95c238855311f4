"""What is published, for those who are not of the ready-made chat.

See docs/decisions/51.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..messages import APPEND, DELETED, DISCARD, EMITTED, STREAM, Delivery
from .audience import publish
from .members import Members
from .parcels import Parcel, framed

_HEARD = (None, EMITTED, DELETED, STREAM, APPEND, DISCARD)
"""Events that are for all who speak the protocol; the others are for the chat."""


def send_beside(
    members: Members, delivery: Delivery, finish: Callable[..., Any]
) -> None:
    """Send it to those whom it is for; in the loop.

    ``finish`` calls a step of an end, and reports its error: the others follow.
    """
    topic, message = delivery.topic, delivery.message
    plain, hearing = members.plain.get(topic), members.hearing.get(topic)
    if not (plain or hearing):
        return
    # What clients of the ready-made chat say is for it alone, unless it shares its
    # rooms; what they told others always, which is in their own topic as well.
    said = message.sender is not None and not message.plain
    if message.to is not None or said:
        return
    if message.close_code is not None:
        for ws in members.of_routes(topic):
            if message.exclude is None or ws._id != message.exclude:
                finish(ws.close, message.close_code, str(message.data))
        return
    if plain and message.event is None:
        publish(plain, framed(message.data), message.key, message.exclude)
    if hearing and message.event in _HEARD:
        Parcel(delivery).send(hearing, message.exclude)
