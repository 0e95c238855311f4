"""``WebSocket`` and ``Listener``: what a user of the package holds and writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from . import endings
from .codec import is_sendable
from .codec.accelerated import encode_message
from .codec.closing import cut_reason
from .errors import ConnectionClosed
from .incoming import Callbacks
from .messages import as_json, from_json, shown
from .peer import Peer
from .rate import Bucket


class Listener:
    """One connection's events; subclass it, one instance is made per connection.

    Calls come in order and one at a time. All three may wait: an idle connection holds
    nothing, a waiting one a greenlet (or thread).
    """

    awaits_room = False
    """Whether messages wait while over half of the queue to the peer is taken.

    For those that are answered each: who does not read the answers gets no more, and
    half of the queue is left for what others send. No worker waits with them.
    """
    app_context = True
    """Whether ``on_message`` and ``on_close`` run in a fresh app context."""
    _event = "on_message"
    """What ``WSChat.instrument`` is told that ``on_message`` handles; "": the listener
    tells it by itself."""

    # `*args: Any` is for the type checker: an override may name the URL's arguments.
    def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
        """The 101 is sent; runs in the request context of the handshake."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        """A message came: text as ``str``, binary as ``bytes``."""

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        """The connection ended, whatever ended it; called exactly once."""

    def _begin(self, ws: WebSocket) -> None:
        """Called before ``on_open``."""

    def _is_full(self) -> bool:
        """Whether messages wait until what was asked before is answered; asked only
        where ``awaits_room``."""
        return False


class WebSocket(Peer):
    """One open connection.

    Every method may be called from any greenlet or thread; ``receive`` from the one
    that the view runs in.
    """

    __slots__ = ()

    user: str | None
    """The user id that ``authenticate`` returned, or None."""
    subprotocol: str | None
    """The negotiated subprotocol, or None."""
    closed: bool
    """True from the first sign of the end: nothing can be sent any more."""
    close_code: int | None
    """Why it ended: the close code that came first, ours or the peer's."""
    close_reason: str
    """The words that came with it, or ""."""

    _no_on_close = staticmethod(Listener.on_close)

    @property
    def id(self) -> str:
        """A name for this connection, unique among all processes."""
        return self._id or self._name()

    @property
    def route(self) -> str:
        """The rule that its URL has matched, as ``/rooms/<name>``."""
        return self._route

    @property
    def address(self) -> str | None:
        """The client's, as ``request.remote_addr`` had it; None: the server knows none,
        as behind a Unix socket."""
        return self._address

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms this connection is in."""
        return frozenset(self._rooms or ())

    def join(self, room: Any) -> bool:
        """Enter ``room``; False: it was there, or is closed.

        A room's name is a text, or becomes one by ``str``: 5 is the room "5".

        :raises TypeError: ``room`` has no such text, as None has not.
        :raises ValueError: its text cannot be a name.
        :raises PermissionError: it is not there: a connection of the ready-made chat is
            not let into a room of plain ones; see ``ChatListener.plain_rooms``.
        :raises BackendError: it is not there, as nothing would come.
        """
        return self._hub.join(self, room)

    def leave(self, room: Any) -> bool:
        """Leave ``room``, named as for ``join``; False: it was not there."""
        return self._hub.leave(self, room)

    def send(self, data: Any) -> None:
        """Send one message: ``str`` as text, ``bytes`` as binary, else as JSON.

        Returning means queued, not received. Where the queue is full, because the
        peer reads more slowly than this sends, the call waits; a peer that takes
        nothing for ``WSCHAT_PING_TIMEOUT`` seconds is closed with 1013.

        :raises ConnectionClosed: the connection has ended; nothing was sent.
        """
        # The usual case, and all of it: open, not compressed, and room in the queue.
        if (
            (type(data) is str or type(data) is bytes)
            and self._window_bits is None
            and not self.closed
            and self._transport.offer(encode_message(data))
        ):
            return
        self._send_within(data, self._hub.settings.PING_TIMEOUT)

    def send_json(self, data: Any) -> None:
        """Send ``data``, whatever it is, as JSON; see ``send``."""
        self.send(as_json(data, self._hub.dumps))

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message, in the order sent.

        With a ``timeout`` of 0 the others have a turn before it is found that none is
        here.

        :raises TimeoutError: none came within ``timeout`` seconds; nothing is lost.
        :raises ConnectionClosed: the connection has ended and all was received.
        """
        # Our own close, from another thread, may throw away what was just waited for.
        while not (inbox := self._inbox) or (
            self._hub.signals.receivers and not self._tell_of(inbox)
        ):
            if not inbox:
                self._wait_for_message(timeout)
        message = inbox.popleft()
        if not inbox:
            self._emptied()
        return message

    def receive_json(self, timeout: float | None = None) -> Any:
        """Return the next message, parsed.

        :raises ValueError: it is not JSON, as NaN is not, or nested too deeply; the
            message is gone, the connection open.
        """
        return from_json(self.receive(timeout), self._hub.loads)

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield messages until the connection ends."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message

    def _answer(self, text: str) -> None:
        """Send in the loop without waiting, though the queue may be full.

        For replies to what was taken in while there was room: there are few of them.
        """
        if self._is_full() and not self.closed:
            self._transport.admit(self._connection.send(text))
        else:
            with contextlib.suppress(ConnectionClosed):
                self.send(text)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake; a second call does nothing.

        What was sent before arrives before. The peer has ``WSCHAT_CLOSE_TIMEOUT``
        seconds to answer.

        :raises ValueError: ``code`` may not be sent (RFC 6455 §7.4).
        """
        self._close(*as_close(code, reason))


class LimitedWebSocket(WebSocket):
    """One whose peer may send so much; over it 1008: see docs/decisions/36.

    A class of its own, so that all others have nothing to ask for each message. What
    was within the limit is handled, and answered, before the end.
    """

    __slots__ = ("_bucket", "_over", "_receives")

    def __init__(self, *args: Any, bucket: Bucket, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bucket = bucket
        self._over = False
        self._receives = False  # the view waits for a message

    def _take_in(
        self, messages: list[str | bytes], size: int, *, wake: bool = True
    ) -> None:
        if self.closed or self._over:
            return
        within = self._bucket.take_some(len(messages))
        self._over = within < len(messages)
        if within:
            del messages[within:]
            super()._take_in(messages, size, wake=wake)
        if self._over:
            rate = "{:g} messages a second and {} at once".format(*self._bucket.rate)
            self._tell_rule(f"sends more than {rate}")
            self._pause()
            self._end_if_done()

    def _end_if_done(self) -> None:
        handles = self._inbox or self._busy
        if self._over and not handles and (self._listener or self._receives):
            self._refuse(endings.RATE_LIMIT)

    # -- where it may be done: who looks says so first, then asks whether it is over

    def _resume_if_room(self) -> None:
        if not self._over:
            super()._resume_if_room()

    def _listen(self, listener: Callbacks) -> None:
        super()._listen(listener)
        self._in_loop(self._end_if_done)

    def _worked(self) -> None:
        super()._worked()
        self._end_if_done()

    def _wait_for_message(self, timeout: float | None) -> None:
        self._receives = True
        try:
            if self._over:
                self._in_loop(self._end_if_done)
            super()._wait_for_message(timeout)
        finally:
            self._receives = False


def as_close(code: Any, reason: Any) -> tuple[int, str]:
    """Return what a close frame may have; a longer reason is cut to 123 bytes.

    :raises TypeError: the code is no integer, or the reason no text.
    :raises ValueError: ``code`` may not be sent (RFC 6455 §7.4).
    """
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"a close code is an integer, unlike {shown(code)}")
    if not isinstance(reason, str):
        raise TypeError(f"the reason of a close is a text, unlike {shown(reason)}")
    if not is_sendable(code):
        raise ValueError(
            f"close code {code} may not be sent: use 1000, 1001, 3000-4999 \u2026"
        )
    return int(code), cut_reason(reason)
