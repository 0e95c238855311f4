"""``Reporter``: where the errors of handlers, views and receivers are told of."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from flask import Flask, got_request_exception, has_request_context, request

from ..codec.closing import cut_reason
from ..logs import SparingLog, facts, printable
from ..servers.offers import UPGRADE
from ..websocket import WebSocket

_OURS = str(Path(__file__).parent.parent)
_OTHERS = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
_SHOWN = 500
"""Characters of a message that the log has, when debugging."""
_SECRET = re.compile(
    r"(\"[^\"]*(?:pass|secret|token|auth|api.?key|cookie)[^\"]*\"\s*:\s*)"
    r"(?:\"(?:[^\"\\]|\\.)*\"?|[^,}\]\s]+)",
    re.IGNORECASE,
)
_CALLED = {
    "": "a WebSocket handler",
    "view": "the view",
    **{name: name for name in ("on_open", "on_message", "on_close")},
}


class Reporter:
    """Tells the application of an error, as Flask does of one in a view.

    Where it debugs, also of the message that was handled; and a client may be told
    where to look.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._log: SparingLog | None = None

    def __call__(
        self,
        error: BaseException,
        ws: WebSocket | None = None,
        event: str = "",
        message: str | bytes | None = None,
        *,
        where: str = "",
    ) -> str | None:
        """Log ``error`` and send ``got_request_exception``.

        ``event``: what of ``ws`` was handled, of which ``message`` came; ``where`` says
        it in other words. Return what the client may know: None unless this debugs.
        """
        if self._log is None:
            # Who asks for this first sets it up, and must not be before the program.
            self._log = SparingLog(self._app.logger)
        what = where or _CALLED.get(event) or f"the event {event!r}"
        words, trace, told = "Exception in %s", error.__traceback__, None
        about = facts(event or what)
        if ws is not None:
            what = f"{what} of {ws._described()}"
            about = ws._facts(event or what)
        if self._app.debug:
            trace = without_ours(trace)
            told = cut_reason(f"{_place(error, trace)}: see the server's log")
            if message is not None:
                what = f"{what}, handling {shortened(message)}"
        self._log.error(error, words, what, about=about, trace=trace)
        upgrade = request.environ.get(UPGRADE) if has_request_context() else None
        failed = upgrade and upgrade.failed
        try:
            got_request_exception.send(self._app, exception=error)
        except Exception as other:  # else what the first one ended would go on
            words, what = "Exception in %s", "a receiver of got_request_exception"
            self._log.error(other, words, what, about=facts(what))
        if upgrade is not None:  # what it costs is for who reports it to say
            upgrade.failed = failed
        return told


def shortened(message: str | bytes) -> str:
    """Return a message for the log: on a line, cut, and without what looks secret."""
    if isinstance(message, str):
        return printable(_SECRET.sub(r'\1"…"', message[: 2 * _SHOWN]), _SHOWN)
    return f"{len(message)} bytes {printable(bytes(message[:_SHOWN]), _SHOWN)}"


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame on that is not of this package."""
    each = trace
    while each is not None:
        if not each.tb_frame.f_code.co_filename.startswith(_OURS):
            return each
        each = each.tb_next
    return trace


def _place(error: BaseException, trace: TracebackType | None) -> str:
    """Return what ``error`` is and the line of the application that it came out of."""
    frames: list[Any] = traceback.extract_tb(trace)
    own = [f for f in frames if not f.filename.startswith((_OURS, *_OTHERS, "<"))]
    last = (own or frames)[-1]
    name = printable(type(error).__name__, 50)
    return f"{name} in {Path(last.filename).name}, line {last.lineno}"
