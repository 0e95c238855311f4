"""gunicorn's gevent worker with our handler: ``-k flask_wschat.gunicorn.Worker``.

The plain ``gevent`` and ``gthread`` workers serve WebSockets as well. This one adds the
handler's strict reading of requests, with a time limit, and ends as ``run`` does.
"""

from __future__ import annotations

import signal
from typing import Any

from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler

from .codec import Head
from .server import Server, the_program_kept
from .servers.handler import WebSocketHandler
from .servers.heads import Fields


class Handler(WebSocketHandler, PyWSGIHandler):  # type: ignore[misc]
    """Our handler, with gunicorn's access log."""

    def log_request(self) -> None:
        if self.environ is None:  # what came was no request
            address = self.client_address
            environ: Any = dict.fromkeys(_REQUEST_LINE, "-")
            environ["REMOTE_ADDR"] = address[0] if isinstance(address, tuple) else ""
            self.environ = environ
            self.headers = Fields(Head(("-", "-", "-")))
        if self.response_headers is None:  # not the application's answer, but ours
            self.response_headers = []
        PyWSGIHandler.log_request(self)


_REQUEST_LINE = ("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL")


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """``gunicorn -k flask_wschat.gunicorn.Worker app:app``."""

    wsgi_handler = Handler
    server_class = Server

    def init_process(self) -> None:
        # Until it has handlers of its own, a new worker has its parent's, which tell
        # nobody of a signal there; the patching that comes before takes a while.
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
            signal.signal(number, self._told_early)
        super().init_process()

    def run(self) -> None:
        with the_program_kept():
            super().run()

    def _told_early(self, number: int, frame: object) -> None:
        self.alive = False  # its loop does not begin then


GeventWebSocketWorker = Worker
"""The name that those who come from gevent-websocket look for."""
