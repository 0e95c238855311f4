"""How each program is served: `python -m tests.tutorials.PROGRAM stock|wschat`.

Prints the port it listens on as the first line.
"""

import sys
from importlib import import_module

from flask import Flask
from gevent.pywsgi import WSGIServer

HANDLERS = {"stock": "geventwebsocket.handler", "wschat": "flask_wschat.server"}


def serve(app: Flask) -> None:
    WebSocketHandler = import_module(HANDLERS[sys.argv[1]]).WebSocketHandler
    http_server = WSGIServer(
        ("127.0.0.1", 0), app, handler_class=WebSocketHandler, log=None
    )
    http_server.start()
    print(http_server.server_port, flush=True)
    http_server.serve_forever()
