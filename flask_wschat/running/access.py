"""What ``chat.run`` shows of its requests and sockets: lines as ``flask run`` has."""

from __future__ import annotations

import contextlib
import time
from typing import Any, TextIO, cast

from ..logs import printable, without_ticket
from ..opening.upgrade import OPENED
from ..servers.handler import WebSocketHandler
from ..websocket import WebSocket


class AccessLog:
    """A line for each request; for each WebSocket one when it opens, and when it ends.

    What clients have a part in cannot end a line, nor fill the log.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._sockets: dict[WebSocket, tuple[str, str]] = {}
        self._second = 0
        self._stamp = ""

    def request(self, address: str, line: str, status: str) -> None:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._stamp = time.strftime("%d/%b/%Y %H:%M:%S", time.localtime(now))
        what = printable(without_ticket(line), 500)
        with contextlib.suppress(OSError, ValueError):  # nobody looks any more
            self._stream.write(f'{address} - - [{self._stamp}] "{what}" {status} -\n')

    def opened(self, address: str, line: str, path: str, ws: WebSocket) -> None:
        self.request(address, line, "101")
        if ws.closed:
            self._end(address, path, ws)
        else:
            self._sockets[ws] = address, path

    def closed(self, ws: WebSocket) -> None:
        known = self._sockets.pop(ws, None)
        if known is not None:
            address, path = known
            self._end(address, path, ws)

    def _end(self, address: str, path: str, ws: WebSocket) -> None:
        what = f"WebSocket {path} closed"
        if ws.close_reason:  # a client's own words end no field of the line
            reason = ws.close_reason.replace('"', "'")
            what = f"{printable(what, 350)}: {reason}"
        self.request(address, what, str(ws.close_code))


class LoggedHandler(WebSocketHandler):
    """Our handler on a server whose log is an ``AccessLog``."""

    def offer_upgrade(self, environ: dict[str, Any]) -> None:
        super().offer_upgrade(environ)
        address, line, log = self._address(), self.requestline or "-", self._log()
        path = environ["PATH_INFO"]
        environ[OPENED] = lambda ws: log.opened(address, line, path, ws)

    def log_request(self) -> None:
        status: Any = self._orig_status or self.status or "-"
        code = status.split()[0]
        if code != "101":  # that was told when it opened
            self._log().request(self._address(), self.requestline or "-", code)

    def _log(self) -> AccessLog:
        log: Any = self.server.log
        return cast(AccessLog, log)

    def _address(self) -> str:
        address = self.client_address
        return str(address[0]) if isinstance(address, tuple) else "-"
