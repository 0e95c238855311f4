"""Tickets: who somebody is, signed by the application, for a client without its cookie.

A ticket counts once in all processes, and for seconds: see docs/decisions/35.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any
from urllib.parse import parse_qs

from flask import Flask
from itsdangerous import BadData, URLSafeSerializer

from ..backends import Backend
from ..codec import tokens
from ..errors import HandshakeError
from ..messages import as_user

_SALT = "flask_wschat.ticket"
_QUERY = "ticket"
_PREFIX = "ticket."
"""Begins a subprotocol that is none, but a ticket: a page cannot set other fields."""
LONGEST_LIFE = 86400.0
"""Seconds that a ticket may live."""
_LONGEST = 4096  # characters: with the longest user id it has 1,500
_SKEW = 60.0
"""Seconds that the clocks of two hosts may differ, or one be set back. A ticket that
was used is remembered for so much longer than it lives."""


class Tickets:
    """Makes the tickets of ``app``, and takes them; ``backend`` knows those used."""

    def __init__(self, app: Flask, backend: Backend) -> None:
        self._app = app
        self._backend = backend

    def make(self, user: Any, seconds: Any) -> str:
        """Return a new one; see ``WSChat.ticket``."""
        name = as_user(user)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"a ticket lives for some seconds, unlike {seconds!r}")
        if not 0 < seconds <= LONGEST_LIFE:
            raise ValueError(
                f"a ticket lives for up to {LONGEST_LIFE:g} seconds, unlike {seconds!r}"
            )
        signer = self._signer()
        if signer is None:
            raise RuntimeError("set app.secret_key: it signs the tickets")
        now = round(time.time(), 3)
        end = round(now + max(seconds, 0.001), 3)
        text = signer.dumps([name, now, end, secrets.token_urlsafe(16)])
        return text if isinstance(text, str) else text.decode()

    def user_of(self, environ: dict[str, Any], *, use: bool = True) -> str | None:
        """Return whose ticket a request has; None: it has none.

        With ``use`` False the ticket is as good afterwards as before.

        :raises HandshakeError: it is not, or no more, good for anybody.
        :raises BackendError: it is not known whether it was used.
        """
        texts = _shown(environ)
        if not texts:
            return None
        if len(texts) > 1:
            raise _refusal("there is more than one")
        name, until, key = self._read(texts[0])
        left = until - time.time() + _SKEW
        fresh = self._backend.once(key, left) if use else not self._backend.taken(key)
        if not fresh:
            raise _refusal("it was used before: each is for one connection")
        return name

    def _read(self, text: str) -> tuple[str, float, str]:
        """Return a ticket's user, its end, and what no other ticket has."""
        signer = self._signer()
        if signer is None:
            raise _refusal("this application has no SECRET_KEY to know its tickets by")
        try:
            if len(text) > _LONGEST:
                raise ValueError("it is too long")
            name, made, until, key = signer.loads(text)
        except (BadData, ValueError):
            raise _refusal("it is not one of this application's") from None
        now = time.time()
        if now > until:
            raise _refusal(f"it has expired {now - until:.0f} s ago")
        if now < made - _SKEW:
            raise _refusal("it is of the future: the clocks of two hosts differ")
        return name, until, "ticket:" + key

    def _signer(self) -> URLSafeSerializer | None:
        """Return what signs by the newest key, and knows the older ones."""
        app = self._app
        if not app.secret_key:
            return None
        keys = [*(app.config.get("SECRET_KEY_FALLBACKS") or ()), app.secret_key]
        return URLSafeSerializer(
            keys,
            _SALT,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )


def _shown(environ: dict[str, Any]) -> list[str]:
    """Return the tickets that a request has, in its query or as subprotocols."""
    texts: list[str] = []
    query = environ.get("QUERY_STRING", "")
    if _QUERY in query:
        texts += parse_qs(query, keep_blank_values=True).get(_QUERY, [])
    offered = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    if _PREFIX in offered:
        texts += [
            name.removeprefix(_PREFIX)
            for name in tokens([offered])
            if name.startswith(_PREFIX)
        ]
    return texts


def _refusal(why: str) -> HandshakeError:
    return HandshakeError(401, f"this ticket does not count: {why}")
