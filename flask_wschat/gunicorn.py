"""gunicorn's gevent worker with our handler: ``-k flask_wschat.gunicorn.Worker``.

The plain ``gevent`` and ``gthread`` workers serve WebSockets as well. This one adds the
handler's strict reading of requests, with a time limit, and ends as ``run`` does.
"""

from __future__ import annotations

from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler

from .handler import WebSocketHandler


class Handler(WebSocketHandler, PyWSGIHandler):  # type: ignore[misc]
    """Our handler, with gunicorn's access log."""

    def log_request(self) -> None:
        PyWSGIHandler.log_request(self)


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """``gunicorn -k flask_wschat.gunicorn.Worker app:app``."""

    wsgi_handler = Handler


GeventWebSocketWorker = Worker
"""The name that those who come from gevent-websocket look for."""
