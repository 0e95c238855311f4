"""The protocol, byte by byte: what passes on a socket is told to its own page.

A page has two sockets. What its first one sends and gets passes a wire (see wire.py),
and is told on the second one, which is not watched itself.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import secrets
import time
from time import monotonic
from typing import Any

from flask import Blueprint, render_template, request, session

from flask_wschat import BackendError, Listener, WebSocket, event

from . import Refused, byhand, chat
from .byhand import Frames, Made, as_fields
from .who import Known
from .wire import WIRE, Direction, Wire

protocol = Blueprint("protocol", __name__)

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
MOST = 50
"""Frames a second that a page is told of."""
MOST_READ = 10_000
"""Those a second that are looked at besides."""
MOST_BYTES = 1024
"""Bytes that may be sent by hand at once."""
WATCH = "demo.watch"


@protocol.get("/protocol")
def page() -> str:
    return render_template(
        "protocol.html",
        page=secrets.token_hex(8),
        user=session["browser"],
        guid=GUID,
    )


@protocol.before_request
def watch() -> None:
    """Before the socket opens, so that not one of its bytes is missed."""
    if request.path != "/ws/echo":
        return  # reports of reports would have no end
    wire: Wire | None = request.environ.get(WIRE)
    page = request.args.get("page", "")
    if wire is not None and "browser" in session and re.fullmatch("[0-9a-f]{16}", page):
        request.environ[WATCH] = Watch(f"{session['browser']} {page}", head())
        wire.tap(request.environ[WATCH].tell)
    if "compress" not in request.args:  # browsers always ask for it
        request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


def head() -> list[str]:
    """The request's head. WSGI has kept all but the case of its names' letters."""
    lines = [f"GET {request.full_path} HTTP/1.1"]
    for name, value in request.headers:
        # Who shows this to others shall not show whom the server takes them for.
        secret = name in ("Cookie", "Authorization")
        name = name.replace("Websocket", "WebSocket")
        lines.append(f"{name}: {'…' if secret else value}")
    return lines


class Watch:
    """Tells the page in ``room`` of one socket."""

    def __init__(self, room: str, head: list[str]) -> None:
        self.room, self.head = room, head
        self.socket = secrets.token_hex(4)
        self.begun = monotonic()
        self.frames: dict[Direction, Frames] = {"received": Frames(), "sent": Frames()}
        self.told = self.left_out = 0  # in this second; since the last that was told
        self.second = 0
        self.pings = 0  # to be sent

    def opened(self, answer: bytes, key: str) -> None:
        joined = (key + GUID).encode()
        digest = hashlib.sha1(joined, usedforsecurity=False).digest()
        self.emit(
            "opened",
            request=self.head,
            answer=answer.decode("latin-1").rstrip().split("\r\n"),
            nonce=key,
            sha1=digest.hex(),
            accept=base64.b64encode(digest).decode(),
        )

    def tell(self, direction: Direction, data: bytes) -> bytes:
        at = monotonic() - self.begun
        if int(at) != self.second:
            self.second, self.told = int(at), 0
        reader = self.frames[direction]
        frames = list(reader.add(data))
        if self.pings and direction == "sent" and reader.between:
            # An application cannot send one by itself, but who holds the wire can.
            ping = b"\x89\x06there?"
            frames += reader.add(ping)
            data, self.pings = data + ping, self.pings - 1
        shown = frames[: max(MOST - self.told, 0)]
        self.told += len(shown)
        self.left_out += len(frames) - len(shown)
        if shown:
            self.emit(
                "passed",
                direction=direction,
                at=round(at * 1000, 2),
                frames=[as_fields(frame) for frame in shown],
                left_out=self.left_out,
            )
            self.left_out = 0
        if len(frames) > len(shown):  # a flood waits, so that others need not
            time.sleep((len(frames) - len(shown)) / MOST_READ)
        return data

    def emit(self, name: str, **fields: Any) -> None:
        with contextlib.suppress(BackendError):  # the socket itself goes on
            chat.emit(name, room=self.room, socket=self.socket, **fields)


@chat.listener("/ws/echo", blueprint=protocol, limit=(20, 100))
class Echo(Listener):
    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        self.wire: Wire | None = request.environ.get(WIRE)
        self.watch: Watch | None = request.environ.get(WATCH)
        if self.watch is not None and self.wire is not None:
            key = request.headers["Sec-WebSocket-Key"]
            self.watch.opened(self.wire.answer, key)
        elif self.watch is not None:
            self.watch.emit("unseen")

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        if isinstance(message, bytes):
            ws.send(b"server got: " + message)
        elif message == "cut" and self.wire is not None:
            self.wire.cut()
        elif order := re.fullmatch(r"close ([1-4]\d\d\d)", message):
            try:
                ws.close(int(order[1]), "as you asked")
            except ValueError as error:  # one that may not be sent
                ws.send(str(error))
        else:
            if message == "ping" and self.watch is not None:
                self.watch.pings = 1
            ws.send(f"server got: {message}")


@chat.listener("/ws/wire", blueprint=protocol)
class Reports(Known):
    """A page is in a room of its own, which begins with its browser's name."""

    presence = False

    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        super().on_open(ws)
        self.host, self.address = request.host, request.remote_addr

    def can_join(self, user: str | None, room: str) -> bool:
        return room.startswith(f"{user} ")

    @event(limit=(4, 20))
    def by_hand(self, frames: list[Made]) -> dict[str, Any]:
        """Send these frames on a connection of their own; return what has passed."""
        made = [byhand.build(frame) for frame in frames]
        if sum(map(len, made)) > MOST_BYTES:
            raise Refused("That is too long: 1024 bytes may be sent at once.")
        return byhand.converse(made, self.host, self.address)
