"""What a process that serves says of itself to a doctor: see ``running.py``."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from typing import Any

from flask import Flask

from ...codec import accelerated as of_codec
from ...hub.hub import Hub
from ...transports import accelerated as of_transports
from ...transports.patched import is_patched, patching_fault

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

QUESTION = "doctor"
SHARED = (
    *("HISTORY_SIZE", "HISTORY_BYTES", "HISTORY_TTL", "INBOX_SHARE", "REDIS_WAIT"),
    *("PING_INTERVAL", "PING_TIMEOUT"),
)
"""Settings that all processes which share a storage should have in common."""


def facts(app: Flask, hub: Hub) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what answers the question in a process of ``app``."""

    def answer(fields: dict[str, Any]) -> dict[str, Any]:
        stats = hub.figures.stats()
        return {
            "version": stats["version"],
            "lag": stats["loop_lag"],
            "now": time.time(),
            "files": _files(),
            "accelerated": of_codec.ACCELERATED and of_transports.ACCELERATED,
            "patched": is_patched(),
            "fault": patching_fault(),
            "debug": app.debug,
            "key": digest(app, str(fields.get("nonce"))),
            "settings": {name: getattr(hub.settings, name) for name in SHARED},
        }

    return answer


def digest(app: Flask, nonce: str) -> str:
    """Return what two processes have in common for a ``nonce`` that have one key."""
    key = app.secret_key or b""
    plain = key.encode() if isinstance(key, str) else bytes(key)
    return hmac.new(plain, nonce.encode(), hashlib.sha256).hexdigest() if plain else ""


def _files() -> list[int]:
    """Return how many files are open here, and how many may be; [] where unknown."""
    try:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return [len(os.listdir("/proc/self/fd")), soft]
    except (AttributeError, OSError):
        return []
