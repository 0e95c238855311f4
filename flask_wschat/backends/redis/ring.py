"""Several Redis that know nothing of each other: each topic is in one of them."""

from __future__ import annotations

import functools
import hashlib
import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ...errors import BackendError, ConfigError
from ...messages import EVERYONE, Attendance, MadePoll, Message, Page, Receipt, Tally
from ..contract import Host
from .address import several
from .backend import RedisBackend
from .wire import encode

T = TypeVar("T")

_REMEMBERED = 16_384  # topics whose place is not worked out again: a few MB


class RedisRing:
    """Topics in the Redis that ``url`` names, ``redis://a,b:6380,c/0``, each in one.

    Which one, its name and those of the hosts say, in whichever order: every process
    that is given the same hosts finds the same. With one host more, a share of the
    topics moves there and begins anew; the others stay.

    ``options`` are those of ``RedisBackend``.

    :raises ConfigError: as there, or a host is named twice.
    """

    def __init__(self, url: str, **options: Any) -> None:
        urls = several(url)
        self._backends = [RedisBackend(each, **options) for each in urls]
        names = [_name(each) for each in urls]
        if len(set(names)) < len(names):
            raise ConfigError(
                "WSCHAT_URL names a host twice: each Redis has topics of its own"
            )
        # Of all that could be stable between processes and releases: a digest.
        seeds = [hashlib.blake2b(encode(name)).digest() for name in names]

        def place(topic: str) -> int:
            name = encode(topic)
            weights = [
                hashlib.blake2b(name, digest_size=8, key=seed).digest()
                for seed in seeds
            ]
            return weights.index(max(weights))

        self._place = functools.lru_cache(_REMEMBERED)(place)

    def _at(self, topic: str) -> RedisBackend:
        return self._backends[self._place(topic)]

    def _grouped(
        self, items: Iterable[T], topic: Callable[[T], str]
    ) -> list[tuple[RedisBackend, list[T]]]:
        groups: dict[int, list[T]] = {}
        for item in items:
            groups.setdefault(self._place(topic(item)), []).append(item)
        return [(self._backends[place], group) for place, group in groups.items()]

    # -- life

    def start(self, host: Host) -> None:
        for backend in self._backends:
            backend.start(host)

    def stop(self) -> None:
        for backend in self._backends:
            backend.stop()

    def fault(self) -> str | None:
        # Each is asked: that begins to listen to it. But no connection can do without
        # what is sent to all; rooms and users elsewhere can do without the rest.
        faults = [backend.fault() for backend in self._backends]
        return faults[self._place(EVERYONE)]

    @property
    def deaf(self) -> bool:
        return self._backends[self._place(EVERYONE)].deaf

    # -- topics

    def subscribe(self, topics: Sequence[str]) -> None:
        _each(self._grouped(topics, str), RedisBackend.subscribe)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        for backend, some in self._grouped(topics, str):
            backend.unsubscribe(some)

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> Receipt:
        return self._at(topic).publish(topic, message, keep=keep)

    def submit(
        self,
        topic: str,
        message: Message,
        done: Callable[[Receipt | Exception], None],
        *,
        keep: bool = False,
    ) -> None:
        self._at(topic).submit(topic, message, done, keep=keep)

    def delete(self, topic: str, seq: int) -> bool:
        return self._at(topic).delete(topic, seq)

    def taken_back(self, topic: str) -> list[int]:
        return self._at(topic).taken_back(topic)

    def history(self, topic: str, **options: Any) -> Page:
        return self._at(topic).history(topic, **options)

    def claim(self, topics: Sequence[str], message: Message) -> None:
        def claim(backend: RedisBackend, some: Sequence[str]) -> None:
            backend.claim(some, message)

        _each(self._grouped(topics, str), claim)

    # -- presence

    def attend(self, changes: Sequence[tuple[str, str, int]]) -> None:
        groups = self._grouped(changes, lambda change: change[0])
        _each(groups, RedisBackend.attend)

    def present(self, topic: str, *, heard: bool = False) -> Attendance:
        return self._at(topic).present(topic, heard=heard)

    def refresh(self) -> bool:
        buried, errors = False, []
        for backend in self._backends:
            try:
                buried = backend.refresh() or buried
            except BackendError as error:
                errors.append(error)  # its people are told of once it is back
        if len(errors) == len(self._backends):
            raise errors[0]
        return buried

    # -- what may happen once, polls

    def once(self, key: str, seconds: float) -> bool:
        return self._at("once:" + key).once(key, seconds)

    def taken(self, key: str) -> bool:
        return self._at("once:" + key).taken(key)

    def lease(self, key: str, holder: str, seconds: float) -> bool:
        return self._at("lease:" + key).lease(key, holder, seconds)

    def release(self, key: str, holder: str) -> None:
        self._at("lease:" + key).release(key, holder)

    def make_poll(self, poll: str, id: str, text: str, seconds: float) -> MadePoll:
        return self._at("poll:" + poll).make_poll(poll, id, text, seconds)

    def made_poll(self, poll: str) -> MadePoll | None:
        return self._at("poll:" + poll).made_poll(poll)

    def made_polls(self) -> list[MadePoll]:
        each = [backend.made_polls() for backend in self._backends]
        return sorted(
            itertools.chain(*each), key=operator.attrgetter("at"), reverse=True
        )

    def delete_poll(self, poll: str, id: str) -> bool:
        return self._at("poll:" + poll).delete_poll(poll, id)

    def vote(self, poll: str, voter: str, choice: str, id: str = "") -> Tally | None:
        return self._at("poll:" + poll).vote(poll, voter, choice, id)

    def tally(self, poll: str, voter: str | None = None, id: str = "") -> Tally:
        return self._at("poll:" + poll).tally(poll, voter, id)

    def close_poll(self, poll: str, closed: bool = True, id: str = "") -> Tally:
        return self._at("poll:" + poll).close_poll(poll, closed, id)


def _name(url: str) -> str:
    """Return by what a Redis is known, whatever its password and options are."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}"


def _each(
    groups: list[tuple[RedisBackend, list[T]]],
    step: Callable[[RedisBackend, list[T]], Any],
) -> list[Any]:
    """Do ``step`` with each group and return what came, also where one is down.

    :raises BackendError: one is; the others were served.
    """
    results, errors = [], []
    for backend, group in groups:
        try:
            results.append(step(backend, group))
        except BackendError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return results
