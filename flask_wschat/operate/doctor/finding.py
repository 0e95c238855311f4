"""``Finding``: something that is wrong. ``Setup``: what is looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flask import Flask

from ...hub.hub import Hub
from ...logs import printable
from ...settings import Settings

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The worst first. An error: it does not work, or loses or gives away something."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, what that means, and a line that helps."""

    severity: Severity
    name: str
    what: str
    means: str
    remedy: str
    early: Severity | None = None
    """How bad it is in development; None: not worth a word."""


class Kind:
    """One kind of finding: call it with the values of its braces for a ``Finding``.

    ``early``: how bad it is while a program is developed, if not as bad as ever; "": it
    is nothing then.
    """

    all: dict[str, Kind] = {}  # noqa: RUF012  # the one list of them
    """By their names."""

    def __init__(
        self,
        name: str,
        severity: Severity,
        what: str,
        means: str,
        remedy: str,
        early: Severity | Literal["", "same"] = "same",
    ) -> None:
        assert name not in Kind.all, name
        Kind.all[name] = self
        self.name = name
        self.severity: Severity = severity
        self.what, self.means, self.remedy = what, means, remedy
        self.early: Severity | None = severity if early == "same" else early or None

    def __call__(self, **values: object) -> Finding:
        said = {name: _pasteable(value) for name, value in values.items()}
        what, means, remedy = (
            text.format(**said) for text in (self.what, self.means, self.remedy)
        )
        return Finding(self.severity, self.name, what, means, remedy, self.early)


def _pasteable(value: object) -> str:
    """Return what a finding says of ``value``: one line, and no password of a URL.

    Unlike ``logs.redacted`` for words that have a URL among them.
    """
    text = re.sub(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s'\"]*@", r"\1…@", str(value))
    text = re.sub(
        r"(?i)([?&][^=&\s]*(?:pass|secret|token)[^=&\s]*=)[^&#\s]*", r"\1…", text
    )
    return printable(text, 300)


@dataclass
class Setup:
    """What is looked at: an application, and how it is served, as far as known."""

    app: Flask | None = None
    gunicorn: Mapping[str, Any] | None = None
    """gunicorn's settings by their names; None: it does not serve, or nobody said."""
    imported: Mapping[str, Any] | None = None
    """What a fresh process saw when it imported the application; see ``probe.py``."""
    url: str | None = None
    """Where the world finds the application."""
    environ: Mapping[str, str] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    """What could not be looked at, and why; for those who ask for it."""

    @property
    def hub(self) -> Hub | None:
        """The application's; None: it has no ``WSChat``."""
        if self.app is None:
            return None
        hub: Hub | None = self.app.extensions.get("wschat.hub")
        return hub

    @property
    def settings(self) -> Settings:
        """The application's, or the defaults."""
        return self.hub.settings if self.hub else Settings()

    @property
    def storage(self) -> str:
        """The kind of what processes share: ``memory``, ``sqlite``, ``redis``, …"""
        url = self.settings.URL
        if not isinstance(url, str):
            return "another"
        scheme = url.partition(":")[0].partition("+")[0]
        redis = {"rediss", "valkey", "valkeys", "unix"}
        return "redis" if scheme in redis else scheme

    @property
    def workers(self) -> int:
        return int(self.gunicorn["workers"]) if self.gunicorn else 1

    @property
    def worker(self) -> str:
        """The kind of gunicorn's workers; "": gunicorn is not known to serve."""
        return str(self.gunicorn["worker_class"]) if self.gunicorn else ""

    @property
    def is_gevent(self) -> bool:
        """Whether gunicorn's workers are gevent's."""
        worker = self.worker.lower()
        return "gevent" in worker or worker.startswith("flask_wschat.")

    @property
    def is_early(self) -> bool:
        """Whether this is a program that is developed, and nobody is served by.

        It is until something says otherwise: gunicorn, a storage that processes share,
        or a URL that is not this machine's.
        """
        if self.gunicorn is not None:
            return False
        if self.app is not None and self.app.debug:
            return True
        return self.storage == "memory" and self.url is None

    @property
    def is_https(self) -> bool:
        return bool(self.url and self.url.startswith("https:"))


Look = Callable[[Setup], Iterable[Finding]]
"""What looks for some kinds of findings."""
