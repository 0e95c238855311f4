"""Redis: what many processes on many machines share."""

from .address import Address as Address
from .address import several as several
from .backend import RedisBackend as RedisBackend
from .cluster import ClusterAddress as ClusterAddress
from .ring import RedisRing as RedisRing
from .sentinel import SentinelAddress as SentinelAddress
