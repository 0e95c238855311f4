"""A terminal, or pipes: what is typed or comes in there, and what is shown."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import termios
import threading
from multiprocessing.connection import Connection, Pipe

import click

from ..logs import printable

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Screen:
    """Shows messages and notes, and has the lines; at a prompt, if ``typing``."""

    def __init__(self, typing: bool) -> None:
        self.typing = typing
        if sys.stdin is None:  # or the next one that is opened would be number 0
            os.open(os.devnull, os.O_RDONLY)
        dumb = os.environ.get("TERM", "dumb") == "dumb" or os.environ.get("NO_COLOR")
        self._colour = False if dumb else None

    def message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            message = f"binary, {len(message)} bytes: {message.hex(' ')}"
        if sys.stdout.isatty():  # which a server must not command
            message = CONTROL.sub(lambda found: ascii(found[0])[1:-1], message)
        self._show(f"< {message}" if self.typing else message, "cyan")
        if self.typing:  # again, with what is half typed
            import readline

            click.echo("> " + readline.get_line_buffer(), nl=False)

    def note(self, text: str) -> None:
        self._show(printable(text, 1000), "bright_black", err=True)

    def clear(self) -> None:
        """Let the next words be in place of the prompt."""
        if self.typing:
            click.echo("\r\x1b[K", nl=False, color=True)

    def _show(self, text: str, colour: str, *, err: bool = False) -> None:
        self.clear()
        click.echo(click.style(text, fg=colour), err=err, color=self._colour)

    def lines(self) -> Connection:
        """Return where the lines come, in bytes; an empty one is their end.

        A thread reads them, as that waits, until those that nobody takes have filled a
        pipe. It is left there; the terminal is then as it was.
        """
        if self.typing:
            saved = termios.tcgetattr(0)
            atexit.register(termios.tcsetattr, 0, termios.TCSADRAIN, saved)
        taker, giver = Pipe(duplex=False)
        threading.Thread(target=self._read, args=(giver,), daemon=True).start()
        return taker

    def _read(self, giver: Connection) -> None:
        # Not sys.stdin: Python would wait at exit for the lock that its reader holds.
        with contextlib.suppress(EOFError, OSError), open(0, "rb", closefd=False) as f:
            while line := self._typed() if self.typing else f.readline():
                giver.send_bytes(line)
        giver.send_bytes(b"")

    def _typed(self) -> bytes:
        import readline  # gives input() its editing and history

        readline.parse_and_bind("set enable-bracketed-paste off")
        # The prompt takes the row: below a message it stands there already.
        while not (line := input("\x01\r\x1b[K\x02> ")):
            pass
        return line.encode("utf-8", "surrogateescape")
