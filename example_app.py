"""A live vote, a group chat and a private chat: plain Flask plus WebSockets.

Run ``python example_app.py`` and open the address it prints in two browsers. The
pages are in ``templates/``, what they do in the browser is in ``static/``. Votes,
rooms and names are remembered in this process, until it ends.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from flask import Flask, redirect, render_template, request, session, url_for

from flask_wschat import Listener, WebSocket, WSChat

app = Flask(__name__)
# A fixed key, so that sessions outlive a restart. In public, set a secret one.
app.secret_key = os.environ.get("WSCHAT_DEMO_SECRET", "only good for a demo")
chat = WSChat(app)

CHOICES = ["A live dashboard", "A team chat", "A multiplayer game", "A whiteboard"]

votes: dict[str, str] = {}  # browser -> choice
rooms = ["Lobby", "Flask", "Coffee break"]
owners: dict[str, tuple[str, float]] = {}  # name -> browser, and when it was last seen

Fields = dict[str, Any]  # of a JSON object


class Refused(Exception):
    """A request that cannot be served: a code and a message for its sender only."""


def text(fields: Any, key: str, limit: int) -> str:
    """Return the text ``fields[key]``, or refuse: outsiders may send anything."""
    value = fields.get(key)
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise Refused(f"bad_{key}", f"The {key} must have 1 to {limit} characters.")
    return value


def label(fields: Any, key: str) -> str:
    """Return the name ``fields[key]``: one line without invisible characters."""
    value = " ".join(text(fields, key, 24).split())
    if not value.isprintable():
        raise Refused(f"bad_{key}", f"The {key} has characters that cannot be shown.")
    return value


# ---- who is who ---------------------------------------------------------------------


def taken(name: str) -> bool:
    """Whether another browser is online as ``name``, or was a moment ago."""
    owner, seen = owners.get(name, ("", 0.0))
    # A minute to reload the page, or to change networks.
    held = time.time() < seen + 60 or name in chat.online()
    return held and owner != session.get("browser")


def me() -> str | None:
    """The name of this browser, unless somebody took it while it was away."""
    name: str | None = session.get("name")
    if name is None or (name in owners and taken(name)):
        return None
    owners[name] = session["browser"], time.time()
    return name


def forget_me() -> None:
    """Give the name of this browser back and close its sockets."""
    if name := me():
        owners[name] = session["browser"], 0  # free once the sockets are closed
        chat.disconnect_user(name, 4001, "You logged out.")
    session.pop("name", None)


@chat.authenticate
def who() -> str | None:
    # Voting needs no name. A browser's id is longer than names, so never one of them.
    named = request.path in ("/ws/group", "/ws/private")
    return me() if named else session.get("browser")


# ---- the pages ----------------------------------------------------------------------


@app.before_request
def remember_browser() -> None:
    # Only a page can set a cookie: a socket's handshake is too late for it.
    if "browser" not in session and not request.path.startswith("/ws/"):
        session["browser"] = os.urandom(16).hex()


@app.get("/")
def index() -> str:
    return render_template("index.html")


@app.get("/vote")
def vote() -> str:
    return render_template("vote.html", choices=CHOICES)


@app.get("/<any(group, private):page>")
def talk(page: str) -> Any:
    if name := me():
        return render_template(f"{page}.html", me=name)
    return redirect(url_for("login", page=page))


@app.route("/<any(group, private):page>/login", methods=["GET", "POST"])
def login(page: str) -> Any:
    code = error = ""
    if request.method == "POST":
        try:
            name = label(request.form, "name")
            if taken(name):
                raise Refused("taken", f"“{name}” is taken. Please pick another name.")
            if name != session.get("name"):
                forget_me()
            owners[name] = session["browser"], time.time()
            session["name"] = name
            return redirect(url_for("talk", page=page))
        except Refused as refused:
            code, error = refused.args
    status = 409 if code == "taken" else 400 if code else 200
    return render_template("login.html", page=page, error=error), status


@app.post("/logout")
def logout() -> Any:
    forget_me()
    return redirect(url_for("index"))


# ---- the sockets --------------------------------------------------------------------


class Demo(Listener):
    """JSON requests ``{"type", "ref", ...}``, each with exactly one answer.

    A request of type "say" calls ``do_say``, which returns the fields of the reply or
    raises ``Refused``. ``begin`` is called first.
    """

    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        self.user = ws.user or ""
        self.here: set[str] = set()  # the rooms where others see this user
        if self.user:
            ws.send_json({"type": "hello", "user": self.user})
            self.begin(ws)
            tell_numbers()
        else:  # a page cannot see an HTTP error of its socket, but it can see this
            ws.close(4001, "You are not logged in here any more.")

    def begin(self, ws: WebSocket) -> None:
        ws.join("home")

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ref = None
        try:
            fields = parse(message)
            ref = fields["ref"]
            action = getattr(self, "do_" + text(fields, "type", 20), None)
            if action is None:
                raise Refused("bad_type", "There is no request of this type.")
            reply = action(ws, fields)
            ws.send_json({"type": "reply", "ref": ref, "ok": True} | reply)
        except Refused as refused:
            error = dict(zip(("code", "message"), refused.args, strict=True))
            ws.send_json({"type": "error", "ref": ref, "ok": False, "error": error})

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        if self.user in owners and code != 4001:
            owners[self.user] = owners[self.user][0], time.time()
        self.move(ws, set())
        tell_numbers()

    def move(self, ws: WebSocket, where: set[str]) -> None:
        """Leave and join rooms; tell others, unless this user has more tabs there."""
        for room in self.here - where:
            ws.leave(room)
            self.tell_presence(room, "left")
        for room in where - self.here:
            self.tell_presence(room, "joined")
            ws.join(room)
        self.here = where

    def tell_presence(self, room: str, change: str) -> None:
        if self.user not in chat.online(room):
            news = {"type": "presence", "room": room[6:], "joined": [], "left": []}
            news |= {change: [self.user]}
            chat.broadcast(news, room=room, key="presence " + self.user)


def parse(message: str | bytes) -> Fields:
    """Return a request, or refuse what cannot be one."""
    try:
        fields = json.loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise Refused("bad_json", "Send one JSON object per text message.")
    if type(fields.get("ref")) is not int or abs(fields["ref"]) >= 2**53:
        raise Refused("bad_ref", "Every request needs a whole number as its ref.")
    return fields


# A message with a key replaces an older one with this key that a slow page has not got
# yet, and the room's history leaves it out: right for numbers, wrong for words.


def tell_numbers() -> None:
    """Show every page how things stand, after anything has changed."""
    online = {room: len(chat.online(room)) for room in ("vote", "group", "people")}
    counts = {choice: [*votes.values()].count(choice) for choice in CHOICES}
    tally = {"counts": counts, "total": len(votes), "online": online["vote"]}
    people = [[room, len(chat.online("group:" + room))] for room in rooms]
    chat.broadcast({"type": "tally", **tally}, room="vote", key="tally")
    chat.broadcast({"type": "rooms", "rooms": people}, room="group", key="rooms")
    chat.broadcast({"type": "online", **online}, room="home", key="online")


chat.listener("/ws/home")(Demo)


@chat.listener("/ws/vote")
class Vote(Demo):
    def begin(self, ws: WebSocket) -> None:
        ws.join("vote")
        ws.send_json({"type": "mine", "choice": votes.get(self.user)})

    def do_vote(self, ws: WebSocket, fields: Fields) -> Fields:
        choice = text(fields, "choice", 50)
        if choice not in CHOICES:
            raise Refused("unknown_choice", "This is not one of the choices.")
        votes[self.user] = choice
        chat.send_to_user(self.user, {"type": "mine", "choice": choice})  # in all tabs
        tell_numbers()
        return {"choice": choice}


@chat.listener("/ws/group")
class Group(Demo):
    def begin(self, ws: WebSocket) -> None:
        ws.join("group")

    def do_join(self, ws: WebSocket, fields: Fields) -> Fields:
        name = label(fields, "room")
        if fields.get("create") is True and name not in rooms and len(rooms) < 30:
            rooms.append(name)
        if name not in rooms:
            raise Refused("unknown_room", "There is no such room.")
        room = "group:" + name
        self.move(ws, {room})
        tell_numbers()
        return {"room": name, "present": chat.online(room), "messages": kept(room)}

    def do_say(self, ws: WebSocket, fields: Fields) -> Fields:
        room = "group:" + label(fields, "room")
        if room not in self.here:
            raise Refused("not_joined", "You are not in this room.")
        message = {"type": "message", "room": room[6:], **written(ws, fields)}
        return {"seq": chat.broadcast(message, room=room)}


@chat.listener("/ws/private")
class Private(Demo):
    def begin(self, ws: WebSocket) -> None:
        ws.join(inbox(self.user))
        self.move(ws, {"people"})

    def do_inbox(self, ws: WebSocket, fields: Fields) -> Fields:
        return {"present": chat.online("people"), "messages": kept(inbox(self.user))}

    def do_tell(self, ws: WebSocket, fields: Fields) -> Fields:
        to = label(fields, "to")
        if to not in chat.online("people"):
            raise Refused("offline", f"{to} is offline. Try again later.")
        message = {"type": "direct", "to": to, **written(ws, fields)}
        seqs = [chat.broadcast(message, room=inbox(name)) for name in {to, self.user}]
        return {"seq": max(seqs)}


def written(ws: WebSocket, fields: Fields) -> Fields:
    """What somebody wrote. The author is who logged in, not who a message claims."""
    mid, data = text(fields, "mid", 64), text(fields, "data", 2000)
    return {"from": ws.user, "data": data, "mid": mid, "at": time.time()}


def kept(room: str) -> list[Fields]:
    return [json.loads(entry.data) for entry in chat.history(room)]


def inbox(name: str) -> str:
    """The room of somebody's private messages; not theirs who have the name later."""
    return f"inbox:{owners[name][0]}:{name}"


if __name__ == "__main__":
    chat.run(app, port=int(os.environ.get("PORT", "5000")))
