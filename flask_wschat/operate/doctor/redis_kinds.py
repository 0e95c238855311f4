"""What may be wrong with a Redis. See ``on_redis.py``, which looks for it."""

from __future__ import annotations

from .finding import Kind

WRONG_URL = Kind(
    "redis-url",
    "error",
    "WSCHAT_URL cannot work: {why}",
    "Nothing can be stored.",
    "FLASK_WSCHAT_URL=redis://chat:password@127.0.0.1:6379/0",
)
UNREACHABLE = Kind(
    "redis-unreachable",
    "error",
    "Redis at {where} {why}",
    "Nothing can be stored or delivered: new connections get 503.",
    'redis-cli -u "$FLASK_WSCHAT_URL" time   # does it run; host, port, TLS, firewall?',
)
WRONG_LOGIN = Kind(
    "redis-login",
    "error",
    "Redis at {where} does not let us in: {why}",
    "User or password in WSCHAT_URL are missing, wrong, or not percent-encoded.",
    "FLASK_WSCHAT_URL=redis://user:password@host:6379/0   # %40 for @, %2F for /",
)
NO_DATABASE = Kind(
    "redis-database",
    "error",
    "Redis at {where} has no database of the number in WSCHAT_URL",
    "It has 16, from 0, unless its configuration says otherwise.",
    "FLASK_WSCHAT_URL=redis://…/0",
)
REFUSED = Kind(
    "redis-refuses",
    "error",
    "Redis at {where} refuses: {why}",
    "Its words say what is missing: a right of this user, or a mode.",
    "redis-cli ACL LIST   # compare with docs/deploy/redis.conf",
)
NO_RIGHT = Kind(
    "redis-no-info",
    "note",
    "the user in WSCHAT_URL may not ask Redis at {where} how it is (INFO)",
    "Whether it keeps what was acknowledged could not be looked at.",
    "redis-cli ACL SETUSER chat +info   # and in redis.conf",
)
SLOW = Kind(
    "redis-slow",
    "warning",
    "Redis at {where} takes {p50} ms for an answer (median; the slowest {p99} ms)",
    "Each message waits so long until it is acknowledged: it is far away, or busy.",
    "{cli} --latency; {cli} SLOWLOG GET   # or a Redis beside the servers",
)
SLOW_AT_TIMES = Kind(
    "redis-slow-at-times",
    "warning",
    "Redis at {where} takes up to {p99} ms for an answer (the median is {p50} ms)",
    "Something stops it now and then: large commands of others, or its disk.",
    "{cli} SLOWLOG GET; {cli} --latency-history",
)
CLOCK = Kind(
    "clock-redis",
    "warning",
    "the clock of Redis at {where} is {seconds} s {way} ours",
    "Times in histories, tickets and what expires count by different clocks.",
    "timedatectl set-ntp true   # on both hosts",
)
OLD = Kind(
    "redis-old",
    "error",
    "Redis at {where} is {version}: {oldest} is the oldest that works",
    "It lacks commands that are needed.",
    "apt install redis   # {oldest} or later, or Valkey",
)
LOADING = Kind(
    "redis-loading",
    "error",
    "Redis at {where} is still loading its data",
    "It refuses everything until it is through.",
    "{cli} INFO persistence   # loading_eta_seconds",
)
CLUSTER_HERE = Kind(
    "redis-is-cluster",
    "error",
    "Redis at {where} is a part of a cluster",
    "It refuses what belongs to other parts.",
    "FLASK_WSCHAT_URL=redis+cluster://…",
)
IS_REPLICA = Kind(
    "redis-replica",
    "error",
    "Redis at {where} is a replica",
    "It can be read only: nothing can be stored.",
    "FLASK_WSCHAT_URL=redis://…   # the primary, or redis+sentinel://…/mymaster",
)
AOF_OFF = Kind(
    "redis-aof-off",
    "warning",
    "Redis at {where} keeps no log of its writes (appendonly no)",
    "Where it is killed, or the power goes, all that was acknowledged since the last"
    " snapshot is lost.",
    "{cli} CONFIG SET appendonly yes && {cli} CONFIG REWRITE",
)
FSYNC_NO = Kind(
    "redis-appendfsync",
    "warning",
    "Redis at {where} leaves it to the system when its log is on the disk"
    " (appendfsync no)",
    "With the power goes what was acknowledged in about 30 seconds.",
    "{cli} CONFIG SET appendfsync everysec && {cli} CONFIG REWRITE",
)
WRITE_FAILS = Kind(
    "redis-disk",
    "error",
    "Redis at {where}: {what} failed",
    "It refuses writes, or forgets all with its next end.",
    "df -h   # free space on Redis's host; its log says more",
)
EVICTED = Kind(
    "redis-evicted",
    "error",
    "Redis at {where} has thrown away {count} keys since it began, as its memory was"
    " full",
    "They were messages, votes, or who is where.",
    "{cli} CONFIG SET maxmemory-policy noeviction   # and a larger maxmemory",
)
EVICTS = Kind(
    "redis-policy",
    "error",
    "Redis at {where} throws keys away where its memory is full"
    " (maxmemory-policy {policy})",
    "What was acknowledged is lost, and nobody is told: messages, votes, who is where.",
    "{cli} CONFIG SET maxmemory-policy noeviction && {cli} CONFIG REWRITE",
)
FULL = Kind(
    "redis-full",
    "error",
    "Redis at {where} has used {percent} % of its {most} MB",
    "When it is full it refuses all that is to be stored.",
    "{cli} CONFIG SET maxmemory 2gb   # or a lower WSCHAT_HISTORY_SIZE",
)
NEARLY_FULL = Kind(
    "redis-nearly-full",
    "warning",
    "Redis at {where} has used {percent} % of its {most} MB",
    "When it is full it refuses all that is to be stored.",
    "{cli} CONFIG SET maxmemory 2gb   # or a lower WSCHAT_HISTORY_SIZE",
)
FEW_REPLICAS = Kind(
    "redis-replicas",
    "error",
    "WSCHAT_REDIS_WAIT is {wait}, and Redis at {where} has {replicas} replicas",
    "No message can be acknowledged: senders are told unavailable.",
    "{cli} INFO replication   # start replicas, or WSCHAT_REDIS_WAIT={replicas}",
)
NO_SPARE_REPLICA = Kind(
    "redis-replica-spare",
    "note",
    "WSCHAT_REDIS_WAIT is {wait}, and Redis at {where} has no more replicas than that",
    "While one of them is down, nothing can be said.",
    "replicaof {host_port}   # in the redis.conf of one more",
)
MIN_REPLICAS = Kind(
    "redis-min-replicas",
    "error",
    "Redis at {where} wants {wanted} replicas (min-replicas-to-write), and has"
    " {replicas}",
    "It refuses all writes.",
    "{cli} CONFIG SET min-replicas-to-write {replicas}   # or start replicas",
)
MANY_CLIENTS = Kind(
    "redis-clients",
    "warning",
    "Redis at {where} has {clients} clients, and takes {most} (maxclients)",
    "A worker needs two connections: those that start do not get theirs.",
    "{cli} CONFIG SET maxclients 10000   # and ulimit -n for Redis",
)
IDLE = Kind(
    "redis-timeout",
    "warning",
    "Redis at {where} closes connections that are idle for {seconds} s (timeout)",
    "Ours are cut in quiet hours, and what is published meanwhile waits for new ones.",
    "{cli} CONFIG SET timeout 0 && {cli} CONFIG REWRITE",
)
BUFFER = Kind(
    "redis-pubsub-buffer",
    "warning",
    "Redis at {where} closes a subscriber for whom {bytes} bytes wait"
    " (client-output-buffer-limit)",
    "A worker that is busy for a moment loses its subscription, and all its clients"
    " read again at once.",
    "{cli} CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60'",
)
NO_PASSWORD = Kind(
    "redis-open",
    "warning",
    "Redis at {where} lets us in without a password, over a network",
    "So it lets in whoever reaches that address: to read, to forge and to delete.",
    "requirepass …   # or the users in docs/deploy/redis.conf; and rediss:// for TLS",
)
SENTINEL_DOWN = Kind(
    "sentinel-down",
    "warning",
    "the sentinel at {where} {why}",
    "With too many of them gone, no failover happens.",
    "redis-server sentinel.conf --sentinel   # there; or another address in WSCHAT_URL",
)
NO_QUORUM = Kind(
    "sentinel-quorum",
    "error",
    "the sentinel at {where} has no quorum for {name}: {why}",
    "Where the primary fails, nobody takes over.",
    "redis-cli -p 26379 SENTINEL MASTER {name}   # start the missing sentinels",
)
FEW_SENTINELS = Kind(
    "sentinel-few",
    "warning",
    "WSCHAT_URL names {count} sentinels",
    "With fewer than three, one that fails leaves no majority, or nobody to ask.",
    "FLASK_WSCHAT_URL=redis+sentinel://10.0.0.1:26379,10.0.0.2,10.0.0.3/mymaster",
)
CLUSTER_HOLES = Kind(
    "cluster-slots",
    "error",
    "the cluster has no primary for {count} of its 16384 slots",
    "Rooms that are there answer unavailable; with cluster-require-full-coverage, which"
    " is on unless told, all do.",
    "redis-cli --cluster check HOST:PORT; redis-cli --cluster fix HOST:PORT",
)
CLUSTER_SINGLE = Kind(
    "cluster-no-replica",
    "warning",
    "primaries of the cluster have no replica: {nodes}",
    "Where one fails, its part of the rooms is away until it is back.",
    "redis-cli --cluster add-node HOST:PORT EXISTING:PORT --cluster-slave",
)
