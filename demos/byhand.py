"""A WebSocket client made by hand, which sends whatever bytes it is told to.

Browsers send no wrong frames, and no fragments of one's own. This client does, and
tells what comes back as it is. It has one end of a pair of sockets and gives the other
to this application: there is no address in it, so it can talk to nobody else.
"""

from __future__ import annotations

import base64
import os
import socket
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, TypedDict

from flask import current_app
from werkzeug.test import EnvironBuilder
from werkzeug.wsgi import ClosingIterator

from flask_wschat.codec import Anatomy, apply_mask, explain
from flask_wschat.servers.offers import OFFER, StartResponse, Taken

from . import Refused

SHOWN = 256
"""Bytes of a payload that are told, or inflated."""
LOOKED_AT = 4096
"""Bytes of a frame that are looked at."""
QUIET = 0.25
"""Seconds that an answer is waited for."""
PATIENCE = 2.0
"""Seconds that an attempt takes at most."""

_hands = threading.BoundedSemaphore(8)  # attempts at a time, in a process


class Frames:
    """Frames out of a stream of bytes; of long ones it keeps only the beginning."""

    def __init__(self) -> None:
        self._data = b""
        self._rest = 0  # bytes to come of a frame that was told

    @property
    def between(self) -> bool:
        """Whether one frame has ended, and the next one not begun."""
        return not (self._data or self._rest)

    def add(self, data: bytes) -> Iterator[Anatomy]:
        self._data += data[self._rest :]
        self._rest = max(self._rest - len(data), 0)
        begin = 0
        while begin < len(self._data):
            try:
                frame = explain(self._data[begin : begin + LOOKED_AT])
            except ValueError:
                break  # its header is not all here
            if frame.missing and frame.size < SHOWN:
                break
            begin += frame.size + frame.missing
            yield frame
        self._rest = max(begin - len(self._data), self._rest)
        self._data = self._data[begin:]


def as_fields(frame: Anatomy) -> dict[str, Any]:
    """Return what a page is told of a frame, with the bytes in hex."""
    told = {
        "fin": frame.fin,
        "rsv": list(frame.rsv),
        "opcode": frame.opcode,
        "masked": frame.masked,
        "length": frame.length,
        "bits": frame.length_bits,
        "key": frame.key.hex(),
        "raw": frame.raw[:SHOWN].hex(),
    }
    if frame.rsv[0] and frame.fin and not frame.missing:
        try:  # RFC 7692 §7.2.2
            tail = b"\0\0\xff\xff"
            inflated = zlib.decompressobj(-15).decompress(frame.payload + tail, SHOWN)
            told["inflated"] = inflated.hex()
        except zlib.error:
            pass  # somebody's own idea of the bit
    return told


class Made(TypedDict):
    """A frame as somebody wants it, right or wrong."""

    fin: bool
    rsv: int
    opcode: int
    bits: int  # of the length: 7, 16 or 64
    length: int  # as it is told
    key: str  # in hex, or "": not masked
    payload: str  # in hex, without its mask


def build(made: Made) -> bytes:
    """Return the bytes of a frame (RFC 6455 §5.2); nothing is put right.

    :raises Refused: there are no such bytes.
    """
    bits, length = made["bits"], made["length"]
    try:
        short, most = {7: (length, 125), 16: (126, 0xFFFF), 64: (127, 2**63)}[bits]
        key, payload = bytes.fromhex(made["key"]), bytes.fromhex(made["payload"])
        first = (
            made["fin"] << 7 | range(8)[made["rsv"]] << 4 | range(16)[made["opcode"]]
        )
        if not 0 <= length <= most or len(key) not in (0, 4):
            raise ValueError
    except (LookupError, ValueError):
        raise Refused("These fields make no frame.") from None
    more = b"" if bits == 7 else length.to_bytes(bits // 8, "big")
    masked = apply_mask(payload, key) if key else payload
    return bytes([first, bool(key) << 7 | short]) + more + key + masked


GOODBYE = bytes.fromhex("8882 00000000 03e8")


def converse(frames: Iterable[bytes], host: str, address: str | None) -> dict[str, Any]:
    """Send ``frames`` to the echo, as if from ``address``; return all that passes.

    Also whether the connection is ``open`` then, as far as the server is concerned.

    :raises Refused: it may not be done now.
    """
    if not _hands.acquire(blocking=False):
        raise Refused("Others try this just now. Please try again in a moment.")
    try:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            _open_echo(theirs, host, address)
            return _talk(ours, frames)
    finally:
        _hands.release()


class PairOffer:
    """What a server has for an application: here, one end of a pair."""

    answered = False
    handler = None
    threads = 0

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def accept(self, response: bytes, closed: Callable[[], Any]) -> Taken:
        self._socket.setblocking(False)
        return Taken(self._socket.detach(), b"")

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        return ()


def _open_echo(sock: socket.socket, host: str, address: str | None) -> None:
    """Ask for the echo as any client does, but by a call."""
    asked = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()),
        ("Sec-WebSocket-Version", "13"),
    ]
    environ = EnvironBuilder(
        "/ws/echo",
        f"http://{host}/",
        headers=asked,
        environ_base={"REMOTE_ADDR": address or "", OFFER: PairOffer(sock)},
    ).get_environ()
    refused = False

    def start_response(*answer: Any) -> Any:
        nonlocal refused
        refused = True

    for _ in ClosingIterator(current_app.wsgi_app(environ, start_response)):
        pass
    if refused:  # there is an answer by HTTP
        raise Refused("The server takes no connection just now. Please try again.")


def _talk(sock: socket.socket, frames: Iterable[bytes]) -> dict[str, Any]:
    begun = monotonic()
    readers = {"received": Frames(), "sent": Frames()}
    passed: list[dict[str, Any]] = []

    def note(direction: str, data: bytes) -> None:
        at = round((monotonic() - begun) * 1000, 2)
        for frame in readers[direction].add(data):
            passed.append({"direction": direction, "at": at, **as_fields(frame)})

    sock.settimeout(QUIET)
    try:
        for data in frames:
            note("received", data)
            sock.sendall(data)
        while data := sock.recv(4096):
            note("sent", data)
            if monotonic() > begun + PATIENCE:
                break
        is_open = bool(data)
    except TimeoutError:
        is_open = True
        sock.sendall(GOODBYE)
    except OSError:
        is_open = False  # it was reset
    return {"frames": passed, "open": is_open}
