"""The next Flask and Werkzeug: what they change of what we use, done to today's.

``pytest -p tests.next.plugin`` runs tests so; a program calls ``simulate()`` before
it imports anything of ours. Flask 3.2 merges the request context into the app context
and gives it to what handles a request; Werkzeug 3.3 parses cookies into one class only.
Both are announced in the changelogs of their main branches, whose code this follows.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable
from typing import Any

import flask
import flask.app
import flask.ctx
import flask.globals
import flask.helpers
import flask.templating
import flask.testing
import werkzeug.debug
import werkzeug.http
import werkzeug.sansio.http
import werkzeug.sansio.request
import werkzeug.test
import werkzeug.wrappers
from flask.globals import _cv_app
from flask.signals import appcontext_popped, appcontext_pushed, request_started
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy

VERSIONS = {"flask": "3.2.0", "werkzeug": "3.3.0"}


class MergedContext(flask.ctx.AppContext):
    """The one context of Flask 3.2: of an app, and of a request if there is one."""

    def __init__(self, app: Any, *, request: Any = None, session: Any = None) -> None:
        self.app = app
        self.g = app.app_ctx_globals_class()
        self.url_adapter: Any = None
        self.flashes: Any = None
        self._request = request
        self._session = session
        self._after_request_functions: list[Any] = []
        try:
            self.url_adapter = app.create_url_adapter(request)
        except HTTPException as error:
            if request is not None:
                request.routing_exception = error
        self._cv_token: Any = None
        self._push_count = 0

    @classmethod
    def from_environ(cls, app: Any, environ: Any) -> MergedContext:
        request = app.request_class(environ)
        request.json_module = app.json
        return cls(app, request=request)

    @property
    def has_request(self) -> bool:
        return self._request is not None

    def copy(self) -> MergedContext:
        return type(self)(self.app, request=self._request, session=self._session)

    @property
    def request(self) -> Any:
        if self._request is None:
            raise RuntimeError("There is no request in this context.")
        return self._request

    @property
    def session(self) -> Any:
        session = self._get_session()
        session.accessed = True
        return session

    def _get_session(self) -> Any:
        request = self.request
        if self._session is None:
            interface = self.app.session_interface
            self._session = interface.open_session(self.app, request)
            if self._session is None:
                self._session = interface.make_null_session(self.app)
        return self._session

    def match_request(self) -> None:
        try:
            matched = self.url_adapter.match(return_rule=True)
        except HTTPException as error:
            self._request.routing_exception = error
        else:
            self._request.url_rule, self._request.view_args = matched

    def push(self) -> None:
        self._push_count += 1
        if self._cv_token is not None:
            return
        self._cv_token = _cv_app.set(self)
        appcontext_pushed.send(self.app, _async_wrapper=self.app.ensure_sync)
        if self._request is not None:
            self._get_session()
            if self.url_adapter is not None:
                self.match_request()

    def pop(self, exc: BaseException | None = None) -> None:
        if self._cv_token is None or _cv_app.get(None) is not self:
            raise RuntimeError(f"{self!r} is not the active context")
        self._push_count -= 1
        if self._push_count > 0:
            return
        try:
            if self._request is not None:
                self.app.do_teardown_request(exc)
                self._request.close()
            self.app.do_teardown_appcontext(exc)
        finally:
            _cv_app.reset(self._cv_token)
            self._cv_token = None
        appcontext_popped.send(self.app, _async_wrapper=self.app.ensure_sync)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.pop(error)


class _RequestVariable:
    """Stands where today's Flask asks for a request context by itself."""

    def get(self, *default: Any) -> Any:
        context: Any = _cv_app.get(None)
        return context if has_request_context() else default[0]


def has_request_context() -> bool:
    context: Any = _cv_app.get(None)
    return context is not None and context.has_request


def wsgi_app(self: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
    context = self.request_context(environ)
    error: BaseException | None = None
    try:
        try:
            context.push()
            response = self.full_dispatch_request(context)
        except Exception as raised:
            error = raised
            response = self.handle_exception(context, raised)
        except BaseException as raised:
            error = raised
            raise
        answer: Iterable[bytes] = response(environ, start_response)
        return answer
    finally:
        if "werkzeug.debug.preserve_context" in environ:
            environ["werkzeug.debug.preserve_context"](context)
        context.pop(error)


def full_dispatch_request(self: Any, context: Any) -> Any:
    self._got_first_request = True
    try:
        request_started.send(self, _async_wrapper=self.ensure_sync)
        value = self.preprocess_request()
        if value is None:
            value = self.dispatch_request(context)
    except Exception as error:
        value = self.handle_user_exception(error)
    return self.finalize_request(value)


def _merge_contexts() -> None:
    """As of Flask 3.2."""
    for module in (flask, flask.app, flask.ctx, flask.helpers, flask.testing):
        for name, value in {
            "AppContext": MergedContext,
            "has_request_context": has_request_context,
        }.items():
            if hasattr(module, name):
                setattr(module, name, value)
    for used in (flask.app, flask.ctx, flask.helpers, flask.templating):
        if hasattr(used, "_cv_request"):
            used._cv_request = _RequestVariable()  # type: ignore[attr-defined]
    # The proxies are in many modules by now: they stay, and look elsewhere.
    outside = "Working outside of request context."
    proxies: tuple[tuple[Any, str | None], ...] = (
        (flask.globals.request, "request"),
        (flask.globals.session, "session"),
        (flask.globals.request_ctx, None),
    )
    for proxy, attribute in proxies:
        LocalProxy.__init__(proxy, _cv_app, attribute, unbound_message=outside)
    del flask.globals._cv_request, flask.globals.request_ctx
    del flask.ctx.RequestContext
    todays: Any = flask.Flask
    dispatch, handle = todays.dispatch_request, todays.handle_exception
    todays.dispatch_request = lambda self, ctx: dispatch(self)
    todays.handle_exception = lambda self, ctx, error: handle(self, error)
    todays.full_dispatch_request = full_dispatch_request
    todays.wsgi_app = wsgi_app
    todays.app_context = lambda self: MergedContext(self)
    todays.request_context = lambda self, environ: MergedContext.from_environ(
        self, environ
    )


class _Gone:
    """A class attribute that only Werkzeug's own, today's code still finds."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __get__(self, instance: object, owner: type) -> object:
        if sys._getframe(1).f_globals["__name__"].startswith("werkzeug."):
            return self._value
        raise AttributeError("it was removed in Werkzeug 3.3")


def _parse_cookies_one_way() -> None:
    """As of Werkzeug 3.3."""
    todays: Any = werkzeug.sansio.http.parse_cookie

    def parse_cookie(cookie: str | None = None) -> Any:
        return todays(cookie, ImmutableMultiDict)

    def parse_cookie_header(header: Any) -> Any:
        text = header.get("HTTP_COOKIE") if isinstance(header, dict) else header
        return parse_cookie(text and text.encode("latin1").decode())

    sansio: Any = werkzeug.sansio.http
    sansio.parse_cookie = parse_cookie
    modules: Any = werkzeug.http, werkzeug.test, werkzeug.debug
    for module in modules:
        module.parse_cookie = parse_cookie_header
    request_class: Any = werkzeug.sansio.request.Request
    for name in ("parameter", "dict", "list"):
        name += "_storage_class"
        setattr(request_class, name, _Gone(vars(request_class)[name]))


def _tell_versions() -> None:
    version = importlib.metadata.version

    def told(distribution_name: str) -> str:
        return VERSIONS.get(distribution_name.lower()) or version(distribution_name)

    importlib.metadata.version = told


def simulate(*, tell: bool = True) -> None:
    """Change Flask and Werkzeug in this process.

    Without ``tell`` they go on to call themselves what they are today: like a version
    that somebody has changed, or one that was checked too hastily.
    """
    if not hasattr(flask.globals, "_cv_request"):
        return  # it is the next one, or was changed before
    _merge_contexts()
    _parse_cookies_one_way()
    if tell:
        _tell_versions()
