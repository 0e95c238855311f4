"""Between Flask and a user's code: the view of a socket route, and what it comes to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flask import (
    Response,
    copy_current_request_context,
    current_app,
    make_response,
    request,
    session,
)
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from ..errors import ConnectionClosed, check_ran
from ..logs import printable
from ..rate import Rate
from ..servers.offers import UPGRADE, ClientLeft
from ..websocket import Listener, WebSocket
from . import mistakes
from .answers import refusal
from .upgrade import Upgrade

Serve = Callable[[WebSocket, dict[str, Any]], None]
"""Gives an open socket, and the arguments of its URL, to a user's code."""


SERVES = "wschat_serves"
"""The attribute in which a route's view has what is ``Served``."""


class Served(NamedTuple):
    """What is behind a route, for those who describe it."""

    by: Any
    """The listener class, or the view."""
    subprotocols: Sequence[str]
    limit: Rate | None


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
"""As Flask's views have them."""


def dispatched(
    serve: Serve,
    subprotocols: Sequence[str],
    limit: Rate | None,
    made_of: Any,
    decorators: Sequence[Decorator] = (),
    *,
    plain: bool,
    blocking: bool,
) -> Callable[..., Response]:
    """Return what Flask dispatches to: it refuses, or opens the socket and serves it.

    ``plain``: see ``Hub.register``. ``blocking``: ``serve`` takes as long as the socket
    lives, so it begins after the handshake. ``decorators`` are around what opens the
    socket, the last one outermost. See docs/decisions/22 for both.
    """

    def open_it(**url_args: Any) -> Any:
        upgrade: Upgrade = request.environ[UPGRADE]
        try:
            rate = limit if plain else None  # events have replies that say so first
            ws = upgrade.accept(subprotocols, plain=plain, limit=rate)
        except ClientLeft:
            return upgrade.no_answer()
        if blocking:
            serve_later = functools.partial(serve, ws, url_args)
            upgrade.view = copy_current_request_context(serve_later)
        else:
            serve(ws, url_args)
        return upgrade.no_answer()

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(open_it, name, getattr(made_of, name, None) or "")
    opens: Callable[..., Any] = open_it
    for decorator in decorators:
        opens = decorator(opens)
        if not callable(opens):
            raise TypeError(f"{decorator!r} is no decorator: it returned {opens!r}")

    def view(**url_args: Any) -> Any:
        asked = request._get_current_object()  # type: ignore[attr-defined]
        upgrade: Upgrade | None = asked.environ.get(UPGRADE)
        if upgrade is None:
            raise refusal(
                501,
                "this server gives applications no socket. Those that do:"
                " chat.run(app), flask run, gunicorn with its gevent or gthread"
                " worker, gevent's pywsgi",
            )
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        if mistakes.GIVEN in app.extensions:
            mistakes.warn_of_late_settings(app)
        upgrade.admit(asked)
        if not decorators:
            return open_it(**url_args)
        try:
            answer = opens(**url_args)
        except HTTPException as error:
            if not upgrade.begun:
                _refused(error.get_response(asked.environ))
            raise  # the application's error handlers may have an answer of theirs
        return answer if upgrade.begun else _refused(answer)

    setattr(view, SERVES, Served(made_of, subprotocols, limit))
    return view


def _refused(answer: Any) -> Any:
    """Return what a decorator has answered instead of a socket's opening."""
    response = make_response(answer)
    if 300 <= response.status_code < 400:
        # To a page with a form: a socket's client cannot fill it in, and one that
        # follows would take the page for a server that speaks no WebSocket.
        raise refusal(401, "log in first")
    return response


def by_view(view: Callable[..., Any], sessions: mistakes.SessionWatch) -> Serve:
    """Return what runs ``view`` for a socket, and closes it when that returns."""

    def serve(ws: WebSocket, url_args: dict[str, Any]) -> None:
        try:
            _watch(sessions)
            call = ws._hub.signals.call
            answer = call(ws, "view", None, view, ws, **url_args)
            check_ran(answer, view)
            _tell_of_answer(ws, answer)
        except BaseException as error:
            _end(ws, error, "view")
        ws.close()

    return serve


def by_listener(
    make: Callable[[], Listener], sessions: mistakes.SessionWatch, *, opens: bool
) -> Serve:
    """Return what makes a socket a listener; ``opens``: that has an on_open."""

    def serve(ws: WebSocket, url_args: dict[str, Any]) -> None:
        try:
            listener = make()
            try:
                listener._begin(ws)
                if opens:
                    _watch(sessions)
                on_open: Callable[..., Any] = listener.on_open  # perhaps a decorator's
                if opens:
                    call = ws._hub.signals.call
                    answer = call(ws, "on_open", None, on_open, ws, **url_args)
                else:
                    answer = on_open(ws, **url_args)
                _tell_of_answer(ws, answer)
            except BaseException as error:
                # Before it listens: what came meanwhile is not for who is refused.
                _end(ws, error, "on_open")
            finally:
                # Also after an error: whoever was opened is closed.
                ws._listen(listener)
        except BaseException as error:
            _end(ws, error, "on_open")

    return serve


def _watch(sessions: mistakes.SessionWatch) -> None:
    now: Any = session._get_current_object()  # type: ignore[attr-defined]
    sessions.begin(now)


def _tell_of_answer(ws: WebSocket, answer: Any) -> None:
    """Close with 1008 where a decorator at a view has returned an HTTP refusal."""
    status = None  # a mere number is none, but perhaps a count
    if isinstance(answer, tuple) and answer:
        numbers = [part for part in answer[1:] if isinstance(part, int)]
        status, answer = numbers[0] if numbers else None, answer[0]
    if status is None and isinstance(answer, BaseResponse):
        status = answer.status_code
    if status is not None and 300 <= status < 600:
        ws._hub.log.warning(
            "late",
            "the view of %s answers HTTP %d after the 101: its client sees close code"
            " 1008. Give login_required and its like to the route: decorators=[...]",
            *(printable(ws._route), status),
            about=ws._facts("late"),
        )
        ws.close(1008, f"{status}")


def _end(ws: WebSocket, error: BaseException, event: str) -> None:
    """Turn what a view raised after the 101 into a close code."""
    if isinstance(error, HTTPException):
        ws.close(1008, f"{error.code} {error.name}: {error.description}")
    elif not isinstance(error, ConnectionClosed):
        ws._fail(error, event)
