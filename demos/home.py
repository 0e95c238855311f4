"""The first page, and its socket, which sees who is where and is not seen itself."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app, render_template

from flask_wschat import ChatListener

from . import chat
from .talk import rooms

home = Blueprint("home", __name__)

PAGES = ("vote", "group", "private", "bot")  # rooms of those who are there


@home.app_context_processor
def parts() -> dict[str, Any]:
    """The demos there are, for links to them."""
    return {"parts": current_app.blueprints}


@home.get("/")
def index() -> str:
    return render_template("index.html")


@chat.listener("/ws/home", blueprint=home)
class Home(ChatListener):
    """It has no user, so nobody is counted by it."""

    max_page = 1  # its page shows numbers, not messages

    def can_join(self, user: str | None, room: str) -> bool:
        return room in PAGES or room in rooms()

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        return False
