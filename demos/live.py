"""How the demos go: the dashboard, for this machine's own browsers."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from . import chat
from .hall import is_near

live = Blueprint("live", __name__)

chat.dashboard("/admin/live", allow=is_near, blueprint=live)


@live.app_context_processor
def way() -> dict[str, Any]:
    """``near``: whether there is a link to it."""
    return {"near": is_near()}
