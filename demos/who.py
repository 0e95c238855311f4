"""Who somebody is stands in the signed session cookie.

A name is refused while somebody else is online with it, in whichever process; after
that it is free. Two who take one name in the same instant both get it, but nothing of
each other's: a user's id is ``name#tag``, and the tag is the browser's.
"""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any

from flask import (
    Blueprint,
    Response,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)

from flask_wschat import WebSocket

from . import Refused, chat
from .language import _
from .plug import Pluggable

people = Blueprint("who", __name__)

NO_COOKIES = (
    "Your browser keeps no cookie of this page, so it cannot tell you from others."
    " Allow cookies for it, then try again."
)

# It joins two characters, in Persian words and emoji; by itself it cannot be seen.
JOINER = re.compile("(?<=[^\\s\u200c\u200d])[\u200c\u200d](?=[^\\s\u200c\u200d])")
VARIANT = re.compile("[\ufe00-\ufe0f]")  # says how the character before it looks


def look(name: str) -> str:
    """A name without what nobody sees of it."""
    return VARIANT.sub("", JOINER.sub("", name))


# What counts as a letter or a sign, and shows nothing: it would make a name no name, or
# the same as another one.
BLANK = set("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def can_be_seen(text: str) -> bool:
    """Whether each character shows something, or joins two that do."""
    return JOINER.sub("", text).isprintable() and BLANK.isdisjoint(text)


def one_line(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()))


def label(value: str) -> str:
    """Return a name as all write it: one line, of characters that can be seen."""
    name = one_line(value)
    if not 1 <= len(name) <= 24:
        raise Refused("The name must have 1 to 24 characters.")
    if not (can_be_seen(name) and look(name)):
        raise Refused("The name has characters that cannot be shown.")
    return name


def name_of(user: str) -> str:
    return user.rpartition("#")[0]


def taken(user: str) -> bool:
    """Whether another browser is online with a name that looks the same."""
    name = look(name_of(user))
    return any(look(name_of(one)) == name and one != user for one in chat.online())


def me() -> str | None:
    """The user of this browser, unless somebody took the name while it was away."""
    user: str | None = session.get("user")
    return None if user is None or taken(user) else user


def forget_me() -> None:
    """Give the name of this browser back and close its sockets."""
    if user := session.pop("user", None):
        chat.disconnect_user(user, 4001, "You logged out.")


# Sockets for people with a name; on all others of ``Known`` a browser is somebody.
NAMED = {"/ws/chat", "/ws/private"}
NOBODY = {"/ws/home"}


@chat.authenticate
def who() -> str | None:
    if request.path in NOBODY:
        return None
    return me() if request.path in NAMED else session.get("browser")


class Known(Pluggable):
    """For people with a user id only. What they may do, the class of each demo says:
    its ``can_…``. Without these three, they could do all of it."""

    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        super().on_open(ws)
        if ws.user is None:
            # A page cannot see an HTTP error of its socket, but it can see this.
            gone = "You are not logged in here any more."
            ws.close(4001, gone if "browser" in session else NO_COOKIES)

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        return False

    def can_tell(self, user: str, to: str) -> bool:
        return False

    def can_vote(self, user: str, poll: str, choice: str) -> bool:
        return False


def entrance(page: str, **values: Any) -> Any:
    """A page for people with a name; for others, the way to get one."""
    if user := me():
        return render_template(f"{page}.html", user=user, me=name_of(user), **values)
    if "from" in request.args and "stranger" in g:
        return render_template("login.html", page=page, error=_(NO_COOKIES)), 400
    return redirect(url_for("who.login", page=page))


@people.before_app_request
def remember_browser() -> None:
    # A socket's handshake cannot set a cookie, and no picture or script needs one.
    ours = request.blueprint not in (None, "wschat", "language")
    if ours and not request.path.startswith("/ws/") and "browser" not in session:
        g.stranger = True
        session["browser"], session["tag"] = os.urandom(16).hex(), os.urandom(4).hex()


@people.after_app_request
def remember_on_pages(response: Response) -> Response:
    page = response.status_code < 400 and response.mimetype == "text/html"
    if "stranger" in g and (request.method == "OPTIONS" or not page):
        session.modified = False
    return response


@people.route("/<any(group, private):page>/login", methods=["GET", "POST"])
def login(page: str) -> Any:
    if request.method == "GET":
        return render_template("login.html", page=page)
    status = 400
    try:
        name = label(request.form.get("name", ""))
        user = f"{name}#{session['tag']}"
        if taken(user):
            status = 409
            raise Refused(_("“{name}” is taken. Please pick another name.", name=name))
    except Refused as refused:
        error = _(str(refused))
        return render_template("login.html", page=page, error=error), status
    if user != session.get("user"):
        forget_me()
    session["user"] = user
    # Who sends no cookie with the form may not take one with the answer, either.
    came = "?from=login" if "stranger" in g else ""
    return redirect(url_for(f"{page}.page") + came)


@people.post("/logout")
def logout() -> Any:
    forget_me()
    return redirect(url_for("home.index"))
