"""Who may connect from where, as far as the configuration says. See ``online.py``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from werkzeug.middleware.proxy_fix import ProxyFix

from ...opening.origins import is_one_of
from .finding import Finding, Kind, Setup
from .serving import is_behind_a_proxy, public

_FIX = "app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)"

ANY_ORIGIN = Kind(
    "origins-any",
    "warning",
    "WSCHAT_ORIGINS lets pages of every site in (*)",
    "A page of any site opens a socket with the cookies of the visitor, as that user.",
    'app.config["WSCHAT_ORIGINS"] = ["https://www.example.org"]   # or leave it out',
    early="note",
)
NULL_ORIGIN = Kind(
    "origins-null",
    "warning",
    "WSCHAT_ORIGINS lets the origin null in",
    "Each page that is in a sandbox or a file has it, whoever made that.",
    'app.config["WSCHAT_ORIGINS"] = ["https://www.example.org"]',
    early="note",
)
PATH = Kind(
    "origins-path",
    "error",
    "WSCHAT_ORIGINS has {origin}, which no browser sends",
    "An origin is scheme, host and port: with more nothing is let in by it.",
    'app.config["WSCHAT_ORIGINS"] = ["{right}"]',
)
SLASH = Kind(
    "origins-slash",
    "note",
    "WSCHAT_ORIGINS has {origin}, with a slash at its end",
    "It is taken for what is meant here; others, such as flask-cors, do not.",
    'app.config["WSCHAT_ORIGINS"] = ["{right}"]',
)
SCHEME = Kind(
    "origins-scheme",
    "error",
    "WSCHAT_ORIGINS has {origin}, which no browser sends",
    "An origin is that of the page: http:// or https://, never ws://.",
    'app.config["WSCHAT_ORIGINS"] = ["{right}"]',
)
PLAIN_ORIGIN = Kind(
    "origins-http",
    "warning",
    "WSCHAT_ORIGINS has {origin}, and the site is https://",
    "Who can change what is read on its way can put a script into that page, and"
    " connect with the visitor's cookie.",
    'app.config["WSCHAT_ORIGINS"] = ["{right}"]',
)
NOT_OWN = Kind(
    "origins-not-own",
    "error",
    "WSCHAT_ORIGINS has not {origin}, which is the site itself",
    "What is set there replaces the site's own origin: its pages get 403.",
    'app.config["WSCHAT_ORIGINS"] = ["{origin}", …]',
)
NOT_TRUSTED = Kind(
    "trusted-hosts",
    "error",
    "TRUSTED_HOSTS has not {host}",
    "All requests for that name get 400.",
    'app.config["TRUSTED_HOSTS"] = ["{host}"]',
)
OTHER_NAME = Kind(
    "server-name",
    "warning",
    "SERVER_NAME is {name}, and the site is {host}",
    "URLs that the app makes lead there; with host matching, or before Flask 3.1,"
    " routes are found by no other name.",
    'app.config["SERVER_NAME"] = "{host}"   # or leave it out',
)
NO_FIX = Kind(
    "proxyfix-missing",
    "warning",
    "gunicorn listens on {bind}, as behind a proxy, and the app has no ProxyFix",
    "The app sees the proxy's address and http:// instead of its clients': browsers are"
    " refused with 403, and limits of one address count all as one.",
    _FIX,
)
NO_FIX_FOR_TLS = Kind(
    "proxyfix-missing-for-https",
    "warning",
    "{key} says that the site is https://, and the app has no ProxyFix",
    "If a proxy speaks TLS for it, the app sees http:// and the proxy's address: the"
    " page's own origin is a foreign one, and browsers are refused with 403.",
    _FIX + "   # --url finds out",
    early="",
)
ONE_ADDRESS = Kind(
    "proxyfix-places",
    "error",
    "WSCHAT_MAX_CONNECTIONS_PER_ADDRESS is {limit}, behind a proxy without ProxyFix",
    "All clients have the proxy's address: after so many nobody gets in.",
    _FIX,
)
OPEN_FIX = Kind(
    "proxyfix-in-public",
    "warning",
    "the app has ProxyFix, and gunicorn listens on {bind}, which others reach",
    "Who connects without the proxy chooses address, scheme and host as it likes.",
    "gunicorn -b 127.0.0.1:8000 …   # or a firewall that lets only the proxy in",
)
MANY_HOPS = Kind(
    "proxyfix-hops",
    "warning",
    "ProxyFix believes {count} proxies ({name})",
    "With fewer there, a client puts what is missing in front, and chooses its address"
    " as it likes.",
    _FIX + "   # as many as there are",
)
NO_HOST = Kind(
    "proxyfix-partly",
    "warning",
    "ProxyFix leaves out {names}",
    "The app takes the proxy's word for it that is no word: origins do not match where"
    " the proxy does not pass on Host, or speaks TLS for the app.",
    _FIX,
)
TWICE = Kind(
    "proxyfix-twice",
    "error",
    "the app has ProxyFix {count} times",
    "The second one takes a word from further away: one that the client has put there.",
    _FIX + "   # once",
)
_REACHES = 2  # proxies that are usual: a CDN's, and one's own


def origins(setup: Setup) -> Iterator[Finding]:
    """Look at each origin."""
    given = setup.settings.ORIGINS
    if given is None:
        return
    every = [given] if isinstance(given, str) else list(given)
    for origin in every:
        if origin == "*":
            yield ANY_ORIGIN()
            continue
        if origin == "null":
            yield NULL_ORIGIN()
            continue
        scheme, _, rest = origin.partition("://")
        host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
        plain = {"ws": "http", "wss": "https"}.get(scheme.lower(), scheme)
        said = {"origin": origin, "right": f"{plain}://{host}"}
        if rest.rstrip("/") != host:
            yield PATH(**said)
        elif plain != scheme:
            yield SCHEME(**said)
        elif rest != host:
            yield SLASH(**said)
        if scheme == "http" and _needs_tls(setup) and not _is_this_machine(host):
            yield PLAIN_ORIGIN(origin=origin, right=f"https://{host}")


def names(setup: Setup) -> Iterator[Finding]:
    """Compare the names that the app knows with that of the site."""
    app, url = setup.app, setup.url
    if app is None or url is None:
        return
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    own_origin = f"{parts.scheme}://{host}"
    allowed = setup.settings.ORIGINS
    if allowed is not None and not is_one_of(
        own_origin, [allowed] if isinstance(allowed, str) else allowed
    ):
        yield NOT_OWN(origin=own_origin)
    trusted = app.config.get("TRUSTED_HOSTS")
    name = host.partition(":")[0].lower()
    if trusted is not None and not any(_trusts(each, name) for each in trusted):
        yield NOT_TRUSTED(host=name)
    own = app.config.get("SERVER_NAME")
    usual = ":443" if setup.is_https else ":80"
    if own and own.lower().removesuffix(usual) != host.lower().removesuffix(usual):
        yield OTHER_NAME(name=own, host=host)


def proxy(setup: Setup) -> Iterator[Finding]:
    """Look for ProxyFix where there is a proxy, and the other way round."""
    app, given = setup.app, setup.gunicorn
    if app is None:
        return
    fixes = proxy_fixes(app)
    if not fixes:
        if given is not None and is_behind_a_proxy(setup):
            limit = setup.settings.MAX_CONNECTIONS_PER_ADDRESS
            if limit:
                yield ONE_ADDRESS(limit=limit)
            bind = given["bind"]
            first = bind if isinstance(bind, str) else next(iter(bind), "")
            yield NO_FIX(bind=first)
        elif setup.url is None and setup.settings.ORIGINS is None:
            yield from _said_to_be_https(setup)
        return
    if len(fixes) > 1:
        yield TWICE(count=len(fixes))
    fix = fixes[0]
    counts = {n: getattr(fix, n) for n in ("x_for", "x_proto", "x_host")}
    for name, count in counts.items():
        if count > _REACHES:
            yield MANY_HOPS(count=count, name=f"{name}={count}")
            break
    if missing := [f"{name}=1" for name, count in counts.items() if not count]:
        yield NO_HOST(names=", ".join(missing))
    if given is not None and not _in_container():
        for bind in public(given["bind"]):
            yield OPEN_FIX(bind=bind)
            break


def _said_to_be_https(setup: Setup) -> Iterator[Finding]:
    """Look for words of TLS where nothing says that the app's server speaks it."""
    config = setup.app.config if setup.app is not None else {}
    serves = setup.imported.get("serves") if setup.imported else None
    if serves or (setup.gunicorn is not None and setup.gunicorn["certfile"]):
        return
    if config.get("SESSION_COOKIE_SECURE"):
        yield NO_FIX_FOR_TLS(key="SESSION_COOKIE_SECURE")
    elif config.get("PREFERRED_URL_SCHEME") == "https":
        yield NO_FIX_FOR_TLS(key="PREFERRED_URL_SCHEME")


def proxy_fixes(app: Any) -> list[ProxyFix]:
    """Return each ``ProxyFix`` around ``app``, the outermost first."""
    found: list[ProxyFix] = []
    seen: set[int] = set()
    waiting = [app.wsgi_app]
    while waiting:
        thing = waiting.pop(0)
        if id(thing) in seen or len(seen) > 100:
            continue
        seen.add(id(thing))
        if isinstance(thing, ProxyFix):
            found.append(thing)
        owner = getattr(thing, "__self__", thing)
        for name in ("app", "wsgi_app", "_app", "_wsgi_app", "application", "wrapped"):
            inner = getattr(owner, name, None)
            if callable(inner) and inner is not app:
                waiting.append(inner)
        for cell in getattr(thing, "__closure__", None) or ():
            if callable(cell.cell_contents) and cell.cell_contents is not app:
                waiting.append(cell.cell_contents)
    return found


def _needs_tls(setup: Setup) -> bool:
    app = setup.app
    prefers = app is not None and app.config.get("PREFERRED_URL_SCHEME") == "https"
    secure = app is not None and bool(app.config.get("SESSION_COOKIE_SECURE"))
    return setup.is_https or prefers or secure


def _is_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] or host
    return name in ("localhost", "[::1]") or name.startswith("127.")


def _trusts(pattern: str, name: str) -> bool:
    wanted = pattern.lower().rpartition(":")[0] or pattern.lower()
    if wanted.startswith("."):
        return name == wanted[1:] or name.endswith(wanted)
    return name == wanted


def _in_container() -> bool:
    """Whether this is a container, whose addresses the host decides about."""
    return os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")
