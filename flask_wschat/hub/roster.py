"""``Roster``: who is in one room, and what clients do not know of it yet."""

from __future__ import annotations

from bisect import bisect_left, insort

from ..errors import BackendError
from ..messages import News
from ..transports import Event

MOST = 100
"""Users of whom clients are told by name, unless a listener says another number."""


class Roster:
    """Who is in one room."""

    __slots__ = (
        "again",
        "buffer",
        "doubted",
        "large",
        "most",
        "names",
        "read_at",
        "reading",
        "shown",
        "stale",
        "text",
        "there",
        "told",
        "touched",
        "unsure",
        "users",
        "version",
        "waiters",
        "waiting",
    )

    def __init__(self) -> None:
        self.version = 0
        self.users: set[str] | None = None
        """As the backend says; None: that is not known yet."""
        self.doubted: dict[str, float] = {}
        """Not any more, but they stay until then."""
        self.there: set[str] = set()
        """Those, and who is here."""
        self.names: list[str] = []
        """The same, sorted."""
        self.text = ""
        """The same, as in an answer; "": to be made."""
        self.most = MOST
        self.stale = False  # to be read
        self.reading = False
        self.again = False  # some may have been lost since that began
        self.read_at = 0.0
        self.buffer: list[News] = []  # what came while it was stale
        self.waiters: list[Waiter] = []  # for the next read that begins
        self.waiting: list[Waiter] = []  # for the one under way
        # What clients do not know yet: who was there when they were told last.
        self.touched: dict[str, bool] = {}
        self.unsure: set[str] = set()
        """Here, but they are news only when the backend says so, or when somebody else
        was answered that they are."""
        self.shown = False  # somebody was answered since
        self.large = False  # somebody knows the number alone
        self.told: list[float] = []  # when the last messages were

    def place(self, user: str, there: bool) -> None:
        """Note whether ``user`` is there, which is news."""
        if (user in self.there) != there:
            self.touched.setdefault(user, not there)
            self.put(user, there)

    def show(self) -> None:
        """Note that somebody is told of all."""
        self.shown = True
        for user in self.unsure:
            self.touched.setdefault(user, False)
        self.unsure.clear()

    def put(self, user: str, there: bool) -> None:
        self.text = ""
        if there:
            self.there.add(user)
            insort(self.names, user)
        else:
            self.there.discard(user)
            del self.names[bisect_left(self.names, user)]

    def wake(self) -> None:
        """End the waiting for the read that has come."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.event.set()

    def wake_all(self, error: BackendError | None = None) -> None:
        """End all waiting: there will be no read, or it has failed."""
        waiters, self.waiters = self.waiters, []
        for waiter in (*waiters, *self.waiting):
            waiter.error = error
        self.waiting += waiters
        self.wake()


class Waiter:
    def __init__(self, event: Event) -> None:
        self.event = event
        self.error: BackendError | None = None
