"""The response that nobody gets is, to the application, as any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, after_this_request, g, session

from flask_wschat import Listener, WSChat
from flask_wschat.errors import ConnectionClosed
from flask_wschat.shortcuts.response import NoAnswer
from flask_wschat.testing import WSChatClient


def test_it_has_all_that_a_response_has() -> None:
    ours, flasks = NoAnswer(), Response()
    state, other = vars(ours), vars(flasks)
    assert state.keys() == other.keys()
    for name in state:
        assert state[name] == other[name], name
    for name in ("status", "mimetype", "mimetype_params", "content_length", "is_json"):
        assert getattr(ours, name) == getattr(flasks, name), name
    assert ours.get_data() == flasks.get_data() == b""


def test_two_share_nothing() -> None:
    first, second = NoAnswer(), NoAnswer()
    first.headers["X"] = "1"
    first.call_on_close(lambda: None)
    first.set_cookie("a", "b")
    first.vary.add("Cookie")
    first.set_data(b"x")
    assert "X" not in second.headers and second.get_data() == b""
    assert first._on_close != second._on_close
    assert list(second.vary) == []


def test_it_is_closed_like_others() -> None:
    answer, told = NoAnswer(), list[str]()
    assert answer({}, None) == ()
    answer.call_on_close(lambda: told.append("closed"))
    body: Any = answer({}, None)
    assert list(body) == told == []
    body.close()
    assert told == ["closed"]


class OwnResponse(Response):
    default_mimetype = "text/x-own"
    made = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        type(self).made += 1
        super().__init__(*args, **options)


def nothing(app: Flask, log: list[Any]) -> None:
    pass


def functions_after(app: Flask, log: list[Any]) -> None:
    @app.after_request
    def note(response: Response) -> Response:
        response.headers["X-Note"] = "1"
        response.set_cookie("seen", "1")
        response.call_on_close(lambda: log.append("closed"))
        log.append((response.status_code, response.get_data(), session.get("user")))
        return response

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        log.append(("teardown", error, session.get("user")))


def one_after(app: Flask, log: list[Any]) -> None:
    @app.before_request
    def before() -> None:
        @after_this_request
        def note(response: Response) -> Response:
            response.status_code = 299
            log.append(response.status)
            return response


def another_response(app: Flask, log: list[Any]) -> None:
    @app.after_request
    def replace(response: Response) -> Response:
        other = Response("other", 201)
        other.call_on_close(lambda: log.append("other closed"))
        return other


def own_class(app: Flask, log: list[Any]) -> None:
    app.response_class = OwnResponse

    @app.after_request
    def note(response: Response) -> Response:
        log.append((type(response), response.mimetype, OwnResponse.made))
        return response


def writes_to_the_session(app: Flask, log: list[Any]) -> None:
    @app.before_request
    def write() -> None:
        session["user"] = "ann"

    @app.after_request
    def note(response: Response) -> Response:
        log.append((session.modified, session.accessed, dict(session)))
        return response


def permanent(app: Flask, log: list[Any]) -> None:
    @app.before_request
    def write() -> None:
        session.permanent = True


def failing_after(app: Flask, log: list[Any]) -> None:
    @app.after_request
    def fail(response: Response) -> Response:
        raise ZeroDivisionError

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        log.append(("teardown", type(error)))


def failing_response_class(app: Flask, log: list[Any]) -> None:
    class Failing(Response):
        @classmethod
        def force_type(cls, response: Any, environ: Any = None) -> Any:
            log.append("forced")
            raise ZeroDivisionError

    app.response_class = Failing


def listens_to_signals(app: Flask, log: list[Any]) -> None:
    from flask import request_finished, request_started, request_tearing_down

    def note(sender: Any, response: Any = None, **_: Any) -> None:
        log.append(response and response.status_code)

    log.append(note)  # kept: signals hold their receivers weakly
    for signal in (request_started, request_finished, request_tearing_down):
        signal.connect(note, app)


PREPARE = [
    *(nothing, functions_after, one_after, another_response, own_class),
    *(writes_to_the_session, permanent, failing_after, failing_response_class),
    listens_to_signals,
]
FAILING = [failing_after, failing_response_class]


def told(prepare: Callable[..., None], shortcuts: bool) -> list[Any]:
    """Return what an application sees of an opening, and the client of its socket."""
    app, log = Flask("app"), list[Any]()
    app.secret_key = "key"
    app.config["WSCHAT_SHORTCUTS"] = shortcuts
    chat = WSChat(app)
    OwnResponse.made = 0
    prepare(app, log)

    @chat.listener("/echo")
    class Echo(Listener):
        def on_open(self, ws: Any) -> None:
            g.opened = True

        def on_message(self, ws: Any, message: Any) -> None:
            ws.send(message)

    try:
        with WSChatClient(app).connect("/echo") as client:
            if prepare not in FAILING:
                client.send("hello")
            log.append(client.client.receive())
    except ConnectionClosed as end:
        log.append(end.code)
    except Exception as error:
        log.append(type(error))
    return [each for each in log if not callable(each) or isinstance(each, type)]


@pytest.mark.parametrize("prepare", PREPARE)
def test_an_application_sees_what_it_would_of_flasks(
    prepare: Callable[..., None],
) -> None:
    assert told(prepare, True) == told(prepare, False)
