"""A Python that has done its imports, and forks to run programs.

    python -u -m tests.support.forking [patched]    by gevent, before the imports

`tests.support.forked` asks it by lines of JSON on stdin, it answers on stdout. A list
of the command, environment, folder and log begins a script, the answer is the process's
number; a number alone asks for that process's exit code, null while it runs. Those that
run when stdin ends are killed.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import threading
from typing import Any

from gevent import monkey

IMPORTS = [
    "flask",
    "flask_wschat.extension",
    "flask_wschat.server",
    "flask_wschat.chat.listener",
    "flask_wschat.backends.redis",
    "flask_wschat.backends.sqlite.backend",
    "geventwebsocket.handler",
    "gunicorn.app.wsgiapp",
]

# Those that gevent puts in their place begin its loop, which a fork would share.
fork, waitpid = os.fork, os.waitpid


def serve() -> list[str]:
    """Answer until there is a process to be; return its command."""
    running: set[int] = set()
    for line in sys.stdin:
        question: Any = json.loads(line)
        answer: int | None
        if isinstance(question, list):
            command, environ, folder, log = question
            answer = fork()
            if not answer:
                _become(environ, folder, log)
                return list(command)
            running.add(answer)
        else:
            pid, status = waitpid(question, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            running.discard(pid)
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        waitpid(pid, 0)
    sys.exit()


def _become(environ: dict[str, str], folder: str, log: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    files = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
    for number, file in enumerate((*files, files[1])):
        os.dup2(file, number)
    for file in files:
        os.close(file)


def _run_and_end(command: list[str]) -> None:
    """Run a program, and end without taking the interpreter apart.

    To let go of all that was imported is 0.15 s of the processor's time, as much as all
    before it: what a fork only looks at is copied then.
    """
    code = 0
    try:
        _run(command)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else bool(error.code)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
    finally:
        atexit._run_exitfuncs()
        os._exit(code)


def _run(command: list[str]) -> None:
    """Run a script, ``-c`` code or ``-m name`` with its arguments as Python does."""
    if command[0] == "-c":
        sys.argv[:] = [command[0], *command[2:]]
        sys.path[0] = ""
        exec(command[1], {"__name__": "__main__"})
    elif command[0] == "-m":
        del command[0]
        sys.argv[:] = command
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = command
        sys.path[0] = os.path.dirname(os.path.abspath(command[0]))
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1:] == ["patched"]:
        monkey.patch_all()
    for name in IMPORTS:
        importlib.import_module(name)
    gc.freeze()  # or each fork looks at all of that for garbage, and has it copied
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end of stdin ends the others, too
    _run_and_end(serve())
