"""Where requests that ask to upgrade leave Flask's way, and where they come back to it.

All others go through as if nothing was here. The application routes first, and what it
refuses is an ordinary answer: see docs/decisions/02.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, got_request_exception, has_request_context, request

from .. import endings
from ..codec import is_upgrade
from ..servers.offers import UPGRADE, Offer, find_offer
from ..shortcuts.routing import Adapters
from ..shortcuts.sessions import Sessions
from .access import BEGAN
from .either import EitherAdapter, find_either
from .gate import Gate
from .legacy import WebSocketError
from .upgrade import Upgrade


class Noted:
    """A ``start_response`` that notes what is answered."""

    status = ""
    reason = ""

    def __init__(self, start_response: Any) -> None:
        self._start_response = start_response

    def __call__(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        self.status = status
        return self._start_response(status, headers, exc_info)


class Hooks:
    """What stands before an application's views for requests that ask to upgrade."""

    def __init__(self, app: Flask, gate: Gate) -> None:
        self.gate = gate
        self._wsgi_app = app.wsgi_app
        self._create_url_adapter = app.create_url_adapter
        self._request_context = app.request_context
        self._dispatch_request = app.dispatch_request
        self._logs = gate.hub.settings.ACCESS_LOG
        quickly = gate.hub.settings.SHORTCUTS
        self._adapters = Adapters(app, EitherAdapter, quickly=quickly)
        self._sessions = Sessions(app, quickly=quickly)
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]
        app.request_context = self.request_context  # type: ignore[method-assign]
        app.create_url_adapter = self.create_url_adapter  # type: ignore[method-assign]
        app.dispatch_request = self.dispatch_request  # type: ignore[method-assign]
        got_request_exception.connect(self._note_failure, app)

    def wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Offer the application the request's socket, where the server gives one.

        What asks for no WebSocket, or for another protocol, is none of our business.
        """
        if "HTTP_UPGRADE" not in environ:
            return self._wsgi_app(environ, start_response)
        asks = _asks(environ)
        offer = find_offer(environ, start_response)
        # A server that has answered 101 may have taken it for less than we do.
        if not (asks or (offer is not None and offer.answered)):
            return self._wsgi_app(environ, start_response)
        if self._logs:
            environ[BEGAN] = time.monotonic()
        noted = Noted(start_response)
        try:
            if offer is None:
                return self._wsgi_app(environ, noted)
            if asks:
                # Where it is one name of several, Werkzeug would not see it.
                environ["HTTP_UPGRADE"] = "websocket"
            return self._answer(environ, noted, offer)
        except BaseException:
            noted.status = noted.status or "500 Internal Server Error"
            raise
        finally:
            if noted.status >= "3":
                reason = noted.reason or noted.status[4:].title()
                status = int(noted.status[:3])
                hub = self.gate.hub
                hub.figures.refused(noted.status)
                hub.signals.refused(environ, status, reason)

    def _answer(
        self, environ: dict[str, Any], start_response: Noted, offer: Offer
    ) -> Any:
        """Have the application answer, by a WebSocket or by HTTP."""
        try:
            upgrade = Upgrade(self.gate, environ, offer, start_response)
        except OSError as error:  # no loop for it can be started
            return self.gate.exhausted(error)(environ, start_response)
        environ[UPGRADE] = upgrade
        under_way = self.gate.hub.closing.under_way
        under_way.add(upgrade)
        try:
            result = self._wsgi_app(environ, upgrade.respond)
            upgrade.end()
            if not upgrade.begun:
                return result
            if hasattr(result, "close"):
                result.close()
            upgrade.run_view()
            upgrade.wait_if_held()
        except BaseException as error:
            upgrade.status = "500"
            upgrade.end()
            if upgrade.accepted is None:
                raise
            if isinstance(error, Exception):
                upgrade.accepted.close(*endings.HANDSHAKE_FAILED)
                raise
            # It goes no further: a SystemExit would end the whole server, and for a
            # GreenletExit pywsgi would answer, on a socket that it has no more.
            upgrade.accepted._fail(error)
        finally:
            if self.gate.hub.places is not None:
                self.gate.hub.places.give_back(upgrade)
            if upgrade.accepted is not None and offer.threads:
                self.gate.count_thread(offer.threads, -1)
            under_way.discard(upgrade)
            start_response.reason = upgrade.reason
            if upgrade.begun:
                start_response.status = start_response.status or "101"
        return offer.answer(start_response)

    def request_context(self, environ: dict[str, Any]) -> Any:
        """Open the session of a request that asks to upgrade, where that is quick."""
        if UPGRADE in environ:
            context = self._sessions.context(environ)
            if context is not None:
                return context
        return self._request_context(environ)

    def create_url_adapter(self, request: Any) -> Any:
        """Let a plain route match a request that asks to upgrade.

        Werkzeug keeps ``websocket=True`` routes and plain ones apart, so without this
        a plain view with ``environ["wsgi.websocket"]`` answers nobody.
        """
        if request is None or UPGRADE not in request.environ:
            return self._create_url_adapter(request)
        adapter = self._adapters.find(request)
        if adapter is None:
            adapter = find_either(self._create_url_adapter(request))
            self._adapters.learn(request, adapter)
        return adapter

    def dispatch_request(self, *args: Any) -> Any:
        """Refuse before a plain view runs; ours ask themselves."""
        asked = request._get_current_object()  # type: ignore[attr-defined]
        upgrade: Upgrade | None = asked.environ.get(UPGRADE)
        rule = asked.url_rule
        if upgrade is None or rule is None or rule.websocket:
            return self._dispatch_request(*args)
        upgrade.admit(asked)
        try:
            return self._dispatch_request(*args)
        except WebSocketError:
            if upgrade.accepted is None or not upgrade.accepted.closed:
                raise
            # The view spoke to a client that had just left: its natural end.
            return self.gate.no_answer()

    def _note_failure(self, app: Flask, **_: Any) -> None:
        """Note that a request failed whose socket may be open."""
        if has_request_context():
            upgrade: Upgrade | None = request.environ.get(UPGRADE)
            if upgrade is not None:
                upgrade.failed = True


def _asks(environ: dict[str, Any]) -> bool:
    """Whether a request asks for a WebSocket, well or badly.

    Of the methods only these two ever match a route for WebSockets.
    """
    return environ["REQUEST_METHOD"] in ("GET", "HEAD") and is_upgrade(
        environ.get("HTTP_UPGRADE", ""), environ.get("HTTP_CONNECTION", "")
    )
