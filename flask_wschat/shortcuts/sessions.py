"""Flask's cookie sessions and its response, without what a socket has no use for.

Both lean on how Flask, Werkzeug and itsdangerous do it. Wherever that is not as it was
known to be, their own way is taken: nothing here may fail where they would not.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import time
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from werkzeug.datastructures import Headers

from ..servers.offers import UPGRADE

try:
    from itsdangerous import HMACAlgorithm
    from werkzeug.sansio.http import parse_cookie
except ImportError:  # they are elsewhere: what calls one raises, so it declines
    parse_cookie = None  # type: ignore[assignment]


class NoAnswer(Response):
    """What a view returns whose socket the server does not have any more."""

    def __init__(self) -> None:
        if not _BLANK:
            super().__init__()
            return
        # Werkzeug's own takes a seventh of the time that an application does.
        state = vars(self)
        state.update(_BLANK)
        for name in _LISTS:
            state[name] = []
        self.headers = Headers()

    def __call__(self, environ: Any, start_response: Any) -> tuple[()]:
        self.close()  # for `call_on_close`; a server does it to others' iterables
        return ()


_BLANK: dict[str, Any] = getattr(Response(), "__dict__", {})
_LISTS = [name for name, value in _BLANK.items() if isinstance(value, list)]


def speed_up(app: Flask) -> None:
    """Let ``app`` read a handshake's session faster, if it is one of Flask's own."""
    given = app.session_interface
    if type(given) is SecureCookieSessionInterface:
        ours = CookieSessions()
        vars(ours).update(vars(given))
        app.session_interface = ours


class CookieSessions(SecureCookieSessionInterface):
    """Its parent; of a request that asks to upgrade, a good cookie takes half the time.

    Its parent makes a serializer for every request, and derives the key from the secret
    one for every signature. What is good here is good there; all else is for the parent
    to judge.
    """

    _made: tuple[Any, _Reader | None] = (None, None)

    def open_session(self, app: Flask, request: Request) -> Any:
        if UPGRADE in request.environ:
            try:
                return self._open_quickly(app, request)
            except Exception:
                pass  # whatever it is, it is for the parent to judge
        return super().open_session(app, request)

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        if type(response) is not NoAnswer:  # else there is no header for the cookie
            super().save_session(app, session, response)

    def _open_quickly(self, app: Flask, request: Request) -> Any:
        """Return the session of a good cookie, or of none; otherwise raise anything."""
        reader = self._reader(app)
        if getattr(type(request), "cookies", None) is Request.cookies:
            # As Werkzeug does, but for its search in all of the headers.
            cookie = request.environ.get("HTTP_COOKIE", "")
            storage: Any = request.dict_storage_class
            vars(request)["cookies"] = parse_cookie(cookie, storage)
        value = request.cookies.get(self.get_cookie_name(app))
        if not value:
            return self.session_class()
        max_age = int(app.permanent_session_lifetime.total_seconds())
        return self.session_class(reader.read(value, max_age))

    def _reader(self, app: Flask) -> _Reader:
        basis = (
            app.secret_key,
            tuple(app.config.get("SECRET_KEY_FALLBACKS") or ()),
            self.salt,
            self.key_derivation,
            self.digest_method,
            self.serializer,
        )
        made = self._made  # once: it may be another app's in a moment
        if made[0] != basis:
            serializer = self.get_signing_serializer(app)
            fits = (
                type(serializer) is URLSafeTimedSerializer
                and serializer.signer is TimestampSigner
                and type(serializer.make_signer("").algorithm) is HMACAlgorithm
            )
            made = self._made = basis, _Reader(serializer) if fits else None
        if made[1] is None:
            raise LookupError("there is no quicker way")
        return made[1]


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
