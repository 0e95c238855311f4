"""``python -m flask_wschat connect URL``: a WebSocket client for people and scripts.

Messages go to stdout, everything else to stderr. One thread reads what is typed or
piped in, as that waits; all the rest happens in the main one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import re
import select
import socket
import ssl
import sys
import time
from typing import Any

from ..client import Client, connect
from ..codec import CloseCode
from ..errors import ConnectionClosed, HandshakeError
from .frames import SHOWN, Frames
from .lines import Lines
from .screen import Screen

OK, REFUSED, USAGE, CLOSED, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 130

EPILOG = """\
With a terminal, what is typed is sent line by line, but no empty lines; Ctrl-D closes.
With a pipe or a file, every line of it is sent as one text message. Messages go to
stdout, one per line, a binary one as hex; all else goes to stderr.

exit codes:
    0  all went well; the server closed with 1000 or 1001, or we did
    1  refused: no such server, no WebSocket there, no permission
    2  wrong usage, or input that is not UTF-8
    3  closed abnormally, or before everything was sent and answered
    4  no connection or no reply in time
  130  Ctrl-C

examples:
  %(prog)s ws://127.0.0.1:5000/echo
  %(prog)s ws://127.0.0.1:5000/echo -m hello
  %(prog)s wss://example.org/chat -H 'Cookie: session=…' --origin https://example.org
  tail -f log | %(prog)s ws://127.0.0.1:5000/log
  %(prog)s ws://127.0.0.1:5000/feed --wait inf </dev/null"""

MAX_MESSAGE = 1 << 26
"""Bytes that an incoming message may have: people look at strange servers."""
NORMAL = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)

HINTS = {
    401: "Say who you are, with -H 'Cookie: …' or -H 'Authorization: …'.",
    403: "Say who you are, with -H 'Cookie: …', or send the --origin it expects.",
    404: "There is no WebSocket at this path: look at the URL.",
    429: "Try again later.",
    503: "Try again later.",
}


def add_parser(commands: Any) -> None:
    """Add ``connect`` to the commands."""
    parser = commands.add_parser(
        "connect",
        help="talk to a WebSocket server",
        description="Talk to a WebSocket server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("url", metavar="URL", help="ws://host[:port]/path or wss://…")
    add(
        "-m",
        "--message",
        metavar="TEXT",
        action="append",
        help="send TEXT, print the next message that comes, and end; may be repeated",
    )
    add(
        "-H",
        "--header",
        metavar="'NAME: VALUE'",
        action="append",
        type=_header,
        default=[],
        help="an HTTP header of the handshake; may be repeated",
    )
    add("--origin", metavar="ORIGIN", help="the Origin header, as a browser sends it")
    add(
        "--subprotocol",
        metavar="NAME",
        action="append",
        default=[],
        help="offer this subprotocol; may be repeated",
    )
    add("--no-compression", action="store_true", help="don't offer permessage-deflate")
    add(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        default=10.0,
        help="to connect, and for each reply with -m (default: 10)",
    )
    add(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        help="go on receiving so long after the last line was sent or the last reply to"
        " -m came, or until the server closes; inf: until then"
        " (default: 1 for a pipe or file, else 0)",
    )
    add(
        "--frames",
        action="store_true",
        help=f"show each frame, sent (>) or received (<): header and first {SHOWN}"
        " bytes",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Connect and converse; return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    terminals = [
        stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)
    ]
    typing = all(terminals) and options.message is None  # there is a prompt
    try:
        with Screen(prompt=typing) as screen:
            return _run(options, screen, typing)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who read our stdout has seen enough. Nothing may complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _run(options: argparse.Namespace, screen: Screen, typing: bool) -> int:
    headers = list(options.header)
    if options.origin is not None:
        headers.append(("Origin", options.origin))
    try:
        client = connect(
            options.url,
            headers=headers,
            subprotocols=options.subprotocol,
            compression=not options.no_compression,
            timeout=options.timeout,
            max_message=MAX_MESSAGE,
            on_bytes=Frames(screen.note) if options.frames else None,
        )
    except ValueError as error:
        screen.error(str(error))
        return USAGE
    except HandshakeError as error:
        screen.error(f"{error} {HINTS.get(error.status, '')}".rstrip())
        return REFUSED
    except TimeoutError:
        screen.error(f"no answer within {options.timeout:g} s; --timeout gives longer")
        return TIMED_OUT
    except OSError as error:
        screen.error(_explained(error))
        return REFUSED
    try:
        if options.message is not None:
            return _ask(client, screen, options)
        chosen = f" with {client.subprotocol}" if client.subprotocol else ""
        help_ = ", Ctrl-D closes" if typing else ""
        url = re.sub(r"//[^/]*@", "//", options.url)
        screen.note(f"connected to {url}{chosen}{help_}")
        wait = options.wait
        if wait is None:
            wait = 0.0 if typing else 1.0
        return _converse(client, screen, Lines(typing), wait)
    except BaseException:
        with contextlib.suppress(Exception):
            client.close(CloseCode.GOING_AWAY, timeout=1)
        raise


def _ask(client: Client, screen: Screen, options: argparse.Namespace) -> int:
    """Send each text of ``-m`` and print one reply to each."""
    try:
        for text in options.message:
            client.send(os.fsencode(text).decode())
            screen.message(client.receive(options.timeout))
    except UnicodeDecodeError:
        client.close()
        screen.error("the text of -m is not UTF-8")
        return USAGE
    except TimeoutError:
        client.close(timeout=1)
        screen.error(f"no reply within {options.timeout:g} s; --timeout gives longer")
        return TIMED_OUT
    except ConnectionClosed as error:
        screen.error(f"no reply, {_ending(error)}")
        return CLOSED
    if options.wait:
        return _converse(client, screen, None, options.wait)
    client.close()
    return OK


def _converse(client: Client, screen: Screen, lines: Lines | None, wait: float) -> int:
    """Send lines and print messages until the lines end and ``wait`` seconds more."""
    until = math.inf if lines else time.monotonic() + wait
    try:
        while time.monotonic() < until:
            idle = _print_messages(client, screen)
            left = min(until - time.monotonic(), 3600.0) if idle else 0.0
            sources = [client.fileno(), *([lines.fileno()] if lines else [])]
            ready = select.select(sources, [], [], max(left, 0.0))[0]
            if lines is not None and lines.fileno() in ready:
                line = lines.take()
                if line is None:
                    lines, until = None, time.monotonic() + wait
                else:
                    client.send(line.decode())
    except UnicodeDecodeError:
        client.close()
        screen.error("a line of the input is not UTF-8; it and the rest were not sent")
        return USAGE
    except ConnectionClosed as error:
        (screen.note if error.code in NORMAL else screen.error)(_ending(error))
        if lines is not None and lines.pending:
            screen.error("there were lines left to send")
            return CLOSED
        return OK if error.code in NORMAL else CLOSED
    if not client.close():
        screen.error("the server did not answer our close: it may not have read all")
        return CLOSED
    screen.note("closed")
    return OK


def _print_messages(client: Client, screen: Screen) -> bool:
    """Print what came; False: there may be more, but the input gets a turn."""
    for _ in range(100):
        try:
            message = client.receive(timeout=0)
        except TimeoutError:
            return True
        screen.message(message)
    return False


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"'Name: value' is expected, not {text!r}")
    return name.strip(), value.strip()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"seconds are expected, not {text!r}")
    return seconds


def _positive(text: str) -> float:
    seconds = _seconds(text)
    if seconds == 0 or math.isinf(seconds):
        raise argparse.ArgumentTypeError(f"it must be over 0 and finite, not {text}")
    return seconds


def _ending(error: ConnectionClosed) -> str:
    return f"the connection was closed: {error.code} {error.reason}".rstrip()


def _explained(error: OSError) -> str:
    """Return what to do about a server that cannot be reached."""
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: is the server running, is the port right?"
    if isinstance(error, socket.gaierror):
        return f"the host is unknown: {error.strerror}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate is not trusted: {error.verify_message}."
            " SSL_CERT_FILE=file.pem in the environment trusts another authority."
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}. Is it ws:// rather than wss://?"
    return f"cannot connect: {error.strerror or error}"
