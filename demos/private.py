"""The private chat: what people tell each other."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from . import chat
from .who import Known, entrance, name_of

private = Blueprint("private", __name__)


@private.get("/private")
def page() -> Any:
    return entrance("private")


@chat.listener("/ws/private", blueprint=private)
class Private(Known):
    """Who is in the room "private" is online there."""

    max_data = 8 * 1024  # bytes: room for 2000 characters
    max_page = 256  # all that an inbox keeps, as no more can be asked for later

    def can_join(self, user: str | None, room: str) -> bool:
        return room == "private"

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        return False

    def can_tell(self, user: str, to: str) -> bool:
        # Here or not: it waits in the inbox.
        return 0 < len(name_of(to)) <= 24

    def can_vote(self, user: str, poll: str, choice: str) -> bool:
        return False  # a browser votes, whatever names it has had
