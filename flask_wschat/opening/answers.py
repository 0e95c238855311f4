"""HTTP answers to who asks for a socket, and gets none."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response, abort
from werkzeug.exceptions import HTTPException


def refusal(
    status: int, message: str, headers: Iterable[tuple[str, str]] = ()
) -> HTTPException:
    """Return the exception that makes Flask answer so."""
    answer = Response(message + "\n", status, dict(headers), mimetype="text/plain")
    try:
        abort(status, message, response=answer)
    except HTTPException as error:
        return error
    except LookupError:  # Werkzeug has no class for 426
        return HTTPException(message, answer)
