"""A Redis cluster of a test's own."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import Any

from .ports import free_port
from .programs import program
from .redis_server import RedisServer
from .waiting import LONG, eventually


class RedisCluster:
    """Three primaries, each with a replica; a primary that is away for a second fails.

    In a ``with`` block it runs. ``options`` are lines for the configuration of each.
    """

    def __init__(self, *options: str, replicas: int = 1) -> None:
        self._cli = program("redis-tools", "redis-cli", "valkey-cli")
        self.servers = [
            RedisServer(
                "cluster-enabled yes",
                f"cluster-port {free_port()}",
                "cluster-node-timeout 1000",
                "repl-diskless-sync-delay 0",
                *options,
            )
            for _ in range(3 + 3 * replicas)
        ]
        self._replicas = replicas
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:3])
        self.url = f"redis+cluster://{hosts}"

    def __enter__(self) -> RedisCluster:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        for server in self.servers:
            server.start()
        names = [f"127.0.0.1:{server.port}" for server in self.servers]
        wanted = str(self._replicas)
        self.cli("create", *names, "--cluster-replicas", wanted, "--cluster-yes")
        for server in self.servers:
            eventually(partial(self._is_whole, server), "the cluster is whole", LONG)

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def cli(self, *words: str) -> str:
        """Run ``redis-cli --cluster`` and return what it says."""
        done = subprocess.run(
            [self._cli, "--cluster", *words],
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def primary_of(self, slot: int) -> RedisServer:
        """Return the primary for ``slot``, as any that runs says."""
        return self._of(slot, 2)

    def replica_of(self, slot: int) -> RedisServer:
        """Return the replica of that primary."""
        return self._of(slot, 3)

    def _of(self, slot: int, column: int) -> RedisServer:
        server = next(server for server in self.servers if server.running)
        rows = _slots(server)
        (found,) = [row[column] for row in rows if row[0] <= slot <= row[1]]
        return self._by_port(found[1])

    def primaries(self) -> list[RedisServer]:
        """Return those that have slots, as any that runs says."""
        server = next(server for server in self.servers if server.running)
        ports = {row[2][1] for row in _slots(server)}
        return [self._by_port(port) for port in ports]

    def move_one(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot as slowly as it can be: key by key."""
        with source.client() as old, target.client() as new:
            asked_old: Any = old.cluster
            asked_new: Any = new.cluster
            asked_new("SETSLOT", slot, "IMPORTING", self._id(source))
            asked_old("SETSLOT", slot, "MIGRATING", self._id(target))
            while keys := asked_old("GETKEYSINSLOT", slot, 1):
                old.migrate("127.0.0.1", target.port, keys, 0, 5000)
            asked_new("SETSLOT", slot, "NODE", self._id(target))
            asked_old("SETSLOT", slot, "NODE", self._id(target))

    def _is_whole(self, server: RedisServer) -> bool:
        with server.client() as client:
            asked: Any = client.cluster
            if asked("INFO")["cluster_state"] != "ok":
                return False
        found = _slots(server)
        return len(found) == 3 and all(
            len(nodes) == 3 + self._replicas for nodes in found
        )

    def _by_port(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)

    def _id(self, server: RedisServer) -> str:
        with server.client() as client:
            asked: Any = client.execute_command
            found = asked("CLUSTER MYID")
            return str(found.decode() if isinstance(found, bytes) else found)


def _slots(server: RedisServer) -> list[Any]:
    with server.client() as client:
        asked: Any = client.cluster
        found: list[Any] = asked("SLOTS")
        return found
