"""What gevent has patched in this process, and what is behind that."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent.monkey

get_ident: Callable[[], int] = gevent.monkey.get_original("_thread", "get_ident")
start_new_thread: Any = gevent.monkey.get_original("_thread", "start_new_thread")
allocate_lock: Any = gevent.monkey.get_original("_thread", "allocate_lock")
RLock: Any = gevent.monkey.get_original("_thread", "RLock")
sleep: Callable[[float], None] = gevent.monkey.get_original("time", "sleep")
RawSocket: Any = gevent.monkey.get_original("_socket", "socket")
"""The C type itself: its methods are found at once, unlike gevent's or
``socket.socket``'s, which put a Python object and checks before them."""
_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)  # Linux's


def own(descriptor: int, family: int = -1, proto: int = -1) -> Any:
    """Return a stream socket for a non-blocking descriptor that waits for nothing.

    Any other has the application's ``socket.setdefaulttimeout``, and stops the loop so
    long for a peer that reads slowly.
    """
    sock = RawSocket(family, socket.SOCK_STREAM | _NONBLOCK, proto, descriptor)
    if not _NONBLOCK:
        sock.settimeout(0.0)
    return sock


_PATCHED = ("socket", "ssl", "threading", "time", "select")


def is_patched() -> bool:
    """Whether gevent has patched this process, all of it or in part."""
    return any(map(gevent.monkey.is_module_patched, _PATCHED))


def patching_fault() -> str | None:
    """Return what is wrong with this process's monkey-patching, and the remedy.

    None: nothing is. Not patched at all is fine, as is all of it.
    """
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("socket"):
        return (
            "eventlet has patched this process, and is not supported: remove"
            " eventlet.monkey_patch(), and serve with gevent or threads"
        )
    patched = [name for name in _PATCHED if gevent.monkey.is_module_patched(name)]
    if not patched or len(patched) == len(_PATCHED):
        return None
    missing = [name for name in _PATCHED if name not in patched]
    return (
        f"gevent has patched {', '.join(patched)}, but not {', '.join(missing)}: make"
        " `from gevent import monkey; monkey.patch_all()` the program's first line"
    )


@contextlib.contextmanager
def unpatching() -> Iterator[None]:
    """Let ``gevent.monkey.patch_all()`` do nothing meanwhile.

    For a command that only looks at an application: it has imported too much to be
    patched now.
    """
    original = gevent.monkey.patch_all
    gevent.monkey.patch_all = lambda *args, **options: None
    try:
        yield
    finally:
        gevent.monkey.patch_all = original
