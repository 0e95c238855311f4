"""Sockets on gevent's loop: a watcher each, no greenlet, nothing that waits.

Measured on gevent 26.9 with 1000 connections: plain socket methods behind a watcher
and one send per turn of the loop deliver a broadcast at 0.8-0.99 of the rate of a C
epoll server; gevent's own socket, which asks for the error state before each
``sendall``, at half of it.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import functools
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal

import gevent
import gevent.event
import gevent.hub
import gevent.monkey
from greenlet import GreenletExit, getcurrent, greenlet

from . import Event, Receiver, T
from .outbox import Outbox
from .queue import READ_SIZE, add_to_all, flush_ready, receive
from .tls import TLSSocket

_get_ident: Callable[[], int] = gevent.monkey.get_original("_thread", "get_ident")
RawSocket: Any = gevent.monkey.get_original("_socket", "socket")
_start_thread: Any = gevent.monkey.get_original("_thread", "start_new_thread")
_RLock: Any = gevent.monkey.get_original("_thread", "RLock")
_allocate_lock: Any = gevent.monkey.get_original("_thread", "allocate_lock")

SMALL_READ = 2048
"""Bytes asked for where a large message may begin."""
FLUSH_LIMIT = 512
"""Transports sent to in one turn of the loop: about 2 ms."""
TURN = 0.01
"""Seconds that tasks may take until the sockets have their turn."""
SHARE = 0.005
"""Seconds of a turn for all those who have received more than they may work off."""
IDLE_WORKERS = 128
"""Greenlets kept for the next message once they have nothing to do."""

_READ, _WRITE = 1, 2  # libev's EV_READ and EV_WRITE

UNSENT_LIMIT = 512 * 1024
"""Bytes that the kernel takes for a peer before any is on its way.

Without it a peer that does not read costs 3.9 MB of the kernel's memory besides its
queue (Linux 6, loopback), with it 0.7 MB. What is under way has no other limit than the
peer's, so that a gigabyte to one that reads takes as long as before.
"""
_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)  # Linux's; Python 3.12 has it


def limit_unsent(sock: Any) -> None:
    """Have the kernel keep to ``UNSENT_LIMIT`` for a socket, or all it will accept."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a Unix socket does not know it
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT_LIMIT)


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


class EventedLoop:
    """gevent's loop of one thread, as the transports and the engine use it."""

    shares_workers = False

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self._loop = self._hub.loop
        self.thread = _get_ident()
        self._idle: list[greenlet] = []
        self._ready: collections.deque[Callable[[], Any]] = collections.deque()
        self._work_until = 0.0
        self.lock = _RLock()
        """For what several threads change together, never while anything waits."""
        self._in_turn: collections.deque[Callable[[], Any]] = collections.deque()
        self.unflushed: list[EventedTransport] = []
        self._backlog: list[EventedTransport] = []  # of more than one turn can send to
        self.io = self._loop.io
        # gevent's own way in from other threads touches libev's timers while the loop
        # is in the kernel without the GIL, and ends in LoopExit now and then (26.9).
        # Sending to an async watcher is what libev allows from anywhere.
        self._posted: collections.deque[tuple[Callable[..., Any], Any]]
        self._posted = collections.deque()
        self._waker: Any = self._loop.async_(ref=False)
        self._waker.start(self._run_posted)

    @classmethod
    def current(cls) -> EventedLoop:
        """Return the loop of this thread, always the same one."""
        hub: Any = gevent.get_hub()
        loop: EventedLoop | None = getattr(hub, "wschat_loop", None)
        if loop is None or loop._loop is not hub.loop:
            loop = hub.wschat_loop = cls()
        return loop

    @staticmethod
    def runs_here() -> bool:
        """Whether the caller is a greenlet of a running loop."""
        return getcurrent().parent is not None

    def __str__(self) -> str:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return f"the loop of thread {names.get(self.thread, self.thread)}"

    def has_killed(self, error: BaseException) -> bool:
        if not isinstance(error, GreenletExit):
            return False
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        # Thrown by a kill, it comes out of where gevent waits.
        name = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
        return str(name).startswith("gevent.")

    def run_forever(self) -> None:
        """Run the loop in this thread, whose business that is from now on."""
        # A thread's first greenlet waits in the hub for something that never comes.
        keep_alive = self._loop.timer(3600, repeat=3600)
        keep_alive.start(lambda: None)
        self._hub.switch()

    def is_alive(self) -> bool:
        try:
            self._loop.now()
        except ValueError:  # destroyed, with its thread or at the program's end
            return False
        return True

    def is_current(self) -> bool:
        return _get_ident() == self.thread

    def may_wait(self) -> bool:
        return getcurrent() is not self._hub

    def call(self, function: Callable[..., T], *args: Any) -> T:
        if self.is_current():
            return function(*args)
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(function(*args))
            except BaseException as error:  # else the caller waits for nothing
                answer.set_exception(error)

        self.call_threadsafe(run)
        return answer.result(10)

    def call_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        self._posted.append((callback, args))
        self._waker.send()

    def _run_posted(self) -> None:
        posted = self._posted
        until = time.monotonic() + TURN
        for _ in range(len(posted)):
            callback, args = posted.popleft()
            self.guard(callback, *args)
            if posted and time.monotonic() > until:
                self._waker.send()  # the sockets have their turn between
                return

    def guard(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back; an error is told of here, and stops nothing that follows."""
        try:
            callback(*args)
        except BaseException:
            self.tell(callback)

    def tell(self, context: object) -> None:
        """Tell of the error that is being handled, where nobody waits for one."""
        self._hub.handle_error(context, *sys.exc_info())

    def call_later(
        self, seconds: float, callback: Callable[[], Any]
    ) -> Callable[[], Any]:
        # ref=False: a timer alone must not keep a finished program alive.
        timer = self._loop.timer(seconds, ref=False)
        timer.start(callback)
        return timer.close

    def call_in_turn(self, callback: Callable[[], Any]) -> None:
        self._in_turn.append(callback)
        if len(self._in_turn) == 1:
            self._start_turns()

    def _start_turns(self) -> None:
        # Not by `call_later`: gevent has to know of it, as nothing is read meanwhile.
        self._loop.timer(0).start(self._take_turns)

    def _take_turns(self) -> None:
        until = time.monotonic() + SHARE
        waiting = self._in_turn
        for _ in range(len(waiting)):  # who asks meanwhile has the next turn
            # It stays in there meanwhile, so that who asks now starts no other timer.
            callback = waiting[0]
            try:
                callback()
            except BaseException:
                self.tell(callback)
            waiting.popleft()
            if time.monotonic() > until:
                break
        if waiting:
            self._start_turns()

    def give_turn(self) -> None:
        # Not `gevent.sleep(0)`: the sockets have their turn after fifty of those.
        waiter: Any = gevent.hub.Waiter(self._hub)
        self.call_in_turn(functools.partial(waiter.switch, None))
        waiter.get()

    def event(self) -> gevent.event.Event:
        return gevent.event.Event()

    def event_here(self) -> Event:
        return new_event()

    def run(self, task: Callable[[], Any]) -> None:
        self._ready.append(task)
        if len(self._ready) == 1:
            self._loop.run_callback(self._start_work)

    def _start_work(self) -> None:
        # One worker does them all, unless it has to wait: to switch to one for each
        # task is a sixth of what an echo takes.
        until = self._work_until = time.monotonic() + TURN
        while self._ready:
            (
                self._idle.pop() if self._idle else greenlet(self._work, self._hub)
            ).switch()
            if time.monotonic() > until:
                self.call_later(0, self._start_work)
                return

    def flush_soon(self) -> None:
        """Flush what will be ``unflushed`` at the end of this turn of the loop."""
        self._loop.run_callback(self._flush)

    def _flush(self) -> None:
        transports, self.unflushed = self.unflushed, []
        if len(transports) > FLUSH_LIMIT:
            # Who has something to send meanwhile does not wait for all the others.
            if not self._backlog:
                self.call_later(0, self._flush_backlog)
            self._backlog += transports[FLUSH_LIMIT:]
            del transports[FLUSH_LIMIT:]
        for transport in flush_ready(transports):
            transport.flush_rest()

    def _flush_backlog(self) -> None:
        # By a timer each, after the sockets; callbacks would come before them.
        transports = self._backlog[:FLUSH_LIMIT]
        del self._backlog[:FLUSH_LIMIT]
        if self._backlog:
            self.call_later(0, self._flush_backlog)
        for transport in flush_ready(transports):
            transport.flush_rest()

    def _work(self) -> None:
        """Run tasks, one after another, in a greenlet that the loop switches to."""
        tasks = self._ready
        while True:
            while tasks and time.monotonic() < self._work_until:
                task = tasks.popleft()
                try:
                    task()
                except BaseException:
                    self.tell(task)
            if len(self._idle) >= IDLE_WORKERS:
                return
            self._idle.append(getcurrent())
            self._hub.switch()


@functools.cache
def _keep_memory() -> None:
    """Make glibc keep, from now on, the memory of large messages for the next ones.

    It takes the largest block that was ever freed, up to 32 MiB, for the limit of what
    it does not give back to the system; to get pages again and again is half the cost
    of a message of 1 MiB. Nothing is touched, so nothing is taken, by this itself.
    """
    bytearray(31 << 20)


class _LoopEvent:
    """Waited for by a greenlet, set by any thread."""

    def __init__(self, loop: EventedLoop) -> None:
        self._loop = loop
        self._event = gevent.event.Event()

    def set(self) -> None:
        if self._loop.is_current():
            self._event.set()
        else:
            with contextlib.suppress(ValueError):  # the loop ended, and who waited
                self._loop.call_threadsafe(self._event.set)

    def clear(self) -> None:
        self._event.clear()

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            return bool(self._event.wait(timeout))
        # A timer, so that gevent does not take a loop without watchers for finished.
        while not self._event.wait(60):
            pass
        return True


class _NativeEvent:
    """Waited for by a thread, patched or not: a lock that is taken until it is set."""

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was set before
            self._lock.release()

    def clear(self) -> None:
        self._lock.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        came: bool = self._lock.acquire(timeout=-1 if timeout is None else timeout)
        if came:
            self.set()
        return came


def new_event() -> Event:
    """Return an event to wait for where the caller is: see ``backends.Host``."""
    if EventedLoop.runs_here() or gevent.monkey.is_module_patched("threading"):
        return _LoopEvent(EventedLoop.current())
    return _NativeEvent()


def start_thread(function: Callable[[], None]) -> None:
    """Run ``function`` in a thread of the system's, also in a patched process."""
    _start_thread(function, ())


def run_blocking(function: Callable[[], T]) -> T:
    """Return what ``function`` returns; a greenlet's loop goes on meanwhile."""
    if not EventedLoop.runs_here() or gevent.monkey.is_module_patched("socket"):
        return function()

    def run() -> tuple[Any, BaseException | None]:
        # An error returned, as the pool prints those that are raised.
        try:
            return function(), None
        except BaseException as error:
            return None, error

    result, error = gevent.get_hub().threadpool.apply(run)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


class EventedTransport(Outbox):
    """A connected socket on the loop, and what waits for it; its owner from here on.

    ``sock`` is a non-blocking descriptor, a ``RawSocket`` that has its options from a
    listening one, or a ``TLSSocket``. Made in the loop.
    """

    __slots__ = (
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
    ) -> None:
        self.loop = loop or EventedLoop.current()
        super().__init__(max_queue, policy)
        # The C type itself: its methods are found at once, unlike gevent's or
        # socket.socket's, which put a Python object and checks before them.
        self._socket: Any = RawSocket(fileno=sock) if isinstance(sock, int) else sock
        if type(sock) is not RawSocket:
            limit_unsent(self._socket)
        number = self._socket.fileno()
        self.fd = -1 if isinstance(sock, TLSSocket) else number
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
            self._flush_early()
        if self._socket is None:
            return True  # the loss is being told; there is nobody to queue for
        if not self.push(frame, key):
            return False
        self._list()
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

    def _flush_early(self) -> None:
        """Send now what a full queue holds: it may be so for want of a turn of the
        loop, which whoever writes has not let it have, and not of a reader.
        """
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

    def flush(self) -> None:
        """Send what the socket takes of the queue, now."""
        if self._socket is None:  # let go of between the write and this flush
            return
        try:
            if self.drain(self._socket.send):
                self.flushing = False
            else:
                self._await_room()
        except OSError:
            self.abort()
            return
        if self.watched:
            self._flushed()

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

    def resume(self) -> None:
        if self._socket is not None and not self._reader.active:
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

    def _writable(self) -> None:
        self._writer.stop()
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
