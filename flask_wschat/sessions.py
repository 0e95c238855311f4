"""Flask's cookie sessions and its response, without what a socket has no use for."""

from __future__ import annotations

import hashlib
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer
from itsdangerous.encoding import base64_decode, bytes_to_int, want_bytes
from werkzeug.datastructures import Headers
from werkzeug.sansio.http import parse_cookie


class NoAnswer(Response):
    """What a view returns whose socket the server does not have any more."""

    def __init__(self) -> None:
        # Werkzeug's own takes a seventh of the time that an application does.
        state = vars(self)
        state.update(_BLANK)
        for name in _LISTS:
            state[name] = []
        self.headers = Headers()

    def __call__(self, environ: Any, start_response: Any) -> tuple[()]:
        return ()


_BLANK = vars(Response())
_LISTS = [name for name, value in _BLANK.items() if isinstance(value, list)]


def speed_up(app: Flask) -> None:
    """Let ``app`` read its sessions faster, if they are those that Flask comes with."""
    given = app.session_interface
    if type(given) is SecureCookieSessionInterface:
        ours = CookieSessions()
        vars(ours).update(vars(given))
        app.session_interface = ours


class CookieSessions(SecureCookieSessionInterface):
    """The same cookies as its parent's, read in half of the time.

    Its parent makes a serializer for every request, and derives the key from the secret
    one for every signature.
    """

    _made: tuple[Any, URLSafeTimedSerializer | None] = (None, None)

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        basis = (
            app.secret_key,
            tuple(app.config.get("SECRET_KEY_FALLBACKS") or ()),
            self.salt,
            self.key_derivation,
            self.digest_method,
            self.serializer,
        )
        if self._made[0] != basis:
            made = super().get_signing_serializer(app)
            if type(made) is URLSafeTimedSerializer and made.signer is TimestampSigner:
                made = _Serializer(made)
            self._made = basis, made
        return self._made[1]

    def open_session(self, app: Flask, request: Request) -> Any:
        if getattr(type(request), "cookies", None) is Request.cookies:
            # As Werkzeug does, but for its search in all of the headers.
            cookie = request.environ.get("HTTP_COOKIE", "")
            storage: Any = request.dict_storage_class
            vars(request)["cookies"] = parse_cookie(cookie, storage)
        return super().open_session(app, request)

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        if type(response) is not NoAnswer:  # else there is no header for the cookie
            super().save_session(app, session, response)


class _Serializer(URLSafeTimedSerializer):
    """One that is made once: its signer stays, and so do the keys derived."""

    def __init__(self, given: URLSafeTimedSerializer) -> None:
        options = dict(given.signer_kwargs)
        if options.get("digest_method") is SecureCookieSessionInterface.digest_method:
            # What it calls. OpenSSL makes a signature in one go if it sees its own.
            options["digest_method"] = hashlib.sha1
        super().__init__(
            given.secret_keys,
            salt=given.salt,
            serializer=given.serializer,
            serializer_kwargs=given.serializer_kwargs,
            signer=_Signer,
            signer_kwargs=options,
            fallback_signers=given.fallback_signers,
        )
        self._signer: Any = self.make_signer()

    def loads(  # type: ignore[override]  # as its parent's
        self,
        s: str | bytes,
        max_age: int | None = None,
        return_timestamp: bool = False,
        salt: str | bytes | None = None,
    ) -> Any:
        """Return what is in ``s``; one that is good takes the short way."""
        if salt is None and max_age is not None and not return_timestamp:
            value, _, signature = want_bytes(s).rpartition(self._signer.sep)
            if self._signer.verify_signature(value, signature):
                payload, _, stamp = value.rpartition(self._signer.sep)
                if 0 <= self._age(stamp) <= max_age:
                    return self.load_payload(payload)
        return super().loads(s, max_age, return_timestamp, salt)

    def _age(self, stamp: bytes) -> int:
        """Return seconds since ``stamp``; a malformed one is in the future."""
        try:
            made = bytes_to_int(base64_decode(stamp))
        except BadData:
            return -1
        return int(self._signer.get_timestamp()) - made


class _Signer(TimestampSigner):
    """One that derives each key once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._derived: dict[str | bytes | None, bytes] = {}

    def derive_key(self, secret_key: str | bytes | None = None) -> bytes:
        key = self._derived.get(secret_key)
        if key is None:
            key = self._derived[secret_key] = super().derive_key(secret_key)
        return key
