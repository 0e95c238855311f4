"""``Figures``: what a process counts, for those who operate it.

Each number has its place in one array of eight bytes each, as ``FIGURES`` tells, and
that array may be memory that others read: see docs/decisions/58.
"""

from __future__ import annotations

import collections
import functools
import logging
import math
import os
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, cast

from ..backends import Backend
from ..messages import Message, Receipt
from ..transports.accelerated import Counts, clock
from ..transports.counts import HANDLED, SECONDS

logger = logging.getLogger("flask_wschat")

RECENT = 10.0
"""Seconds that ``loop_lag`` and ``backend_latency`` are about."""
QUEUE_BYTES = (0, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22)
"""Upper bounds, inclusive, of what waits for one peer; the first: nothing does."""
CLOSED = (
    *("1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1010"),
    *("1011", "1012", "1013", "1014", "3xxx", "4xxx", "other"),
)
REFUSED = (
    *("400", "401", "403", "404", "405", "408", "410", "413", "414", "421", "426"),
    *("429", "431", "4xx", "500", "501", "502", "503", "504", "505", "5xx"),
)

Kind = Literal["counter", "gauge", "seconds", "histogram"]


class Figure(NamedTuple):
    """A number, or some, and what kind they are.

    A ``counter`` only grows; with ``labels`` there is one for each. A ``gauge`` is
    written anew, in ``seconds`` it is a double. A ``histogram`` has a number for each
    of its upper ``bounds`` and one for what is above, and then the sum of all that it
    was told of: a double if ``kind`` is in seconds, as ``in_seconds`` says.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def in_seconds(self) -> bool:
        """Whether the last of its places is a double."""
        return self.kind == "seconds" or self.bounds == SECONDS

    @property
    def places(self) -> int:
        """How many of the array it has."""
        return len(self.bounds) + 2 if self.bounds else len(self.labels) or 1


FIGURES = (
    Figure("messages_out", "counter"),
    Figure("messages_in", "counter"),
    Figure("handler_seconds", "histogram", bounds=SECONDS),
    Figure("deliveries", "counter"),
    Figure("published", "counter"),
    Figure("opened", "counter"),
    Figure("closed", "counter", CLOSED),
    Figure("refused", "counter", REFUSED),
    Figure("slow_closes", "counter"),
    Figure("dropped", "counter"),
    Figure("errors", "counter"),
    Figure("backend_seconds", "histogram", bounds=SECONDS),
    Figure("lag_seconds", "histogram", bounds=SECONDS),
    Figure("queue_bytes", "histogram", bounds=QUEUE_BYTES),
    Figure("connections", "gauge"),
    Figure("users", "gauge"),
    Figure("rooms", "gauge"),
    Figure("queued_bytes", "gauge"),
    Figure("backend_up", "gauge"),
    Figure("loop_lag", "seconds"),
    Figure("backend_latency", "seconds"),
)
"""All there are, in the order of their places."""


def _placed() -> dict[str, int]:
    places, place = {}, 0
    for figure in FIGURES:
        places[figure.name] = place
        place += figure.places
    return places


PLACES = _placed()
"""By name, where each begins."""
SIZE = 8 * sum(figure.places for figure in FIGURES)
"""Bytes of them all."""

DELIVERED, PUBLISHED = PLACES["deliveries"], PLACES["published"]
assert [figure.name for figure in FIGURES if PLACES[figure.name] <= HANDLED] == [
    *("messages_out", "messages_in", "handler_seconds")
]

_LABELS = {
    (figure.name, label): PLACES[figure.name] + index
    for figure in FIGURES
    for index, label in enumerate(figure.labels)
}


def read(memory: Any) -> dict[str, Any]:
    """Return what is counted in ``memory``, of this process or of another one."""
    plain = memoryview(memory).cast("B")[:SIZE]
    # At one moment, so that what belongs together does.
    numbers = memoryview(bytes(plain)).cast("Q")
    doubles = numbers.cast("B").cast("d")
    found: dict[str, Any] = {}
    for figure in FIGURES:
        name, place = figure.name, PLACES[figure.name]
        if figure.bounds:
            last = place + figure.places - 1
            total = doubles[last] if figure.in_seconds else numbers[last]
            found[name] = _histogram(figure.bounds, list(numbers[place:last]), total)
        elif figure.labels:
            counts = zip(figure.labels, numbers[place:], strict=False)
            found[name] = {label: count for label, count in counts if count}
        elif figure.kind == "seconds":
            seconds = doubles[place]
            found[name] = None if math.isnan(seconds) else seconds
        else:
            found[name] = numbers[place]
    found["backend_up"] = bool(found["backend_up"])
    return found


def _histogram(
    bounds: Iterable[float], counts: list[int], total: float
) -> dict[str, Any]:
    buckets: list[list[Any]] = []
    count = 0
    for bound, more in zip([*bounds, "+Inf"], counts, strict=True):
        count += more
        buckets.append([bound, count])
    return {"count": count, "sum": total, "buckets": buckets}


def add_up(several: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what ``several`` processes have together, of what ``read`` returns.

    Of ``loop_lag`` and ``backend_latency`` the worst; ``backend_up`` if all have it.
    """
    total = read(bytes(SIZE))
    total["backend_up"] = all(each["backend_up"] for each in several)
    for figure in FIGURES:
        name = figure.name
        values = [each[name] for each in several]
        if figure.kind == "seconds":
            total[name] = max((v for v in values if v is not None), default=None)
        elif figure.bounds:
            for value in values:
                _add_histogram(total[name], value)
        elif figure.labels:
            for value in values:
                for label, count in value.items():
                    total[name][label] = total[name].get(label, 0) + count
        elif name != "backend_up":
            total[name] = sum(values)
    return total


def _add_histogram(total: dict[str, Any], more: dict[str, Any]) -> None:
    total["count"] += more["count"]
    total["sum"] += more["sum"]
    for bucket, (_, count) in zip(total["buckets"], more["buckets"], strict=True):
        bucket[1] += count


class Figures:
    """Those of one application in this process; a process forked off begins with zeros.

    Counted from any thread. ``hub``: whose gauges are written before they are read.
    """

    def __init__(self, hub: Any = None) -> None:
        self._hub = hub
        self._memory: Any = bytearray(SIZE)
        self.counts = Counts(self._memory)
        """What is hot is counted here directly, at its place."""
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._numbers: Any = memoryview(self._memory).cast("B").cast("Q")
        self._doubles: Any = memoryview(self._memory).cast("B").cast("d")
        self.started = time.time()
        """When it began to count, in seconds since 1970."""
        self._lags: collections.deque[tuple[float, float]]
        self._lags = collections.deque()
        self._answers: collections.deque[tuple[float, float]]
        self._answers = collections.deque(maxlen=1000)
        self._due = 0.0  # when the sweep is to look again; 0: it is not
        self.set("backend_up", 1)
        self._set_seconds("backend_latency", math.nan)

    def begin_anew(self) -> None:
        """Count from zero, in memory of our own: this is another process now."""
        self._memory = bytearray(SIZE)
        self.counts.move_to(self._memory, True)
        self._begin()

    def move_to(self, memory: Any) -> None:
        """Count in ``memory`` from now on, beginning with what is counted by now.

        It is of ``SIZE`` bytes at least, writable, and begins at a multiple of eight.

        :raises ValueError: it is not; nothing has changed.
        """
        self.counts.move_to(memory)
        self._memory = memory
        self._numbers = memoryview(memory).cast("B").cast("Q")
        self._doubles = memoryview(memory).cast("B").cast("d")

    # -- what is counted

    def add(self, name: str, count: int = 1) -> None:
        """Count so many of a figure that has no labels."""
        self.counts.add(PLACES[name], count)

    def __getitem__(self, name: str) -> int:
        """Return how many there are."""
        return int(self._numbers[PLACES[name]])

    def set(self, name: str, value: int) -> None:
        """Write a gauge."""
        self._numbers[PLACES[name]] = value

    def _set_seconds(self, name: str, value: float) -> None:
        self._doubles[PLACES[name]] = value

    def opened(self, connections: int) -> None:
        """Count one that was opened, after which there are so many."""
        self.add("opened")
        self.set("connections", connections)

    def closed(self, code: int | None, connections: int) -> None:
        """Count one that ended with ``code``, if any, after which there are so many."""
        label = str(int(code or 1006))
        if ("closed", label) not in _LABELS:
            label = f"{label[0]}xxx" if 3000 <= int(label) < 5000 else "other"
        self.counts.add(_LABELS["closed", label])
        self.set("connections", connections)

    def refused(self, status: str) -> None:
        """Count a handshake that was answered so by HTTP, if that is an error."""
        label = status[:3]
        if ("refused", label) not in _LABELS:
            label = f"{label[:1]}xx"
        if ("refused", label) in _LABELS:
            self.counts.add(_LABELS["refused", label])

    def lose_all(self) -> None:
        """Count those that were open here as ended without a word."""
        closed = range(PLACES["closed"], PLACES["closed"] + len(CLOSED))
        left = self["opened"] - sum(self._numbers[place] for place in closed)
        self.counts.add(_LABELS["closed", "1006"], max(left, 0))
        self.set("connections", 0)

    def telling(self, report: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return what counts an error, and tells of it by ``report`` or in the log."""
        told = report or _log_error

        def tell(error: BaseException, *about: Any, **more: Any) -> Any:
            self.add("errors")
            return told(error, *about, **more)

        return tell

    def queues(self, waiting: Iterable[int], connections: int) -> None:
        """Note the bytes of each queue in which some wait, of so many connections."""
        place, count, total = PLACES["queue_bytes"], 0, 0
        for size in waiting:
            index = next((i for i, b in enumerate(QUEUE_BYTES) if size <= b), None)
            self.counts.add(place + (len(QUEUE_BYTES) if index is None else index))
            count += 1
            total += size
        self.counts.add(place, max(connections - count, 0))  # some may be leaving
        self.counts.add(place + len(QUEUE_BYTES) + 1, total)

    # -- how long things take

    def plan(self, seconds: float) -> None:
        """Note that the sweep is due in so many seconds."""
        self._due = clock() + seconds

    def swept(self) -> None:
        """Note how late it is."""
        due, self._due = self._due, 0.0
        now = self.counts.took(PLACES["lag_seconds"], due)
        self._lags.append((now, max(now - due, 0.0)))
        while self._lags[0][0] < now - RECENT:
            self._lags.popleft()

    def timed(self, backend: Backend) -> Backend:
        """Return ``backend`` so that what waits for its answers is timed.

        One that never waits is returned as it is.
        """
        if getattr(backend, "instant", False):
            return backend
        return cast(Backend, _Timed(backend, self))

    def asked(self, began: float) -> None:
        """Note that the backend has answered what it was asked at ``began``."""
        now = self.counts.took(PLACES["backend_seconds"], began)
        self._answers.append((now, now - began))

    # -- what came of it

    def snapshot(self) -> dict[str, Any]:
        """Return all figures as they are now, by name, as plain values."""
        self.refresh()
        return read(self._memory)

    def refresh(self, queued: int | None = None) -> None:
        """Write the gauges; ``queued``: bytes, if that is just known."""
        now = clock()
        since = now - RECENT
        lags = [lag for at, lag in list(self._lags) if at >= since]
        if self._due:
            lags.append(now - self._due)  # it stands still just now
        self._set_seconds("loop_lag", max([*lags, 0.0]))
        answers = [took for at, took in list(self._answers) if at >= since]
        mean = sum(answers) / len(answers) if answers else math.nan
        self._set_seconds("backend_latency", mean)
        if self._hub is not None:
            self._look(self._hub, queued)

    def _look(self, hub: Any, queued: int | None) -> None:
        connections = users = rooms = 0
        if hub.home.pid == os.getpid():  # else all that it knows of are another's
            connections = hub.count()
            users, rooms = hub.members.users_and_rooms()
            queued = hub.backlog.queued() if queued is None else queued
        self.set("connections", connections)
        self.set("users", users)
        self.set("rooms", rooms)
        self.set("queued_bytes", queued or 0)
        self.set("backend_up", hub.backend.fault() is None)

    def stats(self) -> dict[str, Any]:
        """Return them with what tells whose they are: see ``WSChat.stats``."""
        return {
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "started": self.started,
            "uptime": max(time.time() - self.started, 0.0),
            "version": sys.modules[__name__.partition(".")[0]].__version__,
            **self.snapshot(),
        }


def _log_error(
    error: BaseException,
    ws: Any = None,
    event: str = "",
    message: Any = None,
    *,
    where: str = "the hub",
) -> None:
    where = where if ws is None else f"{event} of {ws._described()}"
    logger.error("error in %s", where, exc_info=error)


class _Timed:
    """A backend whose answers are timed."""

    def __init__(self, backend: Backend, figures: Figures) -> None:
        self._backend = backend
        self._figures = figures

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        return functools.partial(self._ask, found) if name in _WAITS else found

    def submit(
        self,
        topic: str,
        message: Message,
        done: Callable[[Receipt | Exception], None],
        *,
        keep: bool = False,
    ) -> None:
        began = clock()

        def note(outcome: Receipt | Exception) -> None:
            self._figures.asked(began)
            done(outcome)

        self._backend.submit(topic, message, note, keep=keep)

    def _ask(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        began = clock()
        try:
            return method(*args, **options)
        finally:
            self._figures.asked(began)


_WAITS = {
    *("publish", "history", "taken_back", "claim", "attend", "present", "refresh"),
    *("subscribe", "lease", "once", "taken"),
}

_all: weakref.WeakSet[Figures] = weakref.WeakSet()


def _forget() -> None:
    for figures in list(_all):
        figures.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
