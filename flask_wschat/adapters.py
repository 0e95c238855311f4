"""Flask's URL adapters for requests, without taking each request's host apart."""

from __future__ import annotations

import copy
from typing import Any

from flask import Flask
from werkzeug.routing import MapAdapter


class Adapters:
    """URL adapters for requests, made once for each host and address of the app.

    Two that differ in nothing else differ in their path and query. Werkzeug takes the
    host apart for each, twice (3.0 to 3.1). Where the configuration says more about
    hosts, each is made as Flask does.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._make = app.create_url_adapter
        self._as_usual = type(app).create_url_adapter is Flask.create_url_adapter
        self._known: dict[tuple[str, ...], tuple[Any, str]] = {}

    def get(self, request: Any) -> Any:
        """Return what ``Flask.create_url_adapter`` would, or raise what it would."""
        environ = request.environ
        path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
        if not (self._is_simple(request) and path.isascii() and query.isascii()):
            return self._make(request)
        key = tuple(environ.get(name, "") for name in _OF_AN_ADAPTER)
        known = self._known.get(key)
        if known is None:
            adapter = self._make(request)
            if (
                type(adapter) is MapAdapter
                and len(self._known) < 64
                and len(str(key)) < 512
            ):
                self._known[key] = copy.copy(adapter), request.host
            return adapter
        adapter = MapAdapter.__new__(MapAdapter)  # `copy.copy`, without its questions
        vars(adapter).update(vars(known[0]))
        request.host = known[1]
        adapter.path_info, adapter.query_args = path, query
        return adapter

    def _is_simple(self, request: Any) -> bool:
        config, url_map = self._app.config, self._app.url_map
        return (
            self._as_usual
            and config["SERVER_NAME"] is None
            and config.get("TRUSTED_HOSTS") is None
            and request.trusted_hosts is None
            and not url_map.host_matching
            and not self._app.subdomain_matching
        )


_OF_AN_ADAPTER = (
    *("HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "REQUEST_METHOD"),
    *("wsgi.url_scheme", "HTTP_CONNECTION", "HTTP_UPGRADE"),
)
"""What of an environ an adapter depends on, besides path and query."""
