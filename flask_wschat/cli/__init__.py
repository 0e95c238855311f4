"""``flask wschat``: commands that look after an application; each file has some."""

from . import documents
from .group import wschat

__all__ = ["documents", "wschat"]
