"""The key that signs cookies and tickets, and the cookies themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from flask import Flask

from .finding import Finding, Kind, Setup

_MAKE = "python -c 'import secrets; print(secrets.token_hex())'   # FLASK_SECRET_KEY=…"

NO_KEY = Kind(
    "secret-key-missing",
    "warning",
    "the app has no SECRET_KEY",
    "There are no sessions and no tickets without it: nobody can log in.",
    "{remedy}",
    early="note",
)
KNOWN_KEY = Kind(
    "secret-key-known",
    "error",
    "the SECRET_KEY is one that stands in tutorials",
    "Anybody can sign a session or a ticket with it, and be whoever they like.",
    _MAKE,
    early="warning",
)
SHORT_KEY = Kind(
    "secret-key-short",
    "warning",
    "the SECRET_KEY has {count} bytes, {kinds} different ones",
    "Who has one cookie may find it by trying, and be whoever they like.",
    _MAKE,
)
OTHER_KEY = Kind(
    "secret-key-changes",
    "error",
    "the SECRET_KEY is another one in each process",
    "What one worker signs, another one refuses: logins and tickets fail by chance, and"
    " all are lost with a restart.",
    _MAKE,
    early="note",
)
NO_SECURE = Kind(
    "cookie-secure",
    "note",
    "SESSION_COOKIE_SECURE is off, and the site is https://",
    "A browser sends the session's cookie with http:// as well, where it can be read.",
    "app.config['SESSION_COOKIE_SECURE'] = True",
)
SECURE_WITHOUT_TLS = Kind(
    "cookie-never-sent",
    "error",
    "SESSION_COOKIE_SECURE is on, and the site is http://",
    "No browser sends the session's cookie there: nobody is logged in.",
    "app.config['SESSION_COOKIE_SECURE'] = False   # or serve https://",
)
NONE_WITHOUT_SECURE = Kind(
    "cookie-samesite",
    "error",
    'SESSION_COOKIE_SAMESITE is "None" without SESSION_COOKIE_SECURE',
    "Browsers refuse such a cookie: nobody is logged in.",
    "app.config['SESSION_COOKIE_SECURE'] = True",
)
STRICT_ELSEWHERE = Kind(
    "cookie-strict",
    "note",
    "SESSION_COOKIE_SAMESITE is {value}, and WSCHAT_ORIGINS lets other sites in",
    "Their pages connect without the session's cookie, as nobody.",
    "chat.ticket(user)   # for them, or SESSION_COOKIE_SAMESITE = 'None' with Secure",
)
_TUTORIALS = (
    "dev development secret secretkey mysecret mysecretkey supersecret supersecretkey"
    " topsecret secretsecret changeme changethis changeit changemeplease replaceme key"
    " mykey test testing testkey fortests password passwort 123456 12345678 123456789"
    " 1234567890 flask flasksecret flaskapp default example examplekey insecure"
    " notsecret notasecret yoursecretkey yoursecretkeyhere somesecret somesecretkey"
    " asecret asecretkey averysecretkey verysecret verysecretkey thisisasecret"
    " thisissecret thisisasecretkey thisisthesecretkey youwillneverguess hardtoguess"
    " hardtoguessstring"
    " 192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf"
    " _5y2lf4q8zxec a0zr98jxyrxhhjmnlwxrt keepitsecret abc abc123 qwerty admin foobar"
    " letmein none null xxx secretkeyhere djangoinsecure superduperecret s3cr3t"
)
"""Letters and digits of keys that stand there, in small letters."""
_KNOWN = frozenset(_TUTORIALS.split())
_SHORT = 16  # bytes


def key(setup: Setup) -> Iterator[Finding]:
    """Look at the key."""
    app = setup.app
    if app is None:
        return
    if not app.secret_key:
        remedy = _MAKE
        if setup.environ.get("FLASK_SECRET_KEY"):
            remedy = "app.config.from_prefixed_env()   # FLASK_SECRET_KEY is there"
        elif setup.environ.get("SECRET_KEY"):
            remedy = "FLASK_SECRET_KEY=…   # from_prefixed_env() reads no SECRET_KEY"
        yield NO_KEY(remedy=remedy)
        return
    seen = setup.imported.get("key") if setup.imported else None
    if seen and seen != hashlib.sha256(_bytes(app)).hexdigest():
        preloads = setup.gunicorn is not None and setup.gunicorn["preload_app"]
        if not preloads or setup.workers == 1:
            yield OTHER_KEY()
            return
    text = _bytes(app)
    plain = "".join(c for c in text.decode(errors="replace").lower() if c.isalnum())
    kinds = len(set(text))
    if plain in _KNOWN:
        yield KNOWN_KEY()
    elif len(text) < _SHORT or kinds < 6:
        yield SHORT_KEY(count=len(text), kinds=kinds)


def cookies(setup: Setup) -> Iterator[Finding]:
    """Look whether browsers send the session's cookie, and where."""
    app = setup.app
    if app is None or not app.secret_key:
        return
    secure = bool(app.config.get("SESSION_COOKIE_SECURE"))
    same = str(app.config.get("SESSION_COOKIE_SAMESITE") or "")
    if same.lower() == "none" and not secure:
        yield NONE_WITHOUT_SECURE()
    elif setup.is_https and not secure:
        yield NO_SECURE()
    elif secure and setup.url is not None and not setup.is_https:
        yield SECURE_WITHOUT_TLS()
    if same.lower() in ("strict", "lax") and setup.settings.ORIGINS is not None:
        own = setup.url and setup.url.rstrip("/")
        origins = setup.settings.ORIGINS
        others = [origins] if isinstance(origins, str) else list(origins)
        if own and any(origin.rstrip("/") != own for origin in others):
            yield STRICT_ELSEWHERE(value=same)


def _bytes(app: Flask) -> bytes:
    key = app.secret_key or b""
    return key.encode() if isinstance(key, str) else bytes(key)
