"""The private chat: what people tell each other, and what becomes of it.

A message waits in the inbox of the person it is for, here or not. The page that gets it
answers with a *receipt* for all messages up to this one, and with another one when they
were in view. Receipts are kept as messages are, in a room that each person has alone:
so a sender who was away learns of them on coming back.
"""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint
from msgspec import Meta

from flask_wschat import event

from . import chat
from .who import Known, entrance, label, name_of

private = Blueprint("private", __name__)

User = Annotated[str, Meta(pattern="^.{1,24}#[0-9a-f]{8}\\Z")]
Mid = Annotated[str, Meta(max_length=64)]


@private.get("/private")
def page() -> Any:
    return entrance("private")


@chat.listener("/ws/private", blueprint=private)
class Private(Known):
    """Who is in the room "private" is online there."""

    max_data = 8 * 1024  # bytes: room for 2000 characters
    max_page = 256  # all that an inbox keeps, as no more can be asked for later
    max_present = 500

    def can_join(self, user: str | None, room: str) -> bool:
        return room in ("private", f"receipts of {user}")

    def has_presence(self, room: str) -> bool:
        return room == "private"

    def can_tell(self, user: str, to: str) -> bool:
        # Here or not: it waits in the inbox.
        return 0 < len(name_of(to)) <= 24

    @event(limit=(5, 100))
    def receipt(self, to: User, got: Mid, read: Mid) -> None:
        """Tell `to` which of their messages are the last that came, and were read."""
        label(name_of(to))  # refuses what nobody can be called
        news = {"by": self.ws.user, "got": got, "read": read}
        chat.broadcast(news, room=f"receipts of {to}")

    @event(limit=(1, 5))
    def typing(self, to: User) -> None:
        label(name_of(to))
        self.emit("typing", user=to)
