"""SQLite: what the processes of one machine share."""

from .backend import SQLiteBackend as SQLiteBackend
