"""Ports for servers that cannot choose one themselves."""

from __future__ import annotations

import contextlib
import os
import random
import socket

_FIRST, _END = 10_000, 20_000
_given: set[int] = set()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, another one each time.

    None of those that the system gives to outgoing connections: one of these could
    take it before the server begins, or while it is down. Nor the one that a Redis
    cluster's node opens beside it, 10000 further on. Those who run tests at the same
    time choose among different ones: see `tests.support.parallel`.
    """
    worker, workers = map(int, os.environ.get("TESTS_WORKER", "0/1").split("/"))
    choices = range(_FIRST + worker % workers, _END, workers)
    while True:
        port = random.SystemRandom().choice(choices)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            _given.add(port)
            return port


def listens(port: int) -> bool:
    """Whether somebody listens on ``port`` of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
