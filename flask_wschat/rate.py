"""How many messages a second somebody may send, and how many at once."""

from __future__ import annotations

import collections
import time
from typing import Any
from weakref import WeakValueDictionary

Rate = tuple[float, int]
"""Messages a second, over time, and messages at once."""


def as_rate(value: Any) -> Rate | None:
    """Return ``value``, also a list out of a file, as a rate; None: it is none."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return None
    per_second, burst = value
    if isinstance(per_second, bool) or not isinstance(per_second, int | float):
        return None
    if isinstance(burst, bool) or not isinstance(burst, int):
        return None
    # Not those of which a bucket's arithmetic makes an infinity.
    fits = 1e-6 <= per_second <= 1e9 and 1 <= burst <= 1e9
    return (per_second, burst) if fits else None


class Bucket:
    """Holds up to ``burst`` messages, and ``per_second`` more each second."""

    __slots__ = ("__weakref__", "_at", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left: float = burst
        self._at = time.monotonic()

    def take(self) -> float:
        """Take one; return 0.0, or how many seconds to wait where there is none."""
        return 0.0 if self.take_some(1) else self.wait

    def take_some(self, count: int) -> int:
        """Take up to ``count``; return how many there were."""
        now = time.monotonic()
        self._left = self._after(now)
        self._at = now
        taken = min(int(self._left), count)
        self._left -= taken
        return taken

    def take_all(self, count: int) -> float:
        """Take ``count``, or a whole bucket if that is less; return 0.0, or how many
        seconds to wait until there are so many."""
        now = time.monotonic()
        left, needed = self._after(now), min(count, self._burst)
        if left < needed:
            return (needed - left) / self._per_second
        self._left, self._at = left - needed, now
        return 0.0

    def give_back(self) -> None:
        """Put one back that was taken and not needed."""
        self._left = min(self._left + 1, self._burst)

    @property
    def wait(self) -> float:
        """Seconds until there is one."""
        return max((1 - self._after(time.monotonic())) / self._per_second, 0.0)

    @property
    def full(self) -> bool:
        """Whether it is as good as a new one."""
        return self._after(time.monotonic()) >= self._burst

    @property
    def rate(self) -> Rate:
        return self._per_second, self._burst

    def _after(self, now: float) -> float:
        gained = (now - self._at) * self._per_second
        return min(self._left + gained, self._burst)


_Rests = collections.deque[Bucket]


class _Lent(Bucket):
    """That of a connection of nobody, which leaves the rest to the next one."""

    __slots__ = ("_rests",)

    def __init__(self, rate: Rate, rests: _Rests) -> None:
        super().__init__(*rate)
        self._rests = rests
        while rests:
            rest = rests.popleft()
            if not rest.full:
                self._left, self._at = rest._left, rest._at
                break

    def __del__(self) -> None:
        if not self.full:
            rest = Bucket(*self.rate)
            rest._left, rest._at = self._left, self._at
            self._rests.append(rest)


_MOST_RESTS = 1000
"""Of one address: each takes about a fourth of a KiB."""


class Buckets:
    """One for each user of a route in this process, or for each connection of nobody.

    All connections of a user have the same one. Of who has left only those are kept
    that are not full again: to come back brings nothing.
    """

    def __init__(self) -> None:
        self._all: WeakValueDictionary[tuple[str, str, Rate], Bucket]
        self._all = WeakValueDictionary()
        self._kept: dict[tuple[str, str, Rate], Bucket] = {}
        self._prune_at = 1000
        self._rests: dict[tuple[str, str, Rate], _Rests] = {}
        self._prune_rests_at = 1000

    def of(self, user: str | None, rate: Rate, route: str = "") -> Bucket:
        """Return the bucket of ``user`` for ``route``, or a new one for nobody."""
        if user is None:
            return Bucket(*rate)
        key = (user, route, rate)
        bucket = self._kept.get(key) or self._all.get(key)
        if bucket is None:
            bucket = self._all.setdefault(key, Bucket(*rate))
        if key not in self._kept:
            if len(self._kept) >= self._prune_at:
                # Copied in one step: other threads come here, too.
                kept = {key: b for key, b in list(self._kept.items()) if not b.full}
                self._kept = kept
                self._prune_at = max(1000, 2 * len(kept))
            self._kept[key] = bucket
        return bucket

    def of_nobody(self, address: str | None, rate: Rate, route: str = "") -> Bucket:
        """Return the bucket of a connection without a user for ``route``.

        It has what another one from ``address`` has left, if that is not full again:
        who closes and connects anew gains nothing. Those there at once have their own.
        """
        if address is None:
            return Bucket(*rate)
        if len(self._rests) >= self._prune_rests_at:
            self._rests = {
                key: rests
                for key, rests in list(self._rests.items())
                if not all(rest.full for rest in list(rests))
            }
            self._prune_rests_at = max(1000, 2 * len(self._rests))
        key = (address, route, rate)
        rests = self._rests.setdefault(key, collections.deque(maxlen=_MOST_RESTS))
        return _Lent(rate, rests)
