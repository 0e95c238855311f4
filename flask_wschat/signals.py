"""What happens to connections, as blinker's signals; and what sends them.

Receivers never run in the loop, what they raise is logged and harms nobody, and while
there are none they cost nothing: see docs/decisions/61.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from blinker import NamedSignal, Namespace

from .errors import ConnectionClosed, check_ran
from .transports.ending import is_order

__all__ = ["connected", "disconnected", "message_received", "refused", "slow_peer"]

_namespace = Namespace()

connected = _namespace.signal(
    "connected",
    "``(app, ws)``: a connection was opened. Sent in its handshake's request, before"
    " any code of its route has it.",
)
disconnected = _namespace.signal(
    "disconnected",
    "``(app, ws, code, reason)``: it has ended. Sent exactly once for each that"
    " ``connected`` told of, after its ``on_close``.",
)
refused = _namespace.signal(
    "refused",
    "``(app, environ, status, reason)``: a handshake was answered by an HTTP error.",
)
message_received = _namespace.signal(
    "message_received",
    "``(app, ws, message)``: a message is about to be handled, or received by a view.",
)
slow_peer = _namespace.signal(
    "slow_peer",
    "``(app, ws, why)``: a peer does not read what it is sent; it is closed, or loses"
    " messages (``WSCHAT_SLOW_POLICY``).",
)

CallEach = Callable[[Callable[[Any, Any], Any], Any, Iterable[Any]], None]
"""What ``call_each`` is, each call in a fresh context of the application."""
Factory = Callable[[Any, str, Any], contextlib.AbstractContextManager[Any]]
"""Makes what is entered around a handler's call, of its ``ws, event, message``."""


def call_each(
    function: Callable[[Any, Any], Any], subject: Any, each_of: Iterable[Any]
) -> None:
    """Call ``function(subject, each)`` for each; the first error ends that.

    Each in context variables of its own.
    """
    for each in each_of:
        contextvars.Context().run(function, subject, each)


class Signals:
    """Sends the signals of one application; the engine tells it what happens."""

    def __init__(
        self,
        app: Any = None,
        call_each: CallEach = call_each,
        factories: list[Factory] | None = None,
    ) -> None:
        self._app = app
        self._call_each = call_each
        self.report: Callable[..., Any] | None = None
        """Told of what receivers raise."""
        self.receivers: Any = message_received.receivers
        """Of messages; while there are none it is told of none."""
        self.factories = [] if factories is None else factories
        """What ``WSChat.instrument`` was given."""
        self.owed: set[Any] = set()
        """Connections that have ended, and nobody was told."""
        self._slow: set[Any] = set()  # of which receivers are just told

    # -- in a worker, or in the request's own thread or greenlet

    def connected(self, ws: Any) -> None:
        """Send ``connected``, in the context that the caller is in."""
        try:
            self._send(connected, ws, {"ws": ws})
        finally:
            ws._in_loop(functools.partial(self._connected, ws))

    def end(self, ws: Any) -> None:
        """Send ``disconnected``, once, though several threads were about to."""
        try:
            self.owed.remove(ws)
        except KeyError:
            return
        code, reason = ws.close_code, ws.close_reason
        self._tell(disconnected, ws, {"ws": ws, "code": code, "reason": reason})

    def message(self, ws: Any, message: str | bytes) -> None:
        self._tell(message_received, ws, {"ws": ws, "message": message})

    def refused(self, environ: dict[str, Any], status: int, reason: str) -> None:
        told = {"environ": environ, "status": status, "reason": reason}
        self._tell(refused, None, told)

    # -- in the loop

    def _connected(self, ws: Any) -> None:
        ws._told = not ws.closed or self.owes(ws)
        if ws.closed:
            ws._wake()

    def owes(self, ws: Any) -> bool:
        """Note that ``ws`` has ended; False: nobody is to be told."""
        if disconnected.has_receivers_for(self._app):
            self.owed.add(ws)
        return ws in self.owed

    def slow(self, ws: Any, why: str) -> None:
        """Send ``slow_peer`` in a worker; not while it is just sent of the same."""
        if ws in self._slow or not slow_peer.has_receivers_for(self._app):
            return
        self._slow.add(ws)

        def tell() -> None:
            try:
                self._tell(slow_peer, ws, {"ws": ws, "why": why})
            finally:
                self._slow.discard(ws)

        ws._transport.loop.run(tell)

    # -- around handlers

    def observed(
        self, handler: Callable[[Any, Any], Any], event: str
    ) -> Callable[[Any, Any], Any]:
        """Return ``handler`` of messages, with all that is told of each.

        ``event``: its name for ``instrument``; "" where it names each by itself.
        """

        def call(ws: Any, message: str | bytes) -> None:
            if self.receivers:
                self.message(ws, message)
            if event:
                self.call(ws, event, message, handler, ws, message)
            else:
                handler(ws, message)

        return call

    def call(
        self,
        ws: Any,
        event: str,
        message: Any,
        handler: Callable[..., Any],
        *args: Any,
        **options: Any,
    ) -> Any:
        """Call ``handler`` with ``args``, instrumented as that event of ``ws``."""
        if not self.factories:
            return handler(*args, **options)
        with self._instrumented(ws, event, message):
            return handler(*args, **options)

    def close(self, ws: Any, listener: Any) -> None:
        """Tell ``listener`` of the end."""
        if getattr(type(listener), "on_close", None) is ws._no_on_close:
            return  # it has none
        code, reason = ws.close_code, ws.close_reason
        with contextlib.suppress(ConnectionClosed):  # it speaks to others who left
            self.call(ws, "on_close", None, listener.on_close, ws, code, reason)

    @contextlib.contextmanager
    def _instrumented(self, ws: Any, event: str, message: Any) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for factory in self.factories:
                with self._harmless(ws, event, "instrument"):
                    around = factory(ws, event, message)
                    around.__enter__()
                    stack.push(functools.partial(self._leave, around, ws, event))
            yield

    def _leave(
        self,
        around: contextlib.AbstractContextManager[Any],
        ws: Any,
        event: str,
        *error: Any,
    ) -> None:
        """Leave ``around``; what the handler raised goes on, whatever that returns."""
        with self._harmless(ws, event, "instrument"):
            around.__exit__(*error)

    # -- within

    def _tell(self, signal: NamedSignal, ws: Any, told: dict[str, Any]) -> None:
        """Send ``signal`` in a fresh context of the application."""
        if signal.has_receivers_for(self._app):
            self._call_each(functools.partial(self._send, signal), ws, [told])

    def _send(self, signal: NamedSignal, ws: Any, told: dict[str, Any]) -> None:
        for receiver in signal.receivers_for(self._app):
            with self._harmless(ws, signal.name, f"a receiver of {signal.name}"):
                check_ran(receiver(self._app, **told), receiver)

    @contextlib.contextmanager
    def _harmless(self, ws: Any, event: str, where: str) -> Iterator[None]:
        """Report what is raised within, unless it is for the program or greenlet."""
        try:
            yield
        except BaseException as error:
            killed = ws is not None and ws._transport.loop.has_killed(error)
            if killed or is_order(error) or self.report is None:
                raise
            self.report(error, ws, event, where=where)
