"""From a URL to an open ``Client``: TCP, TLS, then the opening handshake."""

from __future__ import annotations

import html
import math
import re
import socket
import ssl
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence

from ..codec import ClientHandshake, Connection, read_head
from ..errors import HandshakeError
from .address import parse
from .client import Client, OnBytes
from .link import LINGER, Link


def connect(
    url: str,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    compression: bool = True,
    timeout: float | None = 10.0,
    ssl_context: ssl.SSLContext | None = None,
    max_message: int = 1 << 20,
    on_bytes: OnBytes | None = None,
) -> Client:
    """Return an open connection to ``url``, ``ws://`` or ``wss://``.

    User and password in the URL become an ``Authorization`` header. ``timeout``, in
    seconds, is for the handshake, for a server that takes nothing of what is sent, and
    for the end; None waits for ever. ``max_message`` is the limit in bytes of one
    incoming message. ``on_bytes`` is called with "sent" or "received" and the bytes
    that go over the wire after the handshake, cut anywhere.

    :raises ValueError: the URL or a header cannot be; nothing was sent.
    :raises OSError: the server cannot be reached, or its certificate is not trusted.
    :raises TimeoutError: an ``OSError`` too; it did not answer in time.
    :raises HandshakeError: it refused, with ``status`` and ``headers``, or answered
        with something that is no WebSocket handshake (``status`` 502).
    """
    server = parse(url)
    if ssl_context is not None and not server.secure:
        raise ValueError("ssl_context is for wss:// addresses")
    handshake = ClientHandshake(
        server.shown,
        server.target,
        headers=_headers(headers, server.authorization),
        subprotocols=subprotocols,
        compression=compression,
    )
    until = math.inf if timeout is None else time.monotonic() + timeout
    sock = socket.create_connection((server.host, server.port), timeout)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.secure:
            if ssl_context is None:
                ssl_context = ssl.create_default_context()
                ssl_context.set_alpn_protocols(["http/1.1"])
            if timeout is not None:
                sock.settimeout(max(until - time.monotonic(), 0.001))
            sock = ssl_context.wrap_socket(sock, server_hostname=server.host)
        return open_over(sock, handshake, timeout, max_message, on_bytes, until=until)
    except BaseException:
        sock.close()
        raise


def open_over(
    sock: socket.socket,
    handshake: ClientHandshake,
    timeout: float | None,
    max_message: int = 1 << 20,
    on_bytes: OnBytes | None = None,
    *,
    until: float | None = None,
) -> Client:
    """Return an open connection over ``sock``, which is connected; see ``connect``.

    The handshake may take until the clock shows ``until``, else ``timeout`` seconds.
    """
    if until is None:
        until = math.inf if timeout is None else time.monotonic() + timeout
    link = Link(sock)
    response_headers, received = _shake_hands(link, handshake, until)
    connection = Connection(
        client=True, max_message=max_message, deflate=handshake.deflate
    )
    client = Client(link, connection, timeout, on_bytes, received)
    client.subprotocol = handshake.subprotocol
    client.response_headers = response_headers
    return client


def _headers(
    given: Mapping[str, str] | Iterable[tuple[str, str]], authorization: str | None
) -> list[tuple[str, str]]:
    headers = list(given.items() if isinstance(given, Mapping) else given)
    for name, _ in headers:
        if re.match(r"(?i)host$|upgrade$|connection$|sec-websocket-", name):
            raise ValueError(f"the header {name!r} is made by the handshake itself")
    if authorization and not any(n.lower() == "authorization" for n, _ in headers):
        headers.append(("Authorization", authorization))
    return headers


def _shake_hands(
    link: Link, handshake: ClientHandshake, until: float
) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers of the response, and the bytes after it."""
    link.outgoing += handshake.request()
    data = b""
    while True:
        part = link.read_until(until)
        if part is None:
            raise TimeoutError("the server did not answer the handshake in time")
        if not part:
            raise HandshakeError(502, "the server hung up before it answered")
        data += part
        if not data.startswith(b"HTTP/"[: len(data)]):
            raise HandshakeError(502, f"the answer is not HTTP: {data[:20]!r}")
        try:
            size = handshake.receive_data(data)
        except HandshakeError as error:
            error.args = (f"{error}{_reason(link, data, dict(error.headers))}",)
            raise
        if size is not None:
            head = read_head(data)
            assert head is not None  # it was accepted
            return head[0].headers, data[size:]


def _reason(link: Link, data: bytes, headers: dict[str, str]) -> str:
    """Return what a refusal says besides its status, in its body if that is short."""
    if "location" in headers:
        return f", it redirects to {headers['location']}"
    length = headers.get("content-length", "")
    if not re.fullmatch("[0-9]{1,4}", length):
        return ""
    start = data.index(b"\r\n\r\n") + 4
    until = time.monotonic() + LINGER
    while len(data) < start + int(length) and (part := link.read_until(until)):
        data += part
    text = data[start : start + int(length)].decode("utf-8", "replace")
    if "html" in headers.get("content-type", ""):
        text = re.sub(r"(?s)<title.*?</title>|<[^>]*>", " ", text)
        text = html.unescape(text)
    text = textwrap.shorten(text, 300, placeholder=" …")
    return f": {text}" if text else ""
