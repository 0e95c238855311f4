"""Who waits for what of a topic: for a page that is read, for what was missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..messages import EMITTED, Page
from ..websocket import WebSocket
from .pages import Position, View
from .parcels import Parcel

NOTHING = ("", 0)


class Event(Protocol):
    def set(self) -> Any: ...


class Reader:
    """One connection's way from the history to what is live.

    ``answer`` makes the reply to it, in the loop; None: it has not asked yet.
    """

    __slots__ = (
        "_ended", "_ready", "after", "answer", "begun", "epoch", "error", "hears",
        "tag", "view", "ws",
    )  # fmt: skip

    def __init__(
        self, ws: WebSocket, answer: Callable[[View], str] | None = None
    ) -> None:
        self.ws = ws
        self.answer = answer
        self.hears = False
        """It gets the application's events, though it may never ask."""
        self.begun = 0
        """So many of those that its page waits with were delivered before it asked."""
        self.view: View | None = None
        """What it was sent; None: nothing yet."""
        self.epoch, self.after, self.tag = "", 0, ""
        """How far it has come since."""
        self.error: Exception | None = None
        """Why it gets nothing."""
        self._ended = False
        self._ready: Event | None = None

    def gets(self, event: str | None) -> bool:
        """Whether it gets news of this kind, which are in no page."""
        return self.view is not None or (self.hears and event == EMITTED)

    def tell(self, ready: Event) -> None:
        """Set ``ready`` once it was sent its page, or will get none; in the loop."""
        self._ready = ready
        if self._ended:
            ready.set()

    def end(self, error: Exception | None = None) -> None:
        self._ended = True
        self.error = self.error or error
        if self._ready is not None:
            self._ready.set()


class _Waiting:
    """What is delivered while something is read, of so many bytes at most."""

    __slots__ = ("buffer", "since", "size", "void")

    def __init__(self) -> None:
        self.since = time.monotonic()
        """It was not read before."""
        self.buffer: list[Parcel] = []
        self.size = 0
        self.void = False
        """The buffer has a hole: the storage has to be asked again."""

    def keep(self, parcel: Parcel, limit: int) -> None:
        self.buffer.append(parcel)
        self.size += parcel.size
        if self.size > limit:
            self.lose()

    def lose(self) -> None:
        self.void = True
        self.buffer, self.size = [], 0


class Flight(_Waiting):
    """A page that is being read, for all who ask for it."""

    __slots__ = ("acked", "epoch", "limit", "position", "readers")

    def __init__(self, position: Position, limit: int, acked: tuple[str, int]) -> None:
        super().__init__()
        self.position = position
        self.limit = limit
        self.acked = acked
        """What was acknowledged before it began: that is in the page."""
        self.readers: list[Reader] = []
        self.epoch = ""
        """In which it must have been read; "": in any."""

    def begin_anew(self, epoch: str) -> None:
        """All begins anew in ``epoch``; "": which one that is was not told."""
        if self.buffer or not epoch:
            self.lose()
        self.epoch = epoch

    def is_void(self, page: Page) -> bool:
        """Whether ``page`` may not be what is there now."""
        if self.epoch and (page.epoch != self.epoch or page.plain):
            return True
        return self.void

    def add(self, reader: Reader) -> None:
        reader.begun = len(self.buffer)
        self.readers.append(reader)

    def coming_back(self, reading: Mapping[WebSocket, Reader]) -> list[WebSocket]:
        """Return those of ``reading`` who have messages, and wait for what follows."""
        if self.position.after is None:
            return []
        return [each.ws for each in self.readers if reading.get(each.ws) is each]

    def again(self) -> None:
        """It is read again, from now on."""
        self.since = time.monotonic()
        self.void, self.epoch = False, ""
        self.buffer, self.size = [], 0
        for reader in self.readers:
            reader.begun = 0


class Missed(_Waiting):
    """What a topic's readers have missed; ``budget``: bytes that they may be sent."""

    __slots__ = ("budget", "gone")

    def __init__(self, budget: int) -> None:
        super().__init__()
        self.budget = budget
        self.gone: set[int] = set()
        """Numbers that were taken back meanwhile, of which all have been told."""

    def as_it_is(self, parcel: Parcel) -> Parcel:
        """Return ``parcel``, or what is left of it."""
        taken_back = parcel.delivery.seq in self.gone
        return parcel.taken_back() if taken_back else parcel
