"""The group chat: what people say in rooms."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from . import Refused, chat
from .who import Known, entrance, label

group = Blueprint("group", __name__)

ROOMS = ["#Lobby", "#Flask", "#Coffee break"]
MOST_ROOMS = 30


def rooms() -> set[str]:
    """The rooms there are. Those that people make are forgotten after a day."""
    made = {str(entry.data) for entry in chat.history("group", limit=MOST_ROOMS)}
    return {*ROOMS, *made}


@group.get("/group")
def page() -> Any:
    return entrance("group", rooms=ROOMS)


@chat.listener("/ws/chat", blueprint=group)
class Talk(Known):
    """Who is in the room "group" is online there, and is told there of new rooms."""

    max_data = 8 * 1024  # bytes: room for 2000 characters

    def can_join(self, user: str | None, room: str) -> bool:
        if room == "group":
            return True
        known = rooms()
        if room not in known:  # whoever enters it makes it
            if len(known) >= MOST_ROOMS or room != "#" + label(room[1:]):
                raise Refused("There is no such room.")
            chat.broadcast(room, room="group")
        return True

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        if not (isinstance(data, str) and data.strip() and len(data) <= 2000):
            raise Refused("A message must have 1 to 2000 characters.")
        return room != "group"

    def can_tell(self, user: str, to: str) -> bool:
        return False

    def can_vote(self, user: str, poll: str, choice: str) -> bool:
        return False  # a browser votes, whatever names it has had
