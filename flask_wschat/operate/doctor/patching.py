"""Whether gevent has patched all, and in time. See ``probe.py``, which saw it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...transports.patched import patching_fault
from .finding import Finding, Kind, Setup

_FIRST = "from gevent import monkey; monkey.patch_all()   # the program's first line"

UNPATCHED = Kind(
    "not-patched",
    "warning",
    "the program serves by gevent, {how}, and does not patch",
    "A view that waits for anything but its socket (time.sleep, a database, another"
    " site) stops all others.",
    _FIRST,
)
PARTLY = Kind(
    "patched-partly",
    "error",
    "gevent has patched this program only in part: {what}",
    "What is left out waits for the system, not for gevent: it stops all connections of"
    " the process meanwhile, or locks that are never let go.",
    _FIRST,
)
LATE = Kind(
    "patched-late",
    "warning",
    "gevent patches too late, at {where}: {what} came before",
    "What was imported before keeps what gevent replaces: it stops all others while it"
    " waits, and TLS may fail with a RecursionError.",
    _FIRST,
)
TOUCHED = Kind(
    "patched-not-first",
    "note",
    "{what} was imported before gevent patched, at {where}",
    "Locks and threads that the program made by then are the system's: whoever waits"
    " for one stops all others.",
    _FIRST,
)
THREADS = Kind(
    "patched-with-threads",
    "warning",
    "threads ran already when gevent patched, at {where}",
    "They are the system's, and share locks with greenlets that may never get them.",
    _FIRST,
)
PRELOADED = Kind(
    "preload-unpatched",
    "warning",
    "gunicorn's --preload imports the app before its gevent worker patches",
    "What the app imported keeps what gevent replaces: it stops all others while it"
    " waits, and TLS may fail with a RecursionError.",
    "from gevent import monkey; monkey.patch_all()   # in gunicorn.conf.py, first line",
)
THREADED = Kind(
    "patched-under-threads",
    "error",
    "the app patches by gevent, and gunicorn's worker is {worker}",
    "Its threads become greenlets of a loop that nobody runs for it: they stop each"
    " other.",
    "gunicorn -k flask_wschat.gunicorn.Worker …   # or leave out monkey.patch_all()",
)
EVENTLET = Kind(
    "patched-by-eventlet",
    "error",
    "eventlet has patched this program",
    "Flask-WSChat does not work under eventlet.",
    "gunicorn -k flask_wschat.gunicorn.Worker …   # and no eventlet.monkey_patch()",
)
_NEEDED = ("socket", "ssl", "threading", "time", "select")


def patches(setup: Setup) -> Iterator[Finding]:
    """Look at what gevent had patched when the app was imported."""
    seen = setup.imported
    by_worker = setup.gunicorn["patched"] if setup.gunicorn else []
    if setup.is_gevent and by_worker:
        missing = [name for name in _NEEDED if name not in by_worker]
        if missing:
            yield PARTLY(what=f"gunicorn.conf.py leaves out {', '.join(missing)}")
    if seen is None:
        fault = patching_fault()  # of this process, which may be a server's
        if fault and fault.startswith("eventlet"):
            yield EVENTLET()
        elif fault:
            yield PARTLY(what=fault.partition(": make")[0])
        return
    if seen.get("eventlet"):
        yield EVENTLET()
    patched = seen.get("patched", [])
    if setup.is_gevent:
        if setup.gunicorn and setup.gunicorn["preload_app"] and not by_worker:
            yield PRELOADED()
        return  # the worker has patched all before
    if not patched:
        # `chat.run` and gunicorn's gevent workers do so; threads need none.
        if seen.get("serves") and not setup.worker:
            yield UNPATCHED(how=seen["serves"])
        return
    if setup.worker:
        yield THREADED(worker=setup.worker)
        return
    calls: list[dict[str, Any]] = seen.get("calls", [])
    missing = [name for name in _NEEDED if name not in patched]
    if missing:
        where = f" at {calls[0]['where']}" if calls else ""
        yield PARTLY(what=f"{', '.join(missing)} left out{where}")
    for call in calls[:1]:
        where = call["where"]
        if call["holding"]:
            yield LATE(where=where, what=", ".join(call["holding"][:6]))
        elif call["threads"] > 1:
            yield THREADS(where=where)
        elif call["touched"]:
            yield TOUCHED(where=where, what=", ".join(call["touched"]))
