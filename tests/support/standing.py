"""The end of a program that is a server: it stands until its stdin ends."""

from __future__ import annotations

import sys

from flask import Flask
from gevent.os import make_nonblocking, nb_read

from flask_wschat.server import Server


def stand(app: Flask) -> None:
    """Serve on a free port of the loopback interface, printed as the first line."""
    server = Server(("127.0.0.1", 0), app, log=None)
    server.start()
    print(server.server_port, flush=True)
    stdin = sys.stdin.fileno()
    make_nonblocking(stdin)
    while nb_read(stdin, 1024):
        pass
