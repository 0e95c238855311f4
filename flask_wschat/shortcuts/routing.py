"""URL adapters for requests, each made once for a host and address of the app."""

from __future__ import annotations

import operator
from typing import Any

from flask import Flask
from werkzeug.routing import Map

from . import is_own, may_take


class Adapters:
    """The URL adapters of ``app`` so far, of class ``kind``.

    Two that differ in nothing else differ in their path and query. Werkzeug takes the
    host apart for each, twice (3.0 to 3.1). Where the configuration says more about
    hosts, or anything is not as known, each is to be made as Flask does. ``quickly``:
    whether any may be known.
    """

    def __init__(self, app: Flask, kind: type[Any], *, quickly: bool = True) -> None:
        self._app = app
        self._kind = kind
        self._as_usual = may_take(quickly, "flask", "werkzeug") and is_own(
            app.create_url_adapter, "flask.app", "Flask.create_url_adapter"
        )
        self._known: dict[tuple[str, ...], tuple[dict[str, Any], str | None]] = {}

    def find(self, request: Any) -> Any:
        """Return what would be made for ``request``; None: it is not known."""
        if not self._known:
            return None
        try:
            key = self._key(request)
            if key is None or key not in self._known:
                return None
            state, host = self._known[key]
            url_map = self._app.url_map
            if state["map"] is not url_map or state["subdomain"] != (
                url_map.default_subdomain or ""
            ):
                return None
            adapter = object.__new__(self._kind)  # without its questions
            vars(adapter).update(state)
            adapter.path_info = request.environ["PATH_INFO"]
            adapter.query_args = request.environ["QUERY_STRING"]
            if host is not None:
                vars(request)["host"] = host  # as the cached property does
        except Exception:
            return None
        return adapter

    def learn(self, request: Any, adapter: Any) -> None:
        """Know ``adapter``, which was made for ``request`` and has not been used."""
        if not self._as_usual or type(adapter) is not self._kind:
            return
        try:
            key = self._key(request)
            if (
                key is not None
                and len(self._known) < 64
                and len(str(key)) < 512
                and is_own(
                    self._app.url_map.bind_to_environ,
                    "werkzeug.routing.map",
                    "Map.bind_to_environ",
                )
            ):
                # Flask 3.1 has asked for the host, to check it. 3.0 leaves that to the
                # application, which may have set `trusted_hosts` by then.
                self._known[key] = dict(vars(adapter)), vars(request).get("host")
        except Exception:
            pass  # the next one is made as Flask does

    def _key(self, request: Any) -> tuple[str, ...] | None:
        """Return what an adapter depends on, besides path and query; None: on more."""
        environ, config, url_map = request.environ, self._app.config, self._app.url_map
        if not (
            environ["PATH_INFO"].isascii()
            and environ["QUERY_STRING"].isascii()
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
