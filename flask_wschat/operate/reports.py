"""``Reports``: what the processes of an application say when one of them asks.

Asked for, and neither sent nor stored while nobody asks: see docs/decisions/60.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from ..backends import MemoryBackend
from ..errors import BackendError, HandshakeError
from ..hub.figures import add_up
from ..hub.hub import Hub
from ..logs import SparingLog
from ..messages import OPERATE, Delivery, Message, shown
from ..rate import Bucket
from ..transports import Event, Loop
from ..transports.loop import EventedLoop
from ..transports.patched import allocate_lock
from ..transports.threaded import ThreadedLoop
from ..transports.waiting import runs_here
from ..websocket import as_close
from . import here

logger = logging.getLogger("flask_wschat")

REPORTS = "wschat.reports"
"""Where ``app.extensions`` has the ``Reports`` of an application."""
WAIT = 0.5
"""Seconds for which answers are waited for."""
PULSE = 1.0
"""Seconds at most between two questions of who watches."""
GONE = 2.7
"""Seconds after which a process that has not answered is gone: three questions."""
DEPTH = 100
"""Rooms, or users, of each process that are asked for beside those that are wanted."""
MOST_ANSWERS = 1000
"""Processes whose answers are taken."""
_RATE = (50, 100)  # questions that are answered a second, and at once

Answers = Callable[[dict[str, Any]], Any]
"""What answers a question: given its fields, returns JSON, and may wait."""


class Answer(NamedTuple):
    """What one process says."""

    id: str
    """A word for the application in that process, unique among all."""
    worker: str
    """``host:pid``."""
    value: Any
    """JSON; None where there is an ``error``."""
    error: str | None = None
    """Why it has no answer, as an older version has none to a new question."""


class Asked:
    """A question of this process, and what was answered until now."""

    def __init__(self, done: Event) -> None:
        self.answers: dict[str, Answer] = {}
        self.at: dict[str, float] = {}
        """When each was answered last, by the monotonic clock."""
        self.enough: Callable[[list[Answer]], bool] | None = None
        self.done = done

    def take(self, answer: Answer) -> None:
        if len(self.answers) < MOST_ANSWERS or answer.id in self.answers:
            self.at[answer.id] = time.monotonic()
            self.answers[answer.id] = answer
        if self.enough is not None and self.enough(list(self.answers.values())):
            self.done.set()


_all: weakref.WeakSet[Reports] = weakref.WeakSet()


def serve_all(own: Loop) -> None:
    """Let each application of this process answer: it serves them, in ``own``."""
    for reports in list(_all):
        reports.serve(own)


class Reports:
    """Asks, and answers, for one application in this process.

    Others add to ``answers`` what they know.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._log = SparingLog(logger)
        self._alone = isinstance(hub.backend, MemoryBackend)
        self._lock = allocate_lock()
        self._pid = 0
        self._id = ""
        self._listens = False
        self._serves = 0  # the process in which it does
        self._asked: dict[str, Asked] = {}
        self._bucket = Bucket(*_RATE)
        self.answers: dict[str, Answers] = here.answers(hub)
        """By question. Called where it may wait, beside the loop."""
        hub.on_operate = self.heard
        _all.add(self)

    @property
    def id(self) -> str:
        """A word for the application in this process, unique among all."""
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._id, self._listens = secrets.token_hex(8), False
                    self._asked = {}
                    self._pid = os.getpid()
        return self._id

    @property
    def worker(self) -> str:
        """What operators call this process."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def serve(self, own: Loop | None = None) -> None:
        """Answer from now on, also before anybody connects.

        In a process that serves, whose connections come to the loop ``own``, the
        caller's unless given. Where that stands still, the first connection does it.
        """
        if self._alone or self._serves == os.getpid():
            return
        self._serves = os.getpid()
        with contextlib.suppress(HandshakeError, OSError):
            if own is None:
                here = runs_here()
                own = EventedLoop.current() if here else ThreadedLoop.shared()
            self._hub.serve(own)

    # -- who asks

    def ask(
        self,
        question: str,
        wait: float = WAIT,
        *,
        enough: Callable[[list[Answer]], bool] | None = None,
        **fields: Any,
    ) -> list[Answer]:
        """Return what all processes answered within ``wait`` seconds.

        Those are the ones that serve, and this one where it does. It ends before once
        ``enough`` is true of the answers.

        :raises BackendError: the question, or the answers, cannot get through.
        """
        with self._asking(question, fields) as (asked, send):
            asked.enough = enough
            send()
            if not self._alone:
                asked.done.wait(wait)
            return sorted(asked.answers.values(), key=lambda a: (a.worker, a.id))

    def watch(self, interval: float = PULSE) -> Watch:
        """Return the figures of all processes, as they are each ``interval`` seconds;
        see ``Watch``.
        """
        return Watch(self, interval)

    def stats(self, wait: float = WAIT) -> dict[str, Any]:
        """Return the figures of all processes: see ``WSChat.stats``.

        :raises BackendError: as ``ask``.
        """
        workers = figures_of(self.ask("stats", wait))
        return {"workers": workers, "total": add_up(workers)}

    def rooms(
        self, *, prefix: str = "", part: str = "", limit: int = 50, wait: float = WAIT
    ) -> here.Biggest:
        """Return the rooms with most connections, the biggest first.

        Each has a ``name``, its ``connections`` and ``people``: users, each once in
        each process. Names begin with ``prefix`` and have ``part`` in them, in whatever
        case. ``limit``: how many, at most 500.

        :raises BackendError: as ``ask``.
        """
        return self._biggest("rooms", wait, prefix=prefix, part=part, limit=limit)

    def users(
        self, *, prefix: str = "", part: str = "", limit: int = 50, wait: float = WAIT
    ) -> here.Biggest:
        """Return the users with most connections: ``name``, ``connections``; else as
        ``rooms``.
        """
        return self._biggest("users", wait, prefix=prefix, part=part, limit=limit)

    def connections(self, user: str, wait: float = WAIT) -> list[dict[str, Any]]:
        """Return the connections of ``user``, the oldest first.

        Each has ``id``, ``user``, ``route``, ``address``, ``since`` (seconds since
        1970), ``rooms`` (the first 20 of ``room_count``), ``queued`` (bytes) and
        ``worker``. At most 500 of a process.

        :raises BackendError: as ``ask``.
        """
        found = self.ask("connections", wait, user=user)
        rows = [row for answer in found for row in _rows(answer.value)]
        return sorted(rows, key=lambda row: row["since"])

    def kick(
        self, id: str, code: int = 4000, reason: str = "", wait: float = WAIT
    ) -> bool:
        """Close the connection ``id``, in whichever process; False: none has it.

        :raises ValueError: ``code`` may not be sent.
        :raises BackendError: as ``ask``.
        """
        code, reason = as_close(code, reason)

        def some(answers: list[Answer]) -> bool:
            return any(answer.value for answer in answers)

        fields = {"id": id, "code": code, "reason": reason}
        return some(self.ask("kick", wait, enough=some, **fields))

    def _biggest(self, question: str, wait: float, **fields: Any) -> here.Biggest:
        limit = max(1, min(int(fields["limit"]), here.MOST))
        # More of each process, as small parts may be much in all.
        asked = fields["limit"] = min(limit + DEPTH, here.MOST)
        answers = self.ask(question, wait, **fields)
        found = {a.id: a.value for a in answers if here.is_biggest(a.value)}
        # One that does not list all it has may have more of what others list.
        if len(found) > 1 and any(v["total"] > len(v["rows"]) for v in found.values()):
            likely = here.merged(found.values(), min(2 * asked, here.MOST)).rows

            def from_all(answers: list[Answer]) -> bool:
                return found.keys() <= {answer.id for answer in answers}

            fields |= {"names": [row["name"] for row in likely], "limit": here.MOST}
            for answer in self.ask(question, wait, enough=from_all, **fields):
                if here.is_biggest(answer.value) and answer.id in found:
                    found[answer.id] |= {"rows": answer.value["rows"]}
        return here.merged(found.values(), limit)

    @contextlib.contextmanager
    def _asking(
        self, question: str, fields: dict[str, Any]
    ) -> Iterator[tuple[Asked, Callable[[], None]]]:
        me, asked, key = self.id, Asked(self._hub.event()), secrets.token_hex(6)
        text = _dumps({"ask": question, "id": key, "to": me, "fields": fields})

        def send() -> None:
            if self._alone:
                asked.take(self._answer(question, fields))
                return
            self._listen()
            self._hub.backend.publish(OPERATE, _message(text))
            if fault := self._hub.backend.fault():
                raise BackendError(fault)

        self._asked[key] = asked
        try:
            yield asked, send
        finally:
            self._asked.pop(key, None)

    def _listen(self) -> None:
        """:raises BackendError: no answer would come."""
        if not self._listens:
            self._hub.backend.subscribe([_to(self.id)])
            self._listens = True

    # -- who is asked; called by the backend, from any thread

    def heard(self, delivery: Delivery) -> None:
        """Take in a question, or an answer."""
        try:
            said = msgspec.json.decode(delivery.message.data)
        except (msgspec.DecodeError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        if delivery.topic == OPERATE:
            self._heard_question(said)
        elif delivery.topic == _to(self.id):
            self._heard_answer(said)

    def _heard_question(self, said: dict[str, Any]) -> None:
        question, key, to = said.get("ask"), said.get("id"), said.get("to")
        fields = said.get("fields", {})
        home = self._hub.home
        loop = home.loop
        if (
            not all(isinstance(each, str) for each in (question, key, to))
            or not isinstance(fields, dict)
            or not str(to).isalnum()
            or loop is None  # it serves nobody
            or home.pid != os.getpid()
            or self._bucket.take()
        ):
            return

        def work() -> None:
            answer = self._answer(str(question), fields)
            self._tell(str(to), str(key), answer)

        with contextlib.suppress(ValueError):  # the loop has ended
            loop.call_threadsafe(loop.run_own, work)

    def _answer(self, question: str, fields: dict[str, Any]) -> Answer:
        value: Any = None
        error = None
        function = self.answers.get(question)
        if function is None:
            error = f"this version has no answer to {shown(question)}"
        else:
            try:
                value = function(fields)
                if len(_dumps(value)) > here.MOST_BYTES:
                    value, error = None, "too much to say: ask for less"
            except Exception as fault:
                error = f"{type(fault).__name__}: {fault}"[:300]
                self._log.warning("answer", "cannot answer %s: %s", question, error)
        return Answer(self.id, self.worker, value, error)

    def _tell(self, to: str, key: str, answer: Answer) -> None:
        text = _dumps({"to": key, **answer._asdict()})
        self._hub.backend.submit(_to(to), _message(text), lambda outcome: None)

    def _heard_answer(self, said: dict[str, Any]) -> None:
        asked = self._asked.get(str(said.get("to")))
        id_, worker, error = said.get("id"), said.get("worker"), said.get("error")
        if (
            asked is None  # or not any more
            or not isinstance(id_, str)
            or not isinstance(worker, str)
            or not isinstance(error, str | None)
        ):
            return
        asked.take(Answer(id_, worker, said.get("value"), error))


class Watch:
    """The figures of all processes, again and again: iterate over it.

    Each time it yields one dict for each process, by ``worker``, as ``chat.stats()``
    returns it. One that is not heard of for ``GONE`` seconds is not there any more.
    """

    def __init__(self, reports: Reports, interval: float) -> None:
        self.fault: str | None = None
        """Why nothing can be asked now, and the remedy."""
        self._reports = reports
        self._interval = interval
        self._stopped = False

    def stop(self) -> None:
        """Let the loop end, within a second; from any thread."""
        self._stopped = True

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        reports = self._reports
        pause = reports._hub.event()
        with reports._asking("stats", {}) as (asked, send):
            now = time.monotonic()
            due = now + min(self._interval, WAIT)
            while not self._stopped:
                try:
                    send()
                    self.fault = None
                except BackendError as error:
                    self.fault = str(error)
                now = time.monotonic()
                pulse = now + min(PULSE, self._interval)
                while due <= pulse and not self._stopped:
                    pause.wait(max(due - time.monotonic(), 0))
                    yield self._seen(asked)
                    now, due = time.monotonic(), due + self._interval
                    due = due if due > now else now + self._interval
                if not self._stopped:
                    pause.wait(max(pulse - time.monotonic(), 0))

    def _seen(self, asked: Asked) -> list[dict[str, Any]]:
        now = time.monotonic()
        for id_, at in list(asked.at.items()):
            if now - at >= GONE:
                del asked.at[id_], asked.answers[id_]
        found = sorted(asked.answers.values(), key=lambda a: (a.worker, a.id))
        return figures_of(found)


def figures_of(answers: list[Answer]) -> list[dict[str, Any]]:
    """Return the figures in ``answers``, each with the ``id`` and ``worker``."""
    found = ((answer, here.figures(answer.value)) for answer in answers)
    return [
        {"id": answer.id, "worker": answer.worker, **figures}
        for answer, figures in found
        if figures is not None
    ]


def _rows(value: Any) -> list[dict[str, Any]]:
    """Return the connections that another process tells of; nothing else."""
    rows = value if isinstance(value, list) else []
    return [
        row
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("since"), int | float)
    ]


def _to(asker: str) -> str:
    """Return the topic of answers: others hear nothing of them."""
    return f"{OPERATE}:{asker}"


def _message(text: str) -> Message:
    return Message(text, json=True, event=OPERATE)


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
