"""gunicorn's settings, and whether they suit WebSockets."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from typing import Any

from .finding import Finding, Kind, Setup

_OURS = "gunicorn -k flask_wschat.gunicorn.Worker -w 4 app:app"

UNREADABLE = Kind(
    "gunicorn-unreadable",
    "error",
    "gunicorn does not take these settings: {why}",
    "It would not start.",
    "gunicorn --check-config …   # with the same arguments: it says where",
)
MISSING = Kind(
    "gunicorn-missing",
    "error",
    "there are settings for gunicorn, which is not installed here",
    "It would not start, or another Python has it, and another Flask-WSChat.",
    'pip install "gunicorn[gevent]"',
)
SYNC = Kind(
    "worker-sync",
    "error",
    "gunicorn's workers are of the kind {worker}",
    "One request, or one blocking view with its WebSocket, holds a whole worker:"
    " nobody else is served, and --timeout kills it.",
    _OURS,
)
FOREIGN = Kind(
    "worker-foreign",
    "error",
    "gunicorn's workers are of the kind {worker}",
    "It gives an application no socket, or patches by another library: WebSockets are"
    " answered with 501.",
    _OURS,
)
UNLOADABLE = Kind(
    "worker-unloadable",
    "error",
    "gunicorn cannot load its kind of workers, {worker}: {why}",
    "It would not start.",
    "{remedy}",
)
NO_TARGET = Kind(
    "gunicorn-app",
    "error",
    "gunicorn is to serve {target}, and {why}",
    "It would not start.",
    "gunicorn … app:app   # the module, a colon, and the application's name in it",
)
OLD_HANDLER = Kind(
    "worker-geventwebsocket",
    "warning",
    "gunicorn's workers are gevent-websocket's own",
    "It answers 101 before the app is asked: a refusal is a close, there are no"
    " subprotocols and no compression, and half a request is waited for without end.",
    _OURS,
)
FEW_THREADS = Kind(
    "threads-few",
    "error",
    "gunicorn's gthread workers have {threads} threads each",
    "A blocking view holds one as long as its WebSocket is open, and each request needs"
    " one: so few visitors stop all others.",
    "gunicorn -k gthread --threads 100 …   # or " + _OURS,
)
ALONE = Kind(
    "memory-with-workers",
    "error",
    "gunicorn has {workers} workers, and WSCHAT_URL is memory://",
    "Each worker has rooms, users and history of its own: people in two of them do not"
    " see each other.",
    "FLASK_WSCHAT_URL=redis://…   # or sqlite:////var/lib/chat/chat.db, or -w 1",
)
SHORT_GRACE = Kind(
    "graceful-timeout-short",
    "warning",
    "gunicorn's --{name} is {seconds} s, and WSCHAT_DRAIN is {drain} s",
    "gunicorn kills a worker that ends before its connections are told: they find out"
    " late, and come back all at once.",
    "gunicorn --{name} {enough} …   # or a shorter WSCHAT_DRAIN",
)
MAX_REQUESTS = Kind(
    "max-requests",
    "warning",
    "gunicorn's --max-requests is {limit}",
    "Every WebSocket is a request: a worker that has had so many closes all that it"
    " holds, and they come back at once, to the next one.",
    "gunicorn --max-requests 0 …   # or many times a worker's connections, with jitter",
)
FEW_CONNECTIONS = Kind(
    "worker-connections",
    "warning",
    "gunicorn's --worker-connections is {limit}, and WSCHAT_MAX_CONNECTIONS is {most}",
    "Each open blocking view takes one of them: over it nobody is answered, not even"
    " with 503.",
    "gunicorn --worker-connections {enough} …",
)
NO_CONNECTIONS = Kind(
    "worker-connections-few",
    "warning",
    "gunicorn's --worker-connections is {limit}",
    "Requests and blocking views over it wait without an answer.",
    "gunicorn --worker-connections 1000 …",
)
RELOAD = Kind(
    "gunicorn-reload",
    "warning",
    "gunicorn's --reload is on",
    "Each change of a file closes all connections; it is for development.",
    "gunicorn …   # without --reload, or reload = False in gunicorn.conf.py",
)
DEBUG = Kind(
    "debug-in-production",
    "error",
    "the app's debug mode is on, and gunicorn serves it",
    "Errors show the program's inside to visitors, and may let them run code.",
    "unset FLASK_DEBUG   # and no app.debug = True, no DEBUG = True",
)
TRUSTS_ALL = Kind(
    "forwarded-allow-ips",
    "warning",
    "gunicorn's --forwarded-allow-ips is *, and it listens on {bind}",
    "Anybody who reaches that address may claim to have come by https.",
    "gunicorn --forwarded-allow-ips 127.0.0.1 …   # the proxy's address",
)
THREADS_IN_PUBLIC = Kind(
    "gthread-in-public",
    "warning",
    "gunicorn's gthread workers listen on {bind}",
    "They wait for half a request without end, holding a thread: some strangers stop"
    " the whole server.",
    "gunicorn -k flask_wschat.gunicorn.Worker …   # or -b 127.0.0.1:8000 behind nginx",
)
KEEP_ALIVE = Kind(
    "keep-alive-long",
    "warning",
    "gunicorn's --keep-alive is {seconds} s",
    "Clients that say nothing hold a place, or a thread, for so long.",
    "gunicorn --keep-alive 5 …",
)
SHORT_TIMEOUT = Kind(
    "timeout-short",
    "warning",
    "gunicorn's --timeout is {seconds} s",
    "A worker that is busy for so long, with a start, a large query or no processor, is"
    " killed with all its connections.",
    "gunicorn --timeout 30 …",
)
TLS_THREADS = Kind(
    "tls-in-threads",
    "warning",
    "gunicorn's gthread workers speak TLS themselves",
    "So each connection, idle or not, holds a thread until it ends.",
    "gunicorn -b 127.0.0.1:8000 …   # and nginx before it: docs/deploy/nginx.conf",
)
MANY_WORKERS = Kind(
    "workers-many",
    "warning",
    "gunicorn has {workers} workers on {cores} processors",
    "Each room is read and delivered by each worker that has somebody in it; more of"
    " them than processors only take memory and connections.",
    "gunicorn -w {cores} …",
)
_FEW = 8  # threads
_LONG = 75.0  # seconds: nginx' and browsers' own
_MANY = 4  # workers for each processor
_FOREIGN = ("eventlet", "tornado", "uvicorn", "aiohttp", "meinheld", "asgi", "asyncio")


def gunicorn(setup: Setup) -> Iterator[Finding]:
    """Look at the kind of workers, and what there is of them."""
    given = setup.gunicorn
    if given is None:
        return
    worker = setup.worker
    if any(word in worker.lower() for word in _FOREIGN):
        yield FOREIGN(worker=worker)
    elif (why := given["unloadable"]) and "requires gevent" not in why:  # a version
        lacks = "No module named" in why and "flask_wschat" not in why
        remedy = 'pip install "gunicorn[gevent]"' if lacks else _OURS
        yield UNLOADABLE(worker=worker, why=why, remedy=remedy)
    elif worker == "sync" or worker.endswith("SyncWorker"):
        yield SYNC(worker="sync")
    elif worker.startswith("geventwebsocket."):
        yield OLD_HANDLER()
    elif worker in ("gthread", "threads") or worker.endswith("ThreadWorker"):
        if given["threads"] < _FEW:
            yield FEW_THREADS(threads=given["threads"])
        if given["certfile"]:
            yield TLS_THREADS()
        for bind in public(given["bind"]):
            yield THREADS_IN_PUBLIC(bind=bind)
            break
    if setup.app is not None and setup.workers > 1 and setup.storage == "memory":
        yield ALONE(workers=setup.workers)
    yield from _target(setup, given["app"] or "")
    cores = os.cpu_count() or 1
    if setup.workers > max(_MANY * cores, 8):
        yield MANY_WORKERS(workers=setup.workers, cores=cores)
    if given["reload"]:
        yield RELOAD()
    if setup.app is not None and setup.app.debug:
        yield DEBUG()


def _target(setup: Setup, target: str) -> Iterator[Finding]:
    """See whether there is what gunicorn is told to serve, where we can tell."""
    name, _, attribute = target.partition(":")
    assert setup.gunicorn is not None
    if name and not setup.gunicorn["app_is_there"]:
        yield NO_TARGET(target=target, why=f"there is no module {name}")
        return
    module, attribute = sys.modules.get(name), attribute or "application"
    if module and attribute.isidentifier() and not hasattr(module, attribute):
        why = f"the module {name} has no {attribute}"
        yield NO_TARGET(target=target, why=why)


def limits(setup: Setup) -> Iterator[Finding]:
    """Look at gunicorn's times and limits."""
    given, settings = setup.gunicorn, setup.settings
    if given is None:
        return
    for name in ("graceful-timeout", "timeout"):
        seconds = float(given[name.replace("-", "_")])
        if name == "timeout" and 0 < seconds < 5:
            yield SHORT_TIMEOUT(seconds=f"{seconds:g}")
        elif seconds < settings.DRAIN and (seconds or name == "graceful-timeout"):
            enough = f"{settings.DRAIN + 5:.0f}"
            said = {"seconds": f"{seconds:g}", "drain": f"{settings.DRAIN:g}"}
            yield SHORT_GRACE(name=name, enough=enough, **said)
    few = 0 < given["max_requests"] < 1_000_000
    if few and (given["max_requests"] < 100_000 or not given["max_requests_jitter"]):
        yield MAX_REQUESTS(limit=given["max_requests"])
    most, limit = settings.MAX_CONNECTIONS or 0, given["worker_connections"]
    if most > limit:
        yield FEW_CONNECTIONS(limit=limit, most=most, enough=most + 100)
    elif limit < 100:
        yield NO_CONNECTIONS(limit=limit)
    if float(given["keepalive"]) > _LONG:
        yield KEEP_ALIVE(seconds=given["keepalive"])
    trusted = given["forwarded_allow_ips"]
    if "*" in (trusted if isinstance(trusted, str) else ",".join(trusted)):
        for bind in public(given["bind"]):
            yield TRUSTS_ALL(bind=bind)
            break


def public(binds: Any) -> list[str]:
    """Return those of gunicorn's addresses that other hosts may reach."""
    return [bind for bind in _listed(binds) if not _is_local(bind)]


def is_behind_a_proxy(setup: Setup) -> bool:
    """Whether only this machine reaches gunicorn: something else serves the world."""
    given = setup.gunicorn
    return given is not None and not public(given["bind"]) and not given["certfile"]


def _listed(binds: Any) -> list[str]:
    return [binds] if isinstance(binds, str) else list(binds)


def _is_local(bind: str) -> bool:
    if bind.startswith(("unix:", "fd://")):
        return True
    host = bind.rpartition(":")[0].strip("[]") or bind.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
