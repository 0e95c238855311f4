"""Many who are sent the same."""

from __future__ import annotations

from collections.abc import Collection

from ..codec import EncodedMessage
from ..transports import Transport
from ..websocket import WebSocket
from .figures import DELIVERED

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


def publish(
    receivers: Collection[WebSocket],
    message: EncodedMessage,
    key: str | None = None,
    exclude: str | None = None,
) -> None:
    """``deliver`` what was published, and count for how many."""
    one = next(iter(receivers), None)  # later there may be none any more
    count = deliver(receivers, message, key, exclude)
    if count and one is not None:
        one._hub.counts.add(DELIVERED, count)


def deliver(
    receivers: Collection[WebSocket],
    message: EncodedMessage,
    key: str | None = None,
    exclude: str | None = None,
) -> int:
    """Queue ``message`` for each of ``receivers``, all open, waiting for none.

    Return for how many.

    ``key``: see ``Outbox.push``. ``exclude``: the id of one who is left out. A peer
    whose queue is full is ended.
    """
    count = 0
    out: WebSocket | None = None
    if exclude is not None:
        out = next((ws for ws in receivers if ws._id == exclude), None)
    if key is not None:
        others = [ws for ws in receivers if ws is not out]
    else:
        # One call for all without compression, and one for each window of the others.
        audience = receivers if isinstance(receivers, Audience) else Audience(receivers)
        refused: list[Transport] = []
        for window_bits, transports in audience.forms():
            if out is not None and out._window_bits == window_bits:
                transports = transports.copy()
                transports.remove(out._transport)
                if not transports:
                    continue
            frame = message.frame(window_bits)
            count += len(transports)
            refused += transports[0].write_all(transports, frame)
        if not refused:
            return count
        count -= len(refused)
        full = set(refused)
        others = [ws for ws in receivers if ws._transport in full]
    for ws in others:
        if ws._transport.write(message.frame(ws._window_bits), key):
            count += 1
        else:
            ws._overflow()
    return count
