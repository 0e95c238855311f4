"""Ask the bot: its answer grows on every page that is open, while it is written.

Whoever reloads, or comes in the middle, has all of it so far. When it is finished it is
a message like any other.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, render_template

from flask_wschat import WebSocket, event

from . import Refused, chat
from .language import _
from .who import Known

bot = Blueprint("bot", __name__)

DESKS = 4  # answers that are written at a time, in all processes


def model(prompt: str) -> Iterator[str]:
    """A stand-in, which says its prompt. A real model goes here: yield each piece of
    text that its streaming API brings."""
    for piece in re.findall(r"\s*\S{1,4}", prompt):
        time.sleep(1 / 30)
        yield piece


def answer(question: str, user: str | None, prompt: str) -> None:
    mid = secrets.token_hex(8)
    with chat.stream(room="bot", sender="bot", id=f"re-{mid}") as text:
        chat.broadcast({"question": question, "by": user}, room="bot", mid=mid)
        for piece in model(prompt):
            text.append(piece)


@bot.get("/bot")
def page() -> str:
    return render_template("bot.html")


@chat.listener("/ws/bot", blueprint=bot)
class Bot(Known):
    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        super().on_open(ws)
        self.prompt = prompt()  # here, as an event has no request, and so no language

    def can_join(self, user: str | None, room: str) -> bool:
        return room == "bot"

    @event(limit=(0.2, 3))  # three at once, then one in five seconds
    def ask(self, question: str) -> None:
        question = question.strip()
        if not 1 <= len(question) <= 300:
            raise Refused("A question must have 1 to 300 characters.")
        todo = answer, question, self.ws.user, self.prompt.format(question=question)
        if not any(
            chat.start_background_task(*todo, name=f"bot {desk}")
            for desk in range(DESKS)
        ):
            raise Refused("The bot writes four answers already. Ask again in a moment.")


def prompt() -> str:
    return _(
        """\
“{question}” is a good question. But I am no model: I am a few lines of Python that \
say thirty pieces a second, to the same question always the same, so that this page \
needs no network. A real model goes where I stand:

    with chat.stream(room="bot") as text:
        for piece in model(prompt):
            text.append(piece)

What carries my words is real. Everybody who has this page open reads this while I \
write it. Reload the page now: what I have said so far is still there. Open it in a \
second tab, and it grows there, too. Lose your connection, and you miss nothing. Or \
press Stop, and I keep what I have said by then.

When I am through, this is a message like any other, and can be read for a day."""
    )
