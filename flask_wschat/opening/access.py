"""``WSCHAT_ACCESS_LOG``: a line for each handshake, and for each connection's end."""

from __future__ import annotations

import logging
import time
from typing import Any
from urllib.parse import quote

from flask import Flask, request

from ..logs import facts, printable, without_ticket
from ..signals import connected, disconnected, refused

logger = logging.getLogger("flask_wschat.access")

_FORMAT = "[%(asctime)s] %(levelname)s in %(module)s: %(message)s"
"""As Flask's own handler writes, which is none of ours to lean on."""

BEGAN = "wschat.began"
"""Where an environ has the moment, by ``time.monotonic``, at which a handshake came."""


class AccessLog:
    """Writes to the logger ``flask_wschat.access`` what ``app`` is told by its signals.

    On every server, as servers themselves know nothing of what a WebSocket comes to.
    """

    def __init__(self, app: Flask) -> None:
        self._ready = False
        connected.connect(self._opened, app)
        refused.connect(self._refused, app)
        disconnected.connect(self._ended, app)

    def _opened(self, app: Flask, ws: Any) -> None:
        if request:
            self._answered(request.environ, 101, ws._facts("open"))

    def _refused(
        self, app: Flask, environ: dict[str, Any], status: int, reason: str
    ) -> None:
        about = facts("refused", address=environ.get("REMOTE_ADDR"))
        self._answered(environ, status, about)

    def _answered(
        self, environ: dict[str, Any], status: int, about: dict[str, Any]
    ) -> None:
        path = quote(environ.get("PATH_INFO", ""), encoding="latin-1")
        query, version = environ.get("QUERY_STRING", ""), environ["SERVER_PROTOCOL"]
        query = query.replace('"', "%22")  # which would end the field
        asked = f"{path}?{query}" if query else path
        line = f"{environ['REQUEST_METHOD']} {asked} {version}"
        self._write(
            *(about["address"] or "-", printable(without_ticket(line), 500), status),
            time.monotonic() - environ.get(BEGAN, time.monotonic()),
            {**about, "path": printable(path), "status": status},
        )

    def _ended(self, app: Flask, ws: Any, code: int, reason: str) -> None:
        about = ws._facts("close")
        words = f"WebSocket {ws._route} closed"
        if reason:  # a client's own words end no field of the line
            words += f": {printable(reason)}".replace('"', "'")
        seconds = time.time() - ws._since
        extra = {**about, "code": code}
        self._write(about["address"] or "-", words, code, seconds, extra)

    def _write(
        self,
        address: str,
        line: str,
        number: int,
        seconds: float,
        about: dict[str, Any],
    ) -> None:
        if not self._ready:
            self._ready = True
            _be_heard()
        extra = {**about, "seconds": round(seconds, 6)}
        logger.info('%s "%s" %d %.4f', address, line, number, seconds, extra=extra)


def _be_heard() -> None:
    """Have lines go somewhere, unless the program has said where they go."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)
