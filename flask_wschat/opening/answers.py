"""HTTP answers to who asks for a socket where there is none, or for none at one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Response, abort, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import WebsocketMismatch

from ..codec import is_upgrade


def refusal(
    status: int, message: str, headers: Iterable[tuple[str, str]] = ()
) -> HTTPException:
    """Return the exception that makes Flask answer so."""
    answer = Response(message + "\n", status, dict(headers), mimetype="text/plain")
    try:
        abort(status, message, response=answer)
    except HTTPException as error:
        return error
    except LookupError:  # Werkzeug has no class for 426
        return HTTPException(message, answer)


def not_a_websocket(error: WebsocketMismatch, authenticate: Callable[[], Any]) -> Any:
    """Answer plain HTTP on a socket route, and a WebSocket on a page's.

    Plain HTTP gets a refusal of ``authenticate`` where a socket gets one: a page sees
    no HTTP error of its socket, and so it can ask for it.
    """
    environ = request.environ
    if is_upgrade(environ.get("HTTP_UPGRADE", ""), environ.get("HTTP_CONNECTION", "")):
        return error
    try:
        authenticate()
    except HTTPException as refused:
        return refused
    # RFC 9110 §15.5.22 wants them; PEP 3333 forbids them, and wsgiref and waitress
    # make a 500 of them. So only where it is known that they may.
    may_say = environ.get("SERVER_SOFTWARE", "").startswith(_LENIENT)
    return Response(
        "This is a WebSocket address. Connect with a WebSocket client, for example"
        f' new WebSocket("{request.url.replace("http", "ws", 1)}") in a browser.\n',
        426,
        {"Upgrade": "websocket", "Connection": "Upgrade"} if may_say else {},
        mimetype="text/plain",
    )


_LENIENT = ("gevent/", "gunicorn/", "Werkzeug/")
"""Servers, as they call themselves, whose applications may speak of the connection."""
