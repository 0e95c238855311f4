"""Fresh application contexts, whether anyone can tell or not."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest
from flask import (
    Flask,
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
    copy_current_request_context,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
    session,
)
from flask.ctx import AppContext
from flask.globals import app_ctx

from flask_wschat import signals
from flask_wschat.shortcuts import contexts as context
from flask_wschat.shortcuts.contexts import AppContexts

WHO = ContextVar("WHO", default="nobody")


def leave_nothing(app: Flask) -> None:
    pass


def tear_down(app: Flask) -> None:
    app.teardown_appcontext(lambda error: None)


def have_other_globals(app: Flask) -> None:
    class Own(Flask.app_ctx_globals_class):  # type: ignore[valid-type, misc]
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

    for call_each in (AppContexts(app).call_each, signals.call_each):
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
@pytest.mark.parametrize("prepare", [leave_nothing, tear_down])
def test_a_context_left_as_it_was_is_used_again(
    prepare: Callable[[Flask], None],
) -> None:
    app = Flask("app")
    prepare(app)
    contexts = AppContexts(app)
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


class Error(Exception):
    pass


def note_teardown(app: Flask, log: list[Any]) -> None:
    @app.teardown_appcontext
    def note(error: BaseException | None) -> None:
        log.append(("teardown", g.pop("number", None), error, current_app.name))


def keep_in_teardown(app: Flask, log: list[Any]) -> None:
    @app.teardown_appcontext
    def keep(error: BaseException | None) -> None:
        log.append(("kept", g.get("kept"), error))
        g.kept = True


def fail_in_teardown(app: Flask, log: list[Any]) -> None:
    @app.teardown_appcontext
    def fail(error: BaseException | None) -> None:
        log.append(("teardown", g.get("number"), error))
        raise Error("in teardown")


def several_teardowns(app: Flask, log: list[Any]) -> None:
    note_teardown(app, log)
    app.teardown_appcontext(lambda error: log.append(("first", g.get("number"))))


def own_teardown(app: Flask, log: list[Any]) -> None:
    def do_teardown(error: Any = None) -> None:
        log.append(("own", g.get("number"), error))

    note_teardown(app, log)
    app.do_teardown_appcontext = do_teardown  # type: ignore[assignment, method-assign]


def note_signals(app: Flask, log: list[Any]) -> None:
    def note(sender: Flask, **extra: Any) -> None:
        log.append((sender.name, extra.get("exc"), has_app_context()))

    log.append(note)  # signals hold their receivers weakly
    for signal in (appcontext_pushed, appcontext_tearing_down, appcontext_popped):
        signal.connect(note, app)


def note_end(app: Flask, log: list[Any]) -> None:
    def note(sender: Flask, exc: Any = None, **extra: Any) -> None:
        log.append((sender.name, exc, g.get("number")))

    log.append(note)
    appcontext_tearing_down.connect(note, app)


def own_contexts(app: Flask, log: list[Any]) -> None:
    class Own(AppContext):
        def push(self) -> None:
            log.append("pushed")
            super().push()

    app.app_context = lambda: Own(app)  # type: ignore[method-assign]


def own_globals(app: Flask, log: list[Any]) -> None:
    have_other_globals(app)


CLASSES = [own_contexts, own_globals]
"""What an application has from its beginning."""
PREPARE = [
    *(note_teardown, keep_in_teardown, fail_in_teardown, several_teardowns),
    *(own_teardown, note_signals, note_end, *CLASSES),
]


def put_in_g(log: list[Any], number: int) -> None:
    log.append((number, sorted(vars(g)), current_app.name, has_request_context()))
    g.number = number


def fail_at_last(log: list[Any], number: int) -> None:
    log.append(number)
    if number == 2:
        raise Error("at last")


def have_another(log: list[Any], number: int) -> None:
    log.append(vars(g).copy())
    with current_app.app_context():
        log.append(vars(g).copy())
        g.inner = number
    log.append(vars(g).copy())


def have_a_request(log: list[Any], number: int) -> None:
    with current_app.test_request_context("/page"):
        session["number"] = number
        g.inner = number
        log.append(copy_current_request_context(lambda: request.path)())
    log.append((vars(g).copy(), has_request_context()))


WORK = [put_in_g, fail_at_last, have_another, have_a_request]


def told(prepare: Any, work: Any, quickly: bool) -> list[Any]:
    """Return what is seen of three calls, and of the error that ended them."""
    app, log = Flask("app"), list[Any]()
    app.secret_key = "for tests"
    if prepare in CLASSES:
        prepare(app, log)
    contexts = AppContexts(app, quickly=quickly)
    contexts.call_each(work, [], [0])
    if prepare not in CLASSES:
        prepare(app, log)
    for _ in range(2):
        try:
            contexts.call_each(work, log, range(3))
        except Error as error:
            log.append(("raised", str(error), str(error.__context__)))
    assert not has_app_context()
    return [repr(each) for each in log if not callable(each)]


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("prepare", PREPARE)
def test_an_application_sees_what_it_would_of_flasks(prepare: Any, work: Any) -> None:
    quick = told(prepare, work, True)
    assert quick == told(prepare, work, False)
    assert quick or prepare is own_globals


def test_a_flask_without_that_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_cv_app", None)
    app = Flask("app")
    names: list[str] = []
    AppContexts(app).call_each(lambda *_: names.append(current_app.name), None, "ab")
    assert names == ["app", "app"]


@pytest.mark.parametrize("off", ["setting", "version"])
def test_switched_off_each_context_is_new(
    off: str, uncheck: Callable[[str], None]
) -> None:
    if off == "version":
        uncheck("flask")
    contexts = AppContexts(Flask("app"), quickly=off != "setting")
    seen: list[Any] = []
    contexts.call_each(
        lambda *_: seen.append(app_ctx._get_current_object()),  # type: ignore[attr-defined]
        None,
        [1, 2],
    )
    assert seen[0] is not seen[1]


@pytest.mark.shortcut
def test_a_context_class_put_into_flask(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(AppContext):
        def push(self) -> None:
            pushed.append(self)
            super().push()

    pushed: list[Any] = []
    monkeypatch.setattr("flask.app.AppContext", Own)
    contexts = AppContexts(Flask("app"))
    for _ in range(2):
        contexts.call_each(lambda *_: None, None, [1, 2])
    assert len(set(pushed)) == 4
