"""The ``WSCHAT_*`` configuration, read once into a frozen ``Settings``."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from .errors import ConfigError
from .rate import Rate, as_rate

PREFIX = "WSCHAT_"
_SILENCE = 0.7
"""Of the time until a dead process's people are gone. The others look each quarter of
that time; and a living one is heard twice at least before it would count as dead."""

logger = logging.getLogger("flask_wschat")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an application chose; each field is the key ``WSCHAT_`` + its name."""

    URL: Any = field(default="memory://", repr=False)  # it may have a password
    """What server processes share: the URL of a backend, or a ``Backend``."""
    ORIGINS: Sequence[str] | str | None = None
    """Allowed origins, or ``"*"``; None: the page's own origin only."""
    MAX_MESSAGE: int = 1 << 20
    """Bytes of one incoming message; more closes with 1009."""
    MAX_QUEUE: int = 1 << 20
    """Bytes that may wait for a connection that does not keep up."""
    MAX_QUEUED: int = 256 << 20
    """Bytes of memory that may wait for all connections of a process."""
    SLOW_POLICY: Literal["close", "drop_oldest"] = "close"
    """What a full queue does: close with 1013, or lose its oldest messages."""
    PING_INTERVAL: float = 25.0
    """Seconds between pings."""
    PING_TIMEOUT: float = 20.0
    """Seconds of silence after a ping until a peer counts as dead."""
    HANDSHAKE_TIMEOUT: float = 10.0
    """Seconds a client has to send its whole opening request."""
    CLOSE_TIMEOUT: float = 5.0
    """Seconds a peer has to answer a close frame."""
    DRAIN: float = 10.0
    """Seconds that a server which ends has for its connections: they are closed one
    after another, and what runs for them may end."""
    COMPRESSION: bool = True
    """Whether to agree to permessage-deflate, for messages from 256 bytes."""
    MAX_CONNECTIONS: int | None = None
    """Connections of one process; over it an opening gets HTTP 503."""
    MAX_CONNECTIONS_PER_USER: int | None = None
    """Connections of one user in a process; over it an opening gets HTTP 429."""
    MAX_CONNECTIONS_PER_ADDRESS: int | None = None
    """Connections of an IPv4 address, or of an IPv6 network of 64 bits, in a process;
    over it an opening gets HTTP 429."""
    RATE_LIMIT: Rate | None = (50, 200)
    """Messages of one user to the ready-made chat: a second, and at once."""
    BYTE_LIMIT: Rate | None = (32768, 2097152)
    """Bytes of data that one user may say in the ready-made chat: a second, and at
    once. None, or ``RATE_LIMIT`` is None: no limit."""
    HISTORY_SIZE: int = 256
    """Messages kept for each room."""
    HISTORY_BYTES: int = 1 << 20
    """Bytes of data kept for each room; the newest message always."""
    INBOX_SHARE: float = 0.25
    """The part of an inbox that one user may fill who gets no answer; 1: all of it."""
    HISTORY_TTL: float = 86400.0
    """Seconds a message is kept."""
    REDIS_WAIT: int = 0
    """Replicas that must have a message before it is acknowledged."""
    METRICS: Literal["private"] | bool = "private"
    """Who may read ``/_wschat/metrics``: private addresses that come directly,
    everybody (True) or nobody (False)."""
    ACCESS_LOG: bool = False
    """Whether the logger ``flask_wschat.access`` has a line for each handshake, and for
    each connection's end."""
    SHORTCUTS: bool = True
    """Whether to open with less work than Flask and gevent put into it, where what
    comes of it is known to be the same. The environment's overrides this."""

    @property
    def patience(self) -> float:
        """Seconds until whoever says nothing any more is gone."""
        return self.PING_INTERVAL + self.PING_TIMEOUT

    @property
    def presence_ttl(self) -> float:
        """Seconds of silence until a process, or a writer, is dead for a backend."""
        return _SILENCE * self.patience

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Return the settings of a Flask config; warn of keys nobody reads.

        :raises ConfigError: a value cannot work; the message names key and value.
        """
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {}
        for key in config:
            if not key.startswith(PREFIX):
                continue
            name = key.removeprefix(PREFIX)
            if name in known:
                given[name] = config[key]
            else:
                near = difflib.get_close_matches(name, known, 1, 0.5)
                hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
                logger.warning("unknown configuration key %s%s", key, hint)
        for name in ("RATE_LIMIT", "BYTE_LIMIT"):
            if isinstance(value := given.get(name), list):
                given[name] = as_rate(value) or value  # from a JSON or TOML file
        for name in ("METRICS", "SHORTCUTS"):
            if given.get(name) in (0, 1):  # from a prefixed environment
                given[name] = bool(given[name])
        for name in _WHOLE & given.keys():
            value = given[name]
            if isinstance(value, float) and value.is_integer() and value < sys.maxsize:
                given[name] = int(value)  # 1e6
        settings = cls(**given)
        settings._check()
        return settings

    def _check(self) -> None:
        if not isinstance(self.URL, str) and not hasattr(self.URL, "publish"):
            kind = type(self.URL).__name__
            raise ConfigError(f"{PREFIX}URL must be a URL or a backend, not {kind}")
        for name in (
            "PING_INTERVAL",
            "PING_TIMEOUT",
            "HANDSHAKE_TIMEOUT",
            "CLOSE_TIMEOUT",
            "HISTORY_TTL",
        ):
            works = _is_number(getattr(self, name), above=0, most=_MOST_SECONDS)
            self._need(name, works, "a number > 0, up to 1e9")
        for name in ("MAX_MESSAGE", "MAX_QUEUE", "HISTORY_BYTES"):
            self._need(name, _is_whole(getattr(self, name), above=0), "an integer > 0")
        self._need(
            "MAX_QUEUED",
            _is_whole(self.MAX_QUEUED, above=self.MAX_QUEUE - 1),
            f"an integer >= {PREFIX}MAX_QUEUE ({self.MAX_QUEUE})",
        )
        self._need(
            "HISTORY_SIZE", _is_whole(self.HISTORY_SIZE, above=-1), "an integer >= 0"
        )
        self._need(
            "REDIS_WAIT", _is_whole(self.REDIS_WAIT, above=-1), "an integer >= 0"
        )
        for name in _OPTIONAL:
            value = getattr(self, name)
            works = value is None or _is_whole(value, above=0)
            self._need(name, works, "an integer > 0, or None")
        share = self.INBOX_SHARE
        self._need(
            "INBOX_SHARE",
            _is_number(share, above=0, most=1),
            "a number > 0, up to 1",
        )
        rate = self.RATE_LIMIT
        self._need(
            "RATE_LIMIT",
            rate is None or as_rate(rate) is not None,
            "(messages a second, messages at once), as (10, 50), or None",
        )
        self._need(
            "BYTE_LIMIT",
            self.BYTE_LIMIT is None or as_rate(self.BYTE_LIMIT) is not None,
            "(bytes a second, bytes at once), as (32768, 2097152), or None",
        )
        drains = _is_number(self.DRAIN, above=-1, most=_MOST_SECONDS)
        drains = drains and self.DRAIN >= 0
        self._need("DRAIN", drains, "a number >= 0, up to 1e9")
        for name in ("ACCESS_LOG", "COMPRESSION", "SHORTCUTS"):
            is_bool = isinstance(getattr(self, name), bool)
            self._need(name, is_bool, "True or False")
        self._need(
            "METRICS",
            self.METRICS == "private" or isinstance(self.METRICS, bool),
            '"private", True or False',
        )
        self._need(
            "SLOW_POLICY",
            self.SLOW_POLICY in ("close", "drop_oldest"),
            '"close" or "drop_oldest"',
        )
        origins: Any = () if self.ORIGINS is None else self.ORIGINS
        if isinstance(origins, str):
            origins = [origins]
        self._need(
            "ORIGINS",
            isinstance(origins, Collection) and all(map(_is_origin, origins)),
            'origins such as "https://example.org" or "https://*.example.org", or "*"',
        )

    def _need(self, name: str, works: bool, what: str) -> None:
        if not works:
            value = getattr(self, name)
            raise ConfigError(f"{PREFIX}{name} must be {what}, not {value!r}")


_OPTIONAL = {
    "MAX_CONNECTIONS",
    "MAX_CONNECTIONS_PER_USER",
    "MAX_CONNECTIONS_PER_ADDRESS",
}
_MOST_SECONDS = 1e9
"""30 years. Timers take no infinity, and JSON cannot tell a client of one."""
_WHOLE = {"MAX_MESSAGE", "MAX_QUEUE", "MAX_QUEUED", *_OPTIONAL}
_WHOLE |= {"HISTORY_SIZE", "HISTORY_BYTES", "REDIS_WAIT"}


def _is_origin(value: object) -> bool:
    if not isinstance(value, str):
        return False
    _, found, host = value.partition("://")
    # A star anywhere else would match nothing, and one alone everything.
    starred = "*" not in host or (host.startswith("*.") and "*" not in host[2:])
    return value in ("*", "null") or bool(found and starred and host != "*.")


def _is_whole(value: object, *, above: int) -> bool:
    return isinstance(value, int) and _is_number(value, above=above, most=sys.maxsize)


def _is_number(value: object, *, above: float, most: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and above < value <= most  # type: ignore[operator]
