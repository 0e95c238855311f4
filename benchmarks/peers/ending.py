"""What the Python servers share: many files, and no life after the benchmark."""

import os
import resource
import sys
import threading


def prepare() -> None:
    """Allow as many open files as may be; end the process when stdin does."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    threading.Thread(target=_end_with_stdin, daemon=True).start()


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


def say_port(port: int) -> None:
    """Tell the benchmark where to connect."""
    print(port, flush=True)
