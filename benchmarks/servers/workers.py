"""The same server by gunicorn: ``python -m benchmarks.servers.workers COUNT``.

Each worker has a core of its own, as far as there are any, and a port of its own, so
that a load can spread its connections evenly, as a balancer does. Prints the port that
nobody serves, and then the process id and port of each worker.
"""

import os
import signal
import sys
import threading
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.sock import TCPSocket

CORES = sorted(os.sched_getaffinity(0))


class Workers(BaseApplication):  # type: ignore[misc]
    """gunicorn without its command line."""

    def __init__(self, count: int) -> None:
        self._count = count
        super().__init__()

    def load_config(self) -> None:
        settings = {
            "bind": "127.0.0.1:0",
            "workers": self._count,
            "worker_class": "flask_wschat.gunicorn.Worker",
            "worker_connections": 20_000,
            "backlog": 4096,
            "loglevel": "error",
            "when_ready": _when_ready,
            "post_fork": _post_fork,
            "post_worker_init": _post_worker_init,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from benchmarks.servers.wschat import app

        return app


def _when_ready(arbiter: Any) -> None:
    print(arbiter.LISTENERS[0].sock.getsockname()[1], flush=True)
    # No server outlives the benchmark that started it.
    threading.Thread(target=_end_with_stdin, daemon=True).start()


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _post_fork(arbiter: Any, worker: Any) -> None:
    os.sched_setaffinity(0, {CORES[(worker.age - 1) % len(CORES)]})
    worker.sockets = [TCPSocket(("127.0.0.1", 0), worker.cfg, worker.log)]


def _post_worker_init(worker: Any) -> None:
    port = worker.sockets[0].getsockname()[1]
    os.write(1, b"%d %d\n" % (worker.pid, port))


if __name__ == "__main__":
    Workers(int(sys.argv[1])).run()
