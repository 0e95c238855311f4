"""``WSChat``: the Flask extension.

Over 450 lines, as half of them tell what its methods promise.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from types import MethodType
from typing import Any, Literal, TextIO, TypeVar
from weakref import WeakSet

import click
from flask import Blueprint, Flask, current_app, has_app_context, request
from werkzeug.routing import WebsocketMismatch

from . import backends
from .chat.chat import Chat
from .chat.emitting import emit
from .chat.events import Events
from .chat.voting import Poll
from .envelope import PROTOCOL
from .hub.hub import Hub
from .messages import (
    ANONYMOUS,
    EVERYONE,
    Entry,
    Message,
    as_count,
    as_mid,
    as_name,
    as_publication,
    as_user,
    room_topic,
    shown,
    user_topic,
)
from .opening import mistakes, views
from .opening.gate import Gate
from .opening.health import Health
from .opening.hooks import Hooks
from .opening.identity import Identity
from .opening.plain import not_a_websocket
from .rate import Rate
from .running import folder as _folder  # noqa: F401  # it notes where we began
from .settings import SILENCE, Settings
from .shortcuts.contexts import AppContexts
from .transports import ending
from .transports.patched import patching_fault
from .websocket import Listener, WebSocket, as_close

logger = logging.getLogger("flask_wschat")

View = TypeVar("View", bound=Callable[..., Any])
ListenerClass = TypeVar("ListenerClass", bound=type[Listener])
Scope = Blueprint | Flask

_HUB = "wschat.hub"
"""Where ``app.extensions`` holds the ``Hub`` of an application."""
_CHAT = "wschat.chat"
"""Where it holds what its ready-made chat shares."""
_GATE = "wschat.gate"
"""Where it holds what all its opening handshakes share."""


class WSChat(Identity):
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
        hub = Hub(
            settings,
            backends.open(
                settings.URL,
                size=settings.HISTORY_SIZE,
                max_bytes=settings.HISTORY_BYTES,
                share=settings.INBOX_SHARE,
                ttl=settings.HISTORY_TTL,
                presence_ttl=SILENCE * (settings.PING_INTERVAL + settings.PING_TIMEOUT),
                wait=settings.REDIS_WAIT,
            ),
            dumps=app.json.dumps,
            loads=app.json.loads,
            call_each=AppContexts(app, quickly=settings.SHORTCUTS).call_each,
            report=views.Reporter(app),
        )
        if isinstance(hub.backend, backends.MemoryBackend):
            hub.alone = mistakes.Alone(app)
        if fault := patching_fault():
            logger.warning("%s", fault)
        app.extensions["wschat"] = self
        app.extensions[_HUB] = hub
        app.extensions[_CHAT] = chat = Chat(hub, self._has_logins)
        mistakes.note_settings(app)
        self._only = None if self._apps else chat
        self._apps.add(app)
        for add_rule in self._rules:
            add_rule(app)
        client = Blueprint(
            "wschat", __name__, static_folder="static", static_url_path="/_wschat"
        )
        Health(hub, client)
        app.register_blueprint(client)
        app.extensions[_GATE] = gate = Gate(app, hub, self._who)
        answer = functools.partial(not_a_websocket, gate=gate)
        app.register_error_handler(WebsocketMismatch, answer)
        Hooks(app, gate)
        command = click.get_current_context(silent=True)
        if command is not None and command.info_name == "run":
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
            *(serve, subprotocols, limit if plain else None, made_of, decorators),
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
        room: Any = None,
        exclude: WebSocket | None = None,
        key: Any = None,
        keep: bool = True,
        mid: Any = None,
    ) -> int:
        """Publish ``data`` to ``room``, or to every connection.

        ``str`` goes as text, ``bytes`` as binary, anything else as JSON. ``exclude``
        is a connection left out (but for kept messages to the ready-made chat, where a
        missing number would be a hole). ``key``: to a peer that is behind, only the
        newest unsent message with this key is sent.

        What is said in a room is kept in its history, but with a ``key`` or
        ``keep=False``. ``mid``, of up to 64 characters, is the application's name for a
        kept message, as a task's id: where one with this ``mid`` was published in the
        room before, nothing is stored or sent, and that one's number returned. So what
        ended with ``BackendError`` can be tried again. It is remembered as long as what
        clients say (``docs/protocol.md``, Once), and seen by those of the ready-made
        chat.

        Return the message's number in the room's history; 0 if it is not kept.
        Returning means published, not received: each connection has its own queue, and
        no receiver's trouble is raised here.

        :raises TypeError: JSON has no such ``data``, or an argument is not what it is
            to be; nothing was sent.
        :raises ValueError: ``data`` has what nobody could read: half a surrogate pair,
            or NaN or an infinity in JSON; or a ``mid`` is given for what is not kept.
        :raises BackendError: it is not known whether it was sent.
        """
        hub, topic = self._hub(), _place(room)
        message = as_publication(data, key, hub.dumps)
        if exclude is not None:
            if not isinstance(exclude, WebSocket):
                raise TypeError(f"exclude is a WebSocket, unlike {shown(exclude)}")
            message = message._replace(exclude=exclude.id)
        if not isinstance(keep, bool):
            raise TypeError(f"keep is True or False, unlike {shown(keep)}")
        keep = keep and key is None and room is not None
        return hub.publish(topic, _named(message, mid, keep), keep=keep).seq

    def emit(
        self,
        type: str,
        *,
        room: Any = None,
        user: Any = None,
        exclude: WebSocket | None = None,
        key: Any = None,
        **fields: Any,
    ) -> None:
        """Send an event of your own to ``room``, to ``user``, or to everyone.

        It is told once and kept nowhere: for cursors, who is typing, what has moved.
        All connections of ``Events`` and ``ChatListener`` classes get it which are
        there now, in all processes, as one JSON object of ``type``, ``room``, ``from``
        (null) and ``fields``; sockets of other routes don't. ``exclude`` is a
        connection left out. ``key``: to a peer that is behind, only the newest unsent
        event of this type and ``key`` in this place is sent.

        Fields may be what msgspec encodes, dataclasses for example, and what the
        application's JSON provider does.

        :raises TypeError: JSON has no such field, or an argument is not what it is to
            be; nothing was sent.
        :raises ValueError: the type or a field is the protocol's own, ``room`` and
            ``user`` are both given, or a field cannot be read by anybody.
        :raises BackendError: it is not known whether it was sent.
        """
        emit(
            *(self._chat(), type, fields),
            room=room,
            user=user,
            key=key,
            exclude=exclude,
        )

    def send_to_user(
        self, user: Any, data: Any, *, key: Any = None, mid: Any = None
    ) -> int:
        """Send ``data`` to every connection of ``user``, and keep it in their inbox.

        ``data``, ``key`` and ``mid`` as for ``broadcast``; with a ``key`` it is not
        kept. Return how many connections the user has now, in all processes; 0 means
        that nobody got it yet. (Those of the ready-made chat get it once they ask for
        the inbox.)

        :raises TypeError: as for ``broadcast``.
        :raises ValueError: as for ``broadcast``.
        :raises BackendError: it is not known whether it was sent.
        """
        hub, name, keep = self._hub(), as_user(user), key is None
        message = _named(as_publication(data, key, hub.dumps), mid, keep)
        hub.publish(user_topic(name), message, keep=keep)
        return hub.presence.connections(name)

    def delete(self, room: Any, seq: int) -> bool:
        """Take back the kept message ``seq`` of ``room``; False: it is not kept there,
        or was taken back before.

        Its number, and when it was stored, remain: the history has an entry with
        ``data`` None that is ``deleted``, and no sender. Members of the room by the
        ready-made chat are told at once; sockets of your own routes, which get no
        numbers, are not. What was sent before cannot be had back.

        :raises TypeError: ``seq`` is no integer, or ``room`` no name.
        :raises ValueError: ``seq`` is negative, or ``room`` cannot be a name.
        :raises BackendError: it is not known whether it was taken back.
        """
        topic, seq = room_topic(as_name(room, "a room")), as_count(seq, "seq")
        return self._hub().backend.delete(topic, seq)

    def disconnect_user(self, user: Any, code: int = 4000, reason: str = "") -> int:
        """Close every connection of ``user``, in all processes; return how many.

        Call it where a user logs out or is banned: a socket outlives the session that
        opened it. ``code`` and ``reason`` as for ``ws.close``.

        :raises ValueError: ``code`` may not be sent; nothing was closed.
        :raises BackendError: it is not known whether they were closed.
        """
        hub, name = self._hub(), as_user(user)
        code, reason = as_close(code, reason)
        count = hub.presence.connections(name)
        hub.publish(user_topic(name), Message(reason, close_code=code))
        return count

    def online(self, room: Any = None) -> list[str]:
        """Return the users connected, or in ``room``: sorted, each once.

        Those of all processes; of one that was killed up to ``WSCHAT_PING_INTERVAL`` +
        ``WSCHAT_PING_TIMEOUT`` seconds longer.

        :raises BackendError: those of other processes cannot be known.
        """
        return self._hub().presence.online(_place(room))

    def is_online(self, user: Any) -> bool:
        """Return whether ``user`` is connected, to any process; as in ``online``.

        One look-up, however many users there are: ask this, not ``in chat.online()``.

        :raises BackendError: those of other processes cannot be known.
        """
        return self._hub().presence.has(as_user(user))

    def history(
        self, room: Any, *, after: int | None = None, limit: int = 50
    ) -> list[Entry]:
        """Return kept messages of ``room`` in order: entries with ``seq``, ``data`` (as
        it was said: ``str``, ``bytes`` or another value), ``at`` (seconds since 1970)
        and ``sender`` (None: the application, or somebody without a user id). One that
        ``delete`` took back is ``deleted``, with ``data`` None.

        With ``after`` the first ``limit`` that follow this number, else the newest.

        :raises ValueError: a number is negative.
        :raises BackendError: it cannot be read.
        """
        hub, topic = self._hub(), room_topic(as_name(room, "a room"))
        after = None if after is None else as_count(after, "after")
        limit = as_count(limit, "limit")
        page = hub.backend.history(topic, after=after, limit=limit)
        return [_as_said(hub, entry) for entry in page.entries]

    def poll(self, name: str, options: Iterable[str], *, room: Any = None) -> Poll:
        """Return the poll ``name``, made at the first call.

        Make it where you make routes, in each process. How it stands is sent to the
        ready-made chat's connections: those in ``room``, or all.

        :raises ValueError: the name or the options cannot be used, or the poll was
            made with others.
        """
        room = None if room is None else as_name(room, "a room")
        return self._chat().poll(name, options, room)

    def run(
        self,
        app: Flask | None = None,
        host: str | None = None,
        port: int | str | None = None,
        *,
        debug: bool | None = None,
        reload: bool | None = None,
        patch: bool = True,
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
        when one of its files changes.

        ``log`` gets a line for each request, and for each WebSocket one when it opens
        and one when it ends; with None nobody does.

        :raises ValueError: ``port`` is no number from 0 to 65535.
        """
        from .server import prepare, run  # up a layer, for the user's convenience

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
        run(app, hub, host, number, debug=app.debug, reload=reload, log=log)

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

    def _hub(self) -> Hub:
        return (self._only or self._chat_of(self._app())).hub

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


def _place(room: Any) -> str:
    """Return the topic of ``room``, or of everybody."""
    return EVERYONE if room is None else room_topic(as_name(room, "a room"))


def _named(message: Message, mid: Any, keep: bool) -> Message:
    """Return ``message`` with the application's ``mid``, if there is one.

    :raises ValueError: it would be of no use.
    """
    if mid is None:
        return message
    mid = as_mid(mid)
    if not keep:
        raise ValueError(
            "mid is for what is kept: not to everyone, nor with a key or keep=False"
        )
    return message._replace(mid=mid)


def _as_said(hub: Hub, entry: Entry) -> Entry:
    data, sender = entry.data, entry.sender
    if sender is not None and sender.startswith(ANONYMOUS):
        sender = None
    return entry._replace(data=hub.loads(data) if entry.json else data, sender=sender)
