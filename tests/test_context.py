"""Fresh application contexts, whether anyone can tell or not."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest
from flask import Flask, appcontext_pushed, current_app, g, has_app_context
from flask.ctx import _AppCtxGlobals
from flask.globals import app_ctx

from flask_wschat import incoming
from flask_wschat.shortcuts import contexts as context
from flask_wschat.shortcuts.contexts import AppContexts

WHO = ContextVar("WHO", default="nobody")


def leave_nothing(app: Flask) -> None:
    pass


def tear_down(app: Flask) -> None:
    app.teardown_appcontext(lambda error: None)


def have_other_globals(app: Flask) -> None:
    class Own(_AppCtxGlobals):
        pass

    app.app_ctx_globals_class = Own


@pytest.fixture(params=[leave_nothing, tear_down, have_other_globals])
def app(request: pytest.FixtureRequest) -> Flask:
    made = Flask("app")
    prepare: Callable[[Flask], None] = request.param
    prepare(made)
    return made


def test_each_call_finds_g_empty(app: Flask) -> None:
    contexts = AppContexts(app)
    seen: list[tuple[str, bool, list[str]]] = []

    def note(subject: str, number: int) -> None:
        seen.append((subject, current_app == app, sorted(vars(g))))
        if number % 2:
            g.number = number

    for _ in range(3):
        contexts.call_each(note, "x", range(5))
        assert not has_app_context()
    assert seen == [("x", True, [])] * 15


def test_each_call_has_context_variables_of_its_own(app: Flask) -> None:
    seen: list[str] = []

    def note(subject: str, name: str) -> None:
        seen.append(WHO.get())
        WHO.set(name)

    for call_each in (AppContexts(app).call_each, incoming.call_each):
        for _ in range(2):
            call_each(note, "x", ["ann", "bob"])
    assert seen == ["nobody"] * 8
    assert WHO.get() == "nobody"


KEEP: dict[str, Callable[[], Any]] = {
    "a copy of the context variables": copy_context,
    "the context": lambda: app_ctx._get_current_object(),  # type: ignore[attr-defined]
    "g": lambda: g._get_current_object(),
}


@pytest.mark.parametrize("keep", KEEP.values(), ids=KEEP.keys())
def test_a_context_that_somebody_kept_is_used_by_nobody_else(
    app: Flask, keep: Callable[[], Any]
) -> None:
    contexts = AppContexts(app)
    kept: list[Any] = []
    seen: list[int] = []

    def note(subject: str, number: int) -> None:
        seen.append(id(g._get_current_object()))
        kept.append(keep())

    for numbers in ([0], [1, 2], [3]):
        contexts.call_each(note, "x", numbers)
    assert len(set(seen)) == 4


def test_what_is_set_later_by_who_kept_a_context_reaches_nobody(app: Flask) -> None:
    contexts = AppContexts(app)
    kept: list[Context] = []
    names: list[object] = []

    def note(subject: str, number: int) -> None:
        names.append(g.get("name"))
        kept.append(copy_context())
        kept[0].run(setattr, g, "name", "ann")

    contexts.call_each(note, "x", [1, 2])
    contexts.call_each(note, "x", [3])
    assert names == [None] * 3


@pytest.mark.shortcut
def test_a_context_left_as_it_was_is_used_again() -> None:
    contexts = AppContexts(Flask("app"))
    seen: list[int] = []
    for _ in range(3):
        contexts.call_each(
            lambda *_: seen.append(id(app_ctx._get_current_object())),  # type: ignore[attr-defined]
            None,
            [1, 2],
        )
    assert len(seen) == 6 and len(set(seen)) == 1
    assert len(contexts._spare) == 1


def test_the_first_error_is_raised_and_leaves_nothing(app: Flask) -> None:
    contexts = AppContexts(app)
    called: list[int] = []

    def fail(subject: None, number: int) -> None:
        called.append(number)
        g.left = "behind"
        if number == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        contexts.call_each(fail, None, range(5))
    assert called == [0, 1]
    assert not has_app_context()
    contexts.call_each(lambda _, number: called.append(len(vars(g))), None, [0])
    assert called[-1] == 0


def test_nested_contexts(app: Flask) -> None:
    other = Flask("other")
    inner, outer = AppContexts(other), AppContexts(app)
    names: list[str] = []

    def note(subject: None, each: None) -> None:
        names.append(current_app.name)

    def nest(subject: None, each: None) -> None:
        inner.call_each(note, None, [None])
        with other.app_context():
            note(None, None)
        note(None, None)

    outer.call_each(nest, None, [None])
    assert names == ["other", "other", "app"]


def test_teardown_functions_hear_of_each_call_and_its_error() -> None:
    app = Flask("app")
    ends: list[Any] = []
    contexts = AppContexts(app)
    contexts.call_each(lambda *_: None, None, [1])

    @app.teardown_appcontext
    def note(error: BaseException | None) -> None:
        ends.append((g.pop("number", None), type(error)))

    def work(subject: None, number: int) -> None:
        g.number = number
        if number == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        contexts.call_each(work, None, [1, 2, 3])
    none = type(None)
    assert ends == [(1, none), (2, none), (3, ZeroDivisionError)]


def test_signals_are_sent_for_each_call() -> None:
    app = Flask("app")
    contexts = AppContexts(app)
    contexts.call_each(lambda *_: None, None, [1])
    told: list[Flask] = []

    def note(sender: Flask, **extra: Any) -> None:
        told.append(sender)

    with appcontext_pushed.connected_to(note, app):
        contexts.call_each(lambda *_: None, None, [1, 2, 3])
    contexts.call_each(lambda *_: None, None, [1])
    assert told == [app] * 3


def test_a_flask_without_that_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_cv_app", None)
    app = Flask("app")
    names: list[str] = []
    AppContexts(app).call_each(lambda *_: names.append(current_app.name), None, "ab")
    assert names == ["app", "app"]
