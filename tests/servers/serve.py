"""gevent's pywsgi with a given handler, as a user's own program would start it.

``python -m tests.servers.serve run|ours|server|stock|plain ADDRESS [CERTIFICATE KEY]``;
"server" is our server with our handler. The address is a port, or the path of a Unix
socket. The signal to stop is SIGTERM.
"""

from __future__ import annotations

import os
import sys

if os.environ.get("PATCHED"):
    from gevent import monkey

    monkey.patch_all()

import signal
from typing import Any

import gevent
import gevent.socket
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler as StockHandler

from flask_wschat.server import Server, WebSocketHandler

from .app import app, chat


def main(handler: str, address: str, *pair: str) -> None:
    if handler == "run":
        chat.run(app, port=int(address))
        return
    options: dict[str, Any] = {}
    if pair:
        options.update(certfile=pair[0], keyfile=pair[1])
    if handler in ("ours", "stock"):
        options.update(
            handler_class={"ours": WebSocketHandler, "stock": StockHandler}[handler]
        )
    listener: Any = ("127.0.0.1", int(address)) if address.isdigit() else None
    if listener is None:
        listener = gevent.socket.socket(gevent.socket.AF_UNIX)
        listener.bind(address)
        listener.listen(128)
    make = Server if handler == "server" else WSGIServer
    server = make(listener, app, **options)
    gevent.signal_handler(signal.SIGTERM, server.stop, 1)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
