"""Redis: what many processes on many machines share."""

from .address import several as several
from .backend import RedisBackend as RedisBackend
from .ring import RedisRing as RedisRing
