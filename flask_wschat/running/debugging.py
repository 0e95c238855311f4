"""What ``chat.run(debug=True)`` has of Werkzeug: its debugger and its reloader."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from werkzeug._reloader import StatReloaderLoop
from werkzeug.debug import DebuggedApplication
from werkzeug.serving import is_running_from_reloader as is_reloaded

__all__ = ["Debugged", "is_reloaded", "run_and_reload", "watch_files"]


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
