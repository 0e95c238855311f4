"""``WSChat``: the Flask extension."""

from __future__ import annotations

import functools
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, Literal, TextIO, TypeVar
from weakref import WeakSet

import click
import flask.json
from flask import Blueprint, Flask, current_app, has_app_context, request
from werkzeug.routing import WebsocketMismatch

from . import backends
from .chat.background import Background, BackgroundTask
from .chat.chat import Chat
from .chat.events import Events
from .chat.publisher import Publisher, Sending, open_backend
from .envelope import PROTOCOL
from .hub.hub import Hub
from .opening import mistakes, views
from .opening.access import AccessLog
from .opening.gate import Gate
from .opening.hooks import Hooks
from .opening.identity import Identity
from .opening.plain import not_a_websocket
from .opening.reporter import Reporter
from .opening.script import at_any_host, serve_script
from .operate.dashboard import SOURCE
from .operate.doctor import facts
from .operate.doctor.mirror import add_mirror
from .operate.health import Health
from .operate.metrics import METRICS, Metrics
from .operate.operating import Operating
from .operate.reports import REPORTS, Reports
from .operate.sources import Source
from .rate import Rate
from .running import folder as _folder  # noqa: F401  # it notes where we began
from .settings import PREFIX, Settings
from .shortcuts.contexts import AppContexts
from .signals import Factory, Signals
from .transports import ending
from .transports.patched import patching_fault
from .websocket import Listener

logger = logging.getLogger("flask_wschat")

View = TypeVar("View", bound=Callable[..., Any])
ListenerClass = TypeVar("ListenerClass", bound=type[Listener])
Scope = Blueprint | Flask

_HUB = "wschat.hub"
"""Where ``app.extensions`` holds the ``Hub`` of an application."""
_CHAT = "wschat.chat"
"""Where it holds what its ready-made chat shares."""
_BACKGROUND = "wschat.background"
"""Where it holds its background tasks."""
_GATE = "wschat.gate"
"""Where it holds what all its opening handshakes share."""


_SHARED = (
    *("history_size", "history_bytes", "history_ttl", "inbox_share", "redis_wait"),
    *("ping_interval", "ping_timeout"),
)
"""Settings that all processes which share a backend have in common."""


class WSChat(Sending, Identity, Operating):
    """WebSockets for Flask applications.

    ``WSChat(app)``, or ``WSChat()`` and ``init_app(app)`` for each application. Outside
    of an application context (a thread, a greenlet of your own) its methods work as
    long as it was given one application only, else they raise ``RuntimeError``.

    Rooms, users and keys are texts of 1 to 255 characters, integers, or objects whose
    class defines ``__str__``. Anything else raises ``TypeError`` or ``ValueError``, and
    nothing was sent or changed.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._rules: list[Callable[[Scope], None]] = []
        self._views: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._apps: WeakSet[Flask] = WeakSet()
        self._only: Chat | None = None
        self._sessions = mistakes.SessionWatch()
        self._factories: list[Factory] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the ``WSCHAT_*`` configuration and add the routes to ``app``.

        :raises ConfigError: a value cannot work.
        :raises RuntimeError: ``app`` has the extension already.
        :raises TypeError: ``app`` is no Flask application.
        """
        mistakes.check_app(app)
        if "wschat" in app.extensions:
            raise RuntimeError(
                "this Flask app already has a WSChat: call init_app once, and get it"
                ' elsewhere by current_app.extensions["wschat"]'
            )
        mistakes.warn_of_environment(app.config)
        settings = Settings.from_config(app.config)
        call_each = AppContexts(app, quickly=settings.SHORTCUTS).call_each
        hub = Hub(
            settings,
            open_backend(settings),
            dumps=app.json.dumps,
            loads=app.json.loads,
            call_each=call_each,
            report=Reporter(app),
            signals=Signals(app, call_each, self._factories),
        )
        if isinstance(hub.backend, backends.MemoryBackend):
            hub.alone = mistakes.Alone(app)
        if fault := patching_fault():
            logger.warning("%s", fault)
        app.extensions["wschat"] = self
        app.extensions[_HUB] = hub
        app.extensions[_CHAT] = chat = Chat(hub, self._has_logins)
        app.extensions[_BACKGROUND] = Background(hub, app.app_context)
        app.extensions[REPORTS] = reports = Reports(hub)
        app.extensions[SOURCE] = Source(hub, reports)
        mistakes.note_settings(app)
        self._only = None if self._apps else chat
        self._apps.add(app)
        for add_rule in self._rules:
            add_rule(app)
        client = Blueprint("wschat", __name__)
        host = at_any_host(app, client)
        serve_script(app, client, host)
        Health(hub, reports, client, host)
        app.extensions[METRICS] = Metrics(app, hub, client, host)
        add_mirror(client, host)
        reports.answers[facts.QUESTION] = facts.facts(app, hub)
        app.register_blueprint(client)
        app.extensions[_GATE] = gate = Gate(app, hub, self._who)
        answer = functools.partial(not_a_websocket, gate=gate)
        app.register_error_handler(WebsocketMismatch, answer)
        if settings.ACCESS_LOG:
            app.extensions["wschat.access"] = AccessLog(app)
        Hooks(app, gate)
        command = click.get_current_context(silent=True)
        words = "" if command is None else command.command_path
        if words.endswith(" run") and not words.endswith(" wschat run"):
            ending.close_on_signals()  # `flask run` leaves that to the system

    def _has_logins(self) -> bool:
        return self._authenticate is not None

    def _who(self) -> Any:
        return None if self._authenticate is None else self._authenticate()

    # -- routes

    def route(
        self,
        rule: str,
        *,
        blueprint: Blueprint | None = None,
        subprotocols: Sequence[str] = (),
        limit: Rate | None = None,
        decorators: Sequence[views.Decorator] = (),
        **options: Any,
    ) -> Callable[[View], View]:
        """Register a view that lives as long as its socket: ``view(ws, **url_args)``.

        It has the handshake's ``request`` and ``session``, in a context of its own: the
        handshake's has ended, with its teardown, so ``g`` is empty and nothing of it is
        held. When it returns the socket is closed with 1000; an ``abort()`` or any
        other exception closes it with 1008 or 1011. ``subprotocols``: those spoken
        here, the preferred first. ``limit``: messages of one user a second, and at
        once, as ``(10, 50)``; over it 1008. ``decorators``, such as ``login_required``,
        are for what Flask calls before the 101, and may refuse by an HTTP answer; one
        that stands at the view itself comes after it. ``options`` are
        ``add_url_rule``'s (``endpoint``, ``defaults``, ``host`` …).

        :raises TypeError: the view cannot be called so, or is ``async``.
        :raises ValueError: ``limit`` is none.
        """
        mistakes.check_rule("route", rule)
        rate = mistakes.check_limit(limit)

        def decorate(view: View) -> View:
            mistakes.check_view(view, rule)
            serve = views.by_view(view, self._sessions)
            self._add(
                *(rule, view, serve, blueprint, subprotocols, options),
                decorators,
                limit=rate,
                blocking=True,
            )
            return view

        return decorate

    def listener(
        self,
        rule: str,
        *,
        blueprint: Blueprint | None = None,
        subprotocols: Sequence[str] = (),
        limit: Rate | None = None,
        decorators: Sequence[views.Decorator] = (),
        **options: Any,
    ) -> Callable[[ListenerClass], ListenerClass]:
        """Register a ``Listener`` class; each connection gets an instance of its own.

        An idle connection holds no greenlet and no thread. Arguments as for ``route``;
        the endpoint is the class's name. The ready-made chat's ``limit``, here instead
        of ``WSCHAT_RATE_LIMIT``, is one of error replies first.

        :raises TypeError: it is no ``Listener``, or has a method that nobody calls.
        :raises ValueError: ``limit`` is none.
        """
        mistakes.check_rule("listener", rule)
        rate = mistakes.check_limit(limit)

        def decorate(cls: ListenerClass) -> ListenerClass:
            mistakes.check_listener(cls, rule)
            plain = not issubclass(cls, Events)
            spoken = subprotocols or (() if plain else (PROTOCOL,))
            opens = cls.on_open is not Listener.on_open

            def make() -> Listener:
                listener = cls()
                if isinstance(listener, Events):
                    listener._chat, listener._limit = self._chat(), rate
                    listener._address = request.remote_addr
                return listener

            serve = views.by_listener(
                cls if plain else make, self._sessions, opens=opens
            )
            self._add(
                *(rule, cls, serve, blueprint, spoken, options),
                decorators,
                limit=rate,
                plain=plain,
            )
            return cls

        return decorate

    def _add(
        self,
        rule: str,
        made_of: Any,
        serve: views.Serve,
        blueprint: Blueprint | None,
        subprotocols: Sequence[str],
        options: dict[str, Any],
        decorators: Sequence[views.Decorator],
        *,
        limit: Rate | None,
        plain: bool = True,
        blocking: bool = False,
    ) -> None:
        endpoint = options.pop("endpoint", None) or made_of.__name__
        decorators = mistakes.check_decorators(decorators)
        view = views.dispatched(
            *(serve, subprotocols, limit, made_of, decorators),
            plain=plain,
            blocking=blocking,
        )
        # The same each time, as Flask wants it of two rules for one endpoint. It holds
        # what it is made of, so that the number stays that one's.
        around = (d if isinstance(d, MethodType) else id(d) for d in decorators)
        made_so = (id(made_of), *around, *subprotocols, limit)
        view = self._views.setdefault(made_so, view)

        def add_rule(scope: Scope) -> None:
            scope.add_url_rule(rule, endpoint, view, websocket=True, **options)

        self._add_to(blueprint, add_rule)

    def _add_to(
        self, blueprint: Blueprint | None, add_rule: Callable[[Scope], None]
    ) -> None:
        """Have ``add_rule`` called with what is to have it, now and later."""
        if blueprint is not None:
            add_rule(blueprint)
            return
        self._rules.append(add_rule)
        for app in self._apps:
            add_rule(app)

    # -- sending and asking: see ``Sending``

    @staticmethod
    def publisher(url: str | backends.Backend, **options: Any) -> Publisher:
        """Return what reaches a server's clients from a process without its app.

        For a task, a cron job or a script, with or without gevent: ``broadcast``,
        ``emit``, ``send_to_user``, ``history`` and all else that asks or tells, but
        nothing that serves. ``url`` is the server's ``WSCHAT_URL``; ``options`` are
        those of its settings that say how much is kept, where they are not the
        defaults: ``history_size=1000`` for ``WSCHAT_HISTORY_SIZE``, and so on.

        Use it in a ``with``, or ``close()`` it. Values are encoded as Flask does.

        :raises ConfigError: ``url`` is ``memory://``, which no other process shares, or
            it or an option cannot work.
        :raises TypeError: there is no such option.
        """
        for name in options:
            if name not in _SHARED:
                raise TypeError(f"{name} is none of {', '.join(_SHARED)}")
        given = {PREFIX + name.upper(): value for name, value in options.items()}
        settings = Settings.from_config({PREFIX + "URL": url, **given})
        return Publisher(settings, dumps=flask.json.dumps, loads=flask.json.loads)

    def start_background_task(
        self,
        function: Callable[..., Any],
        *args: Any,
        name: Any = None,
        standby: bool = False,
        **kwargs: Any,
    ) -> BackgroundTask | None:
        """Call ``function(*args, **kwargs)`` beside the caller, in an app context.

        It has a thread of its own, or a greenlet where gevent has patched threads. An
        error in it is logged, and sent as ``got_request_exception``. A server that ends
        waits for it, but no longer than for its connections (``WSCHAT_DRAIN``).

        With a ``name`` one process of all runs it at a time, and in it one thread:
        where one does, None is returned and nothing is called. With ``standby`` as
        well, it begins here once that process is gone: at once where it ends, and where
        it is killed within ``WSCHAT_PING_INTERVAL`` + ``WSCHAT_PING_TIMEOUT`` seconds.
        No server waits for such a one. A process, or a storage, that stands still for
        as long counts as gone: then two may run.

        :raises TypeError: ``function`` is none, or is ``async``.
        :raises ValueError: the name cannot be one, or there is a ``standby`` without.
        :raises BackendError: whether it runs elsewhere cannot be known.
        :raises OSError: there is no thread for it.
        """
        mistakes.check_task(function)
        app = self._app()
        self._chat_of(app)  # which is ours
        background: Background = app.extensions[_BACKGROUND]
        return background.start(function, args, kwargs, name=name, standby=standby)

    def instrument(self, factory: Factory) -> Factory:
        """Enter ``factory(ws, event, message)`` around each call of a handler.

        For spans, timers and the like; it may stand as a decorator, and several may be
        given. ``event`` is "on_open", "on_message", "on_close" or "view", or the name
        of an event of ``Events`` and of the ready-made chat. ``message`` is what came,
        as it is handled: text or bytes, or an event's request as a dict; else None.
        What the factory or its context manager raise is logged, and harms nothing;
        whether an error of the handler is swallowed is not theirs to say.

        :raises TypeError: it cannot be called.
        """
        if not callable(factory):
            raise TypeError(f"instrument needs a function, unlike {factory!r}")
        self._factories.append(factory)
        return factory

    def run(
        self,
        app: Flask | None = None,
        host: str | None = None,
        port: int | str | None = None,
        *,
        debug: bool | None = None,
        reload: bool | None = None,
        patch: bool = True,
        ssl_context: ssl.SSLContext | tuple[str, str] | None = None,
        log: TextIO | Literal["stderr"] | None = "stderr",
    ) -> None:
        """Serve ``app`` with gevent until interrupted; prints the address.

        Where ``host`` or ``port`` is not given, ``FLASK_RUN_HOST`` and
        ``FLASK_RUN_PORT`` count, then 127.0.0.1 and 5000; a port may be text, as from
        the environment. An address that cannot be had ends the program with a message.

        So that a view which waits stops no other, the program is started once more from
        its beginning, patched by gevent, unless it is patched already. ``patch=False``
        declines. ``debug``, which is ``app.debug`` unless given, shows errors in the
        browser; ``reload``, which is ``debug`` unless given, starts the program again
        when one of its files changes. With ``ssl_context``, the files of a certificate
        (its whole chain) and of its key in PEM, it speaks TLS.

        ``log`` gets a line for each request, and for each WebSocket one when it opens
        and one when it ends; with None nobody does.

        :raises ValueError: ``port`` is no number from 0 to 65535.
        """
        from .server import prepare, run  # up a layer, for the user's convenience

        if mistakes.is_only_loaded():
            return
        environ = os.environ
        app = app or self._app()
        mistakes.check_app(app)
        hub = self._chat_of(app).hub
        if debug is not None:
            app.debug = debug
        reload = app.debug if reload is None else reload
        host = environ.get("FLASK_RUN_HOST", "127.0.0.1") if host is None else host
        port = environ.get("FLASK_RUN_PORT", 5000) if port is None else port
        number = mistakes.check_address(host, port)
        prepare(reload=reload, patch=patch)
        mistakes.warn_of_late_settings(app)
        run(
            *(app, hub, host, number),
            debug=app.debug,
            reload=reload,
            ssl_context=ssl_context,
            log=log,
        )

    def _app(self) -> Flask:
        if has_app_context():
            return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]
        if len(self._apps) != 1:
            raise RuntimeError(_NO_APP)
        return next(iter(self._apps))

    def _gate(self) -> Gate:
        app = self._app()
        self._chat_of(app)  # which is ours
        gate: Gate = app.extensions[_GATE]
        return gate

    def _chat(self) -> Chat:
        return self._only or self._chat_of(self._app())

    def _chat_of(self, app: Flask) -> Chat:
        if app.extensions.get("wschat") is not self:
            raise RuntimeError(_NO_APP)
        chat: Chat = app.extensions[_CHAT]
        return chat


_NO_APP = (
    "which app? This WSChat has none or several: call init_app(app) first, and where"
    " it has several work inside `with app.app_context():`"
)
