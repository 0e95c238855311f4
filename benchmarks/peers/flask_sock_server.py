# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator, misc"
"""Flask-Sock on Werkzeug's threaded server: two threads for each connection."""

import logging
import threading
from contextlib import suppress
from typing import Any

from flask import Flask
from flask_sock import Sock
from simple_websocket import ConnectionClosed
from werkzeug.serving import make_server

from benchmarks.peers.ending import prepare, say_port

app = Flask(__name__)
sock = Sock(app)
members: set[Any] = set()


@sock.route("/echo")
def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


@sock.route("/fan")
def fan(ws: Any) -> None:
    members.add(ws)
    try:
        while True:
            message = ws.receive()
            for member in tuple(members):
                with suppress(ConnectionClosed):
                    member.send(message)
    finally:
        members.discard(ws)


if __name__ == "__main__":
    prepare()
    threading.stack_size(256 * 1024)  # thousands of them, each mostly empty
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.socket.listen(4096)
    say_port(server.server_port)
    server.serve_forever()
