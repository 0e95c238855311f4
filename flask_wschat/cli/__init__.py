"""``flask wschat``: commands that look after an application; each file has some."""

from . import connect, doctor, documents, people, run, watching
from .group import wschat

__all__ = ["connect", "doctor", "documents", "people", "run", "watching", "wschat"]
