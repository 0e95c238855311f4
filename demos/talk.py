"""The group chat: what people say in rooms."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from flask_wschat import ChatListener, event

from . import Refused, chat
from .who import NOBODY, Known, entrance, label

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
            if room != "#" + label(room[1:]):
                raise Refused("There is no such room.")
            if len(known) >= MOST_ROOMS:
                raise Refused("There are 30 rooms already. Please enter one of those.")
            chat.broadcast(room, room="group")
        return True

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        if not (isinstance(data, str) and data.strip() and len(data) <= 2000):
            raise Refused("A message must have 1 to 2000 characters.")
        return room != "group"

    @event(limit=(1, 5))
    def typing(self, room: str) -> None:
        """Tell the others in the room, who are told only, as nothing is kept of it."""
        self.emit("typing", room=room, echo=False)


NOBODY.add("/ws/rooms")


@chat.listener("/ws/rooms", blueprint=group)
class Watch(ChatListener):
    """Reads all rooms, for the list of them, and has no user: nobody is counted."""

    max_page = 50  # messages, of which one is shown and all are searched for mentions

    def can_join(self, user: str | None, room: str) -> bool:
        return room == "group" or room in rooms()

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        return False
