"""What ``chat.run(debug=True)`` has of Werkzeug: its debugger and its reloader."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from werkzeug.debug import DebuggedApplication
from werkzeug.serving import is_running_from_reloader as is_reloaded

try:
    from werkzeug._reloader import StatReloaderLoop
except ImportError:  # what it has in public wants the program's main thread
    StatReloaderLoop = None  # type: ignore[assignment, misc]

__all__ = ["Debugged", "has_reloader", "is_reloaded", "run_and_reload", "watch_files"]

logger = logging.getLogger("flask_wschat")


def has_reloader() -> bool:
    """Whether this Werkzeug has the reloader that is known here; say so if not."""
    asked = ("restart_with_reloader", "run", "__enter__", "__exit__")
    if all(hasattr(StatReloaderLoop, name) for name in asked):
        return True
    logger.warning("no reloading: this version of Werkzeug does it in another way")
    return False


def run_and_reload() -> int:
    """Run this program, again whenever it ends because a file has changed.

    Return its exit code.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # which ends it, too
    try:
        return StatReloaderLoop().restart_with_reloader()
    except KeyboardInterrupt:
        return 0  # the program has had the signal as well


def watch_files(changed: Callable[[int], Any]) -> None:
    """Call ``changed``, in a thread, once a file of this program has changed.

    It is given the exit code that makes ``run_and_reload`` start anew.
    """

    def watch() -> None:
        try:
            with StatReloaderLoop() as reloader:
                reloader.run()
        except SystemExit as end:  # it has printed which file it was
            assert isinstance(end.code, int)
            changed(end.code)

    threading.Thread(target=watch, name="reloader", daemon=True).start()


class Debugged:
    """An application whose errors are shown in the browser.

    What asks to upgrade goes past the debugger, which would keep the frames of each
    request that is under way.
    """

    def __init__(self, app: Flask) -> None:
        self.extensions = app.extensions  # where the handler finds the settings
        self._app = app
        self._debugger = DebuggedApplication(app, evalex=True)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "HTTP_UPGRADE" in environ:
            return self._app(environ, start_response)
        return self._debugger(environ, start_response)
