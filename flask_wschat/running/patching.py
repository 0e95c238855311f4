"""Sees that ``chat.run`` serves in a process that gevent has patched.

Unpatched, one view that waits for anything but its socket stops all others. Patching
has to come before the imports, so the program is started again, as a reloader does,
with ``boot.py`` before it: see docs/decisions/23.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import types
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..chat.background import THREAD
from ..transports.patched import is_patched
from ..transports.waiting import runs_here
from .folder import STARTED_IN, working_directory

logger = logging.getLogger("flask_wschat")

STARTED_AGAIN = "WSCHAT_STARTED_AGAIN"
"""Set in the environment to the process id, which a restart by ``exec`` keeps."""

_RUNNERS = {"pytest", "py.test", "unittest", "gunicorn", "celery", "pdb", "ipython"}
"""Programs that run other people's programs: they are not ours to start again."""


class Program(NamedTuple):
    """What Python was told to run."""

    options: list[str]
    """Those of the interpreter."""
    kind: str
    """``script``, ``module`` or ``code``."""
    target: str
    arguments: list[str]


def ensure_patched() -> None:
    """Start this program again if gevent has not patched it; else return.

    Returns as well where that cannot be done, having logged why.
    """
    if is_patched():
        return
    program = find_program(sys.orig_argv)
    reason = _obstacle(program)
    if program is not None and reason is None:
        boot = str(Path(__file__).with_name("boot.py"))
        command = [sys.executable, *program.options, boot]
        command += [program.kind, program.target, *program.arguments]
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        environ = {**os.environ, STARTED_AGAIN: str(os.getpid())}
        folder = working_directory()
        try:
            os.chdir(_started_in(program))
            os.execve(sys.executable, command, environ)  # nosec B606  # as it was
        except OSError as error:
            os.chdir(folder)
            reason = f"Python cannot be started again ({error})"
    logger.warning(
        "serving without gevent's patches, as %s: a view that waits (time.sleep, an"
        " HTTP request, a database) stops every other one. Make `from gevent import"
        " monkey; monkey.patch_all()` the program's first line;"
        " chat.run(patch=False) is silent about it",
        reason,
    )


def find_program(command: Sequence[str]) -> Program | None:
    """Take a Python command line apart; None: it names no program."""
    options: list[str] = []
    words = list(command[1:])
    while words:
        word = words.pop(0)
        if word == "-":
            return None  # it comes by stdin
        if not word.startswith("-"):
            return Program(options, "script", word, words)
        if word == "--check-hash-based-pycs":
            options += [word, *words[:1]]
            del words[:1]
            continue
        letters = "" if word.startswith("--") else word[1:]
        for index, letter in enumerate(letters):
            behind = letters[index + 1 :]
            if letter in "cm":
                if index:
                    options.append("-" + letters[:index])
                if not behind and not words:
                    return None
                target = behind or words.pop(0)
                return Program(options, _KINDS[letter], target, words)
            if letter in "WX":
                if not behind:
                    word += words.pop(0) if words else ""
                break
        options.append(word)
    return None


_KINDS = {"c": "code", "m": "module"}


def _obstacle(program: Program | None) -> str | None:
    """Return why this program cannot be started again; None: it can."""
    threads = [
        t.name
        for t in threading.enumerate()
        # Background tasks begin again with the program.
        if t is not threading.main_thread() and t.name != THREAD
    ]
    if os.environ.get(STARTED_AGAIN) == str(os.getpid()):
        return "starting this program again did not bring them"
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return "this is an interactive session"
    if sys.gettrace() is not None or "pydevd" in sys.modules:
        return "a debugger or tracer looks on"
    if "_pytest" in sys.modules or (program and _name(program) in _RUNNERS):
        return "another program runs this one"
    if threading.current_thread() is not threading.main_thread():
        return "chat.run was called in a thread"
    if program is None or not _is_main(program):
        return "this program is no file or module that Python could run again"
    if threads:
        return f"threads run already ({', '.join(threads[:3])})"
    if runs_here() or _asyncio_runs():
        return "an event loop runs already"
    if _has_children():
        return "this program has child processes already"
    return None


def _name(program: Program) -> str:
    return program.target.rpartition(os.sep)[2].partition(".__main__")[0]


def _is_main(program: Program) -> bool:
    """Whether ``__main__`` is what the command line names, still found from here."""
    if not sys.executable or getattr(sys, "frozen", False) or sys.flags.no_site:
        return False
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if program.kind == "script":
        path = os.path.normpath(os.path.join(_started_in(program), program.target))
        return (
            file is not None
            and os.path.normpath(file) == path
            and (os.path.isfile(path))
        )
    if program.kind == "module":
        # Where Python began is in `sys.path`: else the program had left it before
        # this was imported, and its modules may not be found from here.
        found = STARTED_IN in sys.path or getattr(sys.flags, "safe_path", False)
        return found and getattr(main, "__spec__", None) is not None
    return file is None


def _started_in(program: Program) -> str:
    """Return where Python was called, though the program may have gone elsewhere."""
    file = getattr(sys.modules["__main__"], "__file__", None) or ""
    if program.kind == "script" and file.endswith(os.sep + program.target):
        return str(file).removesuffix(program.target)  # Python joined the two
    return STARTED_IN


def _asyncio_runs() -> bool:
    asyncio: types.ModuleType | None = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
