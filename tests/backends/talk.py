"""People who talk while storages fail, and what must hold afterwards."""

from __future__ import annotations

import threading

from flask_wschat.backends import Backend
from flask_wschat.errors import BackendError
from flask_wschat.messages import Message
from tests.backends.cluster import RecordingHost
from tests.support.waiting import LONG, eventually


class Talk:
    """Says numbers in rooms, one after another in each, until it is told to end.

    Each is said again until it is acknowledged, as clients do.
    """

    def __init__(self, backend: Backend, rooms: list[str]) -> None:
        self.acknowledged: dict[str, list[tuple[int, str]]] = {r: [] for r in rooms}
        self.failed = 0
        self._backend = backend
        self._pause = threading.Event()
        self._ended = False
        self._threads = [
            threading.Thread(target=self._say, args=(room,)) for room in rooms
        ]
        for thread in self._threads:
            thread.start()

    @property
    def said(self) -> int:
        return sum(map(len, list(self.acknowledged.values())))

    def end(self) -> None:
        self._ended = True
        for thread in self._threads:
            thread.join()

    def go_on(self, count: int = 200) -> None:
        """Wait until so many more are acknowledged."""
        until = self.said + count
        eventually(lambda: self.said >= until, "it goes on", LONG)

    def _say(self, room: str) -> None:
        number = 0
        while not self._ended:
            mid = f"{number}"
            message = Message(mid, sender="ann", mid=mid)
            try:
                receipt = self._backend.publish(room, message, keep=True)
            except BackendError:
                self.failed += 1
            else:
                self.acknowledged[room].append((receipt.seq, mid))
                number += 1
            self._pause.wait(0.02)


def check(talk: Talk, backend: Backend, host: RecordingHost) -> None:
    """What was acknowledged is there once, in order, and was heard or told lost."""
    told = {topic for topics in host.losses for topic in topics or ()}
    for room, known in talk.acknowledged.items():
        page = backend.history(room, limit=256)
        kept = {entry.seq: entry.data for entry in page.entries}
        assert list(kept) == list(range(page.seq - len(kept) + 1, page.seq + 1)), room
        said = [(seq, mid) for seq, mid in known if seq in kept]
        assert said == list(kept.items()), room
        assert known == [(seq, f"{seq - 1}") for seq in range(1, len(known) + 1)], room
        heard = [d.seq for d in host.deliveries if d.topic == room and d.seq]
        assert heard == sorted(set(heard)), room
        assert room in told or heard == list(range(1, page.seq + 1)), room
