"""Many who are sent the same."""

from __future__ import annotations

from collections.abc import Collection

from ..codec import EncodedMessage
from ..transports import Transport
from ..websocket import WebSocket

Forms = list[tuple[int | None, list[Transport]]]
"""By ``window_bits``."""


class Audience(set[WebSocket]):
    """Connections that are sent the same, all open.

    It remembers what a broadcast needs of them, until one comes or goes: to put that
    together for each would be a thirtieth of the broadcast (``python -m benchmarks
    --only fan``; as the other numbers here). See docs/decisions/12.
    """

    _forms: Forms | None = None

    def add(self, element: WebSocket) -> None:
        super().add(element)
        self._forms = None

    def discard(self, element: object) -> None:
        super().discard(element)
        self._forms = None

    def forms(self) -> Forms:
        """Return the transports of those who get the same bytes: not to be changed."""
        if self._forms is None:
            forms: dict[int | None, list[Transport]] = {}
            for ws in self:
                forms.setdefault(ws._window_bits, []).append(ws._transport)
            for transports in forms.values():
                # In the order in which their memory lies, ours and the kernel's: it
                # makes a broadcast to 1000 cheaper by a thirteenth.
                transports.sort(key=_descriptor)
            self._forms = list(forms.items())
        return self._forms


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
        # One call for all without compression, and one for each window of the others.
        audience = receivers if isinstance(receivers, Audience) else Audience(receivers)
        refused: set[Transport] = set()
        for window_bits, transports in audience.forms():
            frame = message.frame(window_bits)
            refused.update(transports[0].write_all(transports, frame))
        if not refused:
            return
        others = [ws for ws in receivers if ws._transport in refused]
    for ws in others:
        if not ws._transport.write(message.frame(ws._window_bits), key):
            ws._overflow()
