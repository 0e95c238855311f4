"""How many requests a second somebody may make, and how many at once."""

from __future__ import annotations

import time


class Bucket:
    """Holds up to ``burst`` requests, and ``per_second`` more each second."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = time.monotonic()

    def take(self) -> float:
        """Take one; return 0.0, or how many seconds to wait where there is none."""
        now = time.monotonic()
        gained = (now - self._at) * self._per_second
        self._left = min(self._left + gained, self._burst)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self._per_second

    @property
    def full(self) -> bool:
        """Whether it is as good as a new one."""
        passed = time.monotonic() - self._at
        return self._left + passed * self._per_second >= self._burst


class Buckets:
    """One for each user of this process, or for each connection without one."""

    def __init__(self) -> None:
        self._users: dict[str, Bucket] = {}
        self._prune_at = 1000

    def of(self, user: str | None, rate: tuple[float, float]) -> Bucket:
        """Return the bucket of ``user``, or a new one for nobody."""
        if user is None:
            return Bucket(*rate)
        bucket = self._users.get(user)
        if bucket is None:
            if len(self._users) >= self._prune_at:
                # Copied in one step: other threads come here, too.
                full = {name: b for name, b in list(self._users.items()) if not b.full}
                self._users = full
                self._prune_at = max(1000, 2 * len(full))
            bucket = self._users.setdefault(user, Bucket(*rate))
        return bucket
