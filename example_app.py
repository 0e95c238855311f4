"""A live vote, a group chat and a private chat: plain Flask plus the ready-made chat.

Run ``python example_app.py`` and open the address it prints in two browsers. The
pages are in ``templates/``, what they do in the browser is in ``static/``. All that
people share (votes, rooms, messages, who is there) is where ``WSCHAT_URL`` says: in
this process without it, for many processes ``redis://localhost:6379/0``, for instance.

Who somebody is stands in the signed session cookie. A name is refused while somebody
else is online with it, in whichever process; after that it is free. Two who take one
name in the same instant both get it, but nothing of each other's: a user's id is
``name#tag``, and the tag is the browser's.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import unicodedata
from typing import Any

from flask import Flask, g, redirect, render_template, request, session, url_for

from flask_wschat import BackendError, ChatListener, WebSocket, WSChat

HOST = os.environ.get("HOST") or "127.0.0.1"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


app = Flask(__name__)
# Sessions outlive a restart where only this machine gets in, as all can read this key.
app.secret_key = os.environ.get("WSCHAT_DEMO_SECRET") or (
    "only good for a demo" if is_loopback(HOST) else secrets.token_hex()
)
app.config["WSCHAT_URL"] = os.environ.get("WSCHAT_URL") or "memory://"
app.config.from_prefixed_env()  # FLASK_WSCHAT_RATE_LIMIT=null, for a crowd at one desk
chat = WSChat(app)

CHOICES = ["A live dashboard", "A team chat", "A multiplayer game", "A whiteboard"]
chat.poll("demo", CHOICES, room="vote")

ROOMS = ["#Lobby", "#Flask", "#Coffee break"]
MOST_ROOMS = 30

NO_COOKIES = (
    "Your browser keeps no cookie of this page, so it cannot tell you from others."
    " Allow cookies for it, then try again."
)

# Who is on which page. To "group" the application tells which rooms people have made.
PAGES = ("vote", "group", "private")


class Refused(PermissionError):
    """What cannot be done, in words for who asked for it."""


# It joins two characters, in Persian words and emoji; by itself it cannot be seen.
JOINER = re.compile("(?<=[^\\s\u200c\u200d])[\u200c\u200d](?=[^\\s\u200c\u200d])")


def label(value: str) -> str:
    """Return a name as all write it: one line, of characters that can be seen."""
    name = unicodedata.normalize("NFC", " ".join(value.split()))
    if not 1 <= len(name) <= 24:
        raise Refused("The name must have 1 to 24 characters.")
    if not JOINER.sub("", name).isprintable():
        raise Refused("The name has characters that cannot be shown.")
    return name


# ---- who is who ---------------------------------------------------------------------


def name_of(user: str) -> str:
    return user.rpartition("#")[0]


def taken(user: str) -> bool:
    """Whether another browser is online with a name that looks the same."""
    look = JOINER.sub("", name_of(user))
    return any(
        JOINER.sub("", name_of(other)) == look and other != user
        for other in chat.online()
    )


def me() -> str | None:
    """The user of this browser, unless somebody took the name while it was away."""
    user: str | None = session.get("user")
    return None if user is None or taken(user) else user


def forget_me() -> None:
    """Give the name of this browser back and close its sockets."""
    if user := session.pop("user", None):
        chat.disconnect_user(user, 4001, "You logged out.")


@chat.authenticate
def who() -> str | None:
    if request.path == "/ws/vote":
        return session.get("browser")  # voting needs no name
    return me() if request.path == "/ws/chat" else None


# ---- the pages ----------------------------------------------------------------------


@app.before_request
def remember_browser() -> None:
    # A socket's handshake cannot set a cookie, and no picture or script needs one.
    if request.endpoint in ("index", "vote", "login") and "browser" not in session:
        g.stranger = True
        session["browser"], session["tag"] = os.urandom(16).hex(), os.urandom(4).hex()


@app.after_request
def trust_only_ours(response: Any) -> Any:
    # No name and no message can then be a script, whatever a page does with it.
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    return response


@app.errorhandler(BackendError)
def unavailable(error: BackendError) -> Any:
    return "The demo's storage cannot be reached. Please try again soon.", 503


@app.get("/")
def index() -> str:
    return render_template("index.html")


@app.get("/vote")
def vote() -> str:
    return render_template("vote.html", choices=CHOICES, far=not is_loopback(HOST))


@app.get("/<any(group, private):page>")
def talk(page: str) -> Any:
    if user := me():
        return render_template(f"{page}.html", user=user, me=name_of(user), rooms=ROOMS)
    if "from" in request.args and "browser" not in session:
        return render_template("login.html", page=page, error=NO_COOKIES), 400
    return redirect(url_for("login", page=page))


@app.route("/<any(group, private):page>/login", methods=["GET", "POST"])
def login(page: str) -> Any:
    if request.method == "GET":
        return render_template("login.html", page=page)
    status = 400
    try:
        name = label(request.form.get("name", ""))
        user = f"{name}#{session['tag']}"
        if taken(user):
            status = 409
            raise Refused(f"“{name}” is taken. Please pick another name.")
    except Refused as refused:
        return render_template("login.html", page=page, error=refused), status
    if user != session.get("user"):
        forget_me()
    session["user"] = user
    # Who sends no cookie with the form may not take one with the answer, either.
    came = "?from=login" if "stranger" in g else ""
    return redirect(url_for("talk", page=page) + came)


@app.post("/logout")
def logout() -> Any:
    forget_me()
    return redirect(url_for("index"))


# ---- the sockets --------------------------------------------------------------------


@chat.listener("/ws/home")
class Home(ChatListener):
    """Sees who is where, and is not seen itself: it has no user."""

    max_page = 1  # its page shows numbers, not messages

    def can_join(self, user: str | None, room: str) -> bool:
        return room in PAGES or room in rooms()

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        return False


class Known(ChatListener):
    """For people with a user id only."""

    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        super().on_open(ws)
        if ws.user is None:
            # A page cannot see an HTTP error of its socket, but it can see this.
            gone = "You are not logged in here any more."
            ws.close(4001, gone if "browser" in session else NO_COOKIES)


@chat.listener("/ws/vote")
class Vote(Known):
    """One vote for each browser. Who is in the room "vote" is online there."""

    def can_join(self, user: str | None, room: str) -> bool:
        return room == "vote"

    def can_say(self, user: str | None, room: str, data: Any) -> bool:
        return False

    def can_tell(self, user: str, to: str) -> bool:
        return False


@chat.listener("/ws/chat")
class Talk(Known):
    """Both chats: what people say in rooms, and what they tell each other."""

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


def rooms() -> set[str]:
    """The rooms there are. Those that people make are forgotten after a day."""
    made = {str(entry.data) for entry in chat.history("group", limit=MOST_ROOMS)}
    return {*ROOMS, *made}


if __name__ == "__main__":
    chat.run(app, host=HOST, port=int(os.environ.get("PORT", "5000")))
