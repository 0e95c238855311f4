"""Redis: reachable and fast, and set so that it keeps what was acknowledged."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ...backends.redis import Address, ClusterAddress, SentinelAddress, several
from ...backends.redis.wire import Connection, LinkError, ReplyError
from ...errors import ConfigError
from ...logs import redacted
from .finding import Finding, Setup
from .redis_kinds import (
    AOF_OFF,
    BUFFER,
    CLOCK,
    CLUSTER_HERE,
    CLUSTER_HOLES,
    CLUSTER_SINGLE,
    EVICTED,
    EVICTS,
    FEW_REPLICAS,
    FEW_SENTINELS,
    FSYNC_NO,
    FULL,
    IDLE,
    IS_REPLICA,
    LOADING,
    MANY_CLIENTS,
    MIN_REPLICAS,
    NEARLY_FULL,
    NO_DATABASE,
    NO_PASSWORD,
    NO_QUORUM,
    NO_RIGHT,
    NO_SPARE_REPLICA,
    OLD,
    REFUSED,
    SENTINEL_DOWN,
    SLOW,
    SLOW_AT_TIMES,
    UNREACHABLE,
    WRITE_FAILS,
    WRONG_LOGIN,
    WRONG_URL,
)

SECONDS = 3.0
"""For one answer."""
_ASKED = 20
_SLOW = 0.005
_SLOW_AT_TIMES = 0.05
_SKEW = 2.0
_OLDEST = (6, 2)
_OLDEST_CLUSTER = (7, 0)
_BUFFER = 8 << 20
_SETTINGS = ("appendonly", "appendfsync", "timeout", "min-replicas-to-write")
_BUFFERS = "client-output-buffer-limit"


@dataclass
class Server:
    """One Redis, and what it said."""

    address: Any
    connection: Connection
    where: str

    def ask(self, *words: str) -> Any:
        """Return the reply to a command; see ``Address.ask``."""
        return self.address.ask(self.connection, *words)


def redis(setup: Setup) -> Iterator[Finding]:
    """Look at each Redis that ``WSCHAT_URL`` leads to."""
    if setup.storage != "redis" or setup.hub is None:
        return
    url = str(setup.settings.URL)
    way = url.partition(":")[0].partition("+")[2]
    try:
        if way == "sentinel":
            sentinels = SentinelAddress(url, SECONDS)
            yield from _sentinels(sentinels)
            yield from _one(setup, sentinels)
        elif way == "cluster":
            yield from _cluster(setup, ClusterAddress(url, SECONDS))
        else:
            for each in several(url):
                yield from _one(setup, Address(each, SECONDS))
    except ConfigError as error:
        yield WRONG_URL(why=error)


def _one(setup: Setup, address: Address) -> Iterator[Finding]:
    try:
        connection = address.connect()
    except (LinkError, ReplyError, OSError) as error:
        yield _unreachable(error, address.where)
        return
    yield from _looked_at(setup, Server(address, connection, address.where))


def _looked_at(
    setup: Setup, server: Server, *, of_cluster: bool = False
) -> Iterator[Finding]:
    try:
        yield from _pace(setup, server)
        yield from _info(setup, server, of_cluster=of_cluster)
        yield from _config(setup, server)
        if not of_cluster:
            yield from _reachable_by_others(setup, server)
    except (LinkError, ReplyError, OSError) as error:
        yield _unreachable(error, server.where)
    finally:
        server.connection.disconnect()


def _unreachable(error: Exception, where: str) -> Finding:
    text = redacted(error)
    if text.startswith(("NOAUTH", "WRONGPASS")):
        return WRONG_LOGIN(where=where, why=text)
    if "DB index" in text or "invalid DB" in text:
        return NO_DATABASE(where=where)
    if "Protocol Error" in text:
        return UNREACHABLE(where=where, why="is no Redis: another program answers")
    if isinstance(error, ReplyError):
        return REFUSED(where=where, why=text)
    return UNREACHABLE(where=where, why=text)


def _named(setup: Setup, server: Server) -> dict[str, str]:
    """Return how a finding names this Redis, and how an operator reaches it.

    Who may change it is seldom who is in our URL: docs/deploy/redis.conf calls that one
    ``admin``.
    """
    name = server.where.partition(" ")[0]
    host, _, port = name.rpartition(":")
    way = f"-s {name}" if "/" in name else f"-h {host.strip('[]')} -p {port}"
    parts = urlsplit(several(str(setup.settings.URL))[0].replace("+", "-", 1))
    if parts.username:
        way += " --user admin"
    if parts.password or "password=" in parts.query:
        way += " --askpass"
    return {"where": server.where, "cli": f"redis-cli {way}"}


def _pace(setup: Setup, server: Server) -> Iterator[Finding]:
    """Ask for the time, which every user of ours may, and see how long it takes."""
    first, skew = _paced(server)
    p50, p99 = first
    if p50 > _SLOW or p99 > _SLOW_AT_TIMES:
        # Once may have been this machine's fault.
        again, _ = _paced(server)
        p50, p99 = map(min, first, again)
    said = _named(setup, server) | {"p50": _ms(p50), "p99": _ms(p99)}
    if p50 > _SLOW:
        yield SLOW(**said)
    elif p99 > _SLOW_AT_TIMES:
        yield SLOW_AT_TIMES(**said)
    if abs(skew) > _SKEW:
        way = "ahead of" if skew > 0 else "behind"
        yield CLOCK(where=server.where, seconds=f"{abs(skew):.0f}", way=way)


def _paced(server: Server) -> tuple[tuple[float, float], float]:
    """Return the seconds of the median answer and the slowest one, and those by which
    its clock is ahead.
    """
    taken: list[float] = []
    skew = 0.0
    for _ in range(_ASKED):
        before, now = time.perf_counter(), time.time()
        seconds, micros = server.ask("TIME")
        taken.append(time.perf_counter() - before)
        if taken[-1] == min(taken):
            middle = now + taken[-1] / 2
            skew = int(seconds) + int(micros) / 1e6 - middle
        if taken[-1] > 1:
            break  # this is slow enough
    taken.sort()
    return (taken[len(taken) // 2], taken[-1]), skew


def _info(setup: Setup, server: Server, *, of_cluster: bool) -> Iterator[Finding]:
    try:
        info = parsed(server.ask("INFO"))
    except ReplyError as error:
        setup.unseen.append(f"INFO of Redis at {server.where}: {redacted(error)}")
        if str(error).startswith("NOPERM"):
            yield NO_RIGHT(where=server.where)
            _reconnect(server)
            return
        raise
    where = _named(setup, server)
    version = info.get("valkey_version") or info.get("redis_version", "0.0")
    oldest = _OLDEST_CLUSTER if of_cluster else _OLDEST
    if _numbers(version) < oldest:
        yield OLD(version=version, oldest="{}.{}".format(*oldest), **where)
    if info.get("loading") == "1":
        yield LOADING(**where)
    if info.get("cluster_enabled") == "1" and not of_cluster:
        yield CLUSTER_HERE(**where)
    if info.get("role") in ("slave", "replica"):
        yield IS_REPLICA(**where)
    yield from _kept(info, where)
    yield from _room(info, where)
    replicas, wait = _replicas(info), setup.settings.REDIS_WAIT
    if wait > replicas:
        yield FEW_REPLICAS(wait=wait, replicas=replicas, **where)
    elif wait and wait == replicas:
        primary = " ".join(server.where.rsplit(":", 1))
        yield NO_SPARE_REPLICA(wait=wait, host_port=primary, **where)
    most, clients = (
        int(info.get("maxclients", 0)),
        int(info.get("connected_clients", 0)),
    )
    if most and (clients > 0.9 * most or most - clients < 4 * setup.workers):
        yield MANY_CLIENTS(clients=clients, most=most, **where)


def _kept(info: dict[str, str], where: dict[str, str]) -> Iterator[Finding]:
    """What survives an end of Redis."""
    if info.get("aof_enabled") == "0":
        yield AOF_OFF(**where)
    for name, what in (
        ("rdb_last_bgsave_status", "the last snapshot"),
        ("aof_last_write_status", "the last write to the append-only file"),
        ("aof_last_bgrewrite_status", "the last rewrite of the append-only file"),
    ):
        if info.get(name, "ok") != "ok":
            yield WRITE_FAILS(what=what, **where)
    if int(info.get("evicted_keys", 0)):
        yield EVICTED(count=info["evicted_keys"], **where)


def _room(info: dict[str, str], where: dict[str, str]) -> Iterator[Finding]:
    """How much memory there is."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield EVICTS(policy=policy, **where)
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if most:
        share = {"percent": f"{100 * used / most:.0f}", "most": most >> 20}
        if used > 0.95 * most:
            yield FULL(**share, **where)
        elif used > 0.8 * most:
            yield NEARLY_FULL(**share, **where)


def _config(setup: Setup, server: Server) -> Iterator[Finding]:
    """Look at settings that only a user with more rights may read."""
    config: dict[str, str] = {}
    try:
        for name in (*_SETTINGS, _BUFFERS):
            reply = server.ask("CONFIG", "GET", name)
            config |= {k.decode(): v.decode() for k, v in _pairs(reply)}
    except ReplyError as error:
        setup.unseen.append(
            f"CONFIG of Redis at {server.where} (appendfsync, timeout,"
            f" min-replicas-to-write, client-output-buffer-limit): {redacted(error)}"
        )
        _reconnect(server)
        return
    where = _named(setup, server)
    if config.get("appendonly") == "yes" and config.get("appendfsync") == "no":
        yield FSYNC_NO(**where)
    if int(config.get("timeout", 0)) > 0:
        yield IDLE(seconds=config["timeout"], **where)
    words = config.get(_BUFFERS, "").split()
    if "pubsub" in words:
        hard, soft = map(int, words[words.index("pubsub") + 1 :][:2])
        limits = [limit for limit in (hard, soft) if limit]
        if limits and min(limits) < _BUFFER:
            yield BUFFER(bytes=min(limits), **where)
    wanted = int(config.get("min-replicas-to-write", 0))
    if wanted:
        replicas = _replicas(parsed(server.ask("INFO", "replication")))
        if replicas < wanted:
            yield MIN_REPLICAS(wanted=wanted, replicas=replicas, **where)


def _reachable_by_others(setup: Setup, server: Server) -> Iterator[Finding]:
    """Look whether others come in without a password."""
    parts = urlsplit(several(str(setup.settings.URL))[0].replace("+sentinel:", ":", 1))
    if parts.password or "password=" in parts.query or parts.scheme == "unix":
        return
    host = server.where.partition(" ")[0].rpartition(":")[0].strip("[]")
    if host == "localhost" or "/" in host:
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    yield NO_PASSWORD(where=server.where)


def _sentinels(address: SentinelAddress) -> Iterator[Finding]:
    answers = address.ask_each("SENTINEL", "CKQUORUM", address.name)
    working = 0
    for where, answer in answers:
        if isinstance(answer, LinkError | OSError):
            yield SENTINEL_DOWN(where=where, why=redacted(answer))
        elif isinstance(answer, ReplyError):
            yield NO_QUORUM(where=where, why=redacted(answer), name=address.name)
        else:
            working += 1
    if len(answers) < 3:
        yield FEW_SENTINELS(count=len(answers))


def _cluster(setup: Setup, address: ClusterAddress) -> Iterator[Finding]:
    found: Any = None
    for seed in address.seeds:
        try:
            connection = address.dial(seed)
            try:
                found = address.ask(connection, "CLUSTER", "SLOTS")
            finally:
                connection.disconnect()
            break
        except (LinkError, ReplyError, OSError) as error:
            yield _unreachable(error, seed)
    if found is None:
        return
    covered = sum(last - first + 1 for first, last, *_ in found)
    if covered < 16384:
        yield CLUSTER_HOLES(count=16384 - covered)
    nodes: dict[str, int] = {}
    for _, _, (host, port, *_), *replicas in found:
        name = f"{host.decode() or address.seeds[0].rpartition(':')[0]}:{port}"
        nodes[name] = len(replicas)
    if single := [name for name, replicas in nodes.items() if not replicas]:
        yield CLUSTER_SINGLE(nodes=", ".join(single[:5]))
    for name in nodes:
        try:
            connection = address.dial(name)
        except (LinkError, ReplyError, OSError) as error:
            yield _unreachable(error, name)
            continue
        yield from _looked_at(setup, Server(address, connection, name), of_cluster=True)


def _reconnect(server: Server) -> None:
    """A refusal ends the connection; see ``Address.ask``."""
    address = server.address
    dials = isinstance(address, ClusterAddress)
    server.connection = address.dial(server.where) if dials else address.connect()


def parsed(info: bytes) -> dict[str, str]:
    """Return what ``INFO`` says."""
    lines = info.decode(errors="replace").splitlines()
    return {k: v for k, colon, v in (x.partition(":") for x in lines) if colon}


def _replicas(info: dict[str, str]) -> int:
    """Return how many replicas get what is written."""
    names = (f"slave{n}" for n in range(int(info.get("connected_slaves", 0))))
    return sum("state=online" in info.get(name, "") for name in names)


def _pairs(reply: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(reply[::2], reply[1::2], strict=True)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in version.split(".")[:2] if word.isdigit())


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
