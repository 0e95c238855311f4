"""The live vote: one vote for each browser, whatever names it has had.

The standing poll is all that a vote needs: it is declared, and the ready-made requests
do the rest. A poll that somebody makes has rules of its own:

- Its state is the newest message of its room ``poll/<id>``: who comes there, or comes
  back, reads it. It holds when the vote ends, and whoever asks after that finds it
  closed: nothing has to run, or to be alive, for a countdown to end.
- How it stands is told in another room, ``results/<id>``, where only its maker gets in
  before it is revealed. So nobody finds in a page what it does not show.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import Any, Literal, TypedDict

from flask import (
    Blueprint,
    g,
    redirect,
    render_template,
    session,
    url_for,
)

from flask_wschat import BackendError, UnknownPoll, event

from . import Refused, chat
from .hall import public_url, qr_svg
from .language import _
from .vote_form import MOST_OPTIONS, Form
from .who import NO_COOKIES, Known

vote = Blueprint("vote", __name__)

CHOICES = ["A live dashboard", "A team chat", "A multiplayer game", "A whiteboard"]

MOST_POLLS = 50  # of all people together
MOST_MINE = 10
GONE = (
    "This poll is gone: it was deleted, it is over a day old, or the server"
    " forgot it at a restart."
)
LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none is taken for another


def declare() -> None:
    chat.poll("demo", CHOICES, room="vote")


# ---- polls that people make ---------------------------------------------------------


class State(TypedDict):
    opened: bool
    ends: float | None  # seconds since 1970; closed by hand, it has just ended
    revealed: bool


def find(id: str) -> Any:
    try:
        made = chat.poll(id)
    except (UnknownPoll, ValueError):  # no poll could have such a name
        made = None
    if made is None or made.data is None:  # the standing one has no rules
        raise Refused(GONE)
    return made


def state_of(made: Any) -> State:
    told = chat.history(f"poll/{made.name}", limit=1)
    first = State(opened=False, ends=None, revealed=made.data["revealed"])
    return told[0].data if told else first


def is_open(state: State) -> bool:
    return state["opened"] and (state["ends"] is None or time.time() < state["ends"])


def in_list(made: Any) -> dict[str, Any]:
    """What the list of polls shows of it."""
    state = state_of(made)
    total = made.tally().total if state["revealed"] else None
    about = {"poll": made.name, "total": total, "state": state}
    return about | {"question": made.data["question"], "maker": made.data["maker"]}


@chat.listener("/ws/vote", blueprint=vote)
class Vote(Known):
    """Who is in the room "vote", or in that of a poll, is online there."""

    new_rooms = None  # nobody makes one here: each belongs to a poll

    def can_join(self, user: str | None, room: str) -> bool:
        if room == "vote":
            return True
        kind, _, id = room.partition("/")
        made = find(id)
        if kind == "results":
            return user == made.data["maker"] or state_of(made)["revealed"]
        return kind == "poll"

    def has_presence(self, room: str) -> bool:
        return not room.startswith("results/")

    def can_vote(self, user: str, poll: str, choice: str) -> bool:
        return poll == "demo"  # the reply to others would reveal how they stand

    @event
    def choose(self, poll: str, choice: str) -> None:
        made = find(poll)
        if not is_open(state_of(made)):
            raise Refused("The vote is not open: this choice does not count.")
        if choice not in made.options:
            raise Refused("This is none of the choices.")
        try:
            made.vote(self.ws.user, choice)
        except UnknownPoll:  # it was deleted in this moment
            raise Refused(GONE) from None

    @event
    def look(self, poll: str) -> dict[str, Any]:
        """What this browser has chosen, and what time it is here."""
        return {"mine": find(poll).tally(self.ws.user).mine, "now": time.time()}

    @event
    def polls(self) -> dict[str, Any]:
        rows = []
        for made in chat.polls():
            with contextlib.suppress(UnknownPoll):  # deleted meanwhile
                rows.append(in_list(made))
        return {"polls": rows, "now": time.time()}

    @event
    def steer(
        self,
        poll: str,
        to: Literal["open", "close", "reveal", "delete"],
        seconds: Literal[10, 30, 60] | None = None,
    ) -> None:
        made = find(poll)
        if self.ws.user != made.data["maker"]:
            raise Refused("Only the browser that made this poll can do that.")
        state: dict[str, Any] = {**state_of(made)}
        if to == "open":
            ends = time.time() + seconds if seconds else None
            state |= {"opened": True, "ends": ends}
        elif to == "close":
            state |= {"opened": True, "ends": time.time()}
        elif to == "reveal":
            state["revealed"] = True
        else:
            made.delete()
            state["deleted"] = True
        chat.broadcast(state, room=f"poll/{poll}")
        news = {"poll": poll, "state": state} if to == "delete" else in_list(made)
        chat.emit("listed", room="vote", **news)


# ---- pages --------------------------------------------------------------------------


def show(form: Form, status: int = 200, error: str = "") -> Any:
    page = render_template(
        "vote.html", choices=CHOICES, form=form, error=error, most=MOST_OPTIONS
    )
    return page, status


@vote.get("/vote")
def page() -> Any:
    return show(Form())


@vote.post("/vote")
def make() -> Any:
    form = Form()
    options = form.check()
    if form.errors:
        return show(form, 400)
    if "stranger" in g:
        return show(form, 400, _(NO_COOKIES))
    try:
        return store(form, options)
    except BackendError:
        words = "The demo's storage cannot be reached. Please try again soon."
        return show(form, 503, _(words))


def store(form: Form, options: list[str]) -> Any:
    made, maker = chat.polls(), session["browser"]
    if sum(poll.data["maker"] == maker for poll in made) >= MOST_MINE:
        words = _("You have {n} polls. Delete one to make another.", n=MOST_MINE)
        return show(form, 409, words)
    if len(made) >= MOST_POLLS:
        words = _("There are {n} polls, and no more fit. Try later.", n=MOST_POLLS)
        return show(form, 409, words)
    id = "".join(secrets.choice(LETTERS) for place in range(5))
    data = {"question": form.question, "maker": maker, "revealed": not form.hide}
    poll = chat.poll(id, options, room=f"results/{id}", lasts=86400, data=data)
    chat.emit("listed", room="vote", **in_list(poll))
    return redirect(url_for("vote.present", id=id))


def shown(template: str, id: str) -> Any:
    try:
        made = find(id.lower())  # phones begin with a capital
    except Refused as refused:
        return render_template("vote_gone.html", error=_(str(refused))), 404
    url = public_url(url_for("vote.ballot", id=made.name))
    return render_template(
        template,
        poll=made,
        state=state_of(made),
        mine=session["browser"] == made.data["maker"],
        url=url,
        code=qr_svg(url) is not None,
    )


@vote.get("/vote/<id>")
def ballot(id: str) -> Any:
    return shown("vote_ballot.html", id)


@vote.get("/vote/<id>/present")
def present(id: str) -> Any:
    return shown("vote_present.html", id)
