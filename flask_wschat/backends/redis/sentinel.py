"""Redis whose primary is known by sentinels, and may be another one from now on.

Why redis-py's own client for them does not do: docs/decisions/48.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ...errors import ConfigError
from .address import Address, several
from .wire import Connection, LinkError, Reply, ReplyError

_PORT = 26379
_SECONDS = 1.0  # for a sentinel's answer: there are others
_REST = 10.0  # until one that gave none is asked again beside a connection


class SentinelAddress(Address):
    """``redis+sentinel://user:password@host:26379,host2,host3/name/db?options``.

    User, password and options are those of the primary and its replicas; the
    sentinels' own are ``sentinel_username`` and ``sentinel_password``, in the options.

    :raises ConfigError: the URL cannot work.
    """

    patience = 1.0

    def __init__(self, url: str, timeout: float) -> None:
        first, *_ = urls = several(url.replace("+sentinel:", ":", 1))
        parts = urlsplit(first)
        name, _, db = parts.path.strip("/").partition("/")
        self._name = unquote(name)
        self._check("redis", name if "@" in name else db, {}, parts.fragment)
        if not self._name:
            raise ConfigError(
                "WSCHAT_URL must name what the sentinels watch:"
                " redis+sentinel://host:26379,host2:26379/mymaster"
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        known = {
            word: options.pop(f"sentinel_{word}")
            for word in ("username", "password")
            if f"sentinel_{word}" in options
        }
        parts = parts._replace(path=f"/{db}", query=urlencode(options), fragment="")
        super().__init__(parts.geturl(), timeout)
        login = dict.fromkeys(("username", "password")) | known
        plain = {k: v for k, v in self._options.items() if k != "db"}
        plain["socket_timeout"] = min(timeout, _SECONDS)
        plain["socket_connect_timeout"] = min(timeout, _SECONDS)
        self._sentinels: list[dict[str, Any]] = []
        self._turn = 0
        self._resting: dict[int, float] = {}
        """Until when, by the place among the sentinels."""
        for each in urls:
            netloc = urlsplit(each)
            try:
                port = netloc.port or _PORT
            except ValueError:
                raise ConfigError(
                    "WSCHAT_URL cannot work: a sentinel's port should be a number"
                ) from None
            place = {"host": netloc.hostname or "localhost", "port": port}
            self._sentinels.append(plain | login | place)
        if "password" in known:
            self._secrets.append(known["password"])
        hosts = [f"{s['host']}:{s['port']}" for s in self._sentinels]
        self._unknown = f"{self._name} (sentinels {', '.join(hosts)})"
        self.where = self._unknown
        self._epoch = -1
        self._primary: tuple[str, int] | None = None

    def connect(self) -> Connection:
        try:
            host, port = self._find()
        except (LinkError, ReplyError):
            self.where = self._unknown
            raise
        self.where = f"{host}:{port} ({self._name})"
        connection = self._open(self._options | {"host": host, "port": port})
        role = self.ask(connection, "ROLE")[0]
        if role != b"master":
            connection.disconnect()
            why = "is not the primary, as the sentinels say: they choose another"
            raise LinkError(why, sent=False)
        return connection

    @property
    def name(self) -> str:
        """By which the sentinels know the primary."""
        return self._name

    def ask_each(self, *words: str) -> list[tuple[str, Reply | Exception]]:
        """Return where each sentinel is, and what it answers, or why it does not."""
        answers: list[tuple[str, Reply | Exception]] = []
        for sentinel in self._sentinels:
            answer: Reply | Exception
            try:
                connection = self._open(sentinel)
                answer = self.ask(connection, *words)
                connection.disconnect()
            except (LinkError, ReplyError) as error:
                answer = error
            answers.append((f"{sentinel['host']}:{sentinel['port']}", answer))
        return answers

    def check(self) -> None:
        # One at each time, as that is often: of those that are behind none is believed.
        self._turn = turn = (self._turn + 1) % len(self._sentinels)
        if time.monotonic() < self._resting.get(turn, 0.0):
            return
        try:
            epoch, _, primary = self._question(self._sentinels[turn])
        except (LinkError, ReplyError):
            # While one is waited for, nothing is delivered.
            self._resting[turn] = time.monotonic() + _REST
            return
        if epoch > self._epoch and primary != self._primary:
            raise LinkError("is not the primary any more", sent=False)

    def _find(self) -> tuple[str, int]:
        """Return where the primary is, as the sentinel says that knows it best.

        :raises LinkError: none knows.
        """
        answers, errors = [], []
        for sentinel in self._sentinels:
            try:
                answers.append(self._question(sentinel))
            except (LinkError, ReplyError) as error:
                errors.append(error)
        if not answers:
            refused = [error for error in errors if isinstance(error, ReplyError)]
            if refused:
                raise refused[0]
            why = f"cannot be found: no sentinel answers; does one run? ({errors[0]})"
            raise LinkError(why, sent=False)
        epoch, down, primary = max(answers, key=lambda answer: answer[0])
        if down:
            why = "is down, say the sentinels: they choose another primary"
            raise LinkError(why, sent=False)
        self._epoch, self._primary = epoch, primary
        return primary

    def _question(self, sentinel: dict[str, Any]) -> tuple[int, bool, tuple[str, int]]:
        """Return an epoch that grows, whether the primary is down, and its address."""
        connection = self._open(sentinel)
        try:
            reply = self.ask(connection, "SENTINEL", "MASTER", self._name)
        finally:
            connection.disconnect()
        try:
            found = {k.decode(): v.decode() for k, v in zip(*[iter(reply)] * 2)}  # noqa: B905
            primary = found["ip"], int(found["port"])
            epoch, flags = int(found["config-epoch"]), found["flags"].split(",")
        except (KeyError, ValueError, AttributeError, TypeError):
            raise ReplyError("a sentinel's answer that is none") from None
        return epoch, "o_down" in flags or "master" not in flags, primary
