"""The cookie session of an opening handshake, read by fewer calls than Flask takes."""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import hmac
import time
from typing import Any

from flask import Flask, Request
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from . import is_own, may_take

try:
    from itsdangerous import HMACAlgorithm
    from werkzeug.sansio.http import parse_cookie
except ImportError:  # they are elsewhere: what asks for one raises, so it declines
    parse_cookie = None  # type: ignore[assignment]

_OPTIONS = {"salt", "digest_method", "key_derivation", "serializer"}
"""What may be set of a session interface of Flask's."""


class Sessions:
    """Request contexts of ``app`` whose session is open, where Flask's own reads it.

    That makes a serializer for every request, and derives the key from the secret one
    for every signature. What is good here is good there; all else, and what ``app`` has
    of its own, is for Flask to judge. ``quickly``: whether any may be opened here.
    """

    def __init__(self, app: Flask, *, quickly: bool = True) -> None:
        self._app = app
        self._kind: Any = None
        self._made: tuple[Any, _Reader | None] = (None, None)
        if (
            may_take(quickly, "flask", "werkzeug", "itsdangerous")
            and is_own(app.request_context, "flask.app", "Flask.request_context")
            and all(
                is_own(getattr(SecureCookieSessionInterface, name, None), *flasks)
                for name, flasks in _READING.items()
            )
        ):
            try:
                from flask.ctx import RequestContext
            except Exception:
                return  # it is an `AppContext` now
            self._kind = RequestContext

    def context(self, environ: dict[str, Any]) -> Any:
        """Return a handshake's request context; None: it is to be made as Flask does.

        A session that is not open is for Flask to open.
        """
        if self._kind is None:
            return None
        app = self._app
        request = app.request_class(environ)
        request.json_module = app.json
        session = None
        with contextlib.suppress(Exception):  # whatever it is, it is for Flask to judge
            session = self.open(request)
        return self._kind(app, environ, request, session)

    def open(self, request: Request) -> Any:
        """Return the session of a good cookie, or of none.

        :raises Exception: it may be anything else.
        """
        app = self._app
        interface: Any = app.session_interface
        if (
            type(interface) is not SecureCookieSessionInterface
            or not vars(interface).keys() <= _OPTIONS
        ):
            raise LookupError("it is the application's own")
        reader = self._reader(interface)
        if getattr(type(request), "cookies", None) is Request.cookies:
            # As Werkzeug does, but for its search in all of the headers.
            cookie = request.environ.get("HTTP_COOKIE", "")
            storage: Any = request.dict_storage_class
            vars(request)["cookies"] = parse_cookie(cookie, storage)
        value = request.cookies.get(interface.get_cookie_name(app))
        if not value:
            return interface.session_class()
        max_age = int(app.permanent_session_lifetime.total_seconds())
        return interface.session_class(reader.read(value, max_age))

    def _reader(self, interface: Any) -> _Reader:
        app = self._app
        basis = (
            app.secret_key,
            tuple(app.config.get("SECRET_KEY_FALLBACKS") or ()),
            interface.salt,
            interface.key_derivation,
            interface.digest_method,
            interface.serializer,
        )
        made = self._made  # once: another thread may make another
        if made[0] != basis:
            serializer = interface.get_signing_serializer(app)
            fits = (
                type(serializer) is URLSafeTimedSerializer
                and serializer.signer is TimestampSigner
                and type(serializer.make_signer("").algorithm) is HMACAlgorithm
            )
            made = self._made = basis, _Reader(serializer) if fits else None
        if made[1] is None:
            raise LookupError("there is no quicker way")
        return made[1]


_READING = {
    name: ("flask.sessions", f"SecureCookieSessionInterface.{name}")
    for name in ("open_session", "get_signing_serializer")
}
"""What Flask reads a session with; where another is in its place, that is called."""


class _Reader:
    """Reads what a serializer has signed; made once, so are the keys derived.

    Itself, as the ways through itsdangerous and base64 take longer than what they lead
    to: the signature by OpenSSL's one call for it, what is in base64 by `binascii`.
    """

    def __init__(self, serializer: Any) -> None:
        signer = serializer.make_signer(serializer.salt)
        digest = signer.algorithm.digest_method
        if digest is SecureCookieSessionInterface.digest_method:
            digest = hashlib.sha1  # what it calls, by which `hmac` knows OpenSSL's own
        self._digest = digest
        self._sep: bytes = signer.sep
        self._keys = [signer.derive_key(key) for key in reversed(signer.secret_keys)]
        self._load = serializer.load_payload
        self._loads = serializer.serializer.loads
        self._is_text = serializer.is_text_serializer is True

    def read(self, text: str, max_age: int) -> Any:
        """Return what is in ``text``, signed at most ``max_age`` seconds ago.

        :raises Exception: it may be anything else.
        """
        value, _, signature = text.encode().rpartition(self._sep)
        payload, sep, stamp = value.rpartition(self._sep)
        if not sep or not self._has_signed(value, _decoded(signature)):
            raise ValueError("the signature is missing or wrong")
        age = int(time.time()) - int.from_bytes(_decoded(stamp), "big")
        if not 0 <= age <= max_age:
            raise ValueError("it is too old, or of the future")
        if self._is_text and not payload.startswith(b"."):  # else it is compressed
            return self._loads(_decoded(payload).decode())
        return self._load(payload)

    def _has_signed(self, value: bytes, signature: bytes) -> bool:
        for key in self._keys:
            if hmac.compare_digest(signature, hmac.digest(key, value, self._digest)):
                return True
        return False


def _decoded(data: bytes) -> bytes:
    """Return what ``data`` is in base64 as URLs have it, without its padding."""
    return binascii.a2b_base64(data.translate(_OF_URLS) + b"=" * (-len(data) % 4))


_OF_URLS = bytes.maketrans(b"-_", b"+/")
