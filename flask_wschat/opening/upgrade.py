"""From a request that was routed to an open ``WebSocket``: refusals, then the 101."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from flask import Response, has_app_context
from werkzeug.exceptions import HTTPException

from .. import endings
from ..codec import (
    Connection,
    Deflate,
    accept_response,
    check_request,
    choose_subprotocol,
    is_usual_key,
    negotiate,
    tokens,
)
from ..errors import BackendError, HandshakeError
from ..messages import as_user, shown
from ..rate import Bucket, Rate
from ..servers.offers import (
    OFFER,
    UPGRADE,
    ClientLeft,
    NoDescriptors,
    Offer,
    Taken,
)
from ..transports import Event
from ..transports.ending import is_order
from ..transports.evented import EventedTransport
from ..transports.loop import EventedLoop, new_event
from ..transports.threaded import ThreadedLoop
from ..transports.tls import TLSSocket
from ..transports.waiting import runs_here
from ..websocket import LimitedWebSocket, WebSocket
from .answers import refusal
from .gate import USER, Gate, find_worker, no_storage
from .legacy import LegacyWebSocket

logger = logging.getLogger("flask_wschat")

_CLOSE_CODES = {"2": 1000, "3": 1008, "4": 1008, "5": 1011, "429": 1013, "503": 1013}
"""By the HTTP status that an answer would have had, or its first digit."""

OPENED = "wschat.opened"
"""Where an environ has a callable that is told of the open ``WebSocket``."""


class Upgrade:
    """One request that may become a WebSocket."""

    # What its hooks ask about.
    begun = False  # the 101 was tried: HTTP is over, even if it failed
    accepted: WebSocket | None = None
    failed = False  # in the view, a function after the request, or the response
    status = ""  # of the application's answer
    view: Callable[[], Any] | None = None  # a blocking one, to run after the answer
    reason = ""  # why it was refused, where that was ours to say

    # What the checks found, for the 101 and the connection.
    _key = ""
    _user: str | None = None
    _deflate: Deflate | None = None
    _extension: str | None = None
    _route = ""
    _address: str | None = None
    _bucket: Bucket | None = None

    _held: Event | None = None  # set when a TLS socket may go back to its server
    _ended = False
    _refuses = False  # by a close frame, where the server has answered before
    _given_up = False

    def __init__(
        self, gate: Gate, environ: dict[str, Any], offer: Offer, start_response: Any
    ) -> None:
        self._gate = gate
        self._environ = environ
        self._unowned: list[Taken] = []  # the socket, until the loop has it
        self._offer = offer
        self._start_response = start_response
        self._own = EventedLoop.current() if runs_here() else ThreadedLoop.shared()
        self._legacy: LegacyWebSocket | None = LegacyWebSocket(
            environ, offer.handler, self.accept, self._own
        )
        environ["wsgi.websocket"] = self._legacy

    def admit(self, asked: Any) -> None:
        """Raise the HTTP refusal that this request, ``asked``, deserves, if any."""
        self._route = getattr(asked.url_rule, "rule", "")
        self._address = asked.remote_addr
        limited = self._gate.hub.places is not None
        try:
            self._check_head()
            self._check_end()
            self._gate.check_origin(self._environ, asked)
            if limited:
                # Before whatever may wait: until then others would find the same place.
                self._gate.take_place(self, self._route, asked.remote_addr)
            self._check_backend()
            self._negotiate_compression()
            user = self._environ.get(USER)
            # What a plain view, as of old code, has in its query is its own.
            if user is None and getattr(asked.url_rule, "websocket", False):
                user = self._gate.by_ticket(self._environ)
        except HandshakeError as error:
            raise self._refusal(error) from None
        if user is None:
            user = self._who()
        if user is not None:
            self._user = _as_user(user)
            if limited:
                try:
                    self._gate.take_place_of(self._user, self, self._route)
                except HandshakeError as error:
                    raise self._refusal(error) from None

    def _refusal(self, error: HandshakeError) -> HTTPException:
        self.reason = str(error)
        return refusal(error.status, self.reason, error.headers)

    def _check_head(self) -> None:
        environ = self._environ
        key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
        if not (
            environ["REQUEST_METHOD"] == "GET"
            and environ["SERVER_PROTOCOL"] == "HTTP/1.1"
            and environ["HTTP_UPGRADE"] == "websocket"
            and environ.get("HTTP_CONNECTION") == "Upgrade"
            and environ.get("HTTP_SEC_WEBSOCKET_VERSION") == "13"
            and is_usual_key(key)
        ):
            key = check_request(
                environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"], _headers(environ)
            )
        self._key = key
        if environ.get("CONTENT_LENGTH", "0") not in ("", "0") or (
            "HTTP_TRANSFER_ENCODING" in environ
        ):
            raise HandshakeError(400, "a WebSocket handshake has no body")
        if "HTTP_HOST" not in environ:
            raise HandshakeError(400, "no Host header (RFC 9112 §3.2)")

    def _check_end(self) -> None:
        if self._gate.hub.closing.is_stopping():
            raise HandshakeError(
                503, "this server restarts, try again", [("Retry-After", "2")]
            )

    def _check_backend(self) -> None:
        try:
            self._gate.hub.require_backend(self._own)
        except BackendError:
            raise no_storage() from None

    def _negotiate_compression(self) -> None:
        offers = self._environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS")
        # A server that has answered already has agreed to nothing.
        if offers and not self._offer.answered and self._gate.hub.settings.COMPRESSION:
            self._deflate, self._extension = negotiate([offers]) or (None, None)

    def _who(self) -> Any:
        """Ask the application; what it raises ends this request, and no server."""
        try:
            return self._gate.authenticate()
        except Exception:
            raise
        except BaseException as error:
            if is_order(error) or self._own.has_killed(error):
                raise
            raise RuntimeError(f"@chat.authenticate raised {shown(error)}") from error

    def accept(
        self,
        subprotocols: Sequence[str] = (),
        *,
        plain: bool = True,
        limit: Rate | None = None,
    ) -> WebSocket:
        """Answer 101 and return the open socket; ``plain``: see ``Hub.register``.

        ``limit`` is that of its messages, if the connection is to know one.

        :raises ClientLeft: before it could be taken over.
        """
        if self.accepted is not None:
            return self.accepted
        if self._ended:
            raise ClientLeft  # it was answered by HTTP
        chosen = None
        if offered := self._environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL"):
            chosen = choose_subprotocol(tokens([offered]), subprotocols)
        answer = accept_response(
            self._key, subprotocol=chosen, extension=self._extension
        )
        self.begun = True
        if limit is not None:
            self._bucket = self._gate.buckets.of(self._user, limit, self._route)
        try:
            taken = self._offer.accept(answer, self._let_go)
        except OSError as error:
            raise ClientLeft from error
        except NoDescriptors as error:
            self.begun = False
            raise self._gate.exhausted(error.__cause__ or error) from None
        if isinstance(taken.sock, TLSSocket):
            self._held = new_event()
        self._unowned.append(taken)
        hub = self._gate.hub
        if hub.closing.server is None:
            worker = hub.closing.server = find_worker(hub.backend)
            self._gate.storm = worker.max_requests // 2
        try:
            ws = None
            while ws is None:
                loop = hub.home.loop_for(self._own)
                ws = loop.call(self._open, loop, chosen, plain)
            ws._route = self._route
            if self._gate.storm and hub.count() >= self._gate.storm:
                self._gate.warn_of_storm()
            hub.await_topics(ws)
            if self._offer.threads:
                self._gate.count_thread(self._offer.threads, 1)
            if OPENED in self._environ:
                self._environ[OPENED](ws)
            if not self._refuses:
                self._tell(ws)
        except BaseException:
            # A time limit of the application's, or the end of the server.
            self._given_up = True
            with contextlib.suppress(IndexError):
                self._unowned.pop().close()
            if self.accepted is not None:
                self.accepted.close(*endings.HANDSHAKE_FAILED)
            raise
        return ws

    def _tell(self, ws: WebSocket) -> None:
        """Send ``connected``, in the request's context or in one of its own."""
        hub = self._gate.hub
        if has_app_context():
            hub.signals.connected(ws)
        else:
            hub.call_each(lambda ws, _: hub.signals.connected(ws), ws, [None])

    def _open(
        self, loop: EventedLoop, subprotocol: str | None, plain: bool
    ) -> WebSocket | None:
        """Return the socket, registered and reading; runs in ``loop``, its own.

        None: connections of another loop were faster; nothing has happened.
        """
        hub = self._gate.hub
        with hub.home.choosing:
            if hub.home.loop_for(loop) is loop:
                return self._make(loop, subprotocol, plain)
        return None

    def _make(
        self, loop: EventedLoop, subprotocol: str | None, plain: bool
    ) -> WebSocket:
        taken = self._unowned.pop()  # at once: who waits for this may give up
        hub = self._gate.hub
        settings = hub.settings
        try:
            transport = EventedTransport(
                taken.sock,
                loop,
                max_queue=settings.MAX_QUEUE,
                # What the ready-made chat numbers must not lack some in the middle.
                policy=settings.SLOW_POLICY if plain else "close",
                allowance=hub.backlog.allowance,
            )
        except BaseException:
            taken.close()
            raise
        connection = Connection(max_message=settings.MAX_MESSAGE, deflate=self._deflate)
        known = {"user": self._user, "subprotocol": subprotocol}
        ws = (
            WebSocket(transport, hub, connection, **known)
            if self._bucket is None
            else LimitedWebSocket(
                transport, hub, connection, bucket=self._bucket, **known
            )
        )
        if self._given_up:
            transport.abort()  # by whoever waited for this
            return ws
        try:
            hub.register(ws, loop, plain=plain, came_to=self._own)
            if hub.places is not None:
                hub.places.hand_over(self, ws)
            self.accepted = ws
            ws._start(taken.received, self._address)
        except BaseException:
            transport.abort()
            if not ws.closed:
                hub.forget(ws)
            raise
        return ws

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.set()

    def no_answer(self) -> Response:
        """Return what the view of a socket's route does."""
        return self._gate.no_answer()

    def respond(self, line: str, headers: Any, exc_info: Any = None) -> Any:
        """Do as ``start_response``, while there is HTTP on that socket."""
        self.status = line
        if self.begun:
            return lambda data: None
        return self._start_response(line, headers, exc_info)

    def end(self) -> None:
        """The application has answered; see that nothing stays half open."""
        ws, legacy, status = self.accepted, self._legacy, self.status
        if legacy is None:
            return  # it was told before
        self._legacy = None  # which knows us: both would be left to a collection
        code = _CLOSE_CODES.get(status[:3]) or _CLOSE_CODES.get(status[:1], 1011)
        if legacy.accepted:
            legacy.delist()
        if ws is not None and self.failed:
            viewed = legacy.accepted  # what failed may have been the view
            ending = endings.INTERNAL_ERROR if viewed else endings.HANDSHAKE_FAILED
            ws.close(*ending)
        elif ws is not None and legacy.accepted:
            ws.close(code, "" if code == 1000 else status.title())
        elif ws is None and self._offer.answered:
            # The server has promised a WebSocket: refuse in its terms.
            reason = f"{status.title()}: {self.reason}".rstrip(": ")
            self._refuses = True
            with contextlib.suppress(ClientLeft):
                self.accept().close(code, "" if code == 1000 else reason)
        self._ended = True
        # Whoever keeps the request must not keep the connection, nor wait for a garbage
        # collection to let go of both.
        for key in (UPGRADE, OFFER, "wsgi.websocket"):
            self._environ.pop(key, None)

    def run_view(self) -> None:
        """Run the blocking view, if the request was for one.

        The handshake's contexts have ended by now: what their teardown gives back, a
        connection to a database for one, would be held as long as the socket lives.
        """
        view, self.view = self.view, None
        if view is None:
            return
        if not self.failed:
            view()

    def wait_if_held(self) -> None:
        """Keep the server's hands off a TLS socket until the connection is over."""
        if self._held is not None:
            self._held.wait()


def _as_user(value: Any) -> str:
    try:
        return as_user(value)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"@chat.authenticate: {error}. Return None for somebody without one, and"
            " abort(401) to refuse"
        ) from None


def _headers(environ: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a WSGI request's headers, names in lower case."""
    return [
        (name[5:].replace("_", "-").lower(), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
