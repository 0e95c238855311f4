"""Redis: many processes on many hosts share their topics.

A topic's keys and its channel begin with ``<prefix>:{<topic>}``, so that they are in
one slot of a cluster:

    :meta       hash      epoch; seq, the newest number; plain, if it was claimed; said
                          and floor, bytes: see publish.lua
    :log        stream    the kept messages, their ids <seq>-<bytes said before>
    :mids       zset      digests of the ids that senders gave messages, by number
    :told       hash      of an inbox, what others told and got no answer to
    :people     hash      who is there, in which processes; and how often that changed

Beside them there are ``<prefix>:{presence}:living``, ``:dying`` and ``:clock``, the
processes, and ``<prefix>:{process:<id>}:topics``, where each one has people; and for a
poll the hashes ``<prefix>:{poll:<name>}:poll``, ``:voters`` and ``:counts``. What may
happen once is noted in ``<prefix>:{once:<key>}:once``.

Each has a life: what is kept as ``ttl`` says, and who is where a day after the last
process that knew of it. Only polls stay.

Redis 7 takes 4.7 KB for a topic with one message (``redis-cli memory usage`` of its
keys), as a stream begins with 4 KB; with ``stream-node-max-bytes 512`` in its
configuration 1.2 KB. See docs/decisions/18.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from ...errors import BackendError, ShareTaken
from ...logs import SparingLog, printable
from ...messages import Attendance, Entry, Message, Page, Receipt, Tally, size_of
from ..contract import EMPTY, Host, T, only
from ..shares import UNANSWERED, Shares
from .address import Address
from .packing import (
    MAX_SIZE,
    pack_message,
    pack_passing,
    unpack_entry,
)
from .process import Process
from .sentinel import SentinelAddress
from .subscriber import Timings
from .wire import Arg, Call, Reply, decode, encode

logger = logging.getLogger("flask_wschat")

_KINDS: dict[str, type[Address]] = {"sentinel": SentinelAddress}
_LAST = 1 << 53  # a number that Lua can tell from the next
_META_LONGER = 60.0  # seconds a topic's epoch outlives its messages


class RedisBackend:
    """Topics in the Redis, or Valkey, at ``url``: ``size`` messages each, of
    ``max_bytes``.

    None is kept over ``ttl`` seconds; a process that was silent for ``presence_ttl``
    seconds has nobody.

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
        timings: Timings = Timings(),  # noqa: B008 - immutable
    ) -> None:
        kind = _KINDS.get(url.partition(":")[0].partition("+")[2], Address)
        self._server = kind(url, timings.answer)
        self._size = size
        self._max_bytes = max_bytes
        self._shares = shares = Shares(share, size, max_bytes, ttl)
        self._most_told = (shares.most, shares.most_bytes)
        self._ttls = (round(ttl * 1000), round((ttl + _META_LONGER) * 1000))
        self._empty_ttl = round(min(ttl, EMPTY) * 1000)
        self._presence_ttl = presence_ttl
        self._timings = timings
        self._host: Host | None = None
        self._log = SparingLog(logger)  # who joins asks for the same entries again
        self._publish = self._server.script("publish")
        self._history = self._server.script("history")
        self._claim = self._server.script("claim")
        self._poll = self._server.script("poll")
        self._processes: dict[int, Process] = {}

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

    def _here(self) -> Process:
        """Return what this process has; a fork begins with nothing."""
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            made = Process(self._server, self._host, self._timings, self._presence_ttl)
            process = self._processes.setdefault(pid, made)
            for other in self._processes.keys() - {pid}:
                del self._processes[other]  # the parent's: its sockets are not ours
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
        process = self._here()
        reply: Reply = self._blocking(lambda: process.run([call], again=again)[0])
        return reply

    # -- topics

    def subscribe(self, topics: Sequence[str]) -> None:
        process = self._here()
        process.listen()
        self._blocking(lambda: process.subscriber.subscribe(topics))

    def unsubscribe(self, topics: Sequence[str]) -> None:
        process = self._here()
        process.seen.forget(topics)
        process.subscriber.unsubscribe(topics)

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> Receipt:
        body = pack_message(message)
        if len(body) > MAX_SIZE:
            raise BackendError(f"a message of {len(body)} bytes is over {MAX_SIZE}")
        channel = self._server.channel(topic)
        if not keep or not self._size:
            at = round(time.time(), 6)
            payload = pack_passing(at, body)
            self._run(Call(self._server.publish, [channel, payload]), again=False)
            return Receipt(0, at, "")
        mid = _scoped(message.sender, message.mid)
        epoch, seq = self._here().seen.get(topic)
        args: list[Arg] = [channel, body, self._size, *self._ttls, mid, epoch, seq]
        args += [self._max_bytes, size_of(message.data)]
        args += [*self._shares.parties(topic, message), *self._most_told]
        keys = [*self._server.keys(topic), self._server.key(topic, "told")]
        call = self._publish.call(keys, args)
        seq, at_text, epoch_name, fresh = self._run(call, again=bool(mid))
        if fresh == 2:
            raise ShareTaken(UNANSWERED)
        return Receipt(seq, float(at_text), epoch_name.decode(), bool(fresh))

    def submit(
        self,
        topic: str,
        message: Message,
        done: Callable[[Receipt | Exception], None],
        *,
        keep: bool = False,
    ) -> None:
        def work() -> None:
            receipt: Receipt | Exception
            try:
                receipt = self.publish(topic, message, keep=keep)
            except Exception as error:
                receipt = error
            done(receipt)

        threading.Thread(target=work, daemon=True).start()

    def delete(self, topic: str, seq: int) -> bool:
        raise BackendError("messages cannot be taken back here yet")

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
    ) -> Page:
        bounds = ["" if n is None else min(max(n, 0), _LAST) for n in (after, before)]
        limit = min(max(limit, 0), _LAST)
        process = self._here()
        seen = process.seen.get(topic)
        channel = self._server.channel(topic)
        args: list[Arg] = [limit, *bounds, epoch or "", *self._ttls, *seen, channel]
        args.append(self._empty_ttl)
        call = self._history.call(self._server.keys(topic), args)
        name, seq, recovered, backwards, items, plain = self._run(call, again=True)
        if process.wishes.wants(topic):
            process.seen.note(topic, name.decode(), seq)
        entries: list[Entry] = []
        for item in items:
            try:
                entries.append(unpack_entry(item))
            except ValueError as error:
                self._log.warning(
                    "entry",
                    "ignored a strange entry in %s: %s",
                    printable(topic),
                    printable(error),
                )
        if backwards:
            entries.reverse()
        return Page(name.decode(), seq, entries, bool(recovered), bool(plain))

    def claim(self, topics: Sequence[str], message: Message) -> None:
        payload = pack_passing(round(time.time(), 6), pack_message(message))
        calls = [
            self._claim.call(
                self._server.keys(topic),
                [
                    self._server.channel(topic),
                    payload,
                    self._ttls[1],
                    self._empty_ttl,
                ],
            )
            for topic in topics
        ]
        process = self._here()
        self._blocking(lambda: process.run(calls, again=True))

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
        process = self._here()
        replies = self._blocking(lambda: process.run(calls, again=True))
        return bool(replies[1] == mine)

    def taken(self, key: str) -> bool:
        return bool(self._run(Call("EXISTS", [self._once(key)]), again=True))

    def _once(self, key: str) -> bytes:
        return self._server.key("once:" + key, "once")

    # -- polls

    def vote(self, poll: str, voter: str, choice: str) -> Tally | None:
        return self._act(poll, "vote", voter, choice)

    def tally(self, poll: str, voter: str | None = None) -> Tally:
        tally = self._act(poll, "look", *(() if voter is None else (voter,)))
        assert tally is not None
        return tally

    def close_poll(self, poll: str, closed: bool = True) -> Tally:
        tally = self._act(poll, "close" if closed else "open")
        assert tally is not None
        return tally

    def _act(self, poll: str, *args: str) -> Tally | None:
        topic = "poll:" + poll
        keys = [self._server.key(topic, k) for k in ("poll", "voters", "counts")]
        reply = self._run(self._poll.call(keys, args), again=True)
        if reply is None:
            return None
        version, closed, mine, counts = reply
        names, numbers = map(decode, counts[::2]), map(int, counts[1::2])
        return Tally(
            dict(zip(names, numbers, strict=True)),
            version,
            bool(closed),
            None if mine is None else decode(mine),
        )


def _scoped(sender: str | None, mid: str | None) -> bytes:
    """Return what no other message of any sender has, b"" without ``mid``.

    A digest: a thousand of them are remembered, of any length that senders like.
    """
    if mid is None:
        return b""
    scope = "-" if sender is None else f"{len(sender)}:{sender}"
    return hashlib.blake2b(encode(f"{scope}:{mid}"), digest_size=16).digest()
