"""Sockets on gevent's loop: a watcher each, no greenlet, nothing that waits.

Plain socket methods behind a watcher, and one send in a turn of the loop for all that
was written to a peer. gevent's own socket (26.9) asks for the error state before each
``sendall``, and has a greenlet that waits. See docs/decisions/04 and 12; ``python -m
benchmarks --only fan --peers c`` measures a broadcast beside a server in C.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import socket
import sys
import termios
from collections.abc import Callable
from typing import Any, Literal

from . import Receiver
from .accelerated import Allowance, add_to_all, receive
from .loop import EventedLoop
from .outbox import Outbox, held
from .patched import RawSocket, own
from .queue import READ_SIZE
from .tls import TLSSocket

MUCH = 8 * 1024
"""Bytes of a read that make it one of somebody who may have as much again at once."""
REST = 0.01
"""Seconds between reads of a peer that was given up, and sends on."""
SMALL_READ = 2048
"""Bytes asked for where a large message may begin."""
_READ, _WRITE = 1, 2  # libev's EV_READ and EV_WRITE

UNSENT_LIMIT = 512 * 1024
"""Bytes that the kernel takes for a peer before any is on its way.

Without it a peer that does not read costs 3.9 MB of the kernel's memory besides its
queue, with it 0.7 MB: Linux 6, loopback, as ``ss -tm`` tells. What is under way has no
other limit than the peer's, so that one who reads gets it as fast as before.
"""
_MSG_MORE = getattr(socket, "MSG_MORE", 0)  # Linux's
_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)  # Linux's; Python 3.12 has it


def limit_unsent(sock: Any) -> None:
    """Have the kernel keep to ``UNSENT_LIMIT`` for a socket, or all it will accept."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a Unix socket does not know it
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT_LIMIT)


@functools.cache
def _keep_memory() -> None:
    """Make glibc keep, from now on, the memory of large messages for the next ones.

    It takes the largest block that was ever freed, up to 32 MiB, for the limit of what
    it does not give back to the system; to get pages again and again is half the cost
    of a message of 1 MiB (``python -m benchmarks --only echo-1m``, with and without
    this). Nothing is touched, so nothing is taken, by this itself; a ``bytearray`` is
    filled with zeros, which takes 10 ms.
    """
    bytes(31 << 20)


class EventedTransport(Outbox):
    """A connected socket on the loop, and what waits for it; its owner from here on.

    ``sock`` is a non-blocking descriptor, a ``RawSocket`` that has its options from a
    listening one, or a ``TLSSocket``. Made in the loop.
    """

    __slots__ = (
        "_behind",
        "_cancel",
        "_emptied",
        "_finishing",
        "_notify",
        "_place",
        "_read_size",
        "_reader",
        "_receiver",
        "_socket",
        "_writer",
        "loop",
    )

    def __init__(
        self,
        sock: int | Any | TLSSocket,
        loop: EventedLoop | None = None,
        *,
        max_queue: int,
        policy: Literal["close", "drop_oldest"] = "close",
        allowance: Allowance | None = None,
    ) -> None:
        self.loop = loop or EventedLoop.current()
        super().__init__(max_queue, policy, allowance)
        self._socket: Any = own(sock) if isinstance(sock, int) else sock
        if type(sock) is not RawSocket:
            limit_unsent(self._socket)
        number = self._socket.fileno()
        self.fd = -1 if isinstance(sock, TLSSocket) else number
        self._behind = False  # it is read again when it is its turn
        self._emptied = 0  # times that a full socket had room again
        self._place: memoryview | None = None
        self._read_size = READ_SIZE
        self._reader: Any = self.loop.io(number, _READ)
        self._writer: Any = None
        self._receiver: Receiver | None = None
        self._cancel: Callable[[], Any] | None = None
        self._notify = False
        self._finishing = False

    @property
    def queued(self) -> int:
        return self.size

    def start(self, receiver: Receiver, received: bytes = b"") -> None:
        self._receiver = receiver
        self._reader.start(self._readable)
        if received:
            receiver._data_received(received)

    def offer(self, frame: bytes) -> bool:
        added = self.add(frame, self.loop.unflushed)
        if added == 2:
            self.loop.flush_soon()
        return added > 0

    def write(self, frame: bytes, key: str | None = None) -> bool:
        if key is None and self.offer(frame):
            return True
        if self.size >= self.limit > 0:
            self.send_now()
        if self._socket is None:
            return True  # the loss is being told; there is nobody to queue for
        if not self.push(frame, key):
            return False
        self._list()
        if self.dropped and self._receiver is not None:
            self._receiver._dropped(self.take_dropped())
        return True

    def admit(self, frame: bytes) -> None:
        if self._socket is not None:
            self.append(frame)
            self._list()

    def _list(self) -> None:
        """See that what is queued is sent at the end of this turn."""
        if not self.flushing:
            self.flushing = True
            unflushed = self.loop.unflushed
            if not unflushed:
                self.loop.flush_soon()
            unflushed.append(self)

    def send_now(self) -> None:
        # Who writes much at once does not let the loop have its turn, in which it would
        # be sent: then the peer is not slow at all.
        if self._socket is None:
            return
        blocked = self._writer is not None and self._writer.active
        before = self.size
        self.flush()
        if self._socket is None:
            return
        if self.size < before:
            self._emptied += 1
        if not blocked:
            self.flushing = True  # it is listed for this turn's end all the same
        elif not self.size:
            self._writer.stop()
            self.loop.stalled.discard(self)

    def standing(self) -> tuple[int, int] | None:
        if self._writer is None or not self._writer.active:
            return None
        waiting = b"\0" * 4
        with contextlib.suppress(OSError):
            # Of what the kernel has, how much the peer's has not acknowledged: a slow
            # one may need minutes to make enough room for a write.
            waiting = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, waiting)
        return self._emptied, int.from_bytes(waiting, sys.byteorder)

    @staticmethod
    def write_all(
        transports: list[EventedTransport], frame: bytes
    ) -> list[EventedTransport]:
        loop = transports[0].loop
        was_empty = not loop.unflushed
        refused = add_to_all(transports, frame, loop.unflushed)
        if was_empty and loop.unflushed:
            loop.flush_soon()
        return refused

    @staticmethod
    def held(transports: list[EventedTransport]) -> list[int]:
        return held(transports)

    def flush(self) -> None:
        """Send what the socket takes of the queue, now."""
        if self._socket is None:  # let go of between the write and this flush
            return
        try:
            last = self._finishing and self.fd >= 0
            if self.drain(self._send_last if last else self._socket.send):
                self.flushing = False
            else:
                self._await_room()
        except OSError:
            self.abort()
            return
        if self.watched:
            self._flushed()

    def _send_last(self, data: bytes | memoryview) -> int:
        # Held until the shutdown that follows: a close frame and the end of what comes
        # leave in one packet, for half of what two cost.
        count: int = self._socket.send(data, _MSG_MORE)
        return count

    def flush_rest(self) -> None:
        """Do as ``flush``, after a first try."""
        if self.batch and not self.watched:
            self._await_room()  # the socket has just taken less than it was given
        else:
            self.flush()

    def _flushed(self) -> None:
        """Tell who asked to know that there is room, or that all is sent."""
        if self._notify and self.size <= self.limit // 2:
            self._notify = False
            self.watched = self._finishing
            if self._receiver is not None:
                self.loop.guard(self._receiver._drained)
        if self._finishing and not self.size:
            self._half_close()

    def notify_drained(self) -> None:
        self._notify = self.watched = True

    def discard(self) -> None:
        self.clear()

    def pause(self) -> None:
        if self._socket is not None and not self._finishing:
            self._reader.stop()
            self._behind = False

    def resume(self) -> None:
        if self._socket is not None and not (self._reader.active or self._behind):
            self._reader.start(self._readable)

    def finish(self, timeout: float) -> None:
        if self._socket is None or self._finishing:
            return
        self._finishing = self.watched = True
        self.resume()
        self._cancel = self.loop.call_later(timeout, self.abort)
        if not self.size:
            self._half_close()

    def abort(self) -> None:
        if self._socket is None:
            return
        self._reader.stop()
        self._reader.close()
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            self.loop.stalled.discard(self)
        if self._cancel is not None:
            self._cancel()
        # Old code keeps the objects of dead peers: not with what was partly sent.
        self.batch = b""
        self.clear()
        self._socket.close()
        self.fd = self.limit = -1  # the number is somebody else's soon
        self._socket = self._cancel = self._reader = self._writer = self._place = None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self.loop.guard(receiver._connection_lost)

    def expect(self, place: memoryview) -> None:
        if self.fd >= 0:  # TLS has to decrypt somewhere first
            self._place = place
            _keep_memory()

    def _readable(self) -> None:
        if self._place is not None:
            self._fill_place()
            return
        try:
            data = (
                receive(self.fd, self._read_size)
                if self.fd >= 0
                else self._socket.recv(READ_SIZE)
            )
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if not data:
            self.abort()
        elif not self._finishing and self._receiver is not None:
            try:
                self._receiver._data_received(data)
            except BaseException:
                self._fail()
                return
            if self._place is not None:
                self._fill_place()
            else:
                self._read_size = READ_SIZE
        if len(data) >= MUCH:
            self._let_others()

    def _fill_place(self) -> None:
        """Read into the place of a large message, and nothing that follows it."""
        place, self._place = self._place, None
        assert place is not None
        try:
            size = self._socket.recv_into(place)
        except BlockingIOError:
            self._place = place
            return
        except OSError:
            self.abort()
            return
        if not size:
            self.abort()
        elif not self._finishing and self._receiver is not None:
            # Where one is, the next may be as well: of that only the beginning is to
            # be read before its place is known.
            self._read_size = SMALL_READ
            try:
                self._receiver._placed(size)
            except BaseException:
                self._fail()
                return
        if size >= MUCH:
            self._let_others()

    def _let_others(self) -> None:
        """Read on when it is this peer's turn, if reading has taken its share of one.

        What is still heard of one that was given up is heard for the close frame's sake
        alone (see ``_half_close``): some MB a second will do.
        """
        if self._reader is None or not self._reader.active:
            return
        if self._finishing:
            self.loop.call_later(REST, self._read_on)
        elif self.loop.has_time_to_read():
            return
        else:
            self.loop.call_in_turn(self._read_on)
        self._reader.stop()
        self._behind = True

    def _read_on(self) -> None:
        if self._behind and self._reader is not None:
            self._behind = False
            self._reader.start(self._readable)
            self._readable()

    def _fail(self) -> None:
        """End what the error being handled came out of: gevent reads it no more."""
        receiver = self._receiver
        self.abort()
        self.loop.tell(receiver)

    def _await_room(self) -> None:
        if self._writer is None:
            self._writer = self.loop.io(self._socket.fileno(), _WRITE)
        if not self._writer.active:
            self._writer.start(self._writable)
            self.loop.stalled.add(self)

    def _writable(self) -> None:
        self._writer.stop()
        self.loop.stalled.discard(self)
        self._emptied += 1
        self.flush()

    def _half_close(self) -> None:
        """Say that no more comes, and wait for the peer to say so too.

        Closing at once would make the kernel answer bytes still under way with a reset,
        and the peer would lose the close frame that it has not read yet.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()
