"""A TLS socket with the manners of a plain non-blocking one."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any


class TLSSocket:
    """A server's TLS socket, the standard library's or gevent's, for a transport.

    TLS state cannot leave the object that has it, so the server keeps the object and
    waits; ``closed`` is called once the transport lets go of it.
    """

    def __init__(self, sock: Any, closed: Callable[[], Any]) -> None:
        sock.settimeout(0.0)
        self._socket = sock
        self._closed = closed

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self._socket.setsockopt(level, name, value)

    def recv(self, size: int) -> bytes:
        try:
            data: bytes = self._socket.recv(size)
            return data + self.decrypted()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ValueError:  # the server closed it
            return b""

    def decrypted(self) -> bytes:
        """Return all that is decrypted already: the descriptor will not tell of it."""
        data = b""
        while left := self._socket.pending():
            data += self._socket.recv(left)
        return data

    def send(self, data: bytes | memoryview) -> int:
        try:
            return int(self._socket.send(data))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ValueError as error:
            raise OSError(str(error)) from None

    def shutdown(self, how: int) -> None:
        # Not the TLS socket's own, which forgets how to decrypt.
        with socket.socket(fileno=os.dup(self._socket.fileno())) as twin:
            twin.shutdown(how)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
        self._closed()
