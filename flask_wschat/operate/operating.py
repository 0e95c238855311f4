"""``Operating``: what ``WSChat`` has for operators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask

from ..hub.hub import Hub
from ..opening import mistakes
from .dashboard import Dashboard
from .metrics import METRICS, Metrics
from .reports import REPORTS, Reports


class Operating:
    """The part of ``WSChat`` that shows how it goes."""

    def dashboard(
        self,
        rule: str,
        *,
        allow: Callable[..., Any] | None = None,
        blueprint: Blueprint | None = None,
        endpoint: str = "dashboard",
        **options: Any,
    ) -> None:
        """Serve a page at ``rule`` with the figures of all processes, live.

        It lists rooms, users and their connections, disconnects them, and sends to
        them. So ``allow`` says who may: called in the context of a request, without
        arguments or with the user's id if it takes one, it returns True or False; an
        ``abort()`` or redirect of its own is the answer. It is asked for the page, for
        its socket, before each action, and while somebody watches. Without it nobody
        may. ``options`` are ``add_url_rule``'s, such as ``host``.

        :raises TypeError: ``allow`` is no such function, or is ``async``.
        """
        mistakes.check_rule("dashboard", rule)
        page = Dashboard(rule, allow, self._who)
        self._add_to(blueprint, functools.partial(page.add_to, endpoint, options))
        self.listener(
            f"{page.folder}socket",
            blueprint=blueprint,
            limit=(20, 100),
            decorators=[page.guard],
            endpoint=f"{endpoint}_socket",
            **options,
        )(page.listener())

    def stats(self, everywhere: bool = False, wait: float = 0.5) -> dict[str, Any]:
        """Return what this process has counted since it began, and how it stands.

        Plain values for JSON, as ``docs/operate/metrics.md`` explains each. With
        ``everywhere`` those of all processes that answer within ``wait`` seconds:
        ``{"workers": [each one's], "total": summed}``; an ``id`` tells apart several
        apps of one process.

        :raises BackendError: those of others cannot be asked for.
        """
        if not everywhere:
            return self._hub().figures.stats()
        app = self._app()
        self._chat_of(app)  # which is ours
        reports: Reports = app.extensions[REPORTS]
        return reports.stats(wait)

    def metrics(self) -> str:
        """Return the figures of this server in the text format of Prometheus.

        What ``/_wschat/metrics`` answers, for a route of your own: they are those of
        all workers of a gunicorn, or else of this process.

        :raises OSError: those of the other workers cannot be read now.
        :raises RuntimeError: prometheus-client is not installed.
        """
        app = self._app()
        self._chat_of(app)  # which is ours
        metrics: Metrics = app.extensions[METRICS]
        return metrics.text()

    # What it asks of the rest.

    def _app(self) -> Flask:
        raise NotImplementedError

    def _hub(self) -> Hub:
        raise NotImplementedError

    def _chat_of(self, app: Flask) -> Any:
        raise NotImplementedError

    def _who(self) -> Any:
        raise NotImplementedError

    def _add_to(
        self, blueprint: Blueprint | None, add_rule: Callable[..., None]
    ) -> None:
        raise NotImplementedError

    def listener(self, rule: str, **options: Any) -> Callable[[Any], Any]:
        raise NotImplementedError
