"""Fresh application contexts, whether anyone can tell or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, appcontext_pushed, current_app, g, has_app_context
from flask.ctx import _AppCtxGlobals

from flask_wschat import context
from flask_wschat.context import AppContexts


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
