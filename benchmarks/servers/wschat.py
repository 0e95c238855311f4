"""Flask-WSChat with its public API.

`/echo` sends back, `/bare` too but without an app context for each message, `/fan`
broadcasts, as `/fan/ROOM` does to another room. `/chat?user=ID` is the ready-made chat,
`/rooms` too but with no limit of rooms, which `/fill` puts messages into. `/typed` has
an event, `/board/ROOM` emits what it takes, `/untyped` and `/checked` read JSON by
themselves. `/private` is an echo for the users of signed session cookies only; the
Origin check, on by default, is for all. `/write` lets messages grow in rooms. `/hello`
is a page.

    python -m benchmarks.servers.wschat [KEY=NUMBER]...

KEY=NUMBER are settings, without their prefix. The backend's address is WSCHAT_URL's in
the environment.
"""

import json
import os
import sys
import time
from typing import Any

import gevent
from flask import Flask, abort, request, session
from gevent.pool import Pool

from benchmarks.servers.serving import serve
from flask_wschat import ChatListener, Events, Listener, WebSocket, WSChat, event
from flask_wschat.server import Server, WebSocketHandler

app = Flask(__name__)
app.config.update(SECRET_KEY="signs, and guards nothing", WSCHAT_MAX_MESSAGE=32 << 20)
app.config["WSCHAT_RATE_LIMIT"] = None  # what is measured is how many it takes
app.config["WSCHAT_URL"] = os.environ.get("WSCHAT_URL", "memory://")
app.config["WSCHAT_DRAIN"] = float(os.environ.get("WSCHAT_DRAIN", 10))
if __name__ == "__main__":
    for argument in sys.argv[1:]:
        key, number = argument.split("=")
        app.config[f"WSCHAT_{key}"] = float(number)
chat = WSChat(app)


@chat.authenticate
def who() -> str | None:
    user: str | None = session.get("user")
    if user is None and request.path == "/private":
        abort(401)
    return request.args.get("user", user)


@app.get("/hello")
def hello() -> str:
    return "Hello."


@chat.listener("/echo")
@chat.listener("/private", endpoint="private")
class Echo(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


@chat.listener("/bare")
class BareEcho(Echo):
    app_context = False


@chat.listener("/fan", defaults={"room": "all"})
@chat.listener("/fan/<room>", endpoint="room")
class Fan(Listener):
    def on_open(self, ws: WebSocket, room: str) -> None:
        self.room = room
        ws.join(room)

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        chat.broadcast(message, room=self.room)


@chat.listener("/untyped")
class Untyped(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        move = json.loads(message)
        result = {"room": move["room"], "x": 2 * move["x"]}
        ws.send(json.dumps({"ref": move["ref"], "result": result}))


@chat.listener("/checked")
class Checked(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        try:
            move = json.loads(message)
            ref, room, x, y = (move[name] for name in ("ref", "room", "x", "y"))
            numbers = [isinstance(value, int | float) for value in (x, y)]
            good = isinstance(ref, int) and isinstance(room, str) and all(numbers)
        except (ValueError, TypeError, KeyError):
            good = False
        if not good:
            ws.send(json.dumps({"error": "a bad request"}))
            return
        ws.send(json.dumps({"ref": ref, "result": {"room": room, "x": 2 * x}}))


@chat.listener("/typed")
class Typed(Events):
    @event
    def move(self, room: str, x: float, y: float) -> dict[str, Any]:
        return {"room": room, "x": 2 * x}


@chat.listener("/board/<room>")
class Board(Events):
    def on_open(self, ws: WebSocket, room: str) -> None:
        self.room = room
        ws.join(room)

    @event
    def point(self, at: float, x: float, y: float) -> None:
        key = self.ws.id
        self.emit("pointed", room=self.room, key=key, echo=False, at=at, x=x, y=y)


@chat.listener("/chat")
class Open(ChatListener):
    anonymous = "say"


@chat.listener("/rooms")
class ManyRooms(Open):
    max_rooms = 1_000_000


@app.get("/fill/<int:first>/<int:count>")
def fill(first: int, count: int) -> str:
    """Say one thing in each of ``count`` rooms, a hundred at a time."""

    def say(number: int) -> None:
        chat.broadcast("x" * 64, room=f"room {number}")

    rooms = range(first, first + count)
    for _ in Pool(100).imap_unordered(say, rooms, maxsize=100):
        pass
    return "done"


@app.get("/write/<int:count>/<int:rate>/<int:tokens>")
def write(count: int, rate: int, tokens: int) -> str:
    """Let a message grow in each of ``count`` rooms, by so many tokens a second.

    A token is when it was appended; they begin one after another.
    """

    def write_in(number: int) -> None:
        due = time.monotonic() + number / count
        with chat.stream(room=f"room {number}") as stream:
            for _ in range(tokens):
                gevent.sleep(max(due - time.monotonic(), 0))
                stream.append(f"{time.monotonic():.6f} ")
                due += 1 / rate

    gevent.joinall([gevent.spawn(write_in, n) for n in range(count)], raise_error=True)
    return "done"


def signed_cookie(user: str) -> str:
    """Return the Cookie header that a browser of ``user`` would send."""
    interface: Any = app.session_interface
    value = interface.get_signing_serializer(app).dumps({"user": user})
    return f"session={value}"


if __name__ == "__main__":
    serve(app, WebSocketHandler, Server)
