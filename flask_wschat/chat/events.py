"""``Events``: named requests on one socket, each read, checked and answered once.

Those of ``docs/protocol.md`` in ``ChatListener``, and an application's own beside them:
see docs/decisions/50.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec
from werkzeug.exceptions import HTTPException

from .. import endings, envelope
from ..errors import (
    BackendError,
    ConnectionClosed,
    OutOfOrder,
    ShareTaken,
    TooManyStreams,
    check_ran,
)
from ..hub.hub import Hub
from ..messages import as_name
from ..rate import Bucket, Rate
from ..websocket import Listener, WebSocket
from . import fields
from .answers import Answers
from .chat import Chat
from .emitting import emit
from .fields import Request, RequestError
from .handlers import Handler, declared_by, event, handlers_of, request
from .streams import ASKER

__all__ = ["PATIENCE", "Events", "event"]

PATIENCE = 20
"""Messages over the limit, or that are no requests, more than requests within it, that
a connection survives. Rooms and bytes over theirs do not count: the messages' own limit
bounds them, and who waits as it was told finds that another tab took what there was."""


class Events(Listener):
    """Methods under ``@event`` that clients call, by requests that have replies.

    They run in order and one at a time, in an app context, each once all that was asked
    before is answered. What one returns is the reply's ``result``; ``abort(403,
    "why")`` and ``PermissionError`` refuse. Any other exception is answered by
    ``internal``, and told to the application; the connection stays open.
    """

    awaits_room = True
    _event = ""  # each is instrumented under its own name
    emits: ClassVar[Mapping[str, Any]] = {}
    """What it sends by ``emit``: the types of the fields of each, as ``{"moved":
    Moved}``, a TypedDict, a dataclass or a Struct; for documents, and to be checked."""

    ws: WebSocket
    """The connection; there before ``on_open`` is called."""

    _chat: Chat  # its application's, given by who makes one
    _limit: Rate | None = None  # its route's
    _address: str | None = None  # its client's, as far as it is known
    # Of a connection that never got so far as `_begin`.
    _bucket: Bucket | None = None
    _answers: Answers | None = None  # to those that have asked anything
    _buckets: dict[str, Bucket] | None = None  # of events with a limit of their own
    _refused = 0  # messages over the limit or no requests, less requests since

    _handlers: ClassVar[dict[str, Handler]]
    _declared: ClassVar[Mapping[str, msgspec.json.Decoder[Any]]] = {}
    _checks: ClassVar[bool]  # whether there is a `before_event`

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._handlers = handlers_of(cls)
        cls._declared = declared_by(cls, cls.emits)
        cls._checks = cls.before_event is not Events.before_event

    def before_event(self, ws: WebSocket, name: str, request: dict[str, Any]) -> Any:
        """Called before each request is handled, also those of the ready-made chat.

        ``request``: all its fields, unchecked. False, ``PermissionError`` or an
        ``abort(403, "why")`` refuses it.
        """

    # -- what a listener has

    def _begin(self, ws: WebSocket) -> None:
        self.ws = ws
        self._hub: Hub = self._chat.hub
        self._bucket = self._chat.bucket(ws, self._limit)
        ping, limits = self._hub.settings.PING_INTERVAL, self._limits(ws)
        ws.send(envelope.hello(ws.id, ws.user, ping=ping, limits=limits))
        ws._transport.loop.call(self._attach, ws)

    def _limits(self, ws: WebSocket) -> dict[str, Any]:
        """Return what a client is told of how much it may do."""
        return {
            "message": self._hub.settings.MAX_MESSAGE,
            "depth": fields.MAX_DEPTH,
            "rate": envelope.rate(self._bucket),
        }

    def _attach(self, ws: WebSocket) -> None:
        self._hub.attach(ws, hearing=True)

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        if ws.closed:
            return  # what it asked before costs us, and nobody hears the answer
        ref: int | None = None
        name = ""
        answers, signals = self._answers, self._hub.signals
        if answers is None:
            answers = self._answers = Answers(ws, self._hub.event)
        # Whatever it is: what cannot be read has been sent, received and answered, too.
        wait = 0.0 if self._bucket is None else self._bucket.take()
        try:
            request = fields.parse(message)
            ref = fields.ref(request)
            if wait:
                raise RequestError("rate_limited", "too many requests")
            if ref is None:
                raise RequestError(
                    "bad_request",
                    f"ref must be an integer from 0 to {fields.MAX_INTEGER}",
                )
            if self._refused:
                self._refused -= 1
            handler = self._handler(request)
            name = handler.name
            if answers.asked != answers.answered and not handler.beside:
                answers.settle()
            if handler.limit is not None:
                self._pay_for(handler)
            if self._checks:
                answers.settle()  # it may look at what was said before
                self._allow(self.before_event, ws, name, request, unless=False)
            if signals.factories:
                called = (self._call, handler, ref, request, len(message))
                reply = signals.call(ws, name, request, *called)
            else:
                reply = self._call(handler, ref, request, len(message))
        except RequestError as refused:
            wait = wait or refused.wait
            if wait or ref is None:
                self._refuse(ws, answers, ref, refused, wait)
                return
            reply = envelope.refusal(ref, refused.code, str(refused))
        except ConnectionClosed as error:
            if ws.closed:
                raise
            reply = self._failure(ws, ref, error, name, message)  # another one's
        except Exception as error:
            reply = self._failure(ws, ref, error, name, message)
        if reply is not None:
            answers.send(reply)

    def _is_full(self) -> bool:
        answers = self._answers
        if answers is None or answers.asked == answers.answered:
            return False
        return answers.full

    # -- what an application calls

    def emit(
        self,
        type: str,
        *,
        room: Any = None,
        user: Any = None,
        key: Any = None,
        echo: bool = True,
        **fields: Any,
    ) -> None:
        """Send an event of your own, from this connection's user: ``WSChat.emit``.

        To a room only where this connection is in it; else the client, whose request
        is handled just now, is answered ``not_joined``. ``echo`` False leaves this
        connection out. The errors are those of ``WSChat.emit``; ``TypeError`` as well
        where ``emits`` says otherwise.
        """
        ws = self.ws
        if room is not None and as_name(room, "a room") not in (ws._rooms or ()):
            raise RequestError("not_joined", NOT_JOINED)
        emit(
            *(self._chat, type, fields),
            room=room,
            user=user,
            key=key,
            exclude=None if echo else ws,
            sender=ws.user,
            declared=self._declared.get(type),
        )

    # -- requests: each returns its reply, or None where that is sent

    @request("ping", beside=True)
    def _ping(self, ref: int) -> str:
        """Ask whether the server is still there."""
        return envelope.reply(ref)

    # -- within

    def _handler(self, request: Request) -> Handler:
        kind = request.get("type")
        if not isinstance(kind, str):
            raise RequestError("bad_request", "type must be a text")
        handler = self._handlers.get(kind)
        if handler is None:
            raise RequestError(
                "unknown_type", f"no such type of request: {kind[:50]!r}"
            )
        return handler

    def _call(
        self, handler: Handler, ref: int, request: Request, size: int
    ) -> str | None:
        """Have an event handled; return the reply, or None where that is sent."""
        if handler.own:
            values = handler.values(request)
            reply: str | None = getattr(self, handler.method)(ref, *values)
            return reply
        fields.check_depth(request, size)
        values = handler.values(request)
        asker = ASKER.set(self.ws.user)
        try:
            result = handler.call(self, values)
        except Exception as error:
            refused = _refusal(error)
            if refused is None:
                raise
            raise refused from None
        finally:
            ASKER.reset(asker)
        if result is None:
            return envelope.reply(ref)
        try:
            return envelope.result(ref, self._chat.encode(result))
        except TypeError:
            check_ran(result, getattr(self, handler.method))
            raise

    def _pay_for(self, handler: Handler) -> None:
        """:raises RequestError: the event comes more often than its limit says."""
        if self._buckets is None:
            self._buckets = {}
        bucket = self._buckets.get(handler.name)
        if bucket is None:
            assert handler.limit is not None
            bucket = self._chat.event_bucket(self.ws, handler.name, handler.limit)
            self._buckets[handler.name] = bucket
        if wait := bucket.take():
            raise RequestError("rate_limited", f"too many of {handler.name!r}", wait)

    def _allow(
        self, hook: Callable[..., Any], *args: Any, unless: bool | None = None
    ) -> None:
        """Raise ``RequestError`` where ``hook`` refuses.

        By what it returns as well: ``unless`` False, or else whatever is false.
        """
        try:
            allowed = hook(*args)
            if allowed is not True:
                check_ran(allowed, hook)  # what did not run would allow everything
        except Exception as error:
            refused = _refusal(error, any_is_forbidden=unless is None)
            if refused is None:
                raise
            raise refused from None
        if allowed is False or (unless is None and not allowed):
            raise RequestError("forbidden", _FORBIDDEN)

    def _failure(
        self,
        ws: WebSocket,
        ref: int | None,
        error: Exception,
        name: str,
        *message: str | bytes,
    ) -> str:
        """Return the reply to what ended with ``error``; report a strange one."""
        if isinstance(error, ShareTaken | TooManyStreams):
            return envelope.refusal(ref, "too_many", str(error))
        if isinstance(error, OutOfOrder):
            return envelope.refusal(ref, "out_of_order", str(error))
        if isinstance(error, BackendError):
            return envelope.refusal(ref, "unavailable", _UNAVAILABLE)
        told = self._hub.report(error, ws, name, *message) or "an error in the server"
        return envelope.refusal(ref, "internal", told)

    def _refuse(
        self,
        ws: WebSocket,
        answers: Answers,
        ref: int | None,
        refused: RequestError,
        wait: float,
    ) -> None:
        """Answer what is no request, or over the limit; but not for ever."""
        self._refused += 1
        if self._refused > PATIENCE:
            answers.settle()
            ending = endings.RATE_LIMIT if wait else endings.NO_REQUESTS
            ws._tell_rule(f"goes on and on: {ending.reason}")
            ws.close(*ending)
        elif wait:
            wait = round(wait + 0.0005, 3)
            message = f"{refused}: wait {wait} s"
            text = envelope.refusal(ref, "rate_limited", message, retry_after=wait)
            answers.send(text)
        else:
            answers.send(envelope.refusal(ref, refused.code, str(refused)))


Events._handlers = handlers_of(Events)
Events._checks = False

NOT_JOINED = "you are not in this room: join it first"
_UNAVAILABLE = "the storage cannot be reached now"
_FORBIDDEN = "the application does not allow it"
_CODES: dict[int, envelope.ErrorCode] = {
    400: "bad_request",
    401: "unauthorized",
    413: "too_big",
    422: "bad_request",
    429: "rate_limited",
}
"""What ``abort`` says; any other 4xx is "forbidden"."""


def _refusal(
    error: Exception, *, any_is_forbidden: bool = False
) -> RequestError | None:
    """Return what an application's ``error`` says to the client; None: nothing."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, PermissionError):
        return RequestError("forbidden", str(error) or _FORBIDDEN)
    if not isinstance(error, HTTPException):
        return None
    status = error.code or 0
    if error.response is not None:  # of an abort(response)
        status = getattr(error.response, "status_code", status)
    if not 400 <= status < 500:
        return None
    code: envelope.ErrorCode = "forbidden"
    if not any_is_forbidden:
        code = _CODES.get(status, code)
    return RequestError(code, str(error.description or _FORBIDDEN))
