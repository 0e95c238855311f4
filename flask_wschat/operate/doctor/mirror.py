"""``/_wschat/mirror``: shows a doctor its own request as the application got it.

So that proxies between them can be told apart by what they do. It answers who knows the
application's ``SECRET_KEY``, and is not there for anybody else.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request
from itsdangerous import BadData, URLSafeSerializer

HEADER = "X-WSChat-Doctor"
URL = "/_wschat/mirror"
_SALT = "flask_wschat.doctor"
_LIFE = 3600.0
"""Seconds that a token counts; and that two clocks may differ."""
_SHOWN = (
    "HTTP_HOST HTTP_UPGRADE HTTP_CONNECTION HTTP_ORIGIN HTTP_VIA HTTP_FORWARDED"
    " HTTP_X_FORWARDED_FOR HTTP_X_FORWARDED_PROTO HTTP_X_FORWARDED_HOST"
    " HTTP_X_FORWARDED_PORT HTTP_X_FORWARDED_PREFIX SERVER_PROTOCOL SERVER_SOFTWARE"
)


def add_mirror(blueprint: Blueprint, host: str | None) -> None:
    """Add the page to ``blueprint``."""
    blueprint.add_url_rule(URL, "mirror", _show, host=host)


def token(app: Flask) -> str | None:
    """Return what the application's mirror asks for; None: it has no key."""
    signer = _signer(app)
    return None if signer is None else str(signer.dumps(time.time()))


def _signer(app: Flask) -> URLSafeSerializer | None:
    return URLSafeSerializer(app.secret_key, _SALT) if app.secret_key else None


def _is_for(app: Flask, token: str) -> bool:
    signer = _signer(app)
    if signer is None:
        return False
    try:
        made = float(signer.loads(token))
    except (BadData, TypeError, ValueError):
        return False
    return abs(time.time() - made) <= _LIFE


def _show() -> Response:
    if not _is_for(current_app, request.headers.get(HEADER, "")):
        abort(404)
    environ = request.environ
    before: dict[str, Any] = environ.get("werkzeug.proxy_fix.orig") or {}
    answer = jsonify(
        {
            "scheme": request.scheme,
            "host": request.host,
            "address": request.remote_addr,
            "peer": before.get("REMOTE_ADDR", request.remote_addr),
            "fixed": bool(before),
            "came_to": before.get("HTTP_HOST", environ.get("HTTP_HOST")),
            "headers": {name: environ.get(name) for name in _SHOWN.split()},
            "now": time.time(),
        }
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer
