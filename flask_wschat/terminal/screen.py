"""Showing messages, notes and errors, with a prompt below them or without."""

from __future__ import annotations

import os
import re
import shutil
import sys
import termios
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO


class Screen:
    """Where messages, notes and errors are shown, above the prompt if there is one."""

    def __init__(self, *, prompt: bool) -> None:
        self._prompt = prompt
        self._smart = os.environ.get("TERM", "dumb") != "dumb"
        self._coloured = self._smart and not os.environ.get("NO_COLOR")
        self._saved: list[Any] | None = None

    def __enter__(self) -> Screen:
        if self._prompt:
            self._saved = termios.tcgetattr(0)
        return self

    def __exit__(self, *error: object) -> None:
        if self._saved is not None:
            # The thread at the prompt is left there, with what it set on the terminal.
            paste_off = "\x1b[?2004l" if self._smart else ""
            sys.stdout.write(f"{paste_off}\n")
            sys.stdout.flush()
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)

    def message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            shown = message[:64] if self._prompt else message
            cut = " …" if len(shown) < len(message) else ""
            message = f"binary, {len(message)} bytes: {shown.hex(' ')}{cut}"
        self._show(sys.stdout, ("< " if self._prompt else "") + message, "36")

    def note(self, text: str) -> None:
        self._show(sys.stderr, text, "2")

    def error(self, text: str) -> None:
        self._show(sys.stderr, text, "31")

    def _show(self, stream: TextIO, text: str, colour: str) -> None:
        if not stream.isatty():
            rows = [text]
        else:
            # A server must not command the terminal.
            text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", _escaped, text)
            rows = text.split("\n")
            if self._prompt and self._smart:
                rows = [part for row in rows for part in _cut(row)]
            if self._coloured:
                rows = [f"\x1b[{colour}m{row}\x1b[0m" for row in rows]
            if self._prompt and self._smart:
                # Save the cursor, make sure there is a line below, insert one above
                # for the row, and go back to where readline thinks that we are.
                stream.write(
                    "".join(
                        f"\x1b7\n\x1b[A\x1b[L\r{row}\r\n\x1b8\x1b[B" for row in rows
                    )
                )
                stream.flush()
                return
        print(*rows, sep="\n", file=stream, flush=True)


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _cut(row: str) -> Iterator[str]:
    """Yield parts of ``row`` that fit into a line of the terminal."""
    columns = shutil.get_terminal_size().columns - 1
    row = row.expandtabs()
    start = width = 0
    for place, character in enumerate(row):
        wide = 1 + (unicodedata.east_asian_width(character) in "WF")
        if width + wide > columns:
            yield row[start:place]
            start, width = place, 0
        width += wide
    yield row[start:]
