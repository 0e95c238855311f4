"""``/_wschat/wschat.js`` with its types, and what templates need to use it.

All is public, so a page of any origin may import it, and anybody may keep it. For how
long is said by the URL: one with ``?v=`` and the hash of the file is good for ever, the
plain one is asked for again each time, and answered with 304.

In a template ``WSChat`` becomes global: an import map, which could give the URL a name,
would be an inline script, and a strict Content-Security-Policy has none.
"""

from __future__ import annotations

import difflib
import functools
import gzip
import hashlib
import re
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    has_request_context,
    request,
    url_for,
)
from jinja2 import Environment, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from werkzeug.datastructures import Headers
from werkzeug.routing import BuildError

FOLDER = Path(__file__).parents[1] / "static"
TYPES = {"wschat.js": "text/javascript", "wschat.d.ts": "text/plain"}
"""What is served of it. ``.ts`` is a video to others, and TypeScript has no type."""
NAME = re.compile(r"[^\s\x00-\x1f\x7f\"'>/=<]+")
"""What an attribute may be called (HTML Standard, 13.1.2.3)."""


GLOBAL = b"\nglobalThis.WSChat = WSChat;\n"
"""What ends ``wschat.js?global``, for scripts that import nothing."""


class File(NamedTuple):
    data: bytes
    packed: bytes
    version: str


@functools.cache
def file(name: str, more: bytes = b"") -> File:
    """Return what is served of a file, as it was when that was first asked for.

    Not again from the disk: where an upgrade replaces it under a running process, the
    new one would be kept under the old one's version.
    """
    data = (FOLDER / name).read_bytes() + more
    version = hashlib.sha256(data).hexdigest()[:16]
    return File(data, gzip.compress(data, mtime=0), version)


def at_any_host(app: Flask, blueprint: Blueprint) -> str | None:
    """Return the ``host`` of rules that every host of an application is to have."""
    if not app.url_map.host_matching:
        return None

    @blueprint.url_value_preprocessor
    def drop(endpoint: str | None, values: dict[str, Any] | None) -> None:
        (values or {}).pop("wschat_host", None)

    @blueprint.url_defaults
    def stay(endpoint: str, values: dict[str, Any]) -> None:
        values.setdefault("wschat_host", request.host)

    return "<wschat_host>"


def serve_script(app: Flask, blueprint: Blueprint, host: str | None) -> None:
    """Add the files to an application, and what its templates may call."""
    names = ", ".join(f'"{name}"' for name in TYPES)
    # Any other rule for one of these paths, or for more of them, is the application's.
    rule = f"/_wschat/<any({names}):filename>"
    blueprint.add_url_rule(rule, "static", _serve, host=host)
    _teach(app, wschat_script=wschat_script, wschat_url=wschat_url)


def _serve(filename: str) -> Response:
    shared = filename == "wschat.js" and "global" in request.args
    return send_file(filename, TYPES[filename], GLOBAL if shared else b"")


def send_file(name: str, kind: str, more: bytes = b"") -> Response:
    """Return the answer that has a file of ours, or that it is known already."""
    data, packed, version = file(name, more)
    answer = Response(data, content_type=f"{kind}; charset=utf-8")
    answer.set_etag(version)
    answer.vary.add("Accept-Encoding")
    if request.accept_encodings["gzip"] > 0:  # a third, most of the rest is comments
        answer.data = packed
        answer.content_encoding = "gzip"
        answer.set_etag(f"{version}-gzip")  # other bytes: RFC 9110 §8.8.3.3
    known = request.args.getlist("v") == [version]
    forever = "public, max-age=31536000, immutable"
    answer.headers["Cache-Control"] = forever if known else "no-cache"
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.get_wsgi_headers = MethodType(_headers, answer)  # type: ignore[method-assign]
    answer.make_conditional(request)
    return answer


def _headers(answer: Response, environ: dict[str, Any]) -> Headers:
    """Return the headers of ``answer``, after all that the application does to them."""
    headers = type(answer).get_wsgi_headers(answer, environ)
    # Two of them count as none, so not beside one of an extension's.
    headers.setdefault("Access-Control-Allow-Origin", "*")
    if "Set-Cookie" in headers:
        # Somebody's session, which a `before_request` has changed or which is renewed
        # each time: no cache may hand it to others.
        told = headers.get("Cache-Control", "").removeprefix("public, ")
        headers["Cache-Control"] = f"private, {told}"
    return headers


# ---- in templates -------------------------------------------------------------------


def _teach(app: Flask, **functions: Any) -> None:
    """Let templates call ``functions``, where the application has none of that name."""

    def add(environment: Environment) -> Environment:
        for name, function in functions.items():
            environment.globals.setdefault(name, function)
        return environment

    # It is made when it is first needed, and until then its options can be set.
    if "jinja_env" in vars(app):
        add(app.jinja_env)
    make = app.create_jinja_environment
    app.create_jinja_environment = lambda: add(make())  # type: ignore[assignment, method-assign, return-value]


@pass_context
def wschat_script(
    context: Context, /, nonce: str | None = None, **attributes: Any
) -> Markup:
    """Return the element that makes ``WSChat`` known to the module scripts after it.

    ``nonce`` is the one of the page's Content-Security-Policy; without it, what the
    template knows as ``csp_nonce``, a text or a function; with ``""`` there is none.
    ``attributes`` are further ones of the element, with ``_`` for ``-``: True is one
    without a value, None and False are none.

    :raises ValueError: nothing can have an attribute of that name.
    """
    told: Any = context.get("csp_nonce") if nonce is None else nonce
    if callable(told):
        told = context.call(told)
    version = file("wschat.js", GLOBAL).version
    url = url_for("wschat.static", filename="wschat.js", v=version)
    given = dict[str, Any](type="module", src=f"{url}&global", nonce=told or None)
    for name, value in attributes.items():
        given[name.rstrip("_").replace("_", "-").lower()] = value
    return Markup("<script{}></script>").format(
        Markup("").join(
            _attribute(name, value)
            for name, value in given.items()
            if value is not None and value is not False
        )
    )


def _attribute(name: str, value: Any) -> Markup:
    if not NAME.fullmatch(name):
        raise ValueError(f"an attribute of HTML cannot be called {name!r}")
    if value is True:
        return Markup(" {}").format(name)
    # As text, whoever has marked it as safe: what |tojson returns has quotes.
    return Markup(' {}="{}"').format(name, str(value))


def wschat_url(endpoint: str, /, **values: Any) -> str:
    """Return the path of a WebSocket route: ``url_for`` without ``ws://`` and the host.

    With them it would depend on what a proxy says of itself. For a route of another
    host that is in front, as ``//host/path``. The endpoint is the name of the view or
    of the listener, after that of its blueprint and a dot, if it has one.

    :raises LookupError: no WebSocket route has this endpoint.
    :raises BuildError: none of those that have it takes these values.
    """
    try:
        url = url_for(endpoint, **values)
    except BuildError as error:
        if error.endpoint in _endpoints():
            raise
        raise LookupError(_nearest(endpoint)) from None
    scheme, _, path = url.partition(":")
    if scheme not in ("ws", "wss"):
        raise LookupError(_nearest(endpoint))
    asked = request if has_request_context() else None
    adapter = current_app.create_url_adapter(asked)
    here = "" if adapter is None else f"//{adapter.get_host(None)}/"
    return f"/{path.removeprefix(here)}" if path.startswith(here) else path


def _endpoints() -> list[str]:
    """Return the endpoints of the WebSocket routes."""
    rules = current_app.url_map.iter_rules()
    return sorted({rule.endpoint for rule in rules if rule.websocket})


def _nearest(endpoint: str) -> str:
    known = {name.lower(): name for name in _endpoints()}
    near = difflib.get_close_matches(endpoint.lower(), known, 1, 0.4)
    guess = f": did you mean {known[near[0]]!r}?" if near else ""
    return f"no WebSocket route has the endpoint {endpoint!r}{guess}"
