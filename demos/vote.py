"""The live vote: one vote for each browser, whatever names it has had."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, render_template

from . import chat
from .hall import HOST, is_loopback
from .who import Known

vote = Blueprint("vote", __name__)

CHOICES = ["A live dashboard", "A team chat", "A multiplayer game", "A whiteboard"]


def declare() -> None:
    chat.poll("demo", CHOICES, room="vote")


@vote.get("/vote")
def page() -> str:
    return render_template("vote.html", choices=CHOICES, far=not is_loopback(HOST))


@chat.listener("/ws/vote", blueprint=vote)
class Vote(Known):
    """Who is in the room "vote" is online there."""

    def can_join(self, user: str | None, room: str) -> bool:
        return room == "vote"

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        return False

    def can_tell(self, user: str, to: str) -> bool:
        return False
