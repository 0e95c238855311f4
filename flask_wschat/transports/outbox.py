"""What waits to be sent to one peer: bounded in bytes, with a policy for "full"."""

from __future__ import annotations

from typing import Literal

_CONTROL = 0x8  # the opcode bit that makes a frame a control frame (RFC 6455 §5.2)

BATCH = 64 * 1024
"""Bytes gathered into one send; a larger frame goes alone, without a copy."""


class Outbox:
    """Frames in order, each whole, until they are on their way.

    ``limit``: bytes that may wait. A frame is taken as long as fewer than that wait, so
    one of any size can pass, and at most ``limit`` plus one frame are held.
    ``policy`` says what happens to the frame after that: ``"close"`` refuses it,
    ``"drop_oldest"`` makes room by losing the oldest messages. Control frames are
    always taken and never lost.
    """

    __slots__ = ("_batch", "_frames", "_keys", "dropped", "limit", "policy", "size")

    def __init__(self, limit: int, policy: Literal["close", "drop_oldest"]) -> None:
        self.limit = limit
        self.policy = policy
        self.size = 0
        """Bytes that wait, those on their way included."""
        self.dropped = 0
        """Messages lost to ``drop_oldest``."""
        self._frames: list[bytes] = []
        self._batch: bytes | memoryview = b""  # partly sent: not to be touched
        self._keys: dict[str, bytes] | None = None

    def push(self, frame: bytes, key: str | None = None) -> bool:
        """Add ``frame``; False: the queue is full and ``"close"`` is the policy.

        ``key``: an unsent frame with the same key is taken out first, so that a slow
        peer gets the newest state and not each one before it.
        """
        if key is not None:
            self._replace(key, frame)
        if self.size >= self.limit and not self._make_room(frame):
            return False
        self._frames.append(frame)
        self.size += len(frame)
        return True

    def next_batch(self) -> bytes | memoryview:
        """Return the bytes to send now, empty if none wait.

        They are repeated by each call until ``sent`` takes them off.
        """
        if not self._batch and self._frames:
            self._batch = self._gather()
        return self._batch

    def sent(self, count: int) -> bool:
        """Take ``count`` bytes off the batch; True: all of it is sent."""
        self.size -= count
        if count == len(self._batch):
            self._batch = b""
            return True
        self._batch = memoryview(self._batch)[count:]
        return False

    def clear(self) -> None:
        """Forget what waits, except a frame that is partly sent."""
        self._frames.clear()
        self._keys = None
        self.size = len(self._batch)

    def _gather(self) -> bytes:
        frames = self._frames
        if self.size <= BATCH or len(frames) == 1:
            batch = frames[0] if len(frames) == 1 else b"".join(frames)
            self._frames = []
            self._keys = None
            return batch
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
        if self._keys is None:
            self._keys = {}
        old = self._keys.get(key)
        self._keys[key] = frame
        for index, waiting in enumerate(self._frames if old is not None else ()):
            # By identity: an equal frame of another key must stay.
            if waiting is old:
                del self._frames[index]
                self.size -= len(waiting)
                return

    def _make_room(self, frame: bytes) -> bool:
        if frame[0] & _CONTROL:
            return True
        if self.policy == "close":
            return False
        keep: list[bytes] = []
        frames = self._frames
        index = 0
        while self.size >= self.limit and index < len(frames):
            oldest = frames[index]
            index += 1
            if oldest[0] & _CONTROL:
                keep.append(oldest)
            else:
                self.size -= len(oldest)
                self.dropped += 1
        frames[:index] = keep
        return True
