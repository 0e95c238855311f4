"""Mistakes that would show late or never, told where they are made."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import functools
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import click
from flask import Flask, has_app_context, has_request_context

from ..errors import check_runs
from ..messages import shown
from ..rate import Rate, as_rate
from ..settings import PREFIX
from ..websocket import Listener

logger = logging.getLogger("flask_wschat")

GIVEN = "wschat.given"
"""Where ``app.extensions`` has the configuration that was read, until it is used."""

_CALLED = {
    "on_open": ["self", "ws"],
    "on_message": ["self", "ws", "message"],
    "on_close": ["self", "ws", "code", "reason"],
}
"""A listener's methods, and what they get by position."""
_MEANT = {
    **dict.fromkeys(["onopen", "onopened", "onconnect", "onconnected"], "on_open"),
    **dict.fromkeys(["onmessage", "onmessages", "onmsg", "onreceive"], "on_message"),
    **dict.fromkeys(["onclose", "onclosed", "ondisconnect"], "on_close"),
}
"""What the methods are called elsewhere, and here."""
_ASKED = {
    "can_join": ["self", "user", "room"],
    "can_say": ["self", "user", "room", "data"],
    "can_tell": ["self", "user", "to"],
    "can_vote": ["self", "user", "poll", "choice"],
}
"""What the ready-made chat asks, and with what."""
_HOOK = {"before_event": ["self", "ws", "name", "request"]}
"""What is asked before each event, and with what."""
_REFUSED = {
    **dict.fromkeys(["can_enter", "can_read", "can_see", "can_subscribe"], "can_join"),
    **dict.fromkeys(["can_send", "can_write", "can_post", "can_talk"], "can_say"),
    **dict.fromkeys(["can_message", "can_dm", "can_whisper"], "can_tell"),
}
"""What may be meant by it."""


def check_rule(decorator: str, rule: Any) -> None:
    """:raises TypeError: a decorator was used without its URL."""
    if not isinstance(rule, str):
        written = f'chat.{decorator}("/url"'
        if decorator != "dashboard":
            raise TypeError(f"write @{written}), with the URL in parentheses")
        raise TypeError(f"write {written}, allow=...), with the URL first")


def check_view(view: Any, rule: str) -> None:
    """:raises TypeError: ``view`` cannot serve a socket at ``rule``."""
    if isinstance(view, type):
        raise TypeError(f"{view.__name__} is a class: register it by @chat.listener")
    if not callable(view):
        raise TypeError(f"a view is a function, as def view(ws), not {view!r}")
    name = getattr(view, "__qualname__", repr(view))
    check_runs(view, name, "ws.send")
    _check_call(view, name, ["ws"], _arguments(rule), exact=False)


def check_listener(cls: Any, rule: str) -> None:
    """:raises TypeError: ``cls`` cannot listen to a socket at ``rule``."""
    if isinstance(cls, Listener):
        raise TypeError(
            f"register the class {type(cls).__name__}, not an instance of it:"
            " each connection gets one of its own"
        )
    if not isinstance(cls, type) or not issubclass(cls, Listener):
        name = getattr(cls, "__qualname__", repr(cls))
        raise TypeError(
            f"{name} is no subclass of flask_wschat.Listener; a function that takes a"
            " socket is registered by @chat.route"
        )
    if not _takes(cls):
        raise TypeError(
            f"{cls.__name__}() is made for each connection, without arguments"
        )
    # By name: the chat is a layer above this.
    handled = {each.method for each in getattr(cls, "_handlers", {}).values()}
    for name in dir(cls):
        method = inspect.getattr_static(cls, name)
        if not inspect.isfunction(method):
            continue
        if hasattr(method, "_wschat_event") and not hasattr(cls, "_handlers"):
            raise TypeError(
                f"{cls.__qualname__}.{name} is an event, which nobody would call: make"
                f" it class {cls.__name__}(Events), or (ChatListener)"
            )
        prefixes = ("on", "can_", "before_event")
        if not name.startswith(prefixes) or name in handled:
            continue  # an event is called as its hints say
        where = f"{cls.__qualname__}.{name}"
        check_runs(method, where, "ws.send" if name.startswith("on") else "return")
        if name in _CALLED:
            arguments = _arguments(rule) if name == "on_open" else []
            _check_call(
                method, where, _CALLED[name], arguments, exact=name != "on_open"
            )
        elif name in _HOOK and hasattr(cls, "_handlers"):
            _check_call(method, where, _HOOK[name], [], exact=True)
        elif name in _ASKED and _asks(cls):
            _check_call(method, where, _ASKED[name], [], exact=True)
        elif (meant := _meant(cls, name)) and (
            getattr(cls, meant).__module__.startswith("flask_wschat.")
        ):
            raise TypeError(f"nobody calls {where}: the method is called {meant}")


def _asks(cls: type) -> bool:
    # By name: the chat is a layer above this.
    return any(base.__module__ == "flask_wschat.chat.listener" for base in cls.__mro__)


def _meant(cls: type, name: str) -> str | None:
    """Return the method that was meant by ``name``, which nobody calls."""
    if not name.startswith("can_"):
        return _MEANT.get(name.replace("_", "").lower())
    near = difflib.get_close_matches(name, _ASKED, 1, 0.8)
    return _REFUSED.get(name, near[0] if near else None) if _asks(cls) else None


def check_limit(limit: Any) -> Rate | None:
    """Return what a route's ``limit`` says, if anything.

    :raises ValueError: it is no limit.
    """
    rate = as_rate(limit)
    if rate is None and limit is not None:
        raise ValueError(
            "limit is (messages a second, messages at once) of one user, as (10, 50),"
            f" unlike {shown(limit)}"
        )
    return rate


def check_decorators(given: Any) -> tuple[Any, ...]:
    """Return a route's ``decorators``, as they are now: a list may change.

    :raises TypeError: it is no list.
    """
    if callable(given):
        raise TypeError("decorators are a list, as [login_required]")
    return tuple(given)


def check_authenticate(function: Any) -> None:
    """:raises TypeError: ``function`` cannot say who somebody is."""
    if not callable(function):
        raise TypeError("write @chat.authenticate above a function, no parentheses")
    name = getattr(function, "__qualname__", repr(function))
    check_runs(function, name)
    if not _takes(function):
        raise TypeError(f"{name} is called without arguments: it looks at `request`")


def check_allow(function: Any) -> bool:
    """Return whether ``function``, which says who may see a page, takes the user.

    :raises TypeError: it cannot be called.
    """
    if function is None:
        return False
    if not callable(function):
        raise TypeError(
            f"allow is a function that returns True or False, unlike {shown(function)}"
        )
    name = getattr(function, "__qualname__", repr(function))
    check_runs(function, name)
    if _takes(function, "user"):
        return True
    if not _takes(function):
        raise TypeError(f"{name} is called with the user's id, or without arguments")
    return False


def check_task(function: Any) -> None:
    """:raises TypeError: ``function`` cannot run in the background."""
    if not callable(function):
        raise TypeError(
            "give the function itself and then its arguments, as in"
            f" start_background_task(work, 5), not {shown(function)}"
        )
    check_runs(function, getattr(function, "__qualname__", repr(function)))


def _check_call(
    function: Any, name: str, given: Sequence[str], by_name: list[str], *, exact: bool
) -> None:
    """:raises TypeError: ``function`` does not take what is ``given`` by position.

    What comes ``by_name``, from the URL, is not checked, as blueprints and
    preprocessors have a say in it, unless it stands where the socket belongs.
    """
    signature = _signature(function)
    if signature is None:
        return
    names = list(signature.parameters)
    place = len(given) - 1
    try:
        bind = signature.bind if exact else signature.bind_partial
        bind(*given)
        fits = exact or len(names) <= place or names[place] not in by_name
    except TypeError:
        fits = False
    if not fits:
        short = name.rpartition(".")[2]
        wanted = ", ".join([*given, *by_name])
        raise TypeError(f"{name}{signature} cannot be called: write {short}({wanted})")


def _signature(function: Any) -> inspect.Signature | None:
    try:
        # Not of what it wraps: a decorator may give that its arguments.
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # some are written in C
        return None


def _takes(function: Any, *arguments: Any) -> bool:
    signature = _signature(function)
    try:
        return signature is None or bool(signature.bind(*arguments) or True)
    except TypeError:
        return False


def _arguments(rule: str) -> list[str]:
    return re.findall(r"<(?:[^<>:]*:)?\s*(\w+)\s*>", rule)


def check_app(app: Any) -> None:
    """:raises TypeError: ``app`` is no Flask application."""
    if not isinstance(app, Flask):
        raise TypeError(f"not a Flask application: {app!r}")


def warn_of_environment(config: Mapping[str, Any]) -> None:
    """Warn of settings in the environment that nobody has read."""
    for name in os.environ:
        key = name.removeprefix("FLASK_")
        if key != name and key.startswith(PREFIX) and key not in config:
            logger.warning(
                "%s is in the environment, but not in app.config: call"
                " app.config.from_prefixed_env() before WSChat(app) or init_app(app)",
                name,
            )


def check_address(host: Any, port: Any) -> int:
    """Return ``port`` as a number.

    :raises TypeError: ``host`` is none; or :raises ValueError: ``port`` is none.
    """
    if not isinstance(host, str):
        raise TypeError(f"write chat.run(app, host, port): {host!r} is no host")
    with contextlib.suppress(TypeError, ValueError):
        if 0 <= int(port) <= 65535:
            return int(port)
    raise ValueError(f"a port is a number from 0 to 65535, unlike {port!r}")


def note_settings(app: Flask) -> None:
    """Remember what the configuration said when it was read."""
    app.extensions[GIVEN] = _given(app.config)


def warn_of_late_settings(app: Flask) -> None:
    """Warn, once, of what came into the configuration later."""
    read = app.extensions.pop(GIVEN, None)
    if read is None:
        return
    now = _given(app.config)
    keys = [k for k in {**read, **now} if read.get(k, _ABSENT) != now.get(k, _ABSENT)]
    if keys:
        logger.warning(
            "%s came too late and has no effect: set it before WSChat(app) or"
            " init_app(app), which read the configuration",
            ", ".join(keys),
        )


def _given(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of what ``config`` says for this extension."""
    return {
        key: list(value) if isinstance(value, list | tuple | set) else value
        for key, value in config.items()
        if key.startswith(PREFIX)
    }


_ABSENT = object()


class SessionWatch:
    """Tells of writes to the session where no answer will carry its cookie."""

    def __init__(self) -> None:
        self._told: set[tuple[str, int]] = set()

    def begin(self, session: Any) -> None:
        """From now on tell, once for each line, what is written to ``session``."""
        update = getattr(session, "on_update", None)
        if update is not None:
            session.on_update = functools.partial(self._written, update)

    def _written(self, update: Callable[[Any], Any], session: Any) -> None:
        update(session)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _is_of_flask(frame):
            frame = frame.f_back
        if frame is None:
            return
        place = frame.f_code.co_filename, frame.f_lineno
        if place not in self._told:
            self._told.add(place)
            logger.warning(
                "what %s:%d writes to the session is lost, as a socket cannot set a"
                " cookie: write it in an ordinary request",
                *place,
            )


def _is_of_flask(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return package in ("flask", "werkzeug")


def is_only_loaded() -> bool:
    """Whether the command ``flask`` loads the program, but is to do something else.

    As Flask does of ``app.run``. A command of the program's own has an app context.
    """
    commanded = click.get_current_context(silent=True) is not None
    if not commanded or has_app_context():
        return False
    if os.environ.get("FLASK_RUN_FROM_CLI") != "true":
        return False
    logger.warning(
        "chat.run is ignored where the flask command loads the program: write `if"
        ' __name__ == "__main__":` above it, and `flask wschat run` to serve'
    )
    return True


class Alone:
    """Warns once of what is published into the memory of a process that serves nobody.

    At once in a task or at a prompt. Anywhere else it may be a server whose first
    client is yet to come: that is known when the program ends.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._count = 0
        self._warned = False

    def __call__(self) -> None:
        """Note a message; called until somebody has connected."""
        tested = self._app.testing or "PYTEST_CURRENT_TEST" in os.environ
        if self._warned or tested or has_request_context():
            return
        self._count += 1
        if _is_task():
            self._warn()
        elif self._count == 1:
            atexit.register(self._at_exit)

    def serves(self) -> None:
        """Note that somebody has connected."""
        self._warned = True

    def _at_exit(self) -> None:
        # Flask's note that it has had a request; where it is called otherwise, none.
        if not self._warned and not getattr(self._app, "_got_first_request", False):
            self._warn()

    def _warn(self) -> None:
        self._warned = True
        logger.warning(
            "published to memory://, which is of this process alone, and nobody ever"
            " connected to it: a task, a script or a shell reaches the server's clients"
            " where both have WSCHAT_URL = sqlite:///... or redis://..."
        )


def _is_task() -> bool:
    """Whether this runs in a task of Celery or RQ, or at Python's prompt."""
    celery, rq = sys.modules.get("celery"), sys.modules.get("rq")
    with contextlib.suppress(Exception):  # theirs may change
        if celery is not None and celery.current_task:
            return True
        if rq is not None and rq.get_current_job() is not None:
            return True
    return hasattr(sys, "ps1")
