"""What all answers have, and what is shown to others in the room."""

from __future__ import annotations

import ipaddress
import os
from typing import Any

from flask import Blueprint

from flask_wschat import BackendError

from .language import _

hall = Blueprint("hall", __name__)

HOST = os.environ.get("HOST") or "127.0.0.1"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@hall.after_app_request
def trust_only_ours(response: Any) -> Any:
    # No name and no message can then be a script, whatever a page does with it.
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    return response


@hall.app_errorhandler(BackendError)
def unavailable(error: BackendError) -> Any:
    return _("The demo's storage cannot be reached. Please try again soon."), 503
