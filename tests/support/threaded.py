"""Flask's development server, which has a thread for each request."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from flask import Flask
from werkzeug.serving import make_server


@contextlib.contextmanager
def serve_threaded(app: Flask, files: tuple[str, str] | None = None) -> Iterator[int]:
    """Serve ``app`` on the port that this yields; by TLS with ``files``."""
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
