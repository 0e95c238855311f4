"""Many who are sent the same."""

from __future__ import annotations

from collections.abc import Collection

from ..codec import EncodedMessage
from ..transports import Transport
from ..websocket import WebSocket


class Audience(set[WebSocket]):
    """Connections that are sent the same, all open.

    It remembers what a broadcast needs of them, until one comes or goes: to put that
    together for each would be a thirtieth of the broadcast (``python -m benchmarks
    --only fan``; as the other numbers here). See docs/decisions/12.
    """

    _uncompressed: list[Transport] | None = None

    def add(self, element: WebSocket) -> None:
        super().add(element)
        self._uncompressed = None

    def discard(self, element: object) -> None:
        super().discard(element)
        self._uncompressed = None

    def uncompressed(self) -> list[Transport]:
        """Return the transports of those without compression: not to be changed."""
        if self._uncompressed is None:
            found = [ws._transport for ws in self if ws._window_bits is None]
            # In the order in which their memory lies, ours and the kernel's: it makes a
            # broadcast to 1000 cheaper by a thirteenth.
            self._uncompressed = sorted(found, key=_descriptor)
        return self._uncompressed


def _descriptor(transport: Transport) -> int:
    return transport.fd


def deliver(
    receivers: Collection[WebSocket], message: EncodedMessage, key: str | None = None
) -> None:
    """Queue ``message`` for each of ``receivers``, all open, waiting for none.

    ``key``: see ``Outbox.push``. A peer whose queue is full is ended.
    """
    if key is not None:
        others = list(receivers)
    else:
        # Those without compression, most often all, by one call.
        audience = receivers if isinstance(receivers, Audience) else Audience(receivers)
        simple = audience.uncompressed()
        refused = set(simple[0].write_all(simple, message.plain)) if simple else set()
        if not refused and len(simple) == len(receivers):
            return
        others = [
            ws
            for ws in receivers
            if ws._window_bits is not None or ws._transport in refused
        ]
    for ws in others:
        if not ws._transport.write(message.frame(ws._window_bits), key):
            ws._overflow()
