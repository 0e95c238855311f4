"""Run by its path, apart: reads gunicorn's settings, or imports an app.

    python probe.py gunicorn ARGUMENTS...
    python probe.py app TARGET {patched,plain}

In a fresh process, as only there it is seen what was imported before gevent patched;
and as a program that is imported may do anything, or never end. Nothing of this package
is imported here but by the app. Prints one JSON object.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
import traceback
from typing import Any

_HOLDING = (
    "ssl urllib3 requests flask werkzeug redis sqlalchemy psycopg psycopg2 pymysql"
    " pymongo httpx aiohttp boto3 botocore celery kombu geventwebsocket flask_wschat"
    " concurrent.futures.thread"
)
"""What keeps things that gevent replaces, where it is imported before."""
_TOUCHED = "threading socket select subprocess queue asyncio"
"""What gevent replaces in its place: only what the program made of it stays."""
_SETTINGS = (
    "bind certfile forwarded_allow_ips graceful_timeout keepalive max_requests"
    " max_requests_jitter preload_app reload threads timeout worker_class_str"
    " worker_connections workers"
)


def read_gunicorn(arguments: list[str]) -> dict[str, object]:
    try:
        from gunicorn.app.base import Application
    except ImportError as error:
        return {"error": f"gunicorn cannot be imported: {error}", "missing": True}
    found: dict[str, object] = {}

    class Read(Application):  # type: ignore[misc]
        def init(self, parser: object, opts: object, args: list[str]) -> None:
            found["app"] = args[0] if args else None

        def load(self) -> None: ...

    sys.argv = ["gunicorn", *arguments]
    try:
        cfg = Read().cfg
    except SystemExit:
        return {"error": "gunicorn refuses these settings"}
    found["app"] = found["app"] or cfg.settings["wsgi_app"].get()
    for name in _SETTINGS.split():
        try:
            found[name] = getattr(cfg, name)
        except Exception as error:
            return {"error": f"{name}: {error}"}
    kind = cfg.settings["worker_class"].get()
    named = found.pop("worker_class_str")  # gthread where it is sync with threads
    if isinstance(kind, type):
        named = f"{kind.__module__}.{kind.__qualname__}"
    found["worker_class"] = str(named)
    found["patched"] = _patched()  # before a kind of worker patches
    sys.path[:0] = [*(cfg.pythonpath or "").split(","), cfg.chdir]
    found["unloadable"] = _unloadable(kind)
    found["app_is_there"] = _is_there(str(found["app"] or "").partition(":")[0])
    return found


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _unloadable(kind: object) -> str | None:
    """Return why gunicorn cannot load this kind of worker, if so."""
    from gunicorn.util import load_class

    try:
        load_class(kind)
    except Exception as error:
        # It puts the traceback into its words: the last line says what it was.
        lines = [line.strip(" ]") for line in str(error).splitlines()]
        said = [line for line in lines if line]
        return said[-1] if said else type(error).__name__
    return None


def import_app(target: str, patch: bool) -> dict[str, object]:
    os.environ["FLASK_RUN_FROM_CLI"] = "true"  # `app.run()` does nothing then
    calls: list[dict[str, object]] = []
    sys.argv = [target]
    sys.addaudithook(_hold)
    if patch:
        from gevent import monkey

        monkey.patch_all()
    else:
        sys.meta_path.insert(0, _Watch(calls))  # type: ignore[arg-type]
    path, _, name = target.partition(":")
    found: dict[str, object] = {}
    try:
        module_name = _prepare(path)
        module = importlib.import_module(module_name)
        if name or not hasattr(getattr(module, "app", None), "wsgi_app"):
            from flask.cli import locate_app

            app = locate_app(module_name, name or None)
        else:
            app = module.app
        found["serves"] = _serves(module)
        key = getattr(app, "secret_key", None)
        if key:
            text = key.encode() if isinstance(key, str) else bytes(key)
            found["key"] = hashlib.sha256(text).hexdigest()
    except BaseException as error:  # a program may raise, or end, as it likes
        found["error"] = _described(error)
    found["calls"] = calls
    found["patched"] = _patched()
    eventlet = sys.modules.get("eventlet.patcher")
    found["eventlet"] = eventlet is not None and eventlet.is_monkey_patched("socket")
    return found


_STREAM = 1  # `socket.SOCK_STREAM`; that module is the program's to import first


class Serves(BaseException):
    """The program wants to serve where it is only imported."""


def _hold(event: str, arguments: tuple[Any, ...]) -> None:
    """Let it neither listen nor become another program, as ``chat.run`` would."""
    if event == "os.exec":
        raise Serves
    if event == "socket.bind":
        sock, address = arguments
        if int(sock.type) & 0xF == _STREAM and isinstance(address, tuple):
            raise Serves


def _serves(module: object) -> str:
    """Return the words by which a program serves under gevent, unpatched if need be."""
    try:
        with open(str(module.__file__), encoding="utf-8") as file:  # type: ignore[attr-defined]
            text = file.read()
    except (OSError, AttributeError, ValueError):
        return ""
    said = re.search(r"\.run\([^#\n]*\bpatch\s*=\s*False|\bWSGIServer\(", text)
    said = said or re.search(r"\bServer\((?=[\s\S]*serve_forever)", text)
    return said[0] + ("…)" if said[0].endswith("(") else ")") if said else ""


class _Watch:
    """Notes what is there already where the program calls for gevent's patches."""

    def __init__(self, calls: list[dict[str, object]]) -> None:
        self._calls = calls
        self._busy = False
        self._before: set[str] | None = None

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> object:
        if name == "gevent" and self._before is None:
            self._before = set(sys.modules)
        if name != "gevent.monkey" or self._busy:
            return None
        self._busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy = False
        if spec is None or spec.loader is None:
            return None
        loader = spec.loader
        execute = loader.exec_module

        def exec_module(module: object) -> None:
            execute(module)  # type: ignore[arg-type]
            self._wrap(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _wrap(self, module: object) -> None:
        original = module.patch_all  # type: ignore[attr-defined]

        def patch_all(*args: object, **options: object) -> object:
            now = self._before or set()
            touched = [name for name in _TOUCHED.split() if name in now]
            now = now | set(sys.modules)
            self._calls.append(
                {
                    "holding": [name for name in _HOLDING.split() if name in now],
                    "touched": touched,
                    "threads": len(sys._current_frames()),
                    "without": sorted(k for k, v in options.items() if v is False),
                    "where": _caller(),
                }
            )
            return original(*args, **options)

        module.patch_all = patch_all  # type: ignore[attr-defined]


def _caller() -> str:
    frame = sys._getframe(2)
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def _patched() -> list[str]:
    monkey = sys.modules.get("gevent.monkey")
    names = ("socket", "ssl", "threading", "time", "select", "os", "subprocess")
    return [n for n in names if monkey is not None and monkey.is_module_patched(n)]


def _prepare(path: str) -> str:
    """Return the name of the module at ``path``, which can be imported then."""
    if not os.path.exists(path) and not os.path.exists(path + ".py"):
        sys.path.insert(0, os.getcwd())
        return path
    path = os.path.realpath(path)
    path = path.removesuffix(".py")
    path = path.removesuffix(os.sep + "__init__")
    parts: list[str] = []
    while True:
        path, name = os.path.split(path)
        parts.insert(0, name)
        if not os.path.exists(os.path.join(path, "__init__.py")):
            break
    sys.path.insert(0, path)
    return ".".join(parts)


def _described(error: BaseException) -> dict[str, object]:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__]
    # Where the user's own code is; what it calls is seldom to blame.
    others = os.path.dirname(os.__file__), "site-packages", "/flask_wschat/", "<frozen"
    of_user = [f for f in own if not any(name in f.filename for name in others)]
    place = (of_user or [f for f in own if f.filename[:1] != "<"])[-1:]
    if isinstance(error, SyntaxError):
        place = []  # its words say where
    return {
        "type": type(error).__name__,
        "text": str(error)[:500],
        "where": "".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in place),
        "missing": getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError)
        else None,
    }


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what the program prints is not our answer
    kind, *arguments = sys.argv[1:]
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.realpath(p or ".") != here]
    if kind == "gunicorn":
        found = read_gunicorn(arguments)
    else:
        found = import_app(arguments[0], arguments[1] == "patched")
    os.write(out, json.dumps(found, default=str).encode())
    os._exit(
        0
    )  # the program's threads, and what it wants to do at its end, are not ours


if __name__ == "__main__":
    main()
