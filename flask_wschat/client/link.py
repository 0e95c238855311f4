"""A socket that can be read and written by turns, plain or TLS."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import time

LINGER = 1.0
"""Seconds that the server has to end TCP, or to send the body of a refusal."""
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Link:
    """A socket, plain or TLS, of which only ``wait`` and ``finish`` take time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._socket = sock
        self.outgoing = bytearray()
        self.sent = 0
        self.broken = False  # nothing can be written any more; reading tells the end

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes | None:
        """Return what came, b"" at the end; None: nothing yet."""
        try:
            return self._socket.recv(1 << 16)
        except _LATER:
            return b"" if self.broken else None
        except OSError:
            return b""

    def write(self) -> bool:
        """Send some of ``outgoing``; False: none of it."""
        if not self.outgoing:
            return False
        try:
            sent = self._socket.send(self.outgoing)
        except _LATER:
            return False
        except OSError:
            self.broken = True
            self.outgoing.clear()
            return True
        # gevent's TLS socket returns 0 where the standard library's raises.
        del self.outgoing[:sent]
        self.sent += sent
        return sent > 0

    def wait(self, seconds: float, *, reading: bool = True) -> None:
        """Wait until something can be read or, if there is, written."""
        events = select.POLLIN if reading else 0
        if self.outgoing:
            events |= select.POLLOUT
        poll = select.poll()
        poll.register(self._socket, events)
        # Callers come back; poll itself takes no more than 24 days.
        poll.poll(math.ceil(min(max(seconds, 0), 1e6) * 1000))

    def read_until(self, until: float) -> bytes | None:
        """Return the next that comes, writing meanwhile; None: nothing in time."""
        while True:
            self.write()
            if (data := self.read()) is not None:
                return data
            left = until - time.monotonic()
            if left <= 0:
                return None
            self.wait(left)

    def finish(self) -> None:
        """Send what is left and let the server end TCP, as RFC 6455 §7.1.1 wants.

        To close before it did would tear down what it may not have read.
        """
        until = time.monotonic() + LINGER
        while self.outgoing and (left := until - time.monotonic()) > 0:
            if not self.write():
                self.wait(left, reading=False)
        with contextlib.suppress(OSError, ValueError):
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.unwrap()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        while self.read_until(until) and time.monotonic() < until:
            pass
        self.close()

    def close(self) -> None:
        self.outgoing.clear()
        self._socket.close()
