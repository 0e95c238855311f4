"""``WSChat``: the Flask extension. Routing first, then refusals, then the upgrade."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakSet

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    got_request_exception,
    has_app_context,
    request,
)
from werkzeug.exceptions import HTTPException
from werkzeug.routing import WebsocketMismatch

from .backends import Backend
from .backends.memory import MemoryBackend
from .codec import (
    Connection,
    Deflate,
    accept_headers,
    check_request,
    choose_subprotocol,
    is_upgrade,
    negotiate,
    response,
    tokens,
)
from .compat import LegacyWebSocket, WebSocketError
from .errors import ConfigError, ConnectionClosed, HandshakeError
from .hub import EVERYONE, Hub, room_topic, user_topic
from .messages import Entry, Message
from .settings import Settings
from .transports import Event
from .transports.accept import OFFER, Offer, find_offer
from .transports.blocking import ThreadedLoop
from .transports.evented import EventedLoop, EventedTransport, patching_fault
from .transports.tls import TLSSocket
from .websocket import Listener, WebSocket, as_message

logger = logging.getLogger("flask_wschat")

View = TypeVar("View", bound=Callable[..., Any])
ListenerClass = TypeVar("ListenerClass", bound=type[Listener])
Authenticate = TypeVar("Authenticate", bound=Callable[[], Any])
Scope = Blueprint | Flask

_HUB = "wschat.hub"
"""Where ``app.extensions`` holds the ``Hub`` of an application."""

_CLOSE_CODES = {"2": 1000, "3": 1008, "4": 1008, "5": 1011}
"""By the first digit of the HTTP status that an answer would have had."""

USER = "wschat.user"
"""Where an environ says who the user is: the test client's, or a middleware's."""

OPENED = "wschat.opened"
"""Where an environ has a callable that is told of the open ``WebSocket``."""

_UPGRADE = "wschat.upgrade"
"""Where the environ of a request that may become a WebSocket holds its ``_Upgrade``."""


class WSChat:
    """WebSockets for Flask applications.

    ``WSChat(app)``, or ``WSChat()`` and ``init_app(app)`` for each application. Outside
    of an application context (a thread, a greenlet of your own) its methods work as
    long as it was given one application only.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._rules: list[Callable[[Scope], None]] = []
        self._authenticate: Callable[[], Any] | None = None
        self._apps: WeakSet[Flask] = WeakSet()
        self._only: Hub | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the ``WSCHAT_*`` configuration and add the routes to ``app``.

        :raises ConfigError: a value cannot work.
        :raises RuntimeError: ``app`` has the extension already.
        """
        if "wschat" in app.extensions:
            raise RuntimeError(
                "this Flask app already has a WSChat: call init_app once, and get it"
                ' elsewhere by current_app.extensions["wschat"]'
            )
        settings = Settings.from_config(app.config)
        hub = Hub(
            settings,
            _make_backend(settings),
            dumps=app.json.dumps,
            loads=app.json.loads,
            context=app.app_context,
            report=_Reporter(app),
        )
        if fault := patching_fault():
            logger.warning("%s", fault)
        app.extensions["wschat"] = self
        app.extensions[_HUB] = hub
        self._only = None if self._apps else hub
        self._apps.add(app)
        for add_rule in self._rules:
            add_rule(app)
        app.register_blueprint(
            Blueprint(
                "wschat",
                __name__,
                static_folder="static",
                static_url_path="/_wschat",
            )
        )
        app.register_error_handler(WebsocketMismatch, _not_a_websocket)
        _Gate(self, app, hub)

    # -- routes

    def route(
        self,
        rule: str,
        *,
        blueprint: Blueprint | None = None,
        subprotocols: Sequence[str] = (),
        **options: Any,
    ) -> Callable[[View], View]:
        """Register a view that lives as long as its socket: ``view(ws, **url_args)``.

        It runs in the request context of the handshake. When it returns the socket is
        closed with 1000; an ``abort()`` or any other exception closes it with 1008 or
        1011. ``subprotocols``: those spoken here, the preferred first. ``options`` are
        ``add_url_rule``'s (``endpoint``, ``defaults``, ``host`` …).
        """

        def decorate(view: View) -> View:
            def serve(ws: WebSocket, url_args: dict[str, Any]) -> None:
                with _ending(ws):
                    view(ws, **url_args)
                ws.close()

            self._add(rule, view.__name__, serve, blueprint, subprotocols, options)
            return view

        return decorate

    def listener(
        self,
        rule: str,
        *,
        blueprint: Blueprint | None = None,
        subprotocols: Sequence[str] = (),
        **options: Any,
    ) -> Callable[[ListenerClass], ListenerClass]:
        """Register a ``Listener`` class; each connection gets an instance of its own.

        An idle connection holds no greenlet and no thread. Arguments as for ``route``;
        the endpoint is the class's name.
        """

        def decorate(cls: ListenerClass) -> ListenerClass:
            def serve(ws: WebSocket, url_args: dict[str, Any]) -> None:
                with _ending(ws):
                    listener = cls()
                    with contextlib.ExitStack() as stack:
                        # Also after an error: whoever was opened is closed.
                        stack.callback(ws.listen, listener)
                        listener.on_open(ws, **url_args)

            self._add(rule, cls.__name__, serve, blueprint, subprotocols, options)
            return cls

        return decorate

    def authenticate(self, function: Authenticate) -> Authenticate:
        """Register who says which user a request is, before the 101.

        Called without arguments in the request context; returns the user id (anything
        that ``str`` makes unique) or None for an anonymous one. ``abort(401)`` refuses.
        """
        self._authenticate = function
        return function

    def _add(
        self,
        rule: str,
        name: str,
        serve: Callable[[WebSocket, dict[str, Any]], None],
        blueprint: Blueprint | None,
        subprotocols: Sequence[str],
        options: dict[str, Any],
    ) -> None:
        endpoint = options.pop("endpoint", None) or name

        def view(**url_args: Any) -> Response:
            upgrade: _Upgrade | None = request.environ.get(_UPGRADE)
            if upgrade is None:
                raise _refusal(
                    501,
                    "this server gives applications no socket. Those that do:"
                    " chat.run(app), flask run, gunicorn with its gevent or gthread"
                    " worker, gevent's pywsgi",
                )
            upgrade.admit()
            try:
                ws = upgrade.accept(subprotocols)
            except OSError:
                return _NoAnswer()  # the client left meanwhile
            serve(ws, url_args)
            return _NoAnswer()

        def add_rule(scope: Scope) -> None:
            scope.add_url_rule(rule, endpoint, view, websocket=True, **options)

        if blueprint is not None:
            add_rule(blueprint)
            return
        self._rules.append(add_rule)
        for app in self._apps:
            add_rule(app)

    # -- sending and asking

    def broadcast(
        self,
        data: Any,
        *,
        room: str | None = None,
        exclude: WebSocket | None = None,
        key: str | None = None,
    ) -> int:
        """Publish ``data`` to ``room``, or to every connection.

        ``str`` goes as text, ``bytes`` as binary, anything else as JSON. ``exclude``
        is a connection left out. ``key``: to a peer that is behind, only the newest
        unsent message with this key is sent.

        Return the message's number in the room's history; 0 if it is not kept, which
        those to everyone and those with a ``key`` are not. Returning means published,
        not received: each connection has its own queue, and no receiver's trouble is
        raised here.

        :raises BackendError: the backend is unreachable; nothing was sent.
        """
        hub = self._hub()
        message = Message(
            as_message(data, hub.dumps), key, exclude.id if exclude else None
        )
        if room is None:
            return hub.publish(EVERYONE, message)
        return hub.publish(room_topic(room), message, keep=key is None)

    def send_to_user(self, user: Any, data: Any, *, key: str | None = None) -> int:
        """Send ``data`` to every connection of ``user``.

        Return how many there are; 0 means that nobody got it.

        :raises BackendError: the backend is unreachable; nothing was sent.
        """
        hub = self._hub()
        topic = user_topic(str(user))
        reached = hub.count(topic)
        hub.publish(topic, Message(as_message(data, hub.dumps), key))
        return reached

    def disconnect_user(self, user: Any, code: int = 4000, reason: str = "") -> int:
        """Close every connection of ``user``; return how many there were.

        Call it where a user logs out or is banned: a socket outlives the session that
        opened it.
        """
        hub = self._hub()
        topic = user_topic(str(user))
        count = hub.count(topic)
        hub.publish(topic, Message(reason, close_code=code))
        return count

    def online(self, room: str | None = None) -> list[str]:
        """Return the users connected, or in ``room``: sorted, each once."""
        return self._hub().users(EVERYONE if room is None else room_topic(room))

    def history(self, room: str, *, after: int = 0, limit: int = 50) -> list[Entry]:
        """Return kept messages of ``room`` in order: entries with ``seq``, ``data``
        and ``at`` (seconds since 1970).

        With ``after`` the first ``limit`` that follow this number, else the newest.
        """
        return self._hub().history(room_topic(room), after=after, limit=limit)

    def run(
        self, app: Flask | None = None, host: str | None = None, port: int | None = None
    ) -> None:
        """Serve ``app`` with gevent until interrupted; prints the address.

        Where ``host`` or ``port`` is not given, ``FLASK_RUN_HOST`` and
        ``FLASK_RUN_PORT`` count, then 127.0.0.1 and 5000. An address that cannot be had
        ends the program with a message.
        """
        from .server import run  # up a layer, for the user's convenience

        environ = os.environ
        app = app or self._app()
        run(
            app,
            self._hub_of(app),
            environ.get("FLASK_RUN_HOST", "127.0.0.1") if host is None else host,
            int(environ.get("FLASK_RUN_PORT", 5000)) if port is None else port,
        )

    def _app(self) -> Flask:
        if has_app_context():
            return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]
        if len(self._apps) != 1:
            raise RuntimeError(_NO_APP)
        return next(iter(self._apps))

    def _hub(self) -> Hub:
        return self._only or self._hub_of(self._app())

    def _hub_of(self, app: Flask) -> Hub:
        if app.extensions.get("wschat") is not self:
            raise RuntimeError(_NO_APP)
        hub: Hub = app.extensions[_HUB]
        return hub


_NO_APP = (
    "which app? This WSChat has none or several: call init_app(app) first, and where"
    " it has several work inside `with app.app_context():`"
)


class _NoAnswer(Response):
    """What a view returns whose socket the server does not have any more."""

    def __call__(self, environ: Any, start_response: Any) -> tuple[()]:
        return ()


class _Reporter:
    """Tells the application of an error, as Flask does of one in a view."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, error: Exception) -> None:
        got_request_exception.send(self._app, exception=error)
        self._app.logger.error("Exception in a WebSocket handler", exc_info=error)


@contextlib.contextmanager
def _ending(ws: WebSocket) -> Iterator[None]:
    """Turn what a view raises after the 101 into a close code."""
    try:
        yield
    except ConnectionClosed:
        pass
    except HTTPException as error:
        ws.close(1008, f"{error.code} {error.name}: {error.description}")
    except Exception as error:
        _Reporter(current_app._get_current_object())(error)  # type: ignore[attr-defined]
        ws.close(1011, "internal error")


class _Gate:
    """What stands before an application's views for requests that ask to upgrade."""

    def __init__(self, chat: WSChat, app: Flask, hub: Hub) -> None:
        self.chat = chat
        self.app = app
        self.hub = hub
        self._threads = 0  # held by sockets
        self._lock = threading.Lock()
        self._wsgi_app = app.wsgi_app
        self._create_url_adapter = app.create_url_adapter
        self._dispatch_request = app.dispatch_request
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]
        app.create_url_adapter = self.create_url_adapter  # type: ignore[method-assign]
        app.dispatch_request = self.dispatch_request  # type: ignore[method-assign]

    def wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Offer the application the request's socket, where the server gives one."""
        if "HTTP_UPGRADE" not in environ:
            return self._wsgi_app(environ, start_response)
        offer = find_offer(environ, start_response)
        if offer is None:
            return self._wsgi_app(environ, start_response)
        if is_upgrade(environ["HTTP_UPGRADE"], environ.get("HTTP_CONNECTION", "")):
            # Where it is one name of several, Werkzeug would not see it.
            environ["HTTP_UPGRADE"] = "websocket"
        upgrade = environ[_UPGRADE] = _Upgrade(self, environ, offer)
        status = ""

        def respond(line: str, headers: Any, exc_info: Any = None) -> Any:
            nonlocal status
            status = line
            if upgrade.begun:
                return lambda data: None  # there is no HTTP on that socket any more
            return start_response(line, headers, exc_info)

        try:
            result = self._wsgi_app(environ, respond)
            upgrade.end(status)
            if not upgrade.begun:
                return result
            if hasattr(result, "close"):
                result.close()
            upgrade.wait_if_held()
        except BaseException:
            upgrade.end("500")
            raise
        finally:
            if upgrade.accepted is not None:
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

    def create_url_adapter(self, request: Any) -> Any:
        """Let a plain route match a request that asks to upgrade.

        Werkzeug keeps ``websocket=True`` routes and plain ones apart, so without this
        a plain view with ``environ["wsgi.websocket"]`` answers nobody.
        """
        adapter = self._create_url_adapter(request)
        if request is not None and _UPGRADE in request.environ and adapter is not None:
            with contextlib.suppress(HTTPException):
                try:
                    found = adapter.match(return_rule=True)
                except WebsocketMismatch:
                    adapter.websocket = False
                    found = adapter.match(return_rule=True)
                # Flask asks the same next; what raised here raises there again.
                adapter.match = lambda **_: found  # type: ignore[method-assign,assignment]
        return adapter

    def dispatch_request(self, *args: Any) -> Any:
        """Refuse before a plain view runs; ours ask themselves."""
        upgrade: _Upgrade | None = request.environ.get(_UPGRADE)
        rule = request.url_rule
        if upgrade is None or rule is None or rule.websocket:
            return self._dispatch_request(*args)
        upgrade.admit()
        try:
            return self._dispatch_request(*args)
        except WebSocketError:
            if upgrade.accepted is None or not upgrade.accepted.closed:
                raise
            # The view spoke to a client that had just left: its natural end.
            return _NoAnswer()


class _Upgrade:
    """One request that may become a WebSocket."""

    def __init__(self, gate: _Gate, environ: dict[str, Any], offer: Offer) -> None:
        self._gate = gate
        self._environ = environ
        self._offer = offer
        self._key = ""
        self._user: str | None = None
        self._reason = ""
        self._deflate: Deflate | None = None
        self._extension: str | None = None
        self._held: Event | None = None
        self.begun = False  # the 101 was tried: HTTP is over, even if it failed
        self.accepted: WebSocket | None = None
        greenlets = EventedLoop.runs_here()
        self._loop = EventedLoop.current() if greenlets else ThreadedLoop.shared()
        self._legacy = LegacyWebSocket(environ, offer.handler, self.accept, self._loop)
        environ["wsgi.websocket"] = self._legacy

    def admit(self) -> None:
        """Raise the HTTP refusal that this request deserves, if any."""
        try:
            environ = self._environ
            self._key = check_request(
                environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"], _headers(environ)
            )
            if environ.get("CONTENT_LENGTH", "0") not in ("", "0") or (
                "HTTP_TRANSFER_ENCODING" in environ
            ):
                raise HandshakeError(400, "a WebSocket handshake has no body")
            if "HTTP_HOST" not in environ:
                raise HandshakeError(400, "no Host header (RFC 9112 §3.2)")
            self._check_origin()
            self._check_room()
            self._negotiate_compression()
        except HandshakeError as error:
            self._reason = str(error)
            raise _refusal(error.status, str(error), error.headers) from None
        authenticate = self._gate.chat._authenticate
        user = self._environ.get(USER)
        if user is None and authenticate is not None:
            user = authenticate()
        self._user = None if user is None else str(user)

    def accept(self, subprotocols: Sequence[str] = ()) -> WebSocket:
        """Answer 101 and return the open socket.

        :raises OSError: the client is gone.
        """
        if self.accepted is not None:
            return self.accepted
        hub = self._gate.hub
        settings = hub.settings
        offered = tokens([self._environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")])
        chosen = choose_subprotocol(offered, subprotocols)
        headers = accept_headers(
            self._key, subprotocol=chosen, extension=self._extension
        )
        loop = self._loop
        self.begun = True
        taken = self._offer.accept(response(101, headers), self._let_go)
        if isinstance(taken.sock, TLSSocket):
            self._held = loop.event()

        def open_here() -> WebSocket:
            transport = EventedTransport(
                taken.sock,
                loop,
                max_queue=settings.MAX_QUEUE,
                policy=settings.SLOW_POLICY,
            )
            connection = Connection(
                max_message=settings.MAX_MESSAGE, deflate=self._deflate
            )
            ws = WebSocket(
                transport, hub, connection, user=self._user, subprotocol=chosen
            )
            hub.register(ws, loop)
            ws.start(taken.received)
            return ws

        if hub.stopping is None:
            hub.stopping = _server_is_stopping()
        self.accepted = ws = loop.call(open_here)
        self._gate.count_thread(self._offer.threads, 1)
        if OPENED in self._environ:
            self._environ[OPENED](ws)
        return ws

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.set()

    def wait_if_held(self) -> None:
        """Keep the server's hands off a TLS socket until the connection is over."""
        if self._held is not None:
            self._held.wait()

    def end(self, status: str) -> None:
        """The application has answered; see that nothing stays half open."""
        ws, legacy = self.accepted, self._legacy
        code = _CLOSE_CODES.get(status[:1], 1011)
        if legacy.accepted:
            legacy.delist()
            if ws is not None:
                ws.close(code)
        elif ws is None and self._offer.answered:
            # The server has promised a WebSocket: refuse in its terms.
            reason = f"{status.title()}: {self._reason}".rstrip(": ")
            with contextlib.suppress(OSError):
                self.accept().close(code, "" if code == 1000 else reason)
        # Whoever keeps the request must not keep the connection, nor wait for a garbage
        # collection to let go of both.
        for key in (_UPGRADE, OFFER, "wsgi.websocket"):
            self._environ.pop(key, None)

    def _check_origin(self) -> None:
        origin = self._environ.get("HTTP_ORIGIN")
        if origin is None:
            return  # not a browser
        allowed = self._gate.hub.settings.ORIGINS
        own = f"{request.scheme}://{request.host}"
        if allowed is None:
            fine = _normal(origin) == _normal(own)
        else:
            names = [allowed] if isinstance(allowed, str) else allowed
            fine = "*" in names or _normal(origin) in map(_normal, names)
        if not fine:
            logger.warning(
                "refused a WebSocket from origin %r: this server is %r. Allow it with"
                " WSCHAT_ORIGINS = [%r]; behind a proxy, add ProxyFix",
                origin[:200],
                own,
                origin[:200],
            )
            raise HandshakeError(403, "this origin is not allowed")

    def _negotiate_compression(self) -> None:
        offers = self._environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS")
        # A server that has answered already has agreed to nothing.
        if offers and not self._offer.answered and self._gate.hub.settings.COMPRESSION:
            self._deflate, self._extension = negotiate([offers]) or (None, None)

    def _check_room(self) -> None:
        limit = self._gate.hub.settings.MAX_CONNECTIONS
        if limit is not None and self._gate.hub.count() >= limit:
            logger.warning("refused a WebSocket: WSCHAT_MAX_CONNECTIONS = %d", limit)
            raise HandshakeError(
                503, "too many connections, try again later", [("Retry-After", "5")]
            )


def _server_is_stopping() -> Callable[[], bool]:
    """Return what tells whether this process was asked to end.

    gunicorn's workers wait for views under way before they end, and blocking views
    wait for their clients: the sockets must be closed when that wait begins.
    """
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return lambda: not getattr(worker, "alive", True)


def _make_backend(settings: Settings) -> Backend:
    if settings.URL.startswith("memory:"):
        return MemoryBackend(size=settings.HISTORY_SIZE, ttl=settings.HISTORY_TTL)
    raise ConfigError(f"WSCHAT_URL must be memory://, not {settings.URL!r}")


def _headers(environ: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a WSGI request's headers, names in lower case."""
    return [
        (name[5:].replace("_", "-").lower(), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]


def _refusal(
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


def _not_a_websocket(error: WebsocketMismatch) -> Any:
    """Answer plain HTTP on a socket route, and a WebSocket on a page's."""
    environ = request.environ
    if is_upgrade(environ.get("HTTP_UPGRADE", ""), environ.get("HTTP_CONNECTION", "")):
        return error
    return Response(
        "This is a WebSocket address. Connect with a WebSocket client, for example"
        f' new WebSocket("{request.url.replace("http", "ws", 1)}") in a browser.\n',
        426,
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        mimetype="text/plain",
    )


def _normal(origin: str) -> tuple[str, str, int | None]:
    """Return an origin's scheme, host and port, the port that it implies included."""
    try:
        parts = urlsplit(origin.strip().lower())
        port = parts.port
    except ValueError:
        return origin, "", None
    implied = {"http": 80, "https": 443, "ws": 80, "wss": 443}
    return parts.scheme, parts.hostname or "", port or implied.get(parts.scheme)
