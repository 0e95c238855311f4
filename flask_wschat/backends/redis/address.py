"""Where Redis is: the URL, how keys and channels are called, opening a connection."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from ...errors import ConfigError
from ...logs import redacted
from ...transports.patched import allocate_lock
from .wire import Connection, LinkError, Reply, ReplyError, Script, Wire, encode, pack

_KEPT = ("meta", "log", "mids0", "mids1", "gone")
_MOST_WAITING = 4  # threads that a name which is not resolved may hold
_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
}


def several(url: str) -> list[str]:
    """Return a URL for each of the hosts in ``url``, which commas separate.

    A user and password before them is that of each.

    :raises ConfigError: there is a comma with no host beside it.
    """
    start, slashes, rest = url.partition("://")
    end = min((i for c in "/?#" if (i := rest.find(c)) >= 0), default=len(rest))
    login, at, hosts = rest[:end].rpartition("@")
    before = f"{start}{slashes}{login}{at}"
    if "," in hosts and not all(host.strip() for host in hosts.split(",")):
        raise ConfigError("WSCHAT_URL names no host beside one of its commas")
    return [f"{before}{host.strip()}{rest[end:]}" for host in hosts.split(",")]


class Address:
    """Where Redis is, and how its keys are called."""

    publish = "PUBLISH"
    """The command for publications."""
    patience = 5.0
    """Seconds between attempts to connect, at most."""

    def __init__(self, url: str, timeout: float) -> None:
        try:
            import redis
        except ImportError:
            raise ConfigError(
                "WSCHAT_URL names Redis, which needs redis-py:"
                " pip install 'flask-wschat[redis]'"
            ) from None
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - it is looked at only now
        except ValueError:  # its words quote what may be a part of the password
            raise ConfigError(
                f"WSCHAT_URL cannot work: {redacted(url)!r} should have a port that is"
                " a number; in a password write %40 for @, %3A for :, %2F for /"
            ) from None
        scheme, netloc, path, query, fragment = parts
        if scheme not in _SCHEMES:
            raise ConfigError(f"WSCHAT_URL cannot be {redacted(scheme)}://")
        options = dict(parse_qsl(query, keep_blank_values=True))
        self._check(scheme, path.strip("/"), options, fragment)
        self._prefix = encode(options.pop("prefix", "wschat"))
        plain = f"{_SCHEMES[scheme]}://{netloc}{path}?{urlencode(options)}"
        try:
            parse: Any = redis.connection.parse_url
            given: dict[str, Any] = parse(plain)
        except ValueError as error:
            raise ConfigError(f"WSCHAT_URL cannot work: {error}") from None
        self._redis = redis
        self._timeout = timeout
        self._lock = allocate_lock()  # of the system's, as all that is held so shortly
        self._waiting = 0  # connections that are being opened for too long
        self._class: Any = given.pop("connection_class", redis.Connection)
        self._options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "client_name": "wschat",
        }
        if scheme != "unix":
            self._options["socket_keepalive"] = True
        # Ours is the reading, of RESP2.
        self._options |= given | {"protocol": 2}
        try:
            self._class(**self._options)
        except TypeError as error:
            if "'protocol'" in str(error):
                words = "the package redis is too old: pip install 'redis>=5.1'"
                raise ConfigError(words) from None
            raise ConfigError(f"WSCHAT_URL has an unknown option: {error}") from None
        except (ValueError, redis.exceptions.RedisError) as error:
            raise ConfigError(f"WSCHAT_URL cannot work: {error}") from None
        password = given.get("password")
        self._secrets = [str(password)] if password else []
        host, port = given.get("host", "localhost"), given.get("port", 6379)
        self.where: str = given.get("path") or f"{host}:{port}"
        # Channels are the same in every database, our topics are not.
        self._live = f"live:{given.get('db', 0)}"

    @staticmethod
    def _check(scheme: str, path: str, options: dict[str, str], rest: str) -> None:
        """Refuse what would lead elsewhere than is meant.

        :raises ConfigError: it would.
        """
        unix = scheme == "unix"
        if rest or any("@" in n for n in options) or ("@" in path and not unix):
            # Nothing of it is shown: it may be a password's end.
            raise ConfigError(
                "WSCHAT_URL cannot work: in a password write %40 for @, %3A for :,"
                " %2F for /, %3F for ?, %23 for #"
            )
        if unix and not path:
            raise ConfigError("WSCHAT_URL should name a socket: unix:///run/redis.sock")
        if not unix and path and not (path.isascii() and path.isdigit()):
            raise ConfigError(
                f"WSCHAT_URL cannot work: a database is a number, unlike {path!r}"
            )

    def key(self, topic: str, suffix: str) -> bytes:
        """Return a key of ``topic``."""
        return b"%b:{%b}:%b" % (self._prefix, encode(topic), suffix.encode())

    def keys(self, topic: str) -> list[bytes]:
        """Return the keys of what is kept of ``topic``."""
        return [self.key(topic, suffix) for suffix in _KEPT]

    def channel(self, topic: str) -> bytes:
        """Return where publications to ``topic`` go."""
        return self.key(topic, self._live)

    def script(self, name: str, limits: Sequence[int] = ()) -> Script:
        """Return the script in ``<name>.lua``, with these ``limits`` in it."""
        return Script(name, self.publish, limits)

    def connect(self) -> Connection:
        """Open a connection; see ``wire.Connect``."""
        return self._open(self._options)

    def check(self) -> None:
        """Find out whether the connections lead to where they should; now and then.

        :raises LinkError: they do not any more.
        """

    def _open(self, options: dict[str, Any]) -> Connection:
        host = str(options.get("host", "localhost"))
        if "path" in options or host == "localhost" or _is_address(host):
            return self._opened(options)
        # No resolver's answer has a deadline of its own, and connecting to what it
        # gives may take as long again.
        with self._lock:
            if self._waiting >= _MOST_WAITING:
                why = f"cannot be reached: {host} is not resolved"
                raise LinkError(why, sent=False, silent=True)
            self._waiting += 1
        box: list[Connection | BaseException] = []
        done = threading.Event()
        late = False

        def work() -> None:
            try:
                box.append(self._opened(options))
            except BaseException as error:
                box.append(error)
            with self._lock:
                self._waiting -= 1
                done.set()
            if late and not isinstance(box[0], BaseException):
                box[0].disconnect()

        try:
            threading.Thread(target=work, name="wschat-dial", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._waiting -= 1
            raise LinkError(f"cannot be reached: {error}", sent=False) from None
        done.wait(2 * self._timeout)
        with self._lock:
            late = not done.is_set()
        if late:
            why = f"cannot be reached: {host} is not resolved, or silent"
            raise LinkError(why, sent=False, silent=True)
        if isinstance(box[0], BaseException):
            raise box[0]
        return box[0]

    def _opened(self, options: dict[str, Any]) -> Connection:
        errors = self._redis.exceptions
        connection: Connection = self._class(**options)
        try:
            connection.connect()
        except errors.BusyLoadingError as error:
            raise ReplyError(f"LOADING {self._said(error)}") from None
        except errors.AuthenticationError as error:
            missing = "authentication required" in str(error).lower()
            code = "NOAUTH" if missing else "WRONGPASS"
            raise ReplyError(f"{code} {self._said(error)}") from None
        except errors.TimeoutError:
            why = "does not answer"
            raise LinkError(why, sent=False, silent=True) from None
        except (errors.ConnectionError, OSError) as error:
            why = f"cannot be reached; does it run? ({self._said(error)})"
            raise LinkError(why, sent=False) from None
        except errors.RedisError as error:
            raise ReplyError(self._said(error)) from None
        return connection

    def ask(self, connection: Connection, *words: str) -> Reply:
        """Return the answer to one command on a new connection.

        :raises LinkError: there is none.
        :raises ReplyError: it is a refusal.
        """
        wire = Wire(connection)
        try:
            wire.sock.sendall(pack(*words))
            replies: list[Reply] = []
            while not replies:
                replies += wire.receive()
        except OSError as error:
            connection.disconnect()
            silent = isinstance(error, TimeoutError)
            why = f"does not answer {words[0]} ({error})"
            raise LinkError(why, sent=False, silent=silent) from None
        if isinstance(replies[0], ReplyError):
            connection.disconnect()
            raise replies[0]
        return replies[0]

    def _said(self, error: Exception) -> str:
        """Return an error's words. What does not know AUTH repeats the password."""
        words = str(error)
        for secret in self._secrets:
            words = words.replace(secret, "…")
        return words


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
