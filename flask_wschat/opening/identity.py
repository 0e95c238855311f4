"""``Identity``: what ``WSChat`` has to say who a connection is of, and for how long."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask

from ..errors import BackendError
from ..logs import printable
from . import mistakes
from .gate import Gate

logger = logging.getLogger("flask_wschat")

Authenticate = TypeVar("Authenticate", bound=Callable[[], Any])


class Identity:
    """The part of ``WSChat`` that knows users, and no connection."""

    _authenticate: Callable[[], Any] | None = None

    def authenticate(
        self,
        function: Authenticate = None,  # type: ignore[assignment]  # told of below
    ) -> Authenticate:
        """Register who says which user a request is, before the 101.

        Called without arguments in the request context; returns the user id (a text, an
        integer, or an object whose class defines ``__str__``) or None for an anonymous
        one. ``abort(401)`` refuses. Anything else, such as False, "" or 0, is an error
        of the application's, answered with HTTP 500: it would make all strangers one.

        :raises TypeError: ``function`` takes arguments, or is ``async``.
        """
        mistakes.check_authenticate(function)
        self._authenticate = function
        return function

    def ticket(self, user: Any, seconds: float = 30) -> str:
        """Return a ticket: who connects with it within ``seconds`` is ``user``.

        For clients that do not have the application's cookie. It is good for one
        connection, of all processes together, presented as ``?ticket=…`` or as a
        subprotocol ``ticket.…``; ``authenticate`` is not asked then. ``seconds`` are a
        day at most. All processes share ``SECRET_KEY`` and ``WSCHAT_URL``.

        :raises RuntimeError: the application has no ``SECRET_KEY``.
        :raises TypeError: ``user`` is no user id, or ``seconds`` no number.
        :raises ValueError: the same, or there are too few or many.
        """
        return self._gate().tickets.make(user, seconds)

    def disconnect_on(
        self, signal: Any, code: int = 4001, reason: str = "logged out"
    ) -> None:
        """Close a user's connections, in all processes, whenever ``signal`` is sent.

        For Flask-Login's ``user_logged_out``, or any signal that is sent with a
        ``user``: a user id, or an object whose ``get_id()`` returns one. All their
        connections end, also those of another browser that is logged in still.

        :raises TypeError: ``signal`` is none.
        """
        if not callable(getattr(signal, "connect", None)):
            raise TypeError(f"a signal has connect(), unlike {signal!r}")

        def close(sender: Any, user: Any = None, **_: Any) -> None:
            if isinstance(sender, Flask) and sender.extensions.get("wschat") != self:
                return  # another application's
            name = user.get_id() if hasattr(user, "get_id") else user
            if name is None:
                return  # nobody was logged in
            try:
                self.disconnect_user(name, code, reason)
            except BackendError as error:
                # Logged out they are: that must not become an error.
                what = "%s is logged out, but connected still: %s"
                logger.error(what, printable(name), error)

        signal.connect(close, weak=False)

    # What it asks of the rest.

    def disconnect_user(self, user: Any, code: int = 4000, reason: str = "") -> int:
        raise NotImplementedError

    def _gate(self) -> Gate:
        raise NotImplementedError
