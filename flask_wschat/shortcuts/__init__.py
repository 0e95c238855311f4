"""The same answers for less work, leaning on how other packages do a thing inside.

One rule: decline, never raise. A short way is taken only with versions that it was
checked with, where nothing of the application's own has a say in it, and unless
``WSCHAT_SHORTCUTS`` is off. Everywhere else the long way is, which knows what the
others document. Each has a test that compares the two. See docs/decisions/31.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
import re
from typing import Any

logger = logging.getLogger("flask_wschat")

CHECKED = {
    "flask": ("3.0", "3.1"),
    "werkzeug": ("3.0", "3.1"),
    "itsdangerous": ("2.1", "2.2"),
    "gevent": ("23.9", "26.9"),
    "gevent-websocket": ("0.10", "0.10"),
}
"""The first and the last versions of others that the tests here have passed with."""

SWITCH = {"0": False, "1": True}.get(os.environ.get("WSCHAT_SHORTCUTS", ""))
"""What the environment says, before any configuration; None: nothing."""


def may_take(setting: bool, *packages: str) -> bool:
    """Whether a way that leans on the insides of ``packages`` may be taken.

    ``setting`` is the application's ``WSCHAT_SHORTCUTS``.
    """
    return (setting if SWITCH is None else SWITCH) and are_checked(*packages)


@functools.cache
def are_checked(*packages: str) -> bool:
    """Whether the versions of all ``packages`` here are among those ``CHECKED``."""
    return all(map(_is_checked, packages))


def _is_checked(package: str) -> bool:
    first, last = map(_numbers, CHECKED[package])
    try:
        version = importlib.metadata.version(package)
        fits = first <= _numbers(version) <= last
    except Exception as error:  # it came without metadata, or with strange ones
        version, fits = f"of an unknown version ({error})", False
    if not fits:
        logger.debug("no shortcuts with %s %s, which was not checked", package, version)
    return fits


def _numbers(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version; a third is of what was mended."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise ValueError(f"{version!r} is no version")
    return int(found[1]), int(found[2])


def is_own(thing: Any, module: str, name: str) -> bool:
    """Whether ``thing`` is the method or class that ``module`` defines by this name.

    Who has put another in its place, in a subclass, an object or the class itself,
    wants that called.
    """
    thing = getattr(thing, "__func__", thing)
    return (
        getattr(thing, "__module__", None) == module
        and getattr(thing, "__qualname__", None) == name
    )
