"""Redis: what many processes on many machines share."""

from .backend import RedisBackend as RedisBackend
