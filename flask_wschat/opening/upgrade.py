"""The way from a request to an open ``WebSocket``: routing, refusals, then the 101."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from flask import (
    Flask,
    Response,
    got_request_exception,
    has_request_context,
    request,
)
from werkzeug.exceptions import HTTPException

from ..codec import (
    Connection,
    Deflate,
    accept_response,
    check_request,
    choose_subprotocol,
    is_upgrade,
    is_usual_key,
    negotiate,
    tokens,
)
from ..errors import BackendError, HandshakeError
from ..hub.hub import Hub
from ..logs import SparingLog, printable
from ..messages import as_user
from ..servers.offers import (
    OFFER,
    UPGRADE,
    ClientLeft,
    NoDescriptors,
    Offer,
    Taken,
    find_offer,
)
from ..shortcuts import may_take
from ..shortcuts.response import NoAnswer
from ..shortcuts.routing import Adapters
from ..shortcuts.sessions import Sessions
from ..transports import Event
from ..transports.ending import is_order
from ..transports.evented import EventedTransport
from ..transports.loop import EventedLoop, new_event
from ..transports.threaded import ThreadedLoop
from ..transports.tls import TLSSocket
from ..transports.waiting import runs_here
from ..websocket import WebSocket
from .answers import refusal
from .either import EitherAdapter, find_either
from .legacy import LegacyWebSocket, WebSocketError
from .origins import is_one_of, is_rebound

logger = logging.getLogger("flask_wschat")

_CLOSE_CODES = {"2": 1000, "3": 1008, "4": 1008, "5": 1011}
"""By the first digit of the HTTP status that an answer would have had."""

USER = "wschat.user"
"""Where an environ says who the user is: the test client's, or a middleware's."""

OPENED = "wschat.opened"
"""Where an environ has a callable that is told of the open ``WebSocket``."""


class Gate:
    """What stands before an application's views for requests that ask to upgrade."""

    def __init__(self, app: Flask, hub: Hub, authenticate: Callable[[], Any]) -> None:
        self.hub = hub
        self.authenticate = authenticate
        self._app_config = app.config
        self._threads = 0  # held by sockets
        self._opening = 0  # places of those that are not in the hub yet
        self._lock = threading.Lock()
        self.storm = 0
        """Connections from which on a worker's restart brings many new requests."""
        self.log = SparingLog(logger)  # of what clients can make us say
        self._wsgi_app = app.wsgi_app
        self._create_url_adapter = app.create_url_adapter
        self._request_context = app.request_context
        self._dispatch_request = app.dispatch_request
        quickly = hub.settings.SHORTCUTS
        self._adapters = Adapters(app, EitherAdapter, quickly=quickly)
        self._sessions = Sessions(app, quickly=quickly)
        self.no_answer = (
            NoAnswer if may_take(quickly, "flask", "werkzeug") else Response
        )
        """What a view returns whose socket the server does not have any more."""
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]
        app.request_context = self.request_context  # type: ignore[method-assign]
        app.create_url_adapter = self.create_url_adapter  # type: ignore[method-assign]
        app.dispatch_request = self.dispatch_request  # type: ignore[method-assign]
        got_request_exception.connect(self._note_failure, app)

    def wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Offer the application the request's socket, where the server gives one.

        What asks for no WebSocket, or for another protocol, is none of our business.
        """
        if "HTTP_UPGRADE" not in environ:
            return self._wsgi_app(environ, start_response)
        asks = _asks(environ)
        offer = find_offer(environ, start_response)
        # A server that has answered 101 may have taken it for less than we do.
        if offer is None or not (asks or offer.answered):
            return self._wsgi_app(environ, start_response)
        if asks:
            # Where it is one name of several, Werkzeug would not see it.
            environ["HTTP_UPGRADE"] = "websocket"
        try:
            upgrade = Upgrade(self, environ, offer, start_response)
        except OSError:  # no loop for it can be started
            return self.no_descriptors()(environ, start_response)
        environ[UPGRADE] = upgrade
        try:
            result = self._wsgi_app(environ, upgrade.respond)
            upgrade.end()
            if not upgrade.begun:
                return result
            if hasattr(result, "close"):
                result.close()
            upgrade.run_view()
            upgrade.wait_if_held()
        except BaseException as error:
            upgrade.status = "500"
            upgrade.end()
            if upgrade.accepted is None:
                raise
            if isinstance(error, Exception):
                upgrade.accepted.close(1011, "internal error")
                raise
            # It goes no further: a SystemExit would end the whole server, and for a
            # GreenletExit pywsgi would answer, on a socket that it has no more.
            upgrade.accepted._fail(error)
        finally:
            if upgrade.has_place:
                upgrade.give_place_back()
            if upgrade.accepted is not None and offer.threads:
                self.count_thread(offer.threads, -1)
        return offer.answer(start_response)

    def count_thread(self, limit: int, change: int) -> None:
        """Note that a socket begins (1) or ends (-1) to hold one of ``limit`` threads.

        A listener's does only while it opens; a blocking view's, or one with TLS, as
        long as it lives.
        """
        with self._lock:
            self._threads += change
            if change < 0 or not limit or self._threads != max(limit * 4 // 5, 1):
                return
        logger.warning(
            "%d of this worker's %d threads are held by WebSockets: the rest serve all"
            " other requests. Raise gunicorn's --threads, use its gevent worker, or"
            " make blocking views listeners, which hold none",
            self._threads,
            limit,
        )

    @property
    def server_name(self) -> str | None:
        """The host that the application says it is, if it does."""
        name: str | None = self._app_config["SERVER_NAME"]
        return name

    def warn_of_storm(self) -> None:
        """Say, once, that gunicorn restarts workers for the connections they hold."""
        limit, self.storm = 2 * self.storm, 0
        logger.warning(
            "gunicorn's --max-requests is about %d, and every WebSocket is a request: a"
            " worker that has had so many closes all that it holds, and they come back"
            " at once, to the next one. Leave it out, or set it to many times the"
            " connections of a worker, with --max-requests-jitter",
            limit,
        )

    def no_descriptors(self) -> HTTPException:
        """Return the refusal of a process that may open no more files; say why."""
        self.log.warning(
            "descriptors",
            "refused a WebSocket: this process has as many open files as it may"
            " (see ulimit -n); WSCHAT_MAX_CONNECTIONS refuses before that",
        )
        message = "too many connections, try again later"
        return refusal(503, message, [("Retry-After", "5")])

    def take_place(self, limit: int) -> bool:
        """Take one of ``limit`` places for a connection to be; False: all are taken."""
        with self._lock:
            if self.hub.count() + self._opening >= limit:
                return False
            self._opening += 1
            return True

    def give_place_back(self) -> None:
        """Undo ``take_place``: the hub counts the connection now, or there is none."""
        with self._lock:
            self._opening -= 1

    def request_context(self, environ: dict[str, Any]) -> Any:
        """Open the session of a request that asks to upgrade, where that is quick."""
        if UPGRADE in environ:
            context = self._sessions.context(environ)
            if context is not None:
                return context
        return self._request_context(environ)

    def create_url_adapter(self, request: Any) -> Any:
        """Let a plain route match a request that asks to upgrade.

        Werkzeug keeps ``websocket=True`` routes and plain ones apart, so without this
        a plain view with ``environ["wsgi.websocket"]`` answers nobody.
        """
        if request is None or UPGRADE not in request.environ:
            return self._create_url_adapter(request)
        adapter = self._adapters.find(request)
        if adapter is None:
            adapter = find_either(self._create_url_adapter(request))
            self._adapters.learn(request, adapter)
        return adapter

    def dispatch_request(self, *args: Any) -> Any:
        """Refuse before a plain view runs; ours ask themselves."""
        asked = request._get_current_object()  # type: ignore[attr-defined]
        upgrade: Upgrade | None = asked.environ.get(UPGRADE)
        rule = asked.url_rule
        if upgrade is None or rule is None or rule.websocket:
            return self._dispatch_request(*args)
        upgrade.admit(asked)
        try:
            return self._dispatch_request(*args)
        except WebSocketError:
            if upgrade.accepted is None or not upgrade.accepted.closed:
                raise
            # The view spoke to a client that had just left: its natural end.
            return self.no_answer()

    def _note_failure(self, app: Flask, **_: Any) -> None:
        """Note that a request failed whose socket may be open."""
        if has_request_context():
            upgrade: Upgrade | None = request.environ.get(UPGRADE)
            if upgrade is not None:
                upgrade.failed = True


class Upgrade:
    """One request that may become a WebSocket."""

    begun = False  # the 101 was tried: HTTP is over, even if it failed
    accepted: WebSocket | None = None
    failed = False  # in the view, a function after the request, or the response
    status = ""  # of the application's answer
    view: Callable[[], Any] | None = None
    """A blocking view, to be run once the application has answered."""
    _key = ""
    _user: str | None = None
    _reason = ""
    _deflate: Deflate | None = None
    _extension: str | None = None
    _held: Event | None = None
    has_place = False
    """Counted as a connection by the gate, not by the hub yet."""
    _ended = False
    _given_up = False
    _route = ""

    def __init__(
        self, gate: Gate, environ: dict[str, Any], offer: Offer, start_response: Any
    ) -> None:
        self._gate = gate
        self._environ = environ
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
        try:
            self._check_head()
            self._check_origin(asked)
            self._check_room()
            self._check_backend()
            self._negotiate_compression()
        except HandshakeError as error:
            self._reason = str(error)
            raise refusal(error.status, str(error), error.headers) from None
        user = self._environ.get(USER)
        if user is None:
            user = self._who()
        if user is not None:
            self._user = _as_user(user)

    def _who(self) -> Any:
        """Ask the application; what it raises ends this request, and no server."""
        try:
            return self._gate.authenticate()
        except Exception:
            raise
        except BaseException as error:
            if is_order(error) or self._own.has_killed(error):
                raise
            raise RuntimeError(f"@chat.authenticate raised {error!r:.200}") from error

    def accept(
        self, subprotocols: Sequence[str] = (), *, plain: bool = True
    ) -> WebSocket:
        """Answer 101 and return the open socket; ``plain``: see ``Hub.register``.

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
        try:
            taken = self._offer.accept(answer, self._let_go)
        except OSError as error:
            raise ClientLeft from error
        except NoDescriptors:
            self.begun = False
            raise self._gate.no_descriptors() from None
        if isinstance(taken.sock, TLSSocket):
            self._held = new_event()
        hub = self._gate.hub
        if hub.stopping is None:
            hub.stopping = _server_is_stopping(hub.settings.URL)
            self._gate.storm = _max_requests() // 2
        try:
            ws = None
            while ws is None:
                loop = hub.loop_for(self._own)
                ws = loop.call(self._open, loop, taken, chosen, plain)
            ws.route = self._route
            if self._gate.storm and hub.count() >= self._gate.storm:
                self._gate.warn_of_storm()
            hub.await_topics(ws)
            if self._offer.threads:
                self._gate.count_thread(self._offer.threads, 1)
            if OPENED in self._environ:
                self._environ[OPENED](ws)
        except BaseException:
            # A time limit of the application's, or the end of the server.
            self._given_up = True
            if self.accepted is not None:
                self.accepted.close(1011, "internal error")
            raise
        return ws

    def _open(
        self, loop: EventedLoop, taken: Taken, subprotocol: str | None, plain: bool
    ) -> WebSocket | None:
        """Return the socket, registered and reading; runs in ``loop``, its own.

        None: connections of another loop were faster; nothing has happened.
        """
        hub = self._gate.hub
        with hub.home.choosing:
            if hub.loop_for(loop) is loop:
                return self._make(loop, taken, subprotocol, plain)
        return None

    def _make(
        self, loop: EventedLoop, taken: Taken, subprotocol: str | None, plain: bool
    ) -> WebSocket:
        hub = self._gate.hub
        settings = hub.settings
        try:
            transport = EventedTransport(
                taken.sock,
                loop,
                max_queue=settings.MAX_QUEUE,
                # What the ready-made chat numbers must not lack some in the middle.
                policy=settings.SLOW_POLICY if plain else "close",
            )
        except BaseException:
            taken.close()
            raise
        connection = Connection(max_message=settings.MAX_MESSAGE, deflate=self._deflate)
        ws = WebSocket(
            transport, hub, connection, user=self._user, subprotocol=subprotocol
        )
        if self._given_up:
            transport.abort()  # by whoever waited for this
            return ws
        try:
            hub.register(ws, loop, plain=plain, came_to=self._own)
            if self.has_place:
                self.give_place_back()
            self.accepted = ws
            ws._start(taken.received)
        except BaseException:
            transport.abort()
            hub.forget(ws)
            raise
        return ws

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.set()

    def no_answer(self) -> Response:
        """Return what the view of a socket's route does."""
        return self._gate.no_answer()

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
        code = _CLOSE_CODES.get(status[:1], 1011)
        if legacy.accepted:
            legacy.delist()
        if ws is not None and self.failed:
            ws.close(1011, "internal error")
        elif ws is not None and legacy.accepted:
            ws.close(code)
        elif ws is None and self._offer.answered:
            # The server has promised a WebSocket: refuse in its terms.
            reason = f"{status.title()}: {self._reason}".rstrip(": ")
            with contextlib.suppress(ClientLeft):
                self.accept().close(code, "" if code == 1000 else reason)
        self._ended = True
        # Whoever keeps the request must not keep the connection, nor wait for a garbage
        # collection to let go of both.
        for key in (UPGRADE, OFFER, "wsgi.websocket"):
            self._environ.pop(key, None)

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

    def _check_origin(self, asked: Any) -> None:
        origin = self._environ.get("HTTP_ORIGIN")
        if origin is None:
            return  # not a browser
        allowed = self._gate.hub.settings.ORIGINS
        host = asked.host
        own = f"{asked.scheme}://{host}"
        if allowed is None:
            fine = origin == own or is_one_of(origin, [own])
        else:
            fine = is_one_of(origin, [allowed] if isinstance(allowed, str) else allowed)
        if not fine:
            self._gate.log.warning(
                "origin",
                "refused a WebSocket from origin '%s': this server is '%s'. Allow it"
                " with WSCHAT_ORIGINS = ['%s']; behind a proxy, add ProxyFix",
                printable(origin),
                printable(own),
                printable(origin),
            )
            raise HandshakeError(403, "this origin is not allowed")
        if (
            allowed is None
            and asked.trusted_hosts is None
            and host != self._gate.server_name
            and is_rebound(host, self._environ)
        ):
            self._gate.log.warning(
                "host",
                "refused a WebSocket for host '%s', which came from a loopback address:"
                " so does DNS rebinding. If the name is yours, allow it with"
                " TRUSTED_HOSTS = ['%s'] (Flask 3.1) or WSCHAT_ORIGINS = ['%s'];"
                " behind a proxy, have it send X-Forwarded-For",
                printable(host),
                printable(host.partition(":")[0]),
                printable(origin),
            )
            raise HandshakeError(403, "this host is not allowed")

    def _negotiate_compression(self) -> None:
        offers = self._environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS")
        # A server that has answered already has agreed to nothing.
        if offers and not self._offer.answered and self._gate.hub.settings.COMPRESSION:
            self._deflate, self._extension = negotiate([offers]) or (None, None)

    def _check_room(self) -> None:
        limit = self._gate.hub.settings.MAX_CONNECTIONS
        if limit is None or self.has_place:
            return
        # Before whatever may wait: until then others would find the same place.
        self.has_place = self._gate.take_place(limit)
        if not self.has_place:
            self._gate.log.warning(
                "full", "refused a WebSocket: WSCHAT_MAX_CONNECTIONS = %d", limit
            )
            raise HandshakeError(
                503, "too many connections, try again later", [("Retry-After", "5")]
            )

    def give_place_back(self) -> None:
        """Count as one of those who wait for a connection no more."""
        self.has_place = False
        self._gate.give_place_back()

    def _check_backend(self) -> None:
        try:
            self._gate.hub.require_backend(self._own)
        except BackendError:
            raise HandshakeError(
                503, "the chat's storage is not there now", [("Retry-After", "2")]
            ) from None


def _server_is_stopping(url: str) -> Callable[[], bool]:
    """Return what tells whether this process was asked to end.

    gunicorn's workers wait for views under way before they end, and blocking views
    wait for their clients: the sockets must be closed when that wait begins.
    """
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    workers = getattr(getattr(worker, "cfg", None), "workers", 1)
    if workers > 1 and url.startswith("memory:"):
        logger.warning(
            "each of %d workers has rooms and users of its own: set WSCHAT_URL to"
            " redis://... or sqlite:///... for all to share them",
            workers,
        )
    return lambda: not getattr(worker, "alive", True)


def _max_requests() -> int:
    """Return how many requests gunicorn lets this worker have; 0: any number."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return int(getattr(getattr(worker, "cfg", None), "max_requests", 0))


def _as_user(value: Any) -> str:
    try:
        return as_user(value)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"@chat.authenticate: {error}. Return None for somebody without one, and"
            " abort(401) to refuse"
        ) from None


def _asks(environ: dict[str, Any]) -> bool:
    """Whether a request asks for a WebSocket, well or badly.

    Of the methods only these two ever match a route for WebSockets.
    """
    return environ["REQUEST_METHOD"] in ("GET", "HEAD") and is_upgrade(
        environ.get("HTTP_UPGRADE", ""), environ.get("HTTP_CONNECTION", "")
    )


def _headers(environ: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a WSGI request's headers, names in lower case."""
    return [
        (name[5:].replace("_", "-").lower(), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
