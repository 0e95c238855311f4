"""What a WebSocket URL says: where to connect, and what to ask there."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit


class Address(NamedTuple):
    """What a URL says."""

    secure: bool
    host: str
    port: int
    shown: str
    target: str
    authorization: str | None


def parse(url: str) -> Address:
    """Return the parts of a WebSocket URL (RFC 6455 §3).

    :raises ValueError: it is not one; says what would be.
    """
    told = re.sub(r"//[^/]*@", "//…@", url)  # passwords end up in logs
    wanted = f"ws://host[:port]/path or wss://… is expected, not {told!r}"
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError(f"{wanted}: it has spaces or control characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        ascii_host = (host or "").encode("idna").decode()
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}") from None
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"{wanted}: its scheme is {parts.scheme or 'missing'}")
    if not host:
        raise ValueError(f"{wanted}: the host is missing")
    if port == 0:
        raise ValueError(f"{wanted}: there is no port 0")
    if "#" in url:
        raise ValueError(f"{wanted}: a fragment (#…) is not allowed, write %23")
    secure = parts.scheme == "wss"
    shown = f"[{ascii_host}]" if ":" in host else ascii_host
    usual = 443 if secure else 80
    if port not in (None, usual):
        shown += f":{port}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authorization = None
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    # All of ASCII is left as it is: the URL has been quoted where that is needed.
    target = quote(target, safe="".join(map(chr, range(0x21, 0x7F))))
    return Address(secure, ascii_host, port or usual, shown, target, authorization)
