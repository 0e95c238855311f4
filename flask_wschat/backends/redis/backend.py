"""Redis: many processes on many hosts share their topics.

A topic's keys and its channel begin with ``<prefix>:{<topic>}``, so that they are in
one slot of a cluster:

    :meta       hash      epoch; seq and tag of the newest message; plain, if it was
                          claimed; said, bytes; and more, see publish.lua
    :log        stream    the kept messages, those of a call in one entry, whose id is
                          <seq of the first>-<bytes said before>
    :mids0, 1   hash      numbers, by digests of the ids that senders gave messages
    :gone       hash      what is left of messages that were taken back, by number; and
                          those that came in one call with them
    :growths    hash      what grows, by its id
    :pieces     hash      what it consists of; see grow.lua
    :told       hash      of an inbox, what others told and got no answer to
    :people     hash      who is there, in which processes; and how often that changed

Beside them there are ``<prefix>:{presence}:living``, ``:dying`` and ``:clock``, the
processes, and ``<prefix>:{process:<id>}:topics``, where each one has people; and for a
poll the hashes ``<prefix>:{poll:<name>}:poll``, ``:voters`` and ``:counts``; of one
made at run time they begin with ``<prefix>:{made:<name>}``, and there is a list of
such, ``<prefix>:{polls}:polls``. What may happen once is noted in
``<prefix>:{once:<key>}:once``, and what one at a time has in
``<prefix>:{lease:<key>}:lease``.

Each has a life: what is kept as ``ttl`` says, and who is where a day after the last
process that knew of it. Only polls that are code stay.

Redis 7 takes 4.7 KB for a topic with one message (``redis-cli memory usage`` of its
keys), as a stream begins with 4 KB; with ``stream-node-max-bytes 512`` in its
configuration 1.2 KB. See docs/decisions/18.
"""

from __future__ import annotations

import logging
import operator
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence

from ...errors import BackendError
from ...logs import SparingLog, printable
from ...messages import Attendance, Entry, MadePoll, Message, Page, Receipt, Tally
from ..contract import EMPTY, Host, T, only
from ..shares import Shares
from .address import Address
from .cluster import ClusterAddress
from .packing import (
    NUMBERS,
    pack_message,
    pack_passing,
    unpack_entry,
    unpack_grown,
)
from .polls import Polls
from .process import Process
from .publishing import Done, Limits, growth_keys
from .sentinel import SentinelAddress
from .subscriber import Timings
from .wire import Arg, Call, Reply, encode

logger = logging.getLogger("flask_wschat")

_KINDS: dict[str, type[Address]] = {
    "sentinel": SentinelAddress,
    "cluster": ClusterAddress,
}
_began = operator.attrgetter("at")
_META_LONGER = 60.0  # seconds a topic's epoch outlives its messages


class RedisBackend:
    """Topics in the Redis, or Valkey, at ``url``: ``size`` messages each, of
    ``max_bytes``.

    None is kept over ``ttl`` seconds; a process that was silent for ``presence_ttl``
    seconds has nobody. A kept message is acknowledged once ``wait`` replicas have it.

    :raises ConfigError: the URL cannot work, or redis-py is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int = 256,
        max_bytes: int = 1 << 20,
        ttl: float = 86400.0,
        presence_ttl: float = 45.0,
        share: float = 0.25,
        wait: int = 0,
        timings: Timings = Timings(),  # noqa: B008 - immutable
    ) -> None:
        kind = _KINDS.get(url.partition(":")[0].partition("+")[2], Address)
        self._server = kind(url, timings.answer)
        life = round(ttl * 1000)
        longer = round((ttl + _META_LONGER) * 1000)
        self._limits = Limits(size, max_bytes, life, longer)
        self._shares = Shares(share, size, max_bytes, ttl)
        self._empty_ttl = round(min(ttl, EMPTY) * 1000)
        self._presence_ttl = presence_ttl
        self._replicas = wait
        self._timings = timings
        self._host: Host | None = None
        self._log = SparingLog(logger)  # who joins asks for the same entries again
        self._history = self._server.script("history")
        self._delete = self._server.script("delete")
        self._claim = self._server.script("claim")
        self._lease = self._server.script("lease")
        self._processes: dict[int, Process] = {}

        def run(calls: Sequence[Call], *, again: bool) -> list[Reply]:
            return self._here().run(calls, again=again)

        self._polls = Polls(run, self._server, self._strange)

    # -- life

    def start(self, host: Host) -> None:
        self._host = only(host, self._host)

    def stop(self) -> None:
        process = self._processes.get(os.getpid())
        if process is not None:
            self._blocking(process.stop)

    def fault(self) -> str | None:
        process = self._here()
        try:
            process.listen()
        except BackendError as error:
            return str(error)
        return process.subscriber.fault

    @property
    def deaf(self) -> bool:
        return self._here().subscriber.deaf

    def _here(self) -> Process:
        """Return what this process has; a fork begins with nothing."""
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            made = Process(
                self._server,
                self._host,
                self._timings,
                self._presence_ttl,
                self._limits,
                self._shares,
                self._replicas,
            )
            process = self._processes.setdefault(pid, made)
            for other in self._processes.keys() - {pid}:
                # The parent's: its sockets are not ours.
                self._processes.pop(other, None)
        return process

    def _blocking(self, function: Callable[[], T]) -> T:
        if self._host is None:
            return function()
        try:
            return self._host.run_blocking(function)
        except OSError as error:
            raise BackendError(str(error)) from error

    def _run(self, call: Call, *, again: bool) -> Reply:
        """Return the reply to one command; ``again``: it may be sent twice.

        :raises BackendError: there is none.
        """
        reply: Reply = self._here().run([call], again=again)[0]
        return reply

    # -- topics

    def subscribe(self, topics: Sequence[str]) -> None:
        process = self._here()
        process.listen()
        self._blocking(lambda: process.subscriber.subscribe(topics))

    def unsubscribe(self, topics: Sequence[str]) -> None:
        self._here().unsubscribe(topics)

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> Receipt:
        receipt: Receipt = self._here().wait(
            lambda done: self._send(topic, message, done, keep)
        )
        return receipt

    def submit(
        self,
        topic: str,
        message: Message,
        done: Callable[[Receipt | Exception], None],
        *,
        keep: bool = False,
    ) -> None:
        try:
            self._send(topic, message, done, keep)
        except Exception as error:
            done(error)

    def _send(self, topic: str, message: Message, done: Done, keep: bool) -> None:
        publisher, growth = self._here().publisher, message.growth
        keep = keep and self._limits.size > 0
        if growth is not None and (message.event is not None or not keep):
            publisher.grow(topic, message, growth, done)
        elif keep:
            publisher.keep(topic, message, done)
        else:
            publisher.pass_on(topic, message, done)

    def delete(self, topic: str, seq: int) -> bool:
        if not 0 < seq < NUMBERS or not self._limits.size:
            return False
        keys = [self._server.key(topic, name) for name in ("meta", "log", "gone")]
        args: list[Arg] = [seq, self._server.channel(topic)]
        args += [self._limits.size, self._limits.max_bytes, self._limits.meta_ttl]
        return bool(self._run(self._delete.call(keys, args), again=False))

    def taken_back(self, topic: str) -> list[int]:
        key = self._server.key(topic, "gone")
        try:
            return sorted(map(int, self._run(Call("HKEYS", [key]), again=True)))
        except (ValueError, TypeError) as error:
            raise self._strange(topic) from error

    def history(
        self,
        topic: str,
        *,
        after: int | None = None,
        epoch: str | None = None,
        tag: str | None = None,
        before: int | None = None,
        limit: int = 50,
        max_bytes: int | None = None,
        growing: bool = True,
    ) -> Page:
        bounds = ["" if n is None else min(max(n, 0), NUMBERS) for n in (after, before)]
        limit = min(max(limit, 0), NUMBERS)
        process, limits = self._here(), self._limits
        channel = self._server.channel(topic)
        args: list[Arg] = [limit, *bounds, epoch or "", tag or ""]
        args += ["" if max_bytes is None else max(max_bytes, 0), *limits]
        args += [self._empty_ttl, channel, *process.position(topic), int(growing)]
        keys = [*self._server.keys(topic), *growth_keys(self._server, topic)]
        call = self._history.call(keys, args)
        reply = self._run(call, again=True)
        try:
            name, seq, word, recovered, plain, backwards, items, bodies, grown = reply
            newest = "" if word == b"-" else word.decode()
            era = name.decode()
            streams = sorted(map(unpack_grown, grown), key=_began)
        except (ValueError, TypeError) as error:
            raise self._strange(topic) from error
        if process.wishes.wants(topic):
            process.seen.note(topic, era, seq, newest)
        start = max(after or 0, 0) if recovered else None
        entries, whole = self._entries(topic, zip(items, bodies, strict=True), start)
        if recovered and not whole and not entries:
            # What follows is not there: once told, nobody waits for it.
            return self.history(
                topic, limit=limit, max_bytes=max_bytes, growing=growing
            )
        if backwards:
            entries.reverse()
        page = Page(era, seq, entries, bool(recovered), bool(plain), newest)
        return page._replace(streams=streams) if streams else page

    def _entries(
        self, topic: str, items: Iterable[tuple[bytes, bytes]], after: int | None
    ) -> tuple[list[Entry], bool]:
        """Return the entries; where they follow ``after``, those before any hole.

        And whether all are there.
        """
        entries: list[Entry] = []
        whole = True
        for item, body in items:
            try:
                entry, before = unpack_entry(item, body)
            except ValueError as error:
                whole = False
                self._log.warning(
                    "entry",
                    "ignored a strange entry in %s: %s",
                    printable(topic),
                    printable(error),
                )
                continue
            if after is not None:
                after += 1
                if entry.seq != after or (entries and before != entries[-1].tag):
                    return entries, False
            entries.append(entry)
        return entries, whole

    def claim(self, topics: Sequence[str], message: Message) -> None:
        payload = pack_passing(round(time.time(), 6), pack_message(message))
        calls = [
            self._claim.call(
                self._server.keys(topic),
                [
                    self._server.channel(topic),
                    payload,
                    self._limits.meta_ttl,
                    self._empty_ttl,
                ],
            )
            for topic in topics
        ]
        self._here().run(calls, again=True)

    # -- presence

    def attend(self, changes: Sequence[tuple[str, str, int]]) -> None:
        people = self._here().people
        self._blocking(lambda: people.attend(changes))

    def present(self, topic: str, *, heard: bool = False) -> Attendance:
        people = self._here().people
        return self._blocking(lambda: people.present(topic, heard))

    def refresh(self) -> bool:
        people = self._here().people
        return self._blocking(people.refresh)

    # -- what may happen once

    def once(self, key: str, seconds: float) -> bool:
        name, mine = self._once(key), encode(secrets.token_hex(8))
        life = max(round(seconds * 1000), 1)
        # Whose it is shows by what is there, also where the first of these was sent
        # twice because its answer was lost.
        calls = [
            Call("SET", [name, mine, "NX", "PX", life]),
            Call("GET", [name]),
        ]
        replies = self._here().run(calls, again=True)
        return bool(replies[1] == mine)

    def taken(self, key: str) -> bool:
        return bool(self._run(Call("EXISTS", [self._once(key)]), again=True))

    def _once(self, key: str) -> bytes:
        return self._server.key("once:" + key, "once")

    def lease(self, key: str, holder: str, seconds: float) -> bool:
        return self._hold(key, holder, max(round(seconds * 1000), 1))

    def release(self, key: str, holder: str) -> None:
        self._hold(key, holder, 0)

    def _hold(self, key: str, holder: str, ms: int) -> bool:
        name = self._server.key("lease:" + key, "lease")
        return bool(self._run(self._lease.call([name], [holder, ms]), again=True))

    # -- polls

    def make_poll(self, poll: str, id: str, text: str, seconds: float) -> MadePoll:
        return self._polls.make(poll, id, text, seconds)

    def made_poll(self, poll: str) -> MadePoll | None:
        return self._polls.made(poll)

    def made_polls(self) -> list[MadePoll]:
        return self._polls.all_made()

    def delete_poll(self, poll: str, id: str) -> bool:
        return self._polls.delete(poll, id)

    def vote(self, poll: str, voter: str, choice: str, id: str = "") -> Tally | None:
        return self._polls.vote(poll, voter, choice, id)

    def tally(self, poll: str, voter: str | None = None, id: str = "") -> Tally:
        return self._polls.tally(poll, voter, id)

    def close_poll(self, poll: str, closed: bool = True, id: str = "") -> Tally:
        return self._polls.close(poll, closed, id)

    def _strange(self, topic: str) -> BackendError:
        """Return what to raise where what is kept of ``topic`` makes no sense."""
        words = f"Redis at {self._server.where} keeps of {printable(topic)} what is"
        return BackendError(f"{words} not ours: another program has written there")
