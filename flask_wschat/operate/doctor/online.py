"""The site as the world sees it: through its name, its TLS and its proxies."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.routing import Rule

from ..dashboard import Dashboard
from . import mirror
from .finding import Finding, Setup
from .online_kinds import (
    ADDRESS_FORGED,
    ADDRESS_LOST,
    APP_DOWN,
    BAD_URL,
    BLOCKED,
    CERTIFICATE,
    CERTIFICATE_ENDS,
    CLOCK,
    FIX_COUNT,
    FIX_MISSING,
    HOST_FORGED,
    HOST_LOST,
    HTTP_1_0,
    NO_HANDSHAKE,
    NOT_OURS,
    NOT_READY,
    ORIGIN,
    OTHER_KEY,
    REBOUND,
    REDIRECTS,
    SAYS_WRONG,
    SCHEME_LOST,
    UNREACHABLE,
    UPGRADE_LOST,
)
from .origins import proxy_fixes

_BEFORE_ORIGIN = {
    each.name for each in (SCHEME_LOST, HOST_LOST, FIX_MISSING, FIX_COUNT, SAYS_WRONG)
}
"""With one of these a refused origin is no news, and no remedy."""
SECONDS = 5.0
"""For one request."""
_SKEW = 5.0
"""Seconds; the header ``Date`` has whole ones, and an answer takes some."""
_REST = 0.1
"""The part of its life in which a certificate should have been replaced."""
_STRANGER = "192.0.2.66"  # of nobody: RFC 5737
_STRANGE_HOST = "doctor.invalid"  # of nobody: RFC 6761


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    text: str


class Site:
    """What is at a URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it should be https://example.org")
        self.secure = parts.scheme == "https"
        self.host, self.port = parts.hostname, parts.port
        self.shown = parts.netloc.rpartition("@")[2].lower()
        self.origin = f"{parts.scheme}://{self.shown}"
        self.prefix = parts.path.rstrip("/")
        self.context = ssl.create_default_context() if self.secure else None

    def trust_anybody(self) -> None:
        assert self.context is not None
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for ``path``; in ``headers``' names stands _ for -.

        :raises OSError: there is no answer.
        """
        made: http.client.HTTPConnection
        if self.context is not None:
            made = http.client.HTTPSConnection(
                self.host, self.port, timeout=SECONDS, context=self.context
            )
        else:
            made = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        with contextlib.closing(made):
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            try:
                made.request("GET", self.prefix + path, headers=given)
                answer = made.getresponse()
                text = "" if answer.status == 101 else answer.read(65536).decode()
            except (http.client.HTTPException, ValueError) as error:
                raise OSError(f"answers what is no HTTP ({error!r})") from None
            return Answer(answer.status, answer.headers, text)

    def certificate(self) -> tuple[float, float]:
        """Return the seconds that the certificate has left, and those of its life."""
        assert self.context is not None
        address = (self.host, self.port or 443)
        with (
            socket.create_connection(address, SECONDS) as plain,
            self.context.wrap_socket(plain, server_hostname=self.host) as sock,
        ):
            found: Any = sock.getpeercert()
        first, last = map(
            ssl.cert_time_to_seconds, (found["notBefore"], found["notAfter"])
        )
        return last - time.time(), last - first


def online(setup: Setup) -> Iterator[Finding]:
    """Visit the site as a browser does."""
    if setup.url is None:
        return
    try:
        site = Site(setup.url)
    except ValueError as error:
        yield BAD_URL(why=error)
        return
    try:
        yield from _trust(site)
        answer = site.get("/_wschat/live")
    except OSError as error:
        yield UNREACHABLE(origin=site.origin, why=error)
        return
    yield from _clock(answer)
    if found := _live(site, answer):
        yield found
        return
    ready = site.get("/_wschat/ready")
    if ready.status == 503:
        yield NOT_READY(why=_short(ready.text))
    mirrored = list(_mirrored(setup, site))
    yield from mirrored
    names = {each.name for each in mirrored}
    if HTTP_1_0.name not in names:
        for each in _handshake(setup, site):
            if each.name != ORIGIN.name or not names & _BEFORE_ORIGIN:
                yield each


def _trust(site: Site) -> Iterator[Finding]:
    """See whether browsers trust the certificate; :raises OSError: nobody is there."""
    if not site.secure:
        return
    try:
        left, life = site.certificate()
        if left < _REST * life:
            yield CERTIFICATE_ENDS(host=site.host, days=f"{left / 86400:.1f}")
    except ssl.SSLCertVerificationError as error:
        yield CERTIFICATE(host=site.host, why=error.verify_message)
        site.trust_anybody()


def _clock(answer: Answer) -> Iterator[Finding]:
    said = email.utils.parsedate_to_datetime(answer.headers.get("Date") or _NO_DATE)
    skew = said.timestamp() - time.time()
    if answer.headers.get("Date") and abs(skew) > _SKEW:
        way = "ahead of" if skew > 0 else "behind"
        yield CLOCK(seconds=f"{abs(skew):.0f}", way=way)


_NO_DATE = "Thu, 01 Jan 1970 00:00:00 GMT"


def _live(site: Site, answer: Answer) -> Finding | None:
    status = answer.status
    if status == 200 and '"live"' in answer.text:
        return None
    if status in (301, 302, 307, 308):
        return REDIRECTS(origin=site.origin, to=answer.headers.get("Location", "?"))
    if status in (502, 503, 504):
        return APP_DOWN(status=status, server=answer.headers.get("Server", "it"))
    if status in (401, 403, 407):
        return BLOCKED(status=status)
    return NOT_OURS(origin=site.origin, status=status)


def _mirrored(setup: Setup, site: Site) -> Iterator[Finding]:
    """See what of a request arrives, and what strangers can make of it."""
    app = setup.app
    if app is None or not (token := mirror.token(app)):
        setup.unseen.append("what the proxy passes on: there is no SECRET_KEY")
        return
    answer = site.get(mirror.URL, **{mirror.HEADER: token})
    try:
        seen = json.loads(answer.text) if answer.status == 200 else None
    except ValueError:
        seen = None
    if not isinstance(seen, dict):
        yield OTHER_KEY(status=answer.status)
        return
    yield from _lost(app, site, seen)
    forged = site.get(
        mirror.URL,
        **{
            mirror.HEADER: token,
            "X_Forwarded_For": _STRANGER,
            "X_Forwarded_Host": _STRANGE_HOST,
            "X_Forwarded_Proto": "http" if site.secure else "https",
        },
    )
    if forged.status != 200:
        return  # a host that is not trusted, perhaps: well done
    taken = json.loads(forged.text)
    if taken["address"] == _STRANGER:
        yield ADDRESS_FORGED(address=_STRANGER)
    names = {"host": _STRANGE_HOST, "scheme": "http" if site.secure else "https"}
    wrong = [name for name, value in names.items() if taken[name] == value]
    if any(seen[name] != names[name] for name in wrong):
        yield HOST_FORGED(names=" and ".join(wrong))


def _lost(app: Flask, site: Site, seen: dict[str, Any]) -> Iterator[Finding]:
    """Compare what the application sees with what was asked."""
    headers, fixes = seen["headers"], proxy_fixes(app)
    fix = fixes[0] if fixes else None
    if headers["SERVER_PROTOCOL"] == "HTTP/1.0":
        yield HTTP_1_0()
    for name, asked, field, line, kind in (
        (
            *("scheme", "https" if site.secure else "http", "X_FORWARDED_PROTO"),
            *("proxy_set_header X-Forwarded-Proto $scheme;", SCHEME_LOST),
        ),
        (
            *("host", site.shown, "X_FORWARDED_HOST"),
            *("proxy_set_header Host $http_host;", HOST_LOST),
        ),
    ):
        if str(seen[name]).lower() == asked:
            continue
        given = headers[f"HTTP_{field}"]
        short = {"scheme": "x_proto", "host": "x_host"}[name]
        said = {"name": name, "asked": asked, "seen": seen[name]}
        header = "-".join(word.capitalize() for word in field.split("_"))
        if not given:
            yield kind(header=header, line=line, **said)
        elif not seen["fixed"]:
            yield FIX_MISSING(header=header, **said)
        else:
            count = getattr(fix, short, "?")
            values = len(given.split(","))
            if count == values:
                line = f"proxy_set_header {header} {_OF_NGINX[name]};"
                yield SAYS_WRONG(header=header, said=given, line=line, **said)
                continue
            yield FIX_COUNT(short=short, count=count, values=values, **said)
    claimed = headers["HTTP_X_FORWARDED_FOR"]
    if claimed and not seen["fixed"]:
        if str(seen["scheme"]) == ("https" if site.secure else "http"):
            yield FIX_MISSING(
                *(),
                name="address",
                asked=claimed.split(",")[-1].strip(),
                seen=seen["address"],
                header="X-Forwarded-For",
            )
    elif seen["fixed"] and not claimed and getattr(fix, "x_for", 0):
        yield ADDRESS_LOST(peer=seen["peer"])
    elif claimed and fix is not None and fix.x_for > len(claimed.split(",")):
        values = len(claimed.split(","))
        said = {"name": "address", "asked": claimed, "seen": seen["address"]}
        yield FIX_COUNT(short="x_for", count=fix.x_for, values=values, **said)


_OF_NGINX = {"scheme": "$scheme", "host": "$http_host"}


def _handshake(setup: Setup, site: Site) -> Iterator[Finding]:
    """Knock as a page of the site does, with a ticket that opens nothing."""
    path = _socket_path(setup.app)
    if path is None:
        setup.unseen.append(
            "the handshake: no WebSocket route whose URL can be made up"
        )
        return
    url = f"{site.origin.replace('http', 'ws', 1)}{site.prefix}{path}"
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": base64.b64encode(os.urandom(16)).decode(),
    }
    try:
        answer = site.get(f"{path}?ticket=doctor", Origin=site.origin, **headers)
    except OSError as error:
        yield NO_HANDSHAKE(path=path, why=error, url=url, origin=site.origin)
        return
    text = _short(answer.text)
    if answer.status == 101:
        return  # a handler that answers before it asks the application
    if answer.status == 403 and "this origin is not allowed" in text:
        yield ORIGIN(origin=site.origin)
    elif answer.status == 403 and "this host is not allowed" in text:
        yield REBOUND(host=site.host)
    elif "Access-Control-Allow-Origin" in answer.headers or answer.status == 426:
        yield UPGRADE_LOST(status=answer.status)
    elif answer.status == 401 and "this ticket does not count" in text:
        return  # all that comes before was passed
    else:
        why = f"answers {answer.status}: {text}"
        yield NO_HANDSHAKE(path=path, why=why, url=url, origin=site.origin)


def _socket_path(app: Flask | None) -> str | None:
    """Return the path of a WebSocket route, with made-up values where it has some."""
    if app is None:
        return None
    rules = [rule for rule in app.url_map.iter_rules() if rule.websocket]
    # Last a dashboard's: without an upgrade, that refuses us as anybody.
    views = app.view_functions.items()
    pages = {name for name, v in views if isinstance(_owner(v), Dashboard)}

    def cost(rule: Rule) -> tuple[bool, int]:
        page = rule.endpoint.removesuffix("_socket") + "_ask"
        return page in pages, len(rule.arguments)

    for rule in sorted(rules, key=cost):
        if rule.host or rule.subdomain:
            continue
        for value in ("doctor", 1, 1.5, _UUID):
            with contextlib.suppress(Exception):  # a converter takes what it likes
                built = rule.build(dict.fromkeys(rule.arguments, value))
                path = str(built[1]) if built else ""
                adapter = app.url_map.bind("localhost")
                adapter.match(path, websocket=True)
                return path
    return None


def _owner(view: object) -> object:
    return getattr(view, "__self__", None)


_UUID = "00000000-0000-4000-8000-000000000000"


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
