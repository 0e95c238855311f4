"""What the fields of a request are to be, by type hints: msgspec checks them.

Here its types are made of a method's hints, and what it says is put in order.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect as kinds

from .fields import Request, RequestError

_LONGEST = 300  # characters of what a client is told


def hints_of(function: Callable[..., Any], where: str) -> Mapping[str, Any]:
    """Return the type hints of ``function``, those that are texts read.

    :raises TypeError: they cannot be; ``where`` that is.
    """
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


class Fields:
    """The fields that a method takes, each with its hint and perhaps a default."""

    __slots__ = ("_defaults", "_options", "struct")

    def __init__(self, fields: Sequence[tuple[Any, ...]], where: str) -> None:
        """:raises TypeError: a hint, of the method ``where``, is not JSON's."""
        for name, hint, *_ in fields:
            _check(hint, f"{where}: {name}")
        self.struct = msgspec.defstruct(
            where.replace(".", "_"), list(fields), kw_only=True
        )
        within = _within(kinds.type_info(self.struct))
        self._defaults = {
            kind.cls: defaults
            for kind in within
            if isinstance(kind, kinds.DataclassType)
            and (defaults := _plain_defaults(kind.cls))
        }
        self._options: dict[str, Any] = {}
        # In JSON all keys are texts; but to say so takes as long as to check the rest.
        texts = kinds.StrType | kinds.AnyType
        if any(
            isinstance(kind, kinds.DictType) and not isinstance(kind.key_type, texts)
            for kind in within
        ):
            self._options["str_keys"] = True

    def read(self, request: Request) -> tuple[Any, ...]:
        """Return the value of each, as ``request`` has it.

        :raises RequestError: one is missing, or not what its hint says.
        """
        try:
            given = msgspec.convert(request, self.struct, **self._options)
        except msgspec.ValidationError as error:
            raise RequestError("bad_request", self._told(str(error))) from None
        if self._defaults:
            self._complete(given)
        return msgspec.structs.astuple(given)

    def _complete(self, value: Any) -> None:
        """Set what a dataclass has by default: msgspec leaves that to the class, and
        does not write it then where such an object is sent."""
        inner: Iterable[Any] = ()
        if isinstance(value, msgspec.Struct):
            inner = msgspec.structs.astuple(value)
        elif isinstance(value, dict):
            inner = value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            inner = value
        elif dataclasses.is_dataclass(value):
            own = getattr(value, "__dict__", {})
            for name, default in self._defaults.get(type(value), ()):
                own.setdefault(name, default)
            inner = [getattr(value, each.name) for each in dataclasses.fields(value)]
        for each in inner:
            self._complete(each)

    def _told(self, words: str) -> str:
        """Return what msgspec says of a value, the way to it first."""
        found = _WRONG.fullmatch(words)
        what, key, path = found.groups() if found else (words, None, "")
        missing = _MISSING.fullmatch(what)
        if missing:
            what, path = "missing", f"{path}.{missing[1]}"
        elif what.startswith("Invalid enum value"):
            some = ", ".join(map(repr, self._values_at(path)))
            what = f"expected one of {some}"
        else:
            what = what[:1].lower() + what[1:].replace("`", "")
        if key:
            what = f"a key: {what}"
        return f"{path.removeprefix('.')}: {what}"[:_LONGEST]

    def _values_at(self, path: str) -> list[Any]:
        """Return those that a field may have."""
        at = list(_flat(kinds.type_info(self.struct)))
        for name, place in _STEP.findall(path):
            at = [
                inner
                for kind in at
                for step in _steps(kind, name, place)
                for inner in _flat(step)
            ]
        values: list[Any] = []
        for kind in at:
            if isinstance(kind, kinds.LiteralType):
                values += kind.values
            elif isinstance(kind, kinds.EnumType):
                values += [member.value for member in kind.cls]
        return values


_WRONG = re.compile(r"(.*) - at (`key` in )?`\$([^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[([^\]]+)\]")


def _plain_defaults(cls: type) -> list[tuple[str, Any]]:
    if not hasattr(cls, "__dataclass_fields__"):  # of attrs
        return []
    found = [(each.name, each.default) for each in dataclasses.fields(cls)]
    return [pair for pair in found if pair[1] is not dataclasses.MISSING]


def _check(hint: Any, what: str) -> None:
    """:raises TypeError: ``hint`` is nothing that JSON could be."""
    try:
        kind = kinds.type_info(hint)
        msgspec.json.Decoder(hint)
    except Exception as error:
        raise TypeError(f"{what} cannot be checked: {error}") from None
    for inner in _within(kind):
        if isinstance(inner, kinds.CustomType):
            name = getattr(inner.cls, "__name__", inner.cls)
            raise TypeError(
                f"{what} cannot be a {name}, as JSON has no such thing: take str, int,"
                " float, bool, list, dict, Literal, Enum, a dataclass, TypedDict or"
                " msgspec.Struct; or Any for whatever comes"
            )


def check_fields(hint: Any, what: str) -> set[str]:
    """Return the names of the fields of ``hint``, as they are in JSON.

    :raises TypeError: it is nothing that JSON could be, or has no fields.
    """
    _check(hint, what)
    fields = getattr(kinds.type_info(hint), "fields", None)
    if fields is None:
        raise TypeError(
            f"{what} is a TypedDict, a dataclass or a msgspec.Struct, not {hint!r}"
        )
    return {field.encode_name for field in fields}


def _flat(kind: kinds.Type) -> Iterator[kinds.Type]:
    """Yield what ``kind`` is, each of a union."""
    if isinstance(kind, kinds.UnionType):
        for one in kind.types:
            yield from _flat(one)
    elif isinstance(kind, kinds.Metadata):
        yield from _flat(kind.type)
    else:
        yield kind


def _steps(kind: Any, name: str, place: str) -> Iterator[kinds.Type]:
    """Yield the types of a field of ``kind``, or of what is at a place in it."""
    if name:
        for field in getattr(kind, "fields", ()):
            if field.encode_name == name:
                yield field.type
    elif isinstance(kind, kinds.DictType):
        yield kind.value_type
    elif isinstance(kind, kinds.TupleType):
        yield kind.item_types[int(place)]
    elif hasattr(kind, "item_type"):
        yield kind.item_type


def _within(kind: kinds.Type) -> list[kinds.Type]:
    """Return ``kind`` and all the types in it."""
    found: list[Any] = list(_flat(kind))
    for each in found:
        inner = [field.type for field in getattr(each, "fields", ())]
        inner += getattr(each, "item_types", ())
        inner += [
            getattr(each, part)
            for part in ("item_type", "key_type", "value_type")
            if hasattr(each, part)
        ]
        for one in inner:
            found += [k for k in _flat(one) if not any(k is other for other in found)]
    return found
