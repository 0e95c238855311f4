"""Plain HTTP at a socket's address: would a socket be let in?

A page sees no HTTP answer to its socket's handshake, and so it can ask for it.
"""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import WebsocketMismatch

from ..codec import is_upgrade
from ..errors import HandshakeError
from .answers import refusal
from .gate import USER, Gate


def not_a_websocket(mismatch: WebsocketMismatch, gate: Gate) -> Any:
    """Answer plain HTTP on a socket route, and a WebSocket on a page's.

    Plain HTTP gets a refusal where a socket gets one for what it is and who asks; its
    ticket is not used up by that. Who would be let in gets 426.
    """
    environ = request.environ
    if is_upgrade(environ.get("HTTP_UPGRADE", ""), environ.get("HTTP_CONNECTION", "")):
        return mismatch
    readable: dict[str, str] = {}
    try:
        gate.check_origin(environ, request)
        readable = _readable(environ)
        if environ.get(USER) is None and gate.by_ticket(environ, use=False) is None:
            gate.authenticate()
    except HandshakeError as refused:
        known = refusal(refused.status, str(refused), refused.headers)
        return _with(known.get_response(environ), readable)
    except HTTPException as refused:
        return _with(refused.get_response(environ), readable) if readable else refused
    except Exception as error:
        # Flask asks for no handler of what is raised in one; the application may have
        # one, say for its storage. Without, this raises it again.
        said = current_app.handle_user_exception(error)
        return _with(current_app.make_response(said), readable)
    # RFC 9110 §15.5.22 wants them; PEP 3333 forbids them, and wsgiref and waitress
    # make a 500 of them. So only where it is known that they may.
    may_say = environ.get("SERVER_SOFTWARE", "").startswith(_LENIENT)
    # Not request.url, which fails on hosts that are no names.
    url = f"{request.scheme}://{request.host}{request.full_path.rstrip('?')}"
    answer = Response(
        "This is a WebSocket address. Connect with a WebSocket client, for example"
        f' new WebSocket("{url.replace("http", "ws", 1)}") in a browser.\n',
        426,
        {"Upgrade": "websocket", "Connection": "Upgrade"} if may_say else {},
        mimetype="text/plain",
    )
    return _with(answer, readable)


def _readable(environ: dict[str, Any]) -> dict[str, str]:
    """Return what lets a page of an allowed origin, not our own, read the status."""
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }


def _with(answer: Any, headers: dict[str, str]) -> Any:
    answer.headers.extend(headers)
    return answer


_LENIENT = ("gevent/", "gunicorn/", "Werkzeug/")
"""Servers, as they call themselves, whose applications may speak of the connection."""
