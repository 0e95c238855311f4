"""What server processes share: the order of messages, who is there, how polls stand."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..logs import redacted
from .contract import Backend, Host
from .memory import MemoryBackend

__all__ = ["Backend", "Host", "MemoryBackend", "open"]


def open(url: str | Backend, *, wait: int = 0, **options: Any) -> Backend:
    """Return the backend that ``url`` names, not yet started, or is.

    ``options`` are how much it keeps: ``size`` and ``max_bytes`` (messages of a topic,
    and their bytes), ``ttl`` and ``presence_ttl`` (seconds). A backend that is handed
    in has its own. ``wait``: replicas of Redis that must have what is acknowledged.

    :raises ConfigError: ``url`` names none, or its package is missing.
    """
    if not isinstance(url, str):
        return url
    scheme = url.partition(":")[0] if ":" in url else ""
    # Each is imported where it is used: SQLite and redis are not for everybody.
    if scheme == "memory":
        return MemoryBackend(**options)
    if scheme == "sqlite":
        from .sqlite import SQLiteBackend

        return SQLiteBackend.from_url(url, **options)
    plain, _, way = scheme.partition("+")
    if plain in ("redis", "rediss", "valkey", "valkeys", "unix"):
        from .redis import RedisBackend, RedisRing, several

        kind = RedisBackend if way or len(several(url)) == 1 else RedisRing
        return kind(url, wait=wait, **options)
    raise ConfigError(
        "WSCHAT_URL must begin with memory://, sqlite:///, redis://, rediss://,"
        f" valkey://, valkeys:// or unix://, unlike {redacted(url)!r}"
    )
