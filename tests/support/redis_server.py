"""A real Redis, or Valkey, of a test's own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import redis

from .ports import free_port
from .processes import Process
from .programs import program
from .waiting import DEADLINE, LONG, eventually


class RedisServer:
    """``redis-server`` on a free port, in a temporary directory, with no disk use.

    In a ``with`` block it runs. ``options`` are lines of its configuration. ``unix``:
    it listens on a socket there only. ``tls``: certificate and key; it then speaks
    nothing else.
    """

    def __init__(
        self,
        *options: str,
        unix: bool = False,
        tls: tuple[Path, Path] | None = None,
        password: str | None = None,
    ) -> None:
        command = program("redis-server", "redis-server", "valkey-server")
        self.folder = Path(tempfile.mkdtemp(prefix="wschat-redis-"))
        self.port = 0 if unix else free_port()
        self._password = password
        self._tls = tls
        self._options = [f"dir {self.folder}", 'save ""', "bind 127.0.0.1", *options]
        self.socket = self.folder / "socket"
        if unix:
            self._options += ["port 0", f"unixsocket {self.socket}"]
            self.url = f"unix://{self.socket}"
        elif tls is not None:
            self._options += [f"tls-port {self.port}", "port 0", "tls-auth-clients no"]
            self._options += [f"tls-cert-file {tls[0]}", f"tls-key-file {tls[1]}"]
            self.url = f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={tls[0]}"
        else:
            self._options.append(f"port {self.port}")
            self.url = f"redis://127.0.0.1:{self.port}/0"
        if password is not None:
            self._options.append(f"requirepass {password}")
        (self.folder / "redis.conf").write_text("\n".join(self._options) + "\n")
        self._process = Process(
            [command, "redis.conf"], self.folder / "log", cwd=self.folder
        )

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, *, wait: bool = True) -> None:
        """Start, or start again with the same data; ``wait`` until it answers."""
        self._process.start()
        if wait:
            self._wait_until_it_answers()

    @property
    def pid(self) -> int:
        """The system's number for the process."""
        return self._process.id

    def kill(self) -> None:
        """End it by SIGKILL: what is not on the disk is lost."""
        self._process.kill()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop it where it is; its connections stay open."""
        self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        self._process.signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def client(self, **options: object) -> Iterator[redis.Redis]:
        """Yield a foreign client."""
        options = {"password": self._password, "socket_timeout": DEADLINE} | options
        client = redis.Redis.from_url(self.url, **options)
        try:
            yield client
        finally:
            client.close()

    def _wait_until_it_answers(self) -> None:
        with self.client() as client:

            def answers() -> bool:
                assert self._process.running, f"it ended:\n{self._process.log}"
                try:
                    client.ping()
                except redis.RedisError:
                    return False
                return True

            eventually(answers, "Redis answers", LONG)


class Relay:
    """A way to a Redis on which connections can go dead without an end.

    What comes over a new connection is passed on; ``freeze`` ends that for those on
    which somebody has subscribed, and leaves them open.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._subscribed: set[socket.socket] = set()
        self._frozen: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Pass on nothing more to or from those that have subscribed."""
        self._frozen |= self._subscribed

    def stop(self) -> None:
        """End every connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._pairs.append((near, far))
            for source, target in ((near, far), (far, near)):
                threading.Thread(
                    target=self._pass_on, args=(source, target, near), daemon=True
                ).start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, near: socket.socket
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if b"SUBSCRIBE" in data:
                    self._subscribed.add(near)
                if near not in self._frozen:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
