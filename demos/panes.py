"""Pull the plug: two windows onto a room of their own, which count what comes."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, render_template, session

from . import chat
from .plug import pulls
from .who import Known

plug = Blueprint("plug", __name__)


@plug.app_context_processor
def what_can_be_pulled() -> dict[str, Any]:
    return {"pulls": pulls()}


@plug.get("/plug")
def page() -> str:
    if not pulls():
        abort(404)
    return render_template("plug.html", room=f"plug {session['browser']}")


@chat.listener("/ws/plug", blueprint=plug)
class Panes(Known):
    def can_join(self, user: str | None, room: str) -> bool:
        return room == f"plug {user}"

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        return True  # in the rooms that it is in
