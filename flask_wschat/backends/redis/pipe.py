"""One connection for the commands of all callers, none of whom waits here.

What is put into it leaves in one write with all else that came meanwhile; replies come
in the order of the commands. A thread of its own, or a greenlet where gevent has
patched the process, has the connection: it alone reads and writes there, so TLS, which
two threads must not use at once, is safe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence

from ...transports.patched import allocate_lock
from .jobs import Confirmed, Job, nothing, settled
from .wire import Call, Connect, LinkError, ReplyError, Wire, as_refusal

logger = logging.getLogger("flask_wschat")

Start = Callable[[Callable[[], None]], None]

_WRITE = 1 << 20  # bytes in one write; the rest has to wait for the next one
_ALONE = 8  # writes without a crowd until none is expected


class Pipe:
    """The connection, opened when there is something to send.

    ``seconds``: for an answer, from when something was put in. ``start``: runs a
    function beside its caller. ``replicas``: so many have to have what is done before
    its replies count. ``hello``: sent first on each connection, whatever comes of
    them.
    """

    def __init__(
        self,
        connect: Connect,
        seconds: float,
        start: Start,
        replicas: int = 0,
        hello: Sequence[Call] = (),
    ) -> None:
        self._hello = hello
        self._replicas = replicas
        # Two of these have to fit into the time for an answer: of those who came
        # before, and of their own.
        self._wait = Call("WAIT", [replicas, round(seconds / 3 * 1000)])
        self._connect = connect
        self._seconds = seconds
        self._start = start
        self._pid = os.getpid()
        # The system's, held for moments: gevent's may not wake another thread.
        self._lock = allocate_lock()
        self._queue: deque[Job] = deque()
        self._again: deque[Job] = deque()  # goes before the queue
        self._flying: deque[Job] = deque()
        self._alone = _ALONE  # writes since one of several that gather
        self._begun = self._closed = self._stale = self._rung = False
        self._ear: socket.socket
        self._bell: socket.socket

    def put(self, job: Job) -> None:
        """Send this soon, from any thread, in the order of the calls."""
        self.line_up(job)
        self.send_soon()

    def line_up(self, job: Job) -> None:
        """Have this sent by the next ``send_soon``."""
        job.until = time.monotonic() + self._seconds
        self._queue.append(job)

    def send_soon(self) -> None:
        """Send what was lined up; what goes wrong is told by the jobs."""
        if not self._begun:
            try:
                self._begin()
            except (OSError, RuntimeError) as error:  # no thread, or no descriptor
                why = f"cannot be asked: {error}"
                self._drop(LinkError(why, sent=False, silent=True))
        if not self._rung:
            self._ring()
        if self._closed:
            self._drop(_STOPPED)

    def reset(self) -> None:
        """Use a new connection from the next command on."""
        self._stale = True
        self._ring()

    def close(self) -> None:
        """Let go of the connection; who waits is told."""
        with self._lock:
            self._closed = True
            begun = self._begun
        if begun:
            self._ring()

    def _begin(self) -> None:
        with self._lock:
            if self._begun or self._closed:
                return
            self._ear, self._bell = socket.socketpair()
            self._ear.setblocking(False)
            self._bell.setblocking(False)
            self._begun = True
        try:
            self._start(self._run)  # where patched, others have their turn meanwhile
        except BaseException:
            self._ear.close()
            self._bell.close()
            self._begun = False  # from here on another one may begin
            raise

    def _ring(self) -> None:
        if self._begun:
            self._rung = True
            with contextlib.suppress(OSError):  # full: it is awake; closed: it ended
                self._bell.send(b"\0")

    def _drop(self, error: LinkError) -> None:
        """Answer all that waits."""
        while True:
            try:
                job = (self._again or self._queue).popleft()
            except IndexError:
                return
            settled(self, job, error)

    # -- its thread

    def _run(self) -> None:
        ear = select.poll()
        ear.register(self._ear, select.POLLIN)
        while not self._closed and os.getpid() == self._pid:
            self._rung = False  # before a look at what waits, not after
            if self._again or self._queue:
                self._hold()
            else:
                ear.poll()
                if os.getpid() == self._pid:
                    self._hear()
        if os.getpid() != self._pid:
            return  # the copy of a greenlet in a fork: nothing of this is its own
        with self._lock:
            self._closed = True
        self._drop(_STOPPED)
        self._ear.close()
        self._bell.close()

    def _hold(self) -> None:
        """Have a connection until it fails, or is to be another one."""
        self._stale = False
        try:
            wire = Wire(self._connect())
        except (OSError, LinkError, ReplyError) as error:
            self._fail(as_refusal(error, sent=False), [self._again, self._queue])
            return
        except Exception as error:
            logger.exception("error in the connection to Redis")
            why = LinkError(str(error), sent=False, silent=True)
            self._fail(why, [self._again, self._queue])
            return
        try:
            wire.sock.settimeout(0)
            self._serve(wire)
        except (OSError, LinkError, ReplyError) as error:
            self._fail(as_refusal(error, sent=True), [self._flying])
        except Exception as error:
            logger.exception("error in the connection to Redis")
            self._fail(LinkError(str(error), sent=True, silent=True), [self._flying])
        except BaseException:  # it is killed, and another one begins: see ``Process``
            self._fail(LinkError("was cut off", sent=True, silent=True), [self._flying])
            raise
        finally:
            if os.getpid() == self._pid:
                wire.close()

    def _fail(self, error: LinkError | ReplyError, queues: list[deque[Job]]) -> None:
        again: list[Job] = []
        for queue in queues:
            for _ in range(len(queue)):
                more = settled(self, queue.popleft(), error)
                if more is not None:
                    again.append(more)
        # What was refused before has come before.
        self._again.extend(again)
        self._expire(time.monotonic())

    def _serve(self, wire: Wire) -> None:
        poller = select.poll()
        poller.register(self._ear, select.POLLIN)
        poller.register(wire.sock, select.POLLIN)
        heard, blocked = self._ear.fileno(), False
        out = memoryview(b"")
        if self._hello:
            hello = Job(self._hello, nothing, again=False)
            hello.until = time.monotonic() + self._seconds
            self._flying.append(hello)
            out = memoryview(hello.pack())
        while not (self._closed and not self._flying):
            self._rung = False  # before a look at what waits, not after
            if not (out or self._stale or self._closed):
                out = memoryview(self._take())
            elif self._stale and not (out or self._flying):
                return
            if out:
                out = out[wire.send(out) :]
            if blocked != bool(out):
                blocked = bool(out)
                asked = select.POLLIN | (select.POLLOUT if blocked else 0)
                poller.modify(wire.sock, asked)
            wait = None
            if self._flying:
                wait = max(self._flying[0].until - time.monotonic(), 0) * 1000 + 1
            events = poller.poll(wait)
            if os.getpid() != self._pid:
                return
            self._rung = True  # who puts something in meanwhile need not wake us
            for ready, _ in events:
                if ready == heard:
                    self._hear()
                else:
                    self._receive(wire)
            self._expire(time.monotonic())
            if self._alone < _ALONE and not self._flying:
                # Let those go first who are about to put something in. Who is alone
                # need not wait for that, as it takes 50 µs or a turn of the loop.
                time.sleep(0)
                if os.getpid() != self._pid:
                    return

    def _take(self) -> bytes:
        """Return what to send of all that waits."""
        # One write at a time: what comes until it is answered goes together, and the
        # says of a room as one call. Each on its own would cost Redis twice as much.
        if self._flying or not (self._again or self._queue):
            return b""
        if self._replicas:
            self._again += [self._queue.popleft() for _ in range(len(self._queue))]
            jobs, self._again = list(self._again), deque()
            together = Confirmed(jobs, self._replicas, self._wait)
            self._flying.append(together)
            return together.pack()
        parts: list[bytes] = []
        size = gathering = 0
        while size < _WRITE and (waiting := self._again or self._queue):
            job = waiting.popleft()
            self._flying.append(job)
            packed = job.pack()
            gathering += job.gathers
            parts.append(packed)
            size += len(packed)
        self._alone = 0 if gathering > 1 else self._alone + 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _receive(self, wire: Wire) -> None:
        try:
            replies = wire.receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        flying = self._flying
        for reply in replies:
            if not flying:
                raise LinkError("answers what nobody asked", sent=True)
            job = flying[0]
            job.replies.append(reply)
            if len(job.replies) == job.count:
                flying.popleft()
                more = settled(self, job, job.replies)
                if more is not None:
                    self._again.append(more)

    def _expire(self, now: float) -> None:
        """Give up what is not answered.

        :raises LinkError: the connection is not to be trusted any more.
        """
        for queue in (self._again, self._queue):
            while queue and queue[0].until <= now:
                why = LinkError(_SILENT, sent=False, silent=True)
                settled(self, queue.popleft(), why)
        if self._flying and self._flying[0].until <= now:
            raise LinkError(_SILENT, sent=True, silent=True)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(64)


_SILENT = "does not answer"
_STOPPED = LinkError("was let go of", sent=False, silent=True)
