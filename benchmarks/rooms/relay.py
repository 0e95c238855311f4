"""A way to a port that delays, cuts and swallows: ``python -m benchmarks.rooms.relay``.

    python -m benchmarks.rooms.relay PORT [DELAY]

Prints the port it listens on. What comes either way waits for DELAY seconds. It then
does what lines on stdin say, and answers each with `done`:

    cut SECONDS      end all connections, and those that come in that time
    cut-subscribed SECONDS   the same for those on which somebody has subscribed
    hole             pass on nothing more, and end nothing; `pass` undoes it
    target PORT      end all; new ones go there
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time

from benchmarks.harness import Process


class Relay:
    def __init__(self, target: int, delay: float) -> None:
        self._target = target
        self._delay = delay
        self._closed_until = 0.0
        self._only_subscribed = False
        self._flows = threading.Event()
        self._flows.set()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._subscribed: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    # -- what it is told

    def cut(self, seconds: float, *, subscribed: bool = False) -> None:
        self._only_subscribed = subscribed
        self._closed_until = time.monotonic() + seconds
        for near in list(self._subscribed if subscribed else self._pairs):
            self._end(near)

    def hole(self) -> None:
        self._flows.clear()

    def let_pass(self) -> None:
        self._flows.set()

    def retarget(self, port: int) -> None:
        self._target = port
        self.cut(0)

    # -- what it does

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if not self._only_subscribed and time.monotonic() < self._closed_until:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[near] = far
            for source, target in ((near, far), (far, near)):
                threading.Thread(
                    target=self._pass_on, args=(source, target, near), daemon=True
                ).start()

    def _end(self, near: socket.socket) -> None:
        far = self._pairs.pop(near, None)
        self._subscribed.discard(near)
        for end in (near, far):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _pass_on(
        self, source: socket.socket, target: socket.socket, near: socket.socket
    ) -> None:
        late: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        if self._delay:
            threading.Thread(
                target=self._send_late, args=(late, target, near), daemon=True
            ).start()
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 17):
                if source is near and b"SUBSCRIBE" in data:
                    self._subscribed.add(near)
                    if self._only_subscribed and time.monotonic() < self._closed_until:
                        break
                self._flows.wait()
                if self._delay:
                    late.put((time.monotonic() + self._delay, data))
                else:
                    target.sendall(data)
        late.put((0.0, b""))
        self._end(near)
        source.close()

    def _send_late(
        self,
        late: queue.SimpleQueue[tuple[float, bytes]],
        target: socket.socket,
        near: socket.socket,
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = late.get()
                if not data:
                    return
                if (wait := due - time.monotonic()) > 0:
                    time.sleep(wait)
                target.sendall(data)
        self._end(near)


class RelayProcess(Process):
    """One in a process of its own, to ``target``."""

    def __init__(self, target: int, delay: float = 0.0) -> None:
        command = [sys.executable, "-m", "benchmarks.rooms.relay"]
        super().__init__([*command, str(target), str(delay)], None)
        self.port = int(self.read_line(20))

    def tell(self, what: str) -> None:
        """Have it do ``what``; return when it is done."""
        self.write_line(what)
        self.read_line(20)


def main() -> None:
    delay = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    relay = Relay(int(sys.argv[1]), delay)
    print(relay.port, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["cut", seconds]:
                relay.cut(float(seconds))
            case ["cut-subscribed", seconds]:
                relay.cut(float(seconds), subscribed=True)
            case ["hole"]:
                relay.hole()
            case ["pass"]:
                relay.let_pass()
            case ["target", port]:
                relay.retarget(int(port))
        print("done", flush=True)


if __name__ == "__main__":
    main()
