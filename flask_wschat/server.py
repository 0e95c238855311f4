"""gevent-websocket's WSGI handler, upgrading after routing, and ``run``."""

from __future__ import annotations

import sys
from typing import Any

import geventwebsocket.handler
from flask import Flask
from gevent.pywsgi import WSGIHandler, WSGIServer

from .codec import is_upgrade
from .transports.accept import OFFER, let_go, take_over


class WebSocketHandler(geventwebsocket.handler.WebSocketHandler):  # type: ignore[misc]
    """Offers the upgrade to the application, which answers first.

    ``pywsgi.WSGIServer(address, app, handler_class=WebSocketHandler)``. What the
    application refuses is an ordinary HTTP response; the 101 comes after.
    """

    upgraded = False

    def run_application(self) -> None:
        environ = self.environ
        if is_upgrade(
            environ.get("HTTP_UPGRADE", ""), environ.get("HTTP_CONNECTION", "")
        ):
            environ[OFFER] = HandlerOffer(self)
        # Not the parent's: it would answer before the application has a say.
        WSGIHandler.run_application(self)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        if self.upgraded:
            return _ignore
        return WSGIHandler.start_response(self, status, headers, exc_info)

    def process_result(self) -> None:
        if not self.upgraded:
            WSGIHandler.process_result(self)

    def log_request(self) -> None:
        WSGIHandler.log_request(self)


class HandlerOffer:
    """The socket of a request under ``WebSocketHandler``."""

    answered = False

    def __init__(self, handler: WebSocketHandler) -> None:
        self.handler = handler

    def accept(self, response: bytes) -> tuple[int, bytes]:
        handler = self.handler
        fd, received = take_over(handler.socket, handler.rfile, response)
        handler.upgraded = True
        handler.status = b"101 Switching Protocols"
        handler._orig_status = "101 Switching Protocols"
        handler.code = 101
        handler.headers_sent = True
        let_go(handler)
        return fd, received


def _ignore(data: bytes) -> None:
    """Take what a response says after the socket is gone."""


def run(app: Flask, host: str, port: int) -> None:
    """Serve ``app`` until interrupted; see ``WSChat.run``."""
    server = WSGIServer((host, port), app, handler_class=WebSocketHandler, log=None)
    try:
        server.start()
    except OSError as error:
        sys.exit(
            f"cannot serve on {host}:{port}: {error.strerror}."
            " Is another program there? Choose another port."
        )
    shown = f"[{host}]" if ":" in host else host
    print(f" * Serving on http://{shown}:{server.server_port} (Ctrl+C stops)")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop(timeout=1)
