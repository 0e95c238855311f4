"""``flask wschat``: commands that look after an application; each file has some."""

from . import documents, people, run
from .group import wschat

__all__ = ["documents", "people", "run", "wschat"]
