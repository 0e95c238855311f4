"""``@event``, and what a method under it takes: its fields, by their type hints.

All of it is found out when a class is made, and so are the mistakes.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, overload

import msgspec

from ..envelope import BESIDE, TYPES
from ..errors import check_runs
from ..messages import is_printable, shown
from ..rate import Rate, as_rate
from .fields import Request, RequestError, Strange
from .hints import Fields, check_fields, hints_of

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "_wschat_event"
_PACKAGE = __name__.partition(".")[0] + "."
# What each class of events gets from `Events`.
_MADE = ("_handlers", "_checks", "_declared")
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
        *("_by_name", "_fields", "beside", "given", "limit", "method", "name", "own"),
        *("returns", "summary"),
    )

    def __init__(self, cls: type, method: str, mark: Mark) -> None:
        """:raises TypeError: it cannot be called; the message says why."""
        self.method = method
        self.name, self.limit, self.own, self.beside = mark
        where = _where(cls, method)
        function = getattr(cls, method)
        if not callable(function):
            raise TypeError(
                f"{where} is no method, but stands for one that is an event"
            )
        check_runs(function, where)
        if self.name in TYPES and not self.own:
            raise TypeError(
                f"{where}: {self.name!r} is a name of the protocol's own: give the"
                f' event another one, as @event("my_{self.name}")'
            )
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters or _is_field(parameters[0]):
            raise TypeError(f"{where} has no self: write def {method}(self, ...)")
        del parameters[: 2 if self.own else 1]
        hints = hints_of(function, where)
        fields = [self._field(each, hints, where) for each in parameters]
        self._fields = Fields(fields, where) if fields else None
        self.given = None if self._fields is None else self._fields.struct
        """The fields it takes; None: there are none."""
        self.returns: Any = hints.get("return", inspect.Signature.empty)
        """What its hint says, if there is one."""
        self.summary = (inspect.getdoc(function) or "").partition("\n")[0]
        self._by_name = tuple(
            each.name for each in parameters if each.kind is each.KEYWORD_ONLY
        )

    def _field(
        self, parameter: inspect.Parameter, hints: Mapping[str, Any], where: str
    ) -> tuple[Any, ...]:
        """Return the name, the type and perhaps the default of a field."""
        name = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            bare = parameter.replace(annotation=parameter.empty)
            raise TypeError(
                f"{where} takes {bare}: name each field of the request, with its"
                " type, as x: int"
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
        hint, default = hints[name], parameter.default
        if default is parameter.empty:
            return name, hint
        if self.own and default is None:
            # It may be left out, which None is here, but not null on the wire.
            hint = Union[get_args(hint)[:-1]]  # noqa: UP007
        if default is None or type(default) in (bool, int, float, str):
            return name, hint, default
        # A list is a new one each time: what one user put in is not for the next.
        fresh = functools.partial(copy.deepcopy, default)
        return name, hint, msgspec.field(default_factory=fresh)

    def values(self, request: Request) -> tuple[Any, ...]:
        """Return what ``request`` has for the method, checked by its hints.

        :raises RequestError: it is not what they say.
        """
        if type(request) is Strange:
            raise RequestError("bad_request", Strange.why)
        return () if self._fields is None else self._fields.read(request)

    def call(self, listener: Any, values: tuple[Any, ...]) -> Any:
        """Call the method with what ``values`` has returned."""
        method = getattr(listener, self.method)
        if not (names := self._by_name):
            return method(*values)
        place = -len(names)
        return method(*values[:place], **dict(zip(names, values[place:], strict=True)))


def _is_field(first: inspect.Parameter) -> bool:
    """Return whether the first parameter was meant for a field: `self` has no hint."""
    return first.kind is first.KEYWORD_ONLY or (
        first.annotation is not first.empty and first.name != "self"
    )


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
            elif _is_marked(value):
                raise TypeError(
                    f"{_where(cls, method)} is an event that is no method any more, but"
                    f" a {type(value).__name__}: write @event above a plain def"
                )
    _check_names(cls, marks)
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


def _is_marked(value: Any) -> bool:
    """Whether ``value`` was made of what ``event`` has marked, as a property."""
    inner = (getattr(value, name, None) for name in ("__func__", "fget", "func"))
    return any(isinstance(getattr(each, _MARK, None), Mark) for each in (value, *inner))


def declared_by(cls: type, emits: Any) -> dict[str, msgspec.json.Decoder[Any]]:
    """Return what reads the fields of each event that ``cls`` says it sends.

    :raises TypeError: it is no mapping of names to types that have fields.
    """
    where = _where(cls, "emits")
    if not isinstance(emits, Mapping):
        raise TypeError(f'{where} is a dict, as {{"moved": Moved}}, not {shown(emits)}')
    for name, kind in emits.items():
        if not isinstance(name, str) or name in TYPES:
            raise TypeError(f"{where}: {shown(name)} is no name of an event of yours")
        taken = check_fields(kind, f"{where}[{name!r}]") & BESIDE
        if taken:
            raise TypeError(
                f"{where}[{name!r}]: {min(taken)!r} is set for you: give the field"
                " another name"
            )
    return {name: msgspec.json.Decoder(kind) for name, kind in emits.items()}


def _check_names(cls: type, marks: Mapping[str, Mark]) -> None:
    """:raises TypeError: an application's class has a name that is taken."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith(_PACKAGE)]
    taken = {
        name: base
        for base in ours
        for name in (*vars(base), *vars(base).get("__annotations__", ()))
    }
    theirs = (name for base in cls.__mro__ if base not in ours for name in vars(base))
    for name in theirs:
        if name not in taken or name.startswith("__") or name in _MADE:
            continue
        if name.startswith("_"):
            raise TypeError(
                f"{_where(cls, name)}: the name is one of {taken[name].__name__}'s own:"
                " take another one"
            )
        if name in marks and not marks[name].own:
            raise TypeError(
                f"{_where(cls, name)}: {name} has another meaning: call the method"
                f" something else, and write @event({marks[name].name!r}) above it"
            )


def _where(cls: type, name: str) -> str:
    return f"{cls.__qualname__}.{name}".rpartition(">.")[2]
