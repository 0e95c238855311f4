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
from typing import Any

import redis

from .ports import free_port
from .processes import Process
from .programs import program
from .waiting import DEADLINE, LONG, eventually


class RedisServer:
    """``redis-server`` on a free port, in a temporary directory, with no disk use.

    In a ``with`` block it runs. ``options`` are lines of its configuration. ``unix``:
    it listens on a socket there only. ``tls``: certificate and key; it then speaks
    nothing else. ``arguments`` are those of its command.
    """

    def __init__(
        self,
        *options: str,
        unix: bool = False,
        tls: tuple[Path, Path] | None = None,
        password: str | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        command = program("redis-server", "redis-server", "valkey-server")
        self.folder = Path(tempfile.mkdtemp(prefix="wschat-redis-"))
        self.port = 0 if unix else free_port()
        self._password = password
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
            [command, "redis.conf", *arguments], self.folder / "log", cwd=self.folder
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

    @property
    def running(self) -> bool:
        return self._process.running

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


class Sentinels:
    """A primary, a replica of it, and three sentinels that watch them as ``name``.

    ``options`` are lines for the configuration of both.
    """

    name = "mymaster"

    def __init__(self, *options: str, password: str | None = None) -> None:
        ours = list(options)
        if password is not None:
            ours += [f"masterauth {password}"]
        self.primary = RedisServer(*ours, password=password)
        port = self.primary.port
        self.replica = RedisServer(
            *ours, f"replicaof 127.0.0.1 {port}", password=password
        )
        watch = [f"sentinel monitor {self.name} 127.0.0.1 {port} 2"]
        if password is not None:
            watch.append(f"sentinel auth-pass {self.name} {password}")
        for option, value in (
            ("down-after-milliseconds", 400),
            ("failover-timeout", 2000),
        ):
            watch.append(f"sentinel {option} {self.name} {value}")
        self.sentinels = [
            RedisServer(*watch, arguments=("--sentinel",)) for _ in range(3)
        ]
        hosts = ",".join(f"127.0.0.1:{s.port}" for s in self.sentinels)
        login = "" if password is None else f":{password}@"
        self.url = f"redis+sentinel://{login}{hosts}/{self.name}"

    def __enter__(self) -> Sentinels:
        for server in self._all:
            server.start()
        with self.primary.client() as client:
            eventually(lambda: self._is_ready(client), "a replica is there", LONG)
        for sentinel in self.sentinels:
            with sentinel.client() as client:

                def sees(client: Any = client) -> bool:
                    seen = client.sentinel_master(self.name)
                    others, replicas = "num-other-sentinels", "num-slaves"
                    return bool(int(seen[others]) == 2 and int(seen[replicas]) == 1)

                eventually(sees, "the sentinels see each other", LONG)
        return self

    def __exit__(self, *error: object) -> None:
        for server in self._all:
            server.stop()

    @property
    def _all(self) -> list[RedisServer]:
        return [self.primary, self.replica, *self.sentinels]

    def _is_ready(self, client: Any) -> bool:
        replica: Any = client.info("replication").get("slave0", {})
        return bool(replica.get("state") == "online")


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
        self._freezes = False
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self, *, also_new: bool = False) -> None:
        """Pass on nothing more to or from those that have subscribed.

        ``also_new``: nor, until ``thaw``, of those that will.
        """
        self._frozen |= self._subscribed
        self._freezes = also_new

    def thaw(self) -> None:
        """Pass on what comes over new connections."""
        self._freezes = False

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
                    if self._freezes:
                        self._frozen.add(near)
                if near not in self._frozen:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
