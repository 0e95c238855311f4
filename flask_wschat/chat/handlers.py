"""``@event``, and what a method under it takes: its fields, by their type hints.

All of it is found out when a class is made, and so are the mistakes.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_type_hints, overload

import msgspec

from ..envelope import TYPES
from ..messages import is_printable, shown
from ..rate import Rate, as_rate
from .fields import Request, RequestError, Strange

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "_wschat_event"
_LONGEST = 100  # characters of an event's name


class Mark(NamedTuple):
    """What ``event`` has noted at a function."""

    name: str
    limit: Rate | None = None
    own: bool = False
    """It is one of the protocol's: it gets the ``ref`` first, and makes the reply."""
    beside: bool = False
    """It may run while others are under way; what is not sees all before it done."""


@overload
def event(name: Function, /) -> Function: ...
@overload
def event(
    name: str | None = None, /, *, limit: Rate | None = None
) -> Callable[[Function], Function]: ...
def event(name: Any = None, /, *, limit: Any = None) -> Any:
    """Let clients call a method of an ``Events`` class, by its name or by ``name``.

    Each parameter is a field of the request, checked by its type hint; what the method
    returns is the ``result`` of the reply. ``limit``: from one user come so many a
    second and so many at once, as ``(10, 20)``; over it ``rate_limited``.

    :raises TypeError: it is no method.
    :raises ValueError: the name or the limit cannot be one.
    """
    rate = as_rate(limit)
    if rate is None and limit is not None:
        raise ValueError(
            "limit is (events a second, events at once) of one user, as (10, 20),"
            f" unlike {shown(limit)}"
        )
    if name is None or isinstance(name, str):
        return lambda function: _mark(function, name, rate)
    return _mark(name, None, None)


def request(name: str, *, beside: bool = False) -> Callable[[Function], Function]:
    """Mark a method that answers one of the protocol's own requests."""
    return lambda function: _note(function, Mark(name, own=True, beside=beside))


def _mark(function: Any, name: str | None, limit: Rate | None) -> Any:
    if not isinstance(function, FunctionType):
        raise TypeError(
            f"@event stands above a method, as def move(self, x: int), unlike"
            f" {shown(function)}"
        )
    if name is None:
        name = function.__name__
    if not 1 <= len(name) <= _LONGEST or not is_printable(name):
        raise ValueError(
            f"an event's name has 1 to {_LONGEST} printable characters, unlike"
            f" {shown(name)}"
        )
    return _note(function, Mark(name, limit))


def _note(function: Function, mark: Mark) -> Function:
    setattr(function, _MARK, mark)
    return function


class Handler:
    """One event of a class: the method that handles it, and what that takes."""

    __slots__ = (
        *("_by_name", "beside", "given", "limit", "method", "name", "own"),
        *("returns", "summary"),
    )

    def __init__(self, cls: type, method: str, mark: Mark) -> None:
        self.method = method
        self.name, self.limit, self.own, self.beside = mark
        self.given: type[msgspec.Struct] | None = None
        """The fields it takes; None: there are none."""
        self.returns: Any = inspect.Signature.empty
        """What its hint says, if there is one."""
        self._by_name: tuple[str, ...] = ()
        self._read(cls, getattr(cls, method))

    def _read(self, cls: type, function: Any) -> None:
        where = f"{cls.__qualname__}.{self.method}"
        if self.name in TYPES and not self.own:
            raise TypeError(
                f"{where}: {self.name!r} is a name of the protocol's own: give the"
                f' event another one, as @event("my_{self.name}")'
            )
        run = inspect.unwrap(function)
        if inspect.iscoroutinefunction(run) or inspect.isasyncgenfunction(run):
            raise TypeError(
                f"{where} is async, and would never run: write def. What waits in it"
                " lets the others run, as each has a greenlet or a thread"
            )
        if inspect.isgeneratorfunction(run):
            raise TypeError(f"{where} has a yield, and would never run: use return")
        parameters = list(inspect.signature(function).parameters.values())
        del parameters[: 2 if self.own else 1]
        hints = _hints(function, where)
        self.returns = hints.get("return", self.returns)
        self.summary = (inspect.getdoc(function) or "").partition("\n")[0]
        types: list[Any] = []
        for parameter in parameters:
            name = parameter.name
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(
                    f"{where} takes {parameter}: name each field of the request, with"
                    " its type, as x: int"
                )
            if name in ("type", "ref"):
                raise TypeError(
                    f"{where}: {name} is a field of each request: call the parameter"
                    " something else"
                )
            if name not in hints:
                raise TypeError(
                    f"{where}: {name} has no type hint: write one, as {name}: int, or"
                    f" {name}: Any for whatever comes"
                )
            hint = hints[name]
            if self.own and parameter.default is None:
                # It may be left out, which None is here, but not null on the wire.
                hint = Union[get_args(hint)[:-1]]  # noqa: UP007
            types.append((name, hint, *_default(parameter)))
        if not types:
            return
        try:
            self.given = msgspec.defstruct(
                f"{cls.__name__}.{self.method}", types, kw_only=True
            )
            msgspec.json.Decoder(self.given)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(f"{where}: its hints cannot be checked: {error}") from None
        self._by_name = tuple(
            parameter.name
            for parameter in parameters
            if parameter.kind is parameter.KEYWORD_ONLY
        )

    def values(self, request: Request) -> tuple[Any, ...]:
        """Return what ``request`` has for the method, checked by its hints.

        :raises RequestError: it is not what they say.
        """
        if type(request) is Strange:
            raise RequestError("bad_request", Strange.why)
        if self.given is None:
            return ()
        try:
            given = msgspec.convert(request, self.given, str_keys=True)
        except msgspec.ValidationError as error:
            raise RequestError("bad_request", _what_is_wrong(str(error))) from None
        return msgspec.structs.astuple(given)

    def call(self, listener: Any, values: tuple[Any, ...]) -> Any:
        """Call the method with what ``values`` has returned."""
        method = getattr(listener, self.method)
        if not (names := self._by_name):
            return method(*values)
        place = -len(names)
        return method(*values[:place], **dict(zip(names, values[place:], strict=True)))


def handlers_of(cls: type) -> dict[str, Handler]:
    """Return the events of ``cls`` by their names, also those of its bases.

    :raises TypeError: one of them cannot be called; the message names it.
    """
    marks: dict[str, Mark] = {}
    for base in reversed(cls.__mro__):
        for method, value in vars(base).items():
            if isinstance(value, FunctionType):
                mark = vars(value).get(_MARK)
                if mark is not None:
                    marks.pop(method, None)  # the last one of a name counts
                    marks[method] = mark
            elif value is None:
                marks.pop(method, None)
    methods: dict[str, str] = {}
    for method, mark in marks.items():
        other = methods.get(mark.name)
        if other is not None and {method, other} <= vars(cls).keys():
            raise TypeError(
                f"{cls.__qualname__}: {other} and {method} are both the event"
                f" {mark.name!r}: give one of them another name"
            )
        methods[mark.name] = method
    return {
        name: Handler(cls, method, marks[method]) for name, method in methods.items()
    }


def _hints(function: Any, where: str) -> Mapping[str, Any]:
    """Return the type hints of ``function``, those that are texts read."""
    try:
        try:
            return get_type_hints(function, include_extras=True)
        except NameError:
            # Its class is made in a function, whose names they may be.
            names = _names_around(inspect.unwrap(function).__globals__)
            return get_type_hints(function, localns=names, include_extras=True)
    except Exception as error:
        raise TypeError(
            f"{where}: its type hints cannot be read: {error}. What they name has to"
            " be there when the class is made: imported, and not only for a type"
            " checker, or defined above it"
        ) from None


def _names_around(module: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of all functions of ``module`` that just run."""
    names: dict[str, Any] = {}
    frame = sys._getframe(1)
    while (outer := frame.f_back) is not None:
        frame = outer
        if frame.f_globals is module and frame.f_locals is not module:
            names = {**frame.f_locals, **names}
    return names


def _default(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """Return the default of a field, if it may be left out."""
    value = parameter.default
    if value is parameter.empty:
        return ()
    if value is None or type(value) in (bool, int, float, str):
        return (value,)
    return (msgspec.field(default_factory=lambda: value),)  # as it is, not a copy


_WRONG = re.compile(r"(.*) - at (`key` in )?`\$\.?([^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `([^`]*)`")


def _what_is_wrong(words: str) -> str:
    """Return what msgspec says of a value, the way to it first."""
    found = _WRONG.fullmatch(words)
    what, key, path = found.groups() if found else (words, None, "")
    missing = _MISSING.fullmatch(what)
    if missing:
        what, path = "missing", f"{path}.{missing[1]}" if path else missing[1]
    else:
        what = what[:1].lower() + what[1:].replace("`", "")
        what = f"a key: {what}" if key else what
    return f"{path}: {what}"[:300]
