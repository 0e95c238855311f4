"""``connect``: the terminal client, which needs no application."""

from __future__ import annotations

from ..terminal.command import connect
from .group import wschat

wschat.add_command(connect)
