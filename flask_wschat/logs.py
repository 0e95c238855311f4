"""What clients have a part in, made fit for the log: on one line, and not too much."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from time import monotonic
from types import TracebackType
from typing import Any

SECONDS = 10.0
"""Seconds for which one line of a kind speaks for all that follow it."""
ERRORS = 10
"""Tracebacks of a kind that are written within these seconds."""


def printable(value: object, limit: int = 200) -> str:
    """Return ``str(value)``, cut, with what could end a line or steer a terminal
    written as Python writes it in a string.

    For whatever a client chose: a user id, a room, a path, a host.
    """
    text = str(value)
    text = text if len(text) <= limit else text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def without_ticket(line: str) -> str:
    """Return a request's line without its ticket, which may still be good."""
    return _TICKET.sub(r"\1…", line) if "ticket=" in line else line


_TICKET = re.compile(r"([?&]ticket=)[^&\s]*")


def redacted(url: object) -> str:
    """Return ``url`` without what may be a password, also where it is no proper URL.

    For every message that shows ``WSCHAT_URL``: they end in logs and error reports.
    """
    text = re.sub(r"^([^/@?#:]*:/*)?.*@", r"\1…@", str(url), flags=re.DOTALL)
    # "redis://:secret", whose host was forgotten.
    text = re.sub(r"^([^/@?#:]*://[^/?#@:\[]*):(?!\d*(?:[/?#]|$)).*", r"\1:…", text)
    return re.sub(r"(?i)([?&][^=&]*(?:pass|secret|token)[^=&]*=)[^&#]*", r"\1…", text)


Facts = dict[str, "str | None"]
"""What a log record says of a socket, as attributes of its own."""


def facts(
    event: str,
    *,
    route: str | None = None,
    user: object = None,
    connection: str | None = None,
    address: str | None = None,
) -> Facts:
    """Return a log record's ``extra``; what a client chose is fit for a line of text.

    ``event`` says what happens, or what was handled, in a word.
    """
    return {
        "route": route or None,
        "user": None if user is None else printable(user),
        "connection": connection,
        "address": None if address is None else printable(address),
        "event": event,
    }


class SparingLog:
    """Writes one line of a kind, and counts the others of the next ten seconds.

    A line for each of what clients can do at will would fill a disk, and hide the rest.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: dict[str, tuple[float, int]] = {}  # since when, and how often
        self._unsaid: dict[str, int] = {}

    def warning(
        self, kind: str, message: str, *args: Any, about: Facts | None = None
    ) -> None:
        """Warn as ``Logger.warning`` does; what is not said now is counted next time.

        ``kind`` is one of a few words of the caller's own, never a client's. ``about``:
        the socket that it is about, as ``facts`` has it.
        """
        extra = facts(kind) if about is None else about
        self._log(logging.WARNING, 1, kind, message, args, extra, None)

    def error(
        self,
        error: BaseException,
        message: str,
        *args: Any,
        about: Facts | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Log ``error`` with its traceback; those of one line of code are of one kind,
        of which ten are said before the others are counted.

        ``trace``: a part of the traceback, to be shown instead of all.
        """
        info = type(error), error, trace or error.__traceback__
        kind, trace = type(error).__qualname__, error.__traceback__
        while trace is not None:
            if trace.tb_next is None:
                kind += f" {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
            trace = trace.tb_next
        extra = facts("") if about is None else about
        self._log(logging.ERROR, ERRORS, kind, message, args, extra, info)

    def _log(
        self,
        level: int,
        most: int,
        kind: str,
        message: str,
        args: tuple[Any, ...],
        extra: Facts,
        info: Any,
    ) -> None:
        now = monotonic()
        since, count = self._said.get(kind, (now, 0))
        if now - since >= SECONDS:
            since, count = now, 0
        if count >= most:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said[kind] = since, count + 1
        if unsaid := self._unsaid.pop(kind, 0):
            message += " (and %d more of this kind before)"
            args = (*args, unsaid)
        try:
            self._logger.log(level, message, *args, exc_info=info, extra=extra)
        except Exception:  # of a handler or filter; what is just done goes on
            if logging.raiseExceptions:  # as handlers do it themselves
                with contextlib.suppress(OSError):
                    traceback.print_exc()
