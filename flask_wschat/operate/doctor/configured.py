"""The configuration: ``WSCHAT_*``, and what contradicts itself there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ...settings import PREFIX, Settings
from .finding import Finding, Kind, Setup

UNKNOWN = Kind(
    "setting-unknown",
    "warning",
    "nobody reads the configuration key {key}",
    "It has no effect.{near}",
    "{remedy}",
)
UNREAD = Kind(
    "setting-unread",
    "warning",
    "{name} is in the environment, and not in app.config",
    "It has no effect: nothing reads the environment by itself.",
    "{remedy}",
)
LATE = Kind(
    "setting-late",
    "warning",
    "{keys} came into app.config after WSChat had read it",
    "It has no effect.",
    "app.config[…] = …   # before WSChat(app) or init_app(app)",
)
PING_RARE = Kind(
    "ping-rare",
    "warning",
    "WSCHAT_PING_INTERVAL is {seconds} s",
    "nginx and most proxies cut what was silent for 60 s: idle connections are lost"
    " before the ping that would have kept them.",
    'app.config["WSCHAT_PING_INTERVAL"] = 25',
)
PING_OFTEN = Kind(
    "ping-often",
    "warning",
    "WSCHAT_PING_INTERVAL is {seconds} s",
    "It wakes each phone so often, and costs a server with 10,000 connections {rate}"
    " pings a second.",
    'app.config["WSCHAT_PING_INTERVAL"] = 25',
)
PONG_SOON = Kind(
    "ping-timeout-short",
    "warning",
    "WSCHAT_PING_TIMEOUT is {seconds} s",
    "A phone between two cells, or a busy tab, is silent for longer, and is closed.",
    'app.config["WSCHAT_PING_TIMEOUT"] = 20',
)
SMALL_QUEUE = Kind(
    "queue-smaller-than-message",
    "warning",
    "WSCHAT_MAX_QUEUE is {queue}, and WSCHAT_MAX_MESSAGE is {message} bytes",
    "A message that somebody may send closes each who gets it, as too slow.",
    'app.config["WSCHAT_MAX_QUEUE"] = {message}',
)
FEW_QUEUES = Kind(
    "queues-few",
    "warning",
    "WSCHAT_MAX_QUEUED is {queued}, less than ten times WSCHAT_MAX_QUEUE ({queue})",
    "A few slow clients fill what is there for all, and others are closed for them.",
    'app.config["WSCHAT_MAX_QUEUED"] = {enough}',
)
SMALL_HISTORY = Kind(
    "history-smaller-than-message",
    "warning",
    "WSCHAT_HISTORY_BYTES is {history}, and WSCHAT_MAX_MESSAGE is {message} bytes",
    "One long message pushes all others of its room out.",
    'app.config["WSCHAT_HISTORY_BYTES"] = {enough}',
)
SHORT_HISTORY = Kind(
    "history-short",
    "warning",
    "WSCHAT_HISTORY_TTL is {seconds} s",
    "Who comes back after a lost connection, which takes up to {patience} s to notice,"
    " has missed messages for good.",
    'app.config["WSCHAT_HISTORY_TTL"] = 86400',
)
NO_DRAIN = Kind(
    "drain-none",
    "warning",
    "WSCHAT_DRAIN is 0",
    "A restart closes all connections in one moment, and they come back in another.",
    'app.config["WSCHAT_DRAIN"] = 10',
    early="",
)
LONG_DRAIN = Kind(
    "drain-long",
    "warning",
    "WSCHAT_DRAIN is {seconds} s",
    "systemd kills after 90 s, Kubernetes after 30, Docker after 10, unless told.",
    'app.config["WSCHAT_DRAIN"] = 10',
    early="",
)
PLACES = Kind(
    "places-contradict",
    "warning",
    "WSCHAT_{name} is {one}, and WSCHAT_MAX_CONNECTIONS is {most}",
    "The smaller limit comes first, so that one alone can take all places.",
    'app.config["WSCHAT_{name}"] = {enough}',
)
NO_REPLICAS = Kind(
    "redis-wait-elsewhere",
    "warning",
    "WSCHAT_REDIS_WAIT is {count}, and WSCHAT_URL is {storage}://",
    "It has no effect: only Redis has replicas.",
    "unset FLASK_WSCHAT_REDIS_WAIT   # or name a Redis in WSCHAT_URL",
)
OPEN_METRICS = Kind(
    "metrics-public",
    "warning",
    "WSCHAT_METRICS is True",
    "Anybody may read /_wschat/metrics: how many are here, and what fails.",
    'app.config["WSCHAT_METRICS"] = "private"',
    early="",
)
LONG_HANDSHAKE = Kind(
    "handshake-timeout-long",
    "warning",
    "WSCHAT_HANDSHAKE_TIMEOUT is {seconds} s",
    "Strangers hold a descriptor with half a request for so long.",
    'app.config["WSCHAT_HANDSHAKE_TIMEOUT"] = 10',
    early="",
)
_OTHERS = {"WSCHAT_SHORTCUTS", "WSCHAT_PUREPYTHON", "WSCHAT_STARTED_AGAIN"}
"""Names that are read from the environment itself."""


def keys(setup: Setup) -> Iterator[Finding]:
    """Look for keys that have no effect."""
    if setup.app is None:
        return
    known = {PREFIX + field.name for field in fields(Settings)}
    config = setup.app.config
    for key in sorted(key for key in config if key not in known):
        ours = key.startswith(PREFIX)
        near = difflib.get_close_matches(key.upper(), known, 1, 0.7 if ours else 0.9)
        if ours or near:
            hint = f" {near[0]} may be meant." if near else ""
            remedy = f"app.config[{(near or [PREFIX + '…'])[0]!r}] = …   # not {key!r}"
            yield UNKNOWN(key=key, near=hint, remedy=remedy)
    for name in sorted(setup.environ):
        key = name.removeprefix("FLASK_")
        if not key.startswith(PREFIX) or key in config or name in _OTHERS:
            continue
        if key != name:
            remedy = "app.config.from_prefixed_env()   # before WSChat(app)"
        elif key in known:
            remedy = f"FLASK_{key}=…   # and app.config.from_prefixed_env()"
        else:
            continue
        yield UNREAD(name=name, remedy=remedy)
    read = setup.app.extensions.get("wschat.given")
    if read is not None:
        now = {key: config[key] for key in config if key in known}
        late = [k for k in known if _plain(read.get(k)) != _plain(now.get(k))]
        if late:
            yield LATE(keys=", ".join(sorted(late)))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple | set) else value


def times(setup: Setup) -> Iterator[Finding]:
    """Look at seconds that are too many or too few."""
    settings = setup.settings
    every = settings.PING_INTERVAL
    if every >= 55:
        yield PING_RARE(seconds=f"{every:g}")
    elif every < 3:
        yield PING_OFTEN(seconds=f"{every:g}", rate=f"{10_000 / every:.0f}")
    if settings.PING_TIMEOUT < 5:
        yield PONG_SOON(seconds=f"{settings.PING_TIMEOUT:g}")
    if settings.HISTORY_SIZE and 2 * settings.patience > settings.HISTORY_TTL:
        patience = f"{settings.patience:g}"
        yield SHORT_HISTORY(seconds=f"{settings.HISTORY_TTL:g}", patience=patience)
    if settings.DRAIN == 0:
        yield NO_DRAIN()
    elif settings.DRAIN > 60:
        yield LONG_DRAIN(seconds=f"{settings.DRAIN:g}")
    if settings.HANDSHAKE_TIMEOUT > 60:
        yield LONG_HANDSHAKE(seconds=f"{settings.HANDSHAKE_TIMEOUT:g}")


def sizes(setup: Setup) -> Iterator[Finding]:
    """Look at limits that contradict each other."""
    settings = setup.settings
    message, queue = settings.MAX_MESSAGE, settings.MAX_QUEUE
    if queue < message:
        yield SMALL_QUEUE(queue=queue, message=message)
    if 10 * queue > settings.MAX_QUEUED:
        queued = settings.MAX_QUEUED
        yield FEW_QUEUES(queued=queued, queue=queue, enough=64 * queue)
    if settings.HISTORY_SIZE and message > settings.HISTORY_BYTES:
        history, enough = settings.HISTORY_BYTES, 4 * message
        yield SMALL_HISTORY(history=history, message=message, enough=enough)
    most = settings.MAX_CONNECTIONS
    for name in ("MAX_CONNECTIONS_PER_USER", "MAX_CONNECTIONS_PER_ADDRESS"):
        one = getattr(settings, name)
        if most is not None and one is not None and one >= most:
            yield PLACES(name=name, one=one, most=most, enough=max(most // 10, 1))
    if settings.REDIS_WAIT and setup.storage != "redis":
        yield NO_REPLICAS(count=settings.REDIS_WAIT, storage=setup.storage)
    if setup.app is not None and setup.app.config.get("WSCHAT_METRICS") is True:
        yield OPEN_METRICS()
