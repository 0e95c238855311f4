"""Who may come in: what all openings of an application share, and their limits."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from ..backends import Backend, MemoryBackend
from ..errors import BackendError, HandshakeError
from ..hub.hub import Hub
from ..hub.places import network_of
from ..logs import SparingLog, facts, printable
from ..rate import Buckets
from ..shortcuts import may_take
from ..shortcuts.response import NoAnswer
from .answers import refusal
from .origins import is_one_of, is_rebound
from .tickets import Tickets

logger = logging.getLogger("flask_wschat")

USER = "wschat.user"
"""Where an environ says who the user is: the test client's, or a middleware's."""


class Gate:
    """What all openings of an application share: who is asked, how many may be in."""

    def __init__(self, app: Flask, hub: Hub, authenticate: Callable[[], Any]) -> None:
        self.hub = hub
        self.authenticate = authenticate
        self.tickets = Tickets(app, hub.backend)
        self._app_config = app.config
        self._threads = 0  # held by sockets
        self._lock = threading.Lock()
        self._told_of_no_address = False
        self.buckets = Buckets()
        """What the users of routes with a limit may send."""
        self.storm = 0
        """Connections from which on a worker's restart brings many new requests."""
        self.log = SparingLog(logger)  # of what clients can make us say
        self.no_answer = (
            NoAnswer
            if may_take(hub.settings.SHORTCUTS, "flask", "werkzeug")
            else Response
        )
        """What a view returns whose socket the server does not have any more."""

    def check_origin(
        self, environ: dict[str, Any], asked: Any, *, own_only: bool = False
    ) -> None:
        """Raise the refusal that a browser's request deserves for its page, if any.

        ``own_only``: whatever else is allowed, only pages of this server are fine.

        Also one with a ticket: where a page of another site opens a socket, the cookies
        of this one come along, and a view may believe them.
        """
        origin = environ.get("HTTP_ORIGIN")
        if origin is None:
            return  # not a browser
        allowed = None if own_only else self.hub.settings.ORIGINS
        host = asked.host
        own = f"{asked.scheme}://{host}"
        if allowed is None:
            fine = origin == own or is_one_of(origin, [own])
        else:
            fine = is_one_of(origin, [allowed] if isinstance(allowed, str) else allowed)
        if not fine and own_only and self.hub.settings.ORIGINS is not None:
            self._warn(
                "origin",
                "refused a WebSocket from origin '%s': this server is '%s', and nobody"
                " else's pages get this socket. Behind a proxy, add ProxyFix",
                *(printable(origin), printable(own)),
            )
            raise HandshakeError(403, "this origin is not allowed")
        if not fine:
            self._warn(
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
            and host != self.server_name
            and is_rebound(host, environ)
        ):
            self._warn(
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

    def by_ticket(self, environ: dict[str, Any], *, use: bool = True) -> str | None:
        """Return the user whose ticket a request has; None: it has none.

        With ``use`` False the ticket is as good afterwards as before.

        :raises HandshakeError: it is for nobody, or that cannot be known now.
        """
        try:
            return self.tickets.user_of(environ, use=use)
        except HandshakeError as error:
            self._warn("ticket", "refused a WebSocket: %s", error)
            raise
        except BackendError:
            raise no_storage() from None

    def count_thread(self, limit: int, change: int) -> None:
        """Note that a socket begins (1) or ends (-1) to hold one of ``limit`` threads.

        A listener's does only while it opens; a blocking view's, or one with TLS, as
        long as it lives.
        """
        with self._lock:
            self._threads += change
            if change < 0 or not limit or self._threads != max(limit * 4 // 5, 1):
                return
        self._warn(
            "threads",
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

    def exhausted(self, error: BaseException) -> HTTPException:
        """Return the refusal of a process that can have no more of something."""
        self._warn(
            "exhausted",
            "refused a WebSocket: this process can have no more open files, or threads:"
            " %s. See ulimit -n; WSCHAT_MAX_CONNECTIONS refuses before that",
            error,
        )
        message = "too many connections, try again later"
        return refusal(503, message, [("Retry-After", "5")])

    def take_place(self, holder: object, route: str, address: str | None) -> None:
        """Take a place for a connection to be, and one of those for its address.

        :raises HandshakeError: all are taken; ``holder`` has none.
        """
        places, settings = self.hub.places, self.hub.settings
        assert places is not None
        limit = settings.MAX_CONNECTIONS_PER_ADDRESS
        if limit is not None:
            if not address:
                self._warn_of_no_address()
            else:
                name, whom = "MAX_CONNECTIONS_PER_ADDRESS", network_of(address)
                if not places.take(holder, (name, whom), limit):
                    self._warn(
                        "address",
                        "refused a WebSocket on %s: %s has WSCHAT_%s = %d of them here."
                        " If that is a proxy of yours, add ProxyFix",
                        *(route, printable(whom), name, limit),
                    )
                    raise _too_many(429, "too many connections from your address")
        limit = settings.MAX_CONNECTIONS
        name = "MAX_CONNECTIONS"
        if limit is not None and not places.take(holder, (name, ""), limit):
            places.give_back(holder)
            self._warn("full", "refused a WebSocket: WSCHAT_%s = %d", name, limit)
            raise _too_many(503, "too many connections")

    def take_place_of(self, user: str, holder: object, route: str) -> None:
        """Take one of the places for connections of ``user``.

        :raises HandshakeError: all are taken; ``holder`` has none of any kind.
        """
        places, limit = self.hub.places, self.hub.settings.MAX_CONNECTIONS_PER_USER
        assert places is not None
        name = "MAX_CONNECTIONS_PER_USER"
        if limit is not None and not places.take(holder, (name, user), limit):
            places.give_back(holder)
            self._warn(
                "user",
                "refused a WebSocket on %s: user %s has WSCHAT_%s = %d of them here",
                *(route, printable(user), name, limit),
                user=user,
            )
            raise _too_many(429, "too many connections of this user")

    def _warn(
        self, kind: str, message: str, *args: Any, user: str | None = None
    ) -> None:
        """Warn of the request that is under way, sparingly."""
        asked = request if request else None  # none where no loop could be started
        about = facts(
            kind,
            route=getattr(asked and asked.url_rule, "rule", None),
            user=user,
            address=asked.remote_addr if asked else None,
        )
        self.log.warning(kind, message, *args, about=about)

    def _warn_of_no_address(self) -> None:
        if not self._told_of_no_address:
            self._told_of_no_address = True
            logger.warning(
                "WSCHAT_MAX_CONNECTIONS_PER_ADDRESS limits nobody: the server knows no"
                " address of a client, as behind a Unix socket. Have the proxy send"
                " X-Forwarded-For, and add ProxyFix"
            )


def _too_many(status: int, message: str) -> HandshakeError:
    return HandshakeError(status, f"{message}, try again later", [("Retry-After", "5")])


def no_storage() -> HandshakeError:
    """Return the refusal of who came while the backend cannot be asked."""
    return HandshakeError(
        503, "the chat's storage is not there now", [("Retry-After", "2")]
    )


class Worker:
    """gunicorn's worker, where this process is one: its method is SIGTERM's handler.

    It waits for views under way before it ends, and blocking views wait for their
    clients: the sockets must be closed when that wait begins.
    """

    def __init__(self) -> None:
        self._worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        cfg = getattr(self._worker, "cfg", None)
        self.max_requests = int(getattr(cfg, "max_requests", 0))
        """Requests after which it ends; 0: any number."""
        # It is killed, too, when it has not reported for `timeout` seconds.
        times = [getattr(cfg, name, 0) for name in ("graceful_timeout", "timeout")]
        least = min((seconds for seconds in times if seconds), default=math.inf)
        self.grace = max(least / 2, least - _UNSEEN)
        """Seconds that it has, at least, from when it is seen that it stops."""
        self.workers = int(getattr(cfg, "workers", 1))

    def is_stopping(self) -> bool:
        return not getattr(self._worker, "alive", True)


_UNSEEN = 2.5  # seconds: two turns of the worker's own, and half of one to exit


def find_worker(backend: Backend) -> Worker:
    """Return what is known of this process's server; warn where it has many."""
    worker = Worker()
    if worker.workers > 1 and isinstance(backend, MemoryBackend):
        logger.warning(
            "each of %d workers has rooms and users of its own: set WSCHAT_URL to"
            " redis://... or sqlite:///... for all to share them",
            worker.workers,
        )
    return worker
