"""``connect URL``: a WebSocket client for people and scripts."""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import ssl
import time
from typing import Any
from urllib.parse import quote

import click

from ..client import Client
from ..client import connect as dial
from ..codec import CloseCode
from ..errors import ConnectionClosed, WSChatError
from ..logs import printable
from .frames import SHOWN, frames
from .screen import Screen

MAX_MESSAGE = 1 << 26  # bytes, as people look at strange servers
SECONDS = click.FloatRange(0, 86400, min_open=True)
NORMAL = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)
WHO = "say who you are, with --ticket or -H 'Cookie: …'"
REMEDIES: dict[object, str] = {
    401: WHO,
    403: f"{WHO}, or send the --origin that it expects",
    404: "there is no WebSocket at this path: look at the URL",
    ConnectionRefusedError: "is the server running, is the port right?",
    socket.gaierror: "is the host's name right?",
    TimeoutError: "--timeout gives longer",
    ssl.SSLCertVerificationError: "SSL_CERT_FILE=file.pem trusts another authority",
    ssl.SSLError: "is it ws:// rather than wss://?",
}


@click.command(short_help="Talk to a WebSocket server.")
@click.argument("url")
@click.option("-m", "--message", multiple=True, help="Send it, and print one reply.")
@click.option("-H", "--header", multiple=True, help="As 'Name: value'.")
@click.option("--origin", help="The Origin header, as a browser sends it.")
@click.option("--ticket", help="What flask wschat ticket USER prints.")
@click.option("--subprotocol", multiple=True, help="Offer it; may be repeated.")
@click.option("--no-compression", is_flag=True, help="Offer no permessage-deflate.")
@click.option("--timeout", type=SECONDS, default=10.0, help="For each answer (10 s).")
@click.option("--wait", type=click.FloatRange(0), help="Seconds to stay; or inf.")
@click.option("--frames", is_flag=True, help=f"Show {SHOWN} bytes of each frame.")
def connect(url: str, message: list[str], wait: float | None, **given: Any) -> None:
    """Talk to the server at URL: ws://host[:port]/path or wss://…

    On a terminal, what is typed is sent line by line, but no empty lines; Ctrl-D
    closes. With a pipe or a file, every line of it is sent as one text message, and
    what comes within a second more is awaited (--wait). Messages go to stdout, one per
    line, a binary one as hex; all else goes to stderr.

    The exit code is 0 where all was sent, answered if by -m, and closed with 1000 or
    1001; 2 for a wrong usage, or input that is not UTF-8; else 1.
    """
    screen = Screen(os.isatty(0) and os.isatty(1) and not message)
    wait = float(not screen.typing and not message) if wait is None else wait
    if given["ticket"] is not None:
        url += f"{'&' if '?' in url else '?'}ticket={quote(given['ticket'])}"
    if given["origin"] is not None:
        given["header"] += (f"Origin: {given['origin']}",)
    headers = [text.partition(":") for text in given["header"]]
    if not all(colon for _, colon, _ in headers):
        raise click.UsageError("-H 'Name: value' is expected")
    try:
        client = dial(
            url,
            headers=[(name.strip(), value.strip()) for name, _, value in headers],
            subprotocols=given["subprotocol"],
            compression=not given["no_compression"],
            timeout=given["timeout"],
            max_message=MAX_MESSAGE,
            on_bytes=frames(screen.note) if given["frames"] else None,
        )
        try:
            for text in message:
                client.send(text)
                screen.message(client.receive(given["timeout"]))
            if not message:
                chosen = f" with {client.subprotocol}" if client.subprotocol else ""
                screen.note(f"connected{chosen}" + ", Ctrl-D closes" * screen.typing)
            _converse(client, screen, None if message else screen.lines(), wait)
            if not message:
                why = f"{client.close_code} {client.close_reason}".rstrip()
                screen.note(f"closed: {why}")
        finally:
            screen.clear()
            client.close(CloseCode.GOING_AWAY, timeout=1)
    except ValueError as error:
        raise click.UsageError(printable(error, 1000)) from None
    except BrokenPipeError:
        raise  # who reads what we print has seen enough
    except (WSChatError, OSError) as error:
        kinds = getattr(error, "status", None), *type(error).__mro__
        remedy = next((f"; {REMEDIES[kind]}" for kind in kinds if kind in REMEDIES), "")
        raise click.ClickException(printable(error, 1000) + remedy) from None


def _converse(client: Client, screen: Screen, lines: Any, wait: float) -> None:
    """Send lines and print messages until the lines end and ``wait`` seconds more."""
    until = math.inf if lines else time.monotonic() + wait
    try:
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                screen.message(client.receive(timeout=0))
                left = 0
            sources = [client, lines or client]
            if lines in select.select(sources, [], [], min(left, 3600))[0]:
                if line := lines.recv_bytes():
                    client.send(line.decode().removesuffix("\n").removesuffix("\r"))
                else:
                    lines, until = None, time.monotonic() + wait
    except ConnectionClosed as error:
        unsent = lines and lines.poll() and lines.recv_bytes()
        if unsent or error.code not in NORMAL:
            raise
    else:
        if not client.close():
            raise ConnectionClosed(1006, "no answer to our close")
