"""The application that every server serves here, in each style there is."""

from __future__ import annotations

import gc
import json
import os
import queue
import socket
import sys

from flask import Flask, abort, g, request
from greenlet import greenlet
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_wschat import ChatListener, Listener, WebSocket, WSChat

if os.environ.get("PATCHED"):
    # The earliest place that a program under somebody else's command has.
    from gevent import monkey

    monkey.patch_all()

app = Flask(__name__)
app.config.from_mapping(SECRET_KEY="for tests", WSCHAT_MAX_MESSAGE=64 << 20)
if os.environ.get("PROXY_FIX") == "before":
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # type: ignore[method-assign]
app.config.from_prefixed_env()
chat = WSChat(app)
if os.environ.get("PROXY_FIX") == "after":
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # type: ignore[method-assign]
ended: dict[str, tuple[int, str]] = {}


@chat.authenticate
def who() -> str | None:
    if request.args.get("user") == "mallory":
        abort(401)
    return request.args.get("user")


@chat.route("/echo", subprotocols=["v2", "v1"])
def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


@chat.listener("/listen")
class Echo(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        if ws.user is not None:
            ended[ws.user] = code, reason


chat.listener("/chat")(ChatListener)


@chat.listener("/any/<path:name>", endpoint="any")
class Nothing(Listener):
    def on_open(self, ws: WebSocket, name: str) -> None:
        pass


@chat.listener("/room")
class Room(Listener):
    def on_open(self, ws: WebSocket) -> None:
        ws.join("room")
        ws.send("joined")

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        chat.broadcast(message, room="room")


@chat.listener("/fan")
class Fan(Room):
    def on_open(self, ws: WebSocket) -> None:
        ws.join("fan")

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        chat.broadcast(message, room="fan")


@chat.route("/close/<int:code>")
def close(ws: WebSocket, code: int) -> None:
    ws.close(code, "kicked")


@chat.listener("/who")
class Address(Listener):
    def on_open(self, ws: WebSocket) -> None:
        ws.send_json(
            {
                "address": request.remote_addr,
                "url": request.url,
                "pid": os.getpid(),
                "no_delay": sends_at_once(ws),
                "unsent": unsent_limit(ws),
            }
        )


def twin_of(ws: WebSocket) -> socket.socket:
    """Return another object for the socket of ``ws``."""
    descriptor = ws._transport._socket.fileno()  # type: ignore[attr-defined]
    return socket.socket(fileno=os.dup(descriptor))


def unsent_limit(ws: WebSocket) -> int | None:
    """Return what the kernel takes beyond what is on its way; None: any number."""
    with twin_of(ws) as twin:
        if sys.platform != "linux" or twin.family == socket.AF_UNIX:
            return None
        return twin.getsockopt(socket.IPPROTO_TCP, 25)  # TCP_NOTSENT_LOWAT


def sends_at_once(ws: WebSocket) -> bool:
    """Whether Nagle's algorithm is off: the second message in a row won't wait."""
    with twin_of(ws) as twin:
        return twin.family == socket.AF_UNIX or bool(
            twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        )


@app.route("/old")
def old() -> str:
    """As in the tutorials for gevent-websocket."""
    ws = request.environ.get("wsgi.websocket")
    if ws is None:
        abort(400, "not a WebSocket")
    while True:
        message = ws.receive()
        if message is None:
            return ""
        ws.send(message)


pool: queue.SimpleQueue[str] = queue.SimpleQueue()
for number in range(5):
    pool.put(f"connection {number}")


def query() -> str:
    """Use a database as extensions for it do: one connection for each context."""
    if "connection" not in g:
        g.connection = pool.get(timeout=2)
    connection: str = g.connection
    return connection


@app.teardown_appcontext
def give_back(error: BaseException | None) -> None:
    if "connection" in g:
        pool.put(g.pop("connection"))


@app.before_request
def load_user() -> None:
    if request.path.startswith("/pooled/"):
        query()


@chat.route("/pooled/view/<int:number>")
def pooled_view(ws: WebSocket, number: int) -> None:
    ws.send_json([number, request.path, "connection" in g])
    for message in ws:
        with app.app_context():
            ws.send(f"{message!s} over a {query().split()[0]}")


@chat.listener("/pooled/listener/<int:number>")
class Pooled(Listener):
    def on_open(self, ws: WebSocket, number: int) -> None:
        ws.send_json([number, request.path, False])

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(f"{message!s} over a {query().split()[0]}")


@app.get("/pooled/page")
def pooled_page() -> str:
    return query()


@app.get("/collect")
def collect() -> str:
    return str(gc.collect())


@app.get("/holds")
def holds() -> dict[str, int]:
    """What this process holds, beside memory."""
    gc.collect()
    objects = gc.get_objects()
    hub = chat._hub()
    return {
        "connections": hub.count() + len(hub.leaving),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "greenlets": sum(isinstance(each, greenlet) for each in objects),
        "objects": len(objects),
        "threads": len(os.listdir("/proc/self/task")),
        "topics": len(hub.members.plain) + len(hub.feeds.topics),
        "users": len(chat.online()),
    }


@app.get("/page")
def page() -> str:
    return "a page"


METHODS = ["GET", "POST", "PUT", "OPTIONS", "QUERY", "PRI", "M-SEARCH"]


@app.route("/said/<path:path>", methods=METHODS, provide_automatic_options=False)
def said(path: str) -> str:
    """What the server understood: the method, the path and the body."""
    body = request.get_data().decode("latin-1")
    return json.dumps([request.method, request.path, body]) + "\n"


@app.get("/ours")
def ours() -> list[str]:
    """What is in the environ for who asks for a WebSocket."""
    return [
        key for key in request.environ if key.startswith(("wschat.", "wsgi.websocket"))
    ]


@app.get("/process")
def process() -> dict[str, int]:
    return {"pid": os.getpid(), "frozen": gc.get_freeze_count()}


@app.get("/ended/<user>")
def how_it_ended(user: str) -> dict[str, object]:
    code, reason = ended.get(user, (None, None))
    return {"code": code, "reason": reason}
