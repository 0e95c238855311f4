"""``chat.dashboard``: a page with the figures of all processes, live.

It shows who is connected and can disconnect them, so it is for those whom ``allow``
lets in, and for nobody without one. That is asked for the page, for its socket, before
each action and while figures are sent: see docs/decisions/62.
"""

from __future__ import annotations

import functools
import io
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    make_response,
    request,
    url_for,
)
from markupsafe import Markup
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from .. import endings
from ..chat.events import Events, event
from ..chat.publisher import Sending
from ..codec.closing import cut_reason
from ..envelope import emitted, encode
from ..errors import ConnectionClosed, HandshakeError
from ..logs import printable
from ..messages import as_name, as_user, shown
from ..opening import mistakes
from ..opening.answers import refusal
from ..opening.gate import USER, Gate
from ..opening.script import FOLDER, GLOBAL, file, send_file, wschat_url
from ..servers.offers import OFFER, UPGRADE
from ..transports import Loop
from ..websocket import WebSocket
from .sources import COLUMNS, Source

logger = logging.getLogger("flask_wschat")

FILES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "dashboard-charts.js": "text/javascript",
    "dashboard-people.js": "text/javascript",
    "dashboard.svg": "image/svg+xml",
    "wschat.js": "text/javascript",
}
"""What is beside the page: all of it, as elsewhere may be another host's."""
ASK_AGAIN = 5.0
"""Seconds for which ``allow`` is not asked again where only figures are sent."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # an application may have a policy of its own
}
"""Of the page: nobody else's may show it within theirs, and have people press there."""
NOT_ALLOWED = (1008, "the application does not allow it (any more)")

Allow = Callable[..., Any]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Part = Annotated[str, msgspec.Meta(max_length=255)]
Text = Annotated[str, msgspec.Meta(max_length=4000)]
SOURCE = "wschat.figures"
"""Where ``app.extensions`` has what dashboards show."""


class Dashboard:
    """One that is mounted: its page, its files and its socket, and who may have them.

    :raises TypeError: ``allow`` cannot be called so.
    """

    def __init__(self, rule: str, allow: Allow | None, who: Callable[[], Any]) -> None:
        self._allow = allow
        self._who = who
        self._takes_user = mistakes.check_allow(allow)
        self.folder = rule.rstrip("/") + "/"
        self._page_ends = "/" if rule.endswith("/") else ""
        self._rule = rule
        self.remedy = (
            "This page shows who is connected, and can disconnect them. Say who may see"
            f' it, as chat.dashboard("{rule}", allow=is_admin), where is_admin() looks'
            " at request or session, or is_admin(user) at the user, and returns True."
        )
        if allow is None:
            logger.warning(
                'chat.dashboard("%s") has no allow=, so it answers everybody with 403:'
                " give it a function that returns True for those who may see it",
                rule,
            )

    def add_to(
        self, endpoint: str, options: Mapping[str, Any], scope: Blueprint | Flask
    ) -> None:
        """Add the page and its files; the socket is a listener, at ``socket``."""
        names = ", ".join(f'"{name}"' for name in FILES)
        for rule, name, view in (
            (self._rule, endpoint, self._page),
            (f"{self.folder}<any({names}):filename>", f"{endpoint}_file", _file),
            (f"{self.folder}socket", f"{endpoint}_ask", self._ask),
        ):
            scope.add_url_rule(rule, name, view, methods=["GET"], **options)

    def listener(self) -> type[Watching]:
        """Return the class of its sockets."""
        return type("Dashboard", (Watching,), {"_dashboard": self})

    def guard(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Let nobody have a socket whom the page is not for; a route's decorator."""

        @functools.wraps(view)
        def guarded(**url_args: Any) -> Any:
            # A foreign page that may open sockets shall not press buttons here.
            gate: Gate = current_app.extensions["wschat.gate"]
            try:
                gate.check_origin(request.environ, request, own_only=True)
            except HandshakeError as error:
                raise refusal(error.status, str(error)) from None
            refused = self.refusal(self._user)
            return view(**url_args) if refused is None else refused

        return guarded

    # -- who may

    def refusal(self, user: Callable[[], str | None]) -> BaseResponse | None:
        """Return what the application answers instead; None: it allows it.

        :raises HTTPException: it refuses.
        """
        if self._allow is None:
            raise refusal(403, self.remedy)
        answer = self._allow(user()) if self._takes_user else self._allow()
        if answer is None or isinstance(answer, int):
            if answer:
                return None
            raise refusal(403, "You may not see this page.")
        if isinstance(answer, BaseResponse):  # as `login_required` has one
            return answer
        raise TypeError(
            f"allow= of chat.dashboard returns True or False, unlike {shown(answer)}"
        )

    def _user(self) -> str | None:
        user = request.environ.get(USER)
        user = self._who() if user is None else user
        return None if user is None else as_user(user)

    # -- what is served

    def _page(self, **url_args: Any) -> Any:
        refused = self.refusal(self._user)
        if refused is not None:
            return refused
        endpoint = request.endpoint

        def path(name: str) -> str:
            version = file(name, _more(name)).version
            known = {**url_args, "filename": name, "v": version}
            return url_for(f"{endpoint}_file", **known)

        answer = Response(
            _html().format(
                name=current_app.name,
                origin=f"{request.scheme}://{request.host}",
                socket=wschat_url(f"{endpoint}_socket", **url_args),
                icon=path("dashboard.svg"),
                style=path("dashboard.css"),
                script=path("dashboard.js"),
                wschat=path("wschat.js"),
            ),
            mimetype="text/html",
        )
        for name, value in HEADERS.items():
            answer.headers[name] = value
        return answer

    def _ask(self, **url_args: Any) -> Any:
        """Answer a page that asks why its socket was refused: see wschat.js."""
        try:
            refused = self.refusal(self._user)
        except HTTPException as error:
            refused = make_response(error.get_response(request.environ))
        if refused is not None and refused.status_code < 400:
            raise refusal(401, "log in first")  # it leads to a form, for people
        if refused is not None:
            return refused
        raise refusal(426, "This is the address of the dashboard's WebSocket.")

    def page_of(self, socket_path: str) -> str:
        """Return the path of the page whose socket has this one."""
        return socket_path.removesuffix("/socket") + self._page_ends


def _file(filename: str, **url_args: Any) -> Response:
    return send_file(filename, FILES[filename], _more(filename))


def _more(name: str) -> bytes:
    """Return what ends a file: ours import nothing from a path that they don't know."""
    return GLOBAL if name == "wschat.js" else b""


@functools.cache
def _html() -> Markup:
    return Markup((Path(FOLDER) / "dashboard.html").read_text())  # nosec B704  # ours


def _checked(check: Callable[..., str], *args: Any) -> str:
    """Return what ``check`` does, or refuse a name that nobody can have."""
    try:
        return check(*args)
    except ValueError as error:
        abort(400, str(error))


class Permit:
    """What somebody who opened a socket was allowed, to be asked again.

    As if they came for the page once more, with the same cookies: what the application
    does before each request is done as well, so that what ``allow`` looks at is there.
    """

    def __init__(self, dashboard: Dashboard, user: str | None) -> None:
        self._dashboard = dashboard
        self._user = user
        self._app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        self._environ = {
            key: value
            for key, value in request.environ.items()
            if key not in _OF_THE_SOCKET
            and not key.startswith("HTTP_SEC_WEBSOCKET")
            and not key.endswith((".sock", ".socket"))  # the server's
        }
        self._environ["PATH_INFO"] = dashboard.page_of(request.environ["PATH_INFO"])
        self._until = time.monotonic() + ASK_AGAIN

    def holds(self, *, lately: bool = False) -> bool:
        """Whether the application allows it still; ``lately``: within some seconds."""
        if lately and time.monotonic() < self._until:
            return True
        environ = {**self._environ, "wsgi.input": io.BytesIO()}
        with self._app.request_context(environ):
            try:
                answer = self._app.preprocess_request()
                if answer is None:
                    answer = self._dashboard.refusal(lambda: self._user)
            except HTTPException:
                return False
        self._until = time.monotonic() + ASK_AGAIN
        return answer is None


_READS = ("watch", "find", "connections")
"""Events that tell something, and do nothing."""
_OF_THE_SOCKET = {
    *(UPGRADE, OFFER, "wsgi.websocket", "wsgi.input", "werkzeug.request"),
    *("HTTP_UPGRADE", "HTTP_CONNECTION", "wsgi.early_hints"),
    "werkzeug.debug.preserve_context",  # Flask's test client's
}


class Watching(Events):
    """One page that is open."""

    _dashboard: ClassVar[Dashboard]
    _documented = False
    _permit: Permit
    _watches = False
    _busy = False

    def _attach(self, ws: WebSocket) -> None:
        """It hears nothing of what is said, but is told to close."""

    def on_open(self, ws: WebSocket, **url_args: Any) -> None:
        self._permit = Permit(self._dashboard, ws.user)
        self._source: Source = current_app.extensions[SOURCE]
        self._sending: Sending = current_app.extensions["wschat"]

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        self._leave()

    def before_event(self, ws: WebSocket, name: str, request: dict[str, Any]) -> bool:
        return name in ("pause", "ping") or self._may(ws, lately=name in _READS)

    def _may(self, ws: WebSocket, *, lately: bool = False) -> bool:
        allowed = self._permit.holds(lately=lately)
        if not allowed:
            ws.close(*NOT_ALLOWED)
        return allowed

    # -- what the page asks for

    @event
    def watch(self) -> dict[str, Any]:
        """Have the figures sent each second, from now on; return what they are."""
        loop = self.ws._transport.loop
        loop.call(self._enter, loop)
        return {"columns": COLUMNS}

    @event
    def pause(self) -> None:
        """Have no more sent."""
        self._leave()

    @event
    def find(self, what: Literal["rooms", "users"], part: Part = "") -> dict[str, Any]:
        """Return rooms, or users, that have ``part`` in their names."""
        return self._source.find(what, part)

    @event
    def connections(self, user: Name) -> list[dict[str, Any]]:
        """Return the connections of ``user``."""
        return self._source.connections(user)

    @event
    def kick(self, user: Name, id: Part | None = None, reason: Text = "") -> int:
        """Disconnect ``user``, or one connection; return how many there were."""
        user = _checked(as_user, user)
        self._note("disconnects", user, id)
        if id is not None:
            return self._source.close(id, 4000, cut_reason(reason))
        return self._sending.disconnect_user(user, 4000, reason)

    @event
    def send(
        self, text: Text, user: Name | None = None, room: Name | None = None
    ) -> int:
        """Send to a user or to a room; return how many connections the user has, or
        the message's number in the room."""
        if (user is None) == (room is None):
            abort(400, "to a user or to a room")
        if user is not None:
            user = _checked(as_user, user)
            self._note("sends to user", user)
            return self._sending.send_to_user(user, text)
        room = _checked(as_name, room, "a room")
        self._note("sends to room", room)
        return self._sending.broadcast(text, room=room)

    def _note(self, does: str, *whom: str | None) -> None:
        names = " ".join(printable(name) for name in whom if name is not None)
        logger.info("%s %s %s", self.ws._described(), does, names)

    # -- what it is sent

    def _enter(self, loop: Loop) -> None:
        if not self.ws.closed:
            self._watches = True
            self._source.add(loop, self._tell)

    def _leave(self) -> None:
        self._watches = False
        self.ws._transport.loop.call_threadsafe(self._source.discard, self._tell)

    def _tell(self, rows: list[list[Any]], fault: str | None) -> None:
        """Have the figures sent, unless those before are on their way still."""
        if not self._busy:
            self._busy = True
            own = encode({"workers": rows, "fault": fault})
            text = emitted("figures", None, None, own)
            self.ws._transport.loop.run(lambda: self._send(text))

    def _send(self, text: str) -> None:
        ws = self.ws
        try:
            if self._watches and not ws.closed and self._may(ws, lately=True):
                ws.send(text)
        except ConnectionClosed:
            pass
        except Exception as error:
            self._hub.report(error, ws, "figures")
            ws.close(*endings.INTERNAL_ERROR)
        finally:
            self._busy = False
