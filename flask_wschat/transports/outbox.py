"""What waits to be sent to one peer: bounded in bytes, with a policy for "full".

See docs/decisions/06 and docs/decisions/39.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from . import accelerated
from .accelerated import Allowance, Queue
from .counts import CONTROL
from .queue import FRAME_COST

_KEY_COST = 64  # counted for each key besides its frame
_KEY_MEMORY = 128  # bytes that a key takes, its own included
BATCH = 64 * 1024
"""Bytes gathered into one send; a larger frame goes alone, without a copy."""


class Outbox(Queue):
    """Frames in order, each whole, until they are on their way.

    ``limit``: bytes that may wait. A frame is taken as long as fewer than that wait, so
    one of any size can pass, and at most ``limit`` plus one frame are held.
    ``policy`` says what happens to the frame after that: ``"close"`` refuses it,
    ``"drop_oldest"`` makes room by losing the oldest messages. Control frames are
    always taken and never lost.
    """

    __slots__ = ("_draining", "_keyed", "_keys", "dropped", "policy")

    def __init__(
        self,
        limit: int,
        policy: Literal["close", "drop_oldest"],
        allowance: Allowance | None = None,
    ) -> None:
        super().__init__(limit, allowance or Allowance())
        self.policy = policy
        self.dropped = 0
        """Messages lost to ``drop_oldest`` since ``take_dropped``."""
        self._draining = False
        self._keys: dict[str, bytes] | None = None
        self._keyed = 0  # bytes of their frames, which may not wait any more

    def push(self, frame: bytes, key: str | None = None) -> bool:
        """Add ``frame``; False: the queue is full and ``"close"`` is the policy.

        ``key``: an unsent frame with the same key is taken out first, so that a slow
        peer gets the newest state and not each one before it.
        """
        if key is not None:
            self._replace(key, frame)
        if self.size >= self.limit and not self._make_room(frame):
            return False
        self.append(frame)
        return True

    def take_dropped(self) -> int:
        count, self.dropped = self.dropped, 0
        return count

    def append(self, frame: bytes) -> None:
        """Add ``frame``, whatever waits."""
        self.frames.append(frame)
        self.size += len(frame)
        self.allowance.left -= len(frame) + FRAME_COST
        self.allowance.note(frame)

    def drain(self, send: Callable[[bytes | memoryview], int]) -> bool:
        """Pass what waits to ``send``, which returns how many bytes it took.

        True: it took everything. False: it took less than it was given, or raised
        ``BlockingIOError``; another error of ``send`` is the caller's.

        Called within itself, as by what a garbage collection ends, it leaves all to the
        call under way, and returns False.
        """
        if self._draining:
            return False
        self._draining = True
        try:
            while self.size > 0:
                batch = self.batch
                if not batch:
                    frames = self.frames
                    batch = frames.pop() if len(frames) == 1 else self._gather()
                    self.batch = batch  # for who clears the rest meanwhile
                try:
                    count = send(batch)
                except BlockingIOError:
                    count = 0
                self.size -= count
                if count < len(batch):
                    self.batch = memoryview(batch)[count:]
                    return False
                self.batch = b""
        finally:
            self._draining = False
        self._keys = None
        return True

    def clear(self) -> None:
        """Forget what waits, except a frame that is partly sent."""
        self.frames.clear()
        self._keys = None
        self.size = len(self.batch)

    def _gather(self) -> bytes:
        """Take out what goes next: many small frames joined, a large one alone."""
        frames = self.frames
        count, size = len(frames), self.size
        if size > BATCH:
            count, size = 0, 0
            for frame in frames:
                size += len(frame)
                if size > BATCH and count:
                    break
                count += 1
        batch = frames[0] if count == 1 else b"".join(frames[:count])
        del frames[:count]
        return batch

    def _replace(self, key: str, frame: bytes) -> None:
        if self._keys is None or not self.frames:
            self._keys, self._keyed = {}, 0  # what had those keys is on its way
        elif self._keyed > 2 * (self.size + _KEY_COST * len(self.frames)) + 4096:
            self._forget_keys()
        old = self._keys.get(key)
        self._keys[key] = frame
        self._keyed += len(frame) + _KEY_COST
        for index, waiting in enumerate(self.frames if old is not None else ()):
            # By identity: an equal frame of another key must stay.
            if waiting is old:
                del self.frames[index]
                self.size -= len(waiting)
                return

    def _forget_keys(self) -> None:
        """Keep the keys of what still waits: so rarely that it costs little, and so
        often that what was sent or dropped is not held for long.
        """
        assert self._keys is not None
        waiting = set(map(id, self.frames))
        self._keys = {k: f for k, f in self._keys.items() if id(f) in waiting}
        self._keyed = sum(len(f) + _KEY_COST for f in self._keys.values())

    def _make_room(self, frame: bytes) -> bool:
        if frame[0] & CONTROL:
            return True
        if self.policy == "close":
            return False
        keep: list[bytes] = []
        frames = self.frames
        index = 0
        while self.size >= self.limit and index < len(frames):
            oldest = frames[index]
            index += 1
            if oldest[0] & CONTROL:
                keep.append(oldest)
            else:
                self.size -= len(oldest)
                self.dropped += 1
        frames[:index] = keep
        return True


def held(outboxes: Sequence[Outbox]) -> list[int]:
    """Return the bytes of memory that each holds: see ``accelerated.held``.

    A frame with a key may count for less than it is, as its queue has it twice.
    """
    return [
        size if outbox._keys is None else size + _KEY_MEMORY * len(outbox._keys)
        for size, outbox in zip(accelerated.held(list(outboxes)), outboxes, strict=True)
    ]
