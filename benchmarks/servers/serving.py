"""What every gevent server under load does the same way."""

import resource
import sys
from typing import Any

from gevent.os import make_nonblocking, nb_read
from gevent.pywsgi import WSGIServer


def serve(
    application: Any, handler_class: type, server_class: type[WSGIServer] = WSGIServer
) -> None:
    """Serve on a free port of the loopback interface, printed as the first line.

    Return when stdin ends, so that no server outlives the benchmark that started it.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = server_class(
        ("127.0.0.1", 0), application, handler_class=handler_class, log=None
    )
    server.start()
    print(server.server_port, flush=True)
    stdin = sys.stdin.fileno()
    make_nonblocking(stdin)
    while nb_read(stdin, 1024):
        pass
