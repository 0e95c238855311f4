"""Flask's URL adapters for requests that ask to upgrade: for routes of both kinds."""

from __future__ import annotations

import operator
from typing import Any

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, MapAdapter, WebsocketMismatch


class EitherAdapter(MapAdapter):
    """One that finds plain routes, too, where there is no WebSocket's.

    Werkzeug keeps them apart, so without this a plain view that has its socket from
    ``environ["wsgi.websocket"]`` would answer nobody.
    """

    def match(self, *args: Any, **options: Any) -> Any:
        try:
            return super().match(*args, **options)
        except WebsocketMismatch:
            if args or options.keys() - {"return_rule"}:
                raise  # the question is not which route this request has
            self.websocket = False
            return super().match(*args, **options)


class Adapters:
    """URL adapters for requests, made once for each host and address of the app.

    Two that differ in nothing else differ in their path and query. Werkzeug takes the
    host apart for each, twice (3.0 to 3.1). Where the configuration says more about
    hosts, or anything is not as known, each is made as Flask does.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._make = app.create_url_adapter
        self._as_usual = (
            getattr(self._make, "__func__", None) is Flask.create_url_adapter
        )
        self._known: dict[
            tuple[str, ...] | None, tuple[dict[str, Any], str | None]
        ] = {}

    def get(self, request: Any) -> Any:
        """Return what ``Flask.create_url_adapter`` would, for routes of both kinds.

        :raises HTTPException: as that would.
        """
        try:
            if (made := self._of_known(request)) is not None:
                return made
        except Exception:
            pass  # it is made as Flask does
        adapter = self._make(request)
        if type(adapter) is not MapAdapter:
            return _decided(adapter)
        try:
            self._learn(request, adapter)
            adapter.__class__ = EitherAdapter
        except Exception:
            return _decided(adapter)
        return adapter

    def _of_known(self, request: Any) -> MapAdapter | None:
        state, host = self._known.get(self._key(request), ({}, None))
        if state.get("map") is not self._app.url_map:
            return None
        adapter = EitherAdapter.__new__(EitherAdapter)  # without its questions
        vars(adapter).update(state)
        adapter.path_info = request.environ.get("PATH_INFO", "")
        adapter.query_args = request.environ.get("QUERY_STRING", "")
        if host is not None:
            vars(request)["host"] = host  # as the cached property does
        return adapter

    def _learn(self, request: Any, adapter: MapAdapter) -> None:
        key = self._key(request)
        if key is not None and len(self._known) < 64 and len(str(key)) < 512:
            # Flask 3.1 has asked for the host, to check it. 3.0 leaves that to the
            # application, which may have set `trusted_hosts` by then.
            self._known[key] = dict(vars(adapter)), vars(request).get("host")

    def _key(self, request: Any) -> tuple[str, ...] | None:
        """Return what an adapter depends on, besides path and query; None: on more."""
        environ, config, url_map = request.environ, self._app.config, self._app.url_map
        if not (
            self._as_usual
            and environ.get("PATH_INFO", "").isascii()
            and environ.get("QUERY_STRING", "").isascii()
            and config["SERVER_NAME"] is None
            and config.get("TRUSTED_HOSTS") is None
            and request.trusted_hosts is None
            and type(url_map) is Map
            and not url_map.host_matching
            and not self._app.subdomain_matching
        ):
            return None
        basis: tuple[str, ...] = _of_an_adapter(environ)
        return basis


# Where one of these is missing it raises, and the adapter is made as Flask does.
_of_an_adapter = operator.itemgetter(
    *("HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "REQUEST_METHOD"),
    *("wsgi.url_scheme", "HTTP_CONNECTION", "HTTP_UPGRADE"),
)


def _decided(adapter: Any) -> Any:
    """Return an adapter of the application's own, told which kind of route to find."""
    if adapter is not None:
        try:
            adapter.match(return_rule=True)
        except WebsocketMismatch:
            adapter.websocket = False
        except HTTPException:
            pass  # Flask asks the same next, and it raises there again
    return adapter
