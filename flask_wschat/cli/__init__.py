"""``flask wschat``: commands that look after an application; each file has some."""

from . import connect, documents, people, run, watching
from .group import wschat

__all__ = ["connect", "documents", "people", "run", "watching", "wschat"]
