"""Both chats: what people say in rooms, and what they tell each other."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, g, redirect, render_template, request, url_for

from . import Refused, chat
from .language import _
from .who import NO_COOKIES, Known, label, me, name_of

talks = Blueprint("talk", __name__)

ROOMS = ["#Lobby", "#Flask", "#Coffee break"]
MOST_ROOMS = 30

# Who is on which page. To "group" the application tells which rooms people have made.
PAGES = ("vote", "group", "private")


def rooms() -> set[str]:
    """The rooms there are. Those that people make are forgotten after a day."""
    made = {str(entry.data) for entry in chat.history("group", limit=MOST_ROOMS)}
    return {*ROOMS, *made}


@talks.get("/<any(group, private):page>")
def talk(page: str) -> Any:
    if user := me():
        return render_template(f"{page}.html", user=user, me=name_of(user), rooms=ROOMS)
    if "from" in request.args and "stranger" in g:
        return render_template("login.html", page=page, error=_(NO_COOKIES)), 400
    return redirect(url_for("who.login", page=page))


@chat.listener("/ws/chat", blueprint=talks)
class Talk(Known):
    max_data = 8 * 1024  # bytes: room for 2000 characters

    def can_join(self, user: str | None, room: str) -> bool:
        if room in PAGES:
            return room != "vote"
        known = rooms()
        if room not in known:  # whoever enters it makes it
            if len(known) >= MOST_ROOMS or room != "#" + label(room[1:]):
                raise Refused("There is no such room.")
            chat.broadcast(room, room="group")
        return True

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        if not (isinstance(data, str) and data.strip() and len(data) <= 2000):
            raise Refused("A message must have 1 to 2000 characters.")
        return room not in PAGES

    def can_tell(self, user: str, to: str) -> bool:
        # Here or not: it waits in the inbox.
        return 0 < len(name_of(to)) <= 24

    def can_vote(self, user: str, poll: str, choice: str) -> bool:
        return False  # a browser votes, whatever names it has had
