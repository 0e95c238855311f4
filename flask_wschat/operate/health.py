"""``/_wschat/live`` and ``/_wschat/ready``: whether to restart, whether to send people.

They are for what runs processes, and anybody may read them: no words of storages. See
docs/decisions/43.
"""

from __future__ import annotations

import threading
import time

from flask import Blueprint, Response, jsonify

from ..errors import BackendError
from ..hub.hub import Hub
from ..opening.gate import Worker
from .reports import Reports

FRESH = 1.0
"""Seconds that the storage's last answer counts, so that it is asked no more often."""
PATIENCE = 4.0
"""Seconds that it has for one; the backends give up before."""


class Health:
    """What the pages of an application say."""

    def __init__(
        self, hub: Hub, reports: Reports, blueprint: Blueprint, host: str | None
    ) -> None:
        self._hub = hub
        self._reports = reports
        self._asking = threading.Lock()
        self._asked_at = self._began = -FRESH
        self._answers = True
        # As no rule of the application's looks, which has the first say then.
        rule = "/_wschat/<any(live, ready):page>"
        blueprint.add_url_rule(rule, "health", self._page, host=host)

    def _page(self, page: str) -> Response:
        reasons = self._reasons() if page == "ready" else []
        answer = jsonify({page: not reasons, "reasons": reasons})
        answer.status_code = 503 if reasons else 200
        answer.headers["Cache-Control"] = "no-store"
        if reasons:
            answer.headers["Retry-After"] = "2"
        return answer

    def _reasons(self) -> list[str]:
        """Return why nobody should be sent here now, in words for programs."""
        closing = self._hub.closing
        server = closing.server or Worker()
        if closing.is_stopping() or server.is_stopping():
            return ["draining"]
        self._reports.serve()  # who is asked this has somebody sent here
        fine = self._storage_answers()
        # Asked last: what answers before may be what has just been found out.
        if getattr(self._hub.backend, "deaf", False):
            return ["deaf"]
        return [] if fine else ["storage"]

    def _storage_answers(self) -> bool:
        """Whether what is published reaches this process, as far as that is known."""
        backend = self._hub.backend
        if backend.fault() is not None:
            return False
        # Who comes while another one asks has the answer before.
        if time.monotonic() - self._asked_at >= FRESH:
            if not self._asking.acquire(False):
                return self._answers and time.monotonic() - self._began < PATIENCE
            self._began = time.monotonic()
            try:
                backend.present("")  # of nobody: that is soon said
                self._answers = True
            except BackendError:
                self._answers = False
            finally:
                self._asked_at = time.monotonic()
                self._asking.release()
        return self._answers and backend.fault() is None
