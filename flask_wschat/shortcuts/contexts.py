"""A fresh application context for each message, for little where nobody can tell."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, TypeVar

from flask import (
    Flask,
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
)

from . import is_own, may_take

try:
    from flask.globals import _cv_app
except ImportError:  # a Flask that keeps its context elsewhere
    _cv_app = None  # type: ignore[assignment]
try:
    from sys import getrefcount
except ImportError:  # a Python that does not count
    getrefcount = None  # type: ignore[assignment]

_GLOBALS = Flask.app_ctx_globals_class
_PUSHED: Any = getattr(appcontext_pushed, "receivers", True)
_TEARING_DOWN: Any = getattr(appcontext_tearing_down, "receivers", True)
_POPPED: Any = getattr(appcontext_popped, "receivers", True)

A = TypeVar("A")
B = TypeVar("B")


class AppContexts:
    """Calls a function in contexts of ``app``, each time as if in a new one.

    Also each in context variables of its own: what one handler sets there is not for
    the next one that this greenlet or thread happens to run.

    To make, push and pop an app context is a good part of what an echo costs.
    One whose ``g`` was left empty, and that nobody has kept, is as good as new, unless
    somebody is told of its beginning and end: it is used again, put where Flask looks
    for it. ``quickly``: whether that may be done at all.
    """

    def __init__(self, app: Flask, *, quickly: bool = True) -> None:
        self._app = app
        self._as_usual = (
            may_take(quickly, "flask")
            and _cv_app is not None
            and getrefcount is not None
            and is_own(app.app_context, "flask.app", "Flask.app_context")
        )
        self._spare: list[Any] = []

    def call_each(
        self, function: Callable[[A, B], Any], subject: A, each_of: Iterable[B]
    ) -> None:
        """Call ``function(subject, each)`` for each; the first error ends that."""
        app = self._app
        if (
            not self._as_usual
            or _PUSHED
            or _POPPED
            or app.app_ctx_globals_class is not _GLOBALS
        ):
            for each in each_of:
                Context().run(self._call_pushed, function, subject, each)
            return
        try:
            context = self._spare.pop()
        except IndexError:
            context = app.app_context()
            if not is_own(type(context), "flask.ctx", "AppContext"):
                self._as_usual = False
                self.call_each(function, subject, each_of)
                return
        call = function
        if app.teardown_appcontext_funcs or _TEARING_DOWN:
            call = functools.partial(self._call_torn_down, function)
        g = context.g
        put = _cv_app.set
        for each in each_of:
            variables = Context()
            variables.run(put, context)
            variables.run(call, subject, each)
            del variables
            # Whoever has copied the context variables, as a task does, has it still.
            if (
                g.__dict__
                or getrefcount(context) != _ALONE[0]
                or getrefcount(g) != _ALONE[1]
            ):
                context = app.app_context()
                g = context.g
        self._spare.append(context)

    def _call_pushed(self, function: Callable[..., Any], *args: Any) -> None:
        with self._app.app_context():
            function(*args)

    def _call_torn_down(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            function(*args)
        except BaseException as error:
            self._app.do_teardown_appcontext(error)
            raise
        self._app.do_teardown_appcontext(None)


class _Alone:
    """What nobody but the one who made it has."""

    def __init__(self) -> None:
        self.g = object()


def _count_alone() -> tuple[int, int]:
    context = _Alone()
    g = context.g
    return getrefcount(context), getrefcount(g)


_ALONE = _count_alone() if getrefcount is not None else (0, 0)
