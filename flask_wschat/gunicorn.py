"""gunicorn's gevent worker with our handler: ``-k flask_wschat.gunicorn.Worker``.

The plain ``gevent`` and ``gthread`` workers serve WebSockets as well. This one adds the
handler's strict reading of requests, with a time limit, and ends as ``run`` does.
"""

from __future__ import annotations

import signal
from typing import Any

from flask import Flask
from flask.cli import ScriptInfo
from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler

from .backends import MemoryBackend
from .codec import Head
from .operate.reports import serve_all
from .server import Server, the_program_kept
from .servers.handler import WebSocketHandler
from .servers.heads import Fields
from .transports.loop import EventedLoop


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

    def load_wsgi(self) -> None:
        super().load_wsgi()
        hub: Any = getattr(self.wsgi, "extensions", {}).get("wschat.hub")
        alone = hub is not None and isinstance(hub.backend, MemoryBackend)
        if alone and self.cfg.workers > 1 and self.age == 1:  # one says it for all
            self.log.warning(
                "%s workers with WSCHAT_URL = memory://, each of which is a chat of its"
                " own: set it to sqlite:///chat.db, or redis://host:6379/0",
                self.cfg.workers,
            )

    def run(self) -> None:
        serve_all(EventedLoop.current())
        with the_program_kept():
            super().run()

    def _told_early(self, number: int, frame: object) -> None:
        self.alive = False  # its loop does not begin then


def load_app(name: str | None) -> Flask:
    """Return the application that ``flask --app NAME`` has, in a worker."""
    return ScriptInfo(name).load_app()


GeventWebSocketWorker = Worker
"""The name that those who come from gevent-websocket look for."""
