"""Which page a browser's request comes from, and whether it may.

Only browsers send ``Origin``, and a page cannot forge it, nor set other fields of an
opening request. Who is no browser can send anything: this is not for them.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::(?P<port>[0-9]{0,5}))?/?\Z"
)
_BELOW = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\Z")
_PORT = re.compile(r":[0-9]*\Z")
_IMPLIED = {"http": "80", "https": "443", "ws": "80", "wss": "443"}
_PROXIED = {
    *("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "werkzeug.proxy_fix.orig"),
    *("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO"),
}
"""What an environ has where a proxy says that it is one: no page can."""


def is_one_of(origin: str, allowed: Iterable[str]) -> bool:
    """Whether ``origin`` is one of ``allowed``, however either is written.

    "null", which pages in sandboxes and from files have, is only "null". A host that
    begins with ``*.`` stands for all below it, at any depth, and not for itself.
    """
    wanted = _normal(origin)
    return any(name == "*" or _fits(wanted, _normal(name)) for name in allowed)


def _fits(origin: tuple[str, str, str], allowed: tuple[str, str, str]) -> bool:
    if origin == allowed:
        return True
    scheme, host, port = allowed
    if not host.startswith("*."):
        return False
    below, of = origin[1], host[1:]
    return (
        (origin[0], origin[2]) == (scheme, port)
        and below.endswith(of)
        and _BELOW.match(below[: -len(of)]) is not None
    )


def _normal(origin: str) -> tuple[str, str, str]:
    """Return an origin's scheme, host and port, the port that it implies included."""
    origin = origin.strip().lower()
    found = _ORIGIN.match(origin)
    if found is None:
        return origin, "", ""
    scheme, host, port = found.group("scheme", "host", "port")
    return scheme, host, (port or "").lstrip("0") or _IMPLIED.get(scheme, "")


def is_rebound(host: str, environ: Mapping[str, Any]) -> bool:
    """Whether a request of a loopback address is for a ``host`` that has none.

    So is one of a foreign page whose name its owner let lead to this machine: origin
    and host agree then, and are both foreign. See docs/decisions/28. A proxy that says
    what it is may well pass on such a name.
    """
    return not (
        environ.get("wsgi.url_scheme") != "http"  # then the name has a certificate
        or not _PROXIED.isdisjoint(environ)
        or _is_local(host)
        or not _is_loopback(environ.get("REMOTE_ADDR", ""))
        or _name(host) == socket.gethostname().lower()
    )


@functools.lru_cache(64)  # a server has few names, and a field at most 8 KB
def _is_local(host: str) -> bool:
    """Whether ``host`` says by itself that it is this machine."""
    name = _name(host)
    return (
        name == "localhost"
        or name.endswith(".localhost")
        or _is_loopback(name.strip("[]"), unspecified=True)
    )


def _name(host: str) -> str:
    return _PORT.sub("", host).lower().rstrip(".")


def _is_loopback(text: str, *, unspecified: bool = False) -> bool:
    if text == "127.0.0.1":
        return True
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or (unspecified and address.is_unspecified)
