"""JSON Schema (2020-12) of what goes over the wire, made of the types in the code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

Schema = dict[str, Any]

DEFS = "#/$defs/"


class Definitions:
    """Schemas by name, which others refer to.

    ``names``: what types are called that the protocol has a name of its own for.
    ``reserved``: what none of them is to be called.
    """

    def __init__(
        self,
        names: Mapping[type, str],
        prefix: str = DEFS,
        *,
        reserved: Iterable[str] = (),
    ) -> None:
        self.all: dict[str, Schema] = {}
        self._prefix = prefix
        # What each name stands for: a type's own name, and its schema with all that
        # it refers to. As long as that differs, two types of one name are two.
        self._known: dict[str, Any] = dict.fromkeys(reserved)
        for kind, name in names.items():
            found, components = _made(kind)
            self._known[name] = _identity(found["$ref"], components)

    def refer(self, kind: Any) -> Schema:
        """Return the schema of a type, having noted what it refers to.

        :raises TypeError: it cannot be said in JSON Schema.
        """
        return self._note(*_made(kind))

    def struct(self, kind: type[msgspec.Struct]) -> Schema:
        """Return the schema of a struct itself, not a reference to it."""
        found, components = _made(kind)
        return self._note(_untitled(components[found["$ref"]]), components)

    def name_of(self, reference: Schema) -> str:
        name: str = reference["$ref"]
        return name.removeprefix(self._prefix)

    def refs(self, names: Iterable[str]) -> list[Schema]:
        return [{"$ref": self._prefix + name} for name in names]

    def _note(self, schema: Schema, components: Mapping[str, Schema]) -> Schema:
        """Return ``schema`` with references to what it needs, which is noted."""
        names = {
            name: self._name(name, _identity(name, components))
            for name in _within(schema, components)
        }
        for name, ours in names.items():
            if ours not in self.all:
                self.all[ours] = self._tidy(_untitled(components[name]), names)
        tidied: Schema = self._tidy(schema, names)
        return tidied

    def _name(self, wanted: str, what: Any) -> str:
        """Return what ``what`` is called: as it wants to be, if nothing else is."""
        for name, known in self._known.items():
            if known == what:
                return name
        name = free_key(wanted, self._known)
        self._known[name] = what
        return name

    def _tidy(self, schema: Any, names: Mapping[str, str]) -> Any:
        """Return ``schema`` with a reference to what has a name."""
        if isinstance(schema, list):
            return [self._tidy(each, names) for each in schema]
        if not isinstance(schema, dict):
            return schema
        if isinstance(name := schema.get("$ref"), str):
            return {**schema, "$ref": self._prefix + names.get(name, name)}
        fields = {key: self._tidy(value, names) for key, value in schema.items()}
        if "anyOf" in fields:  # in one order, whichever msgspec it is
            fields["anyOf"].sort(key=lambda each: each == {"type": "null"})
        values = fields.get("enum")
        if isinstance(values, list) and len(values) == 1:
            del fields["enum"]
            fields["const"] = values[0]
        title = fields.get("title")
        if not isinstance(title, str):
            return fields
        del fields["title"]  # a class's, or that of a type in `chat/wire.py`
        if not title.islower():
            return fields
        default = fields.pop("default", None)  # the field's, not its type's
        name = self._name(title, (title, fields))
        self.all.setdefault(name, fields)
        own = {} if default is None else {"default": default}
        return {"$ref": self._prefix + name, **own}


def free_key(wanted: str, taken: Iterable[str]) -> str:
    """Return ``wanted`` as a key that none of ``taken`` is like.

    It has letters, digits, dots, ``_`` and ``-`` of ASCII: more is not allowed in keys
    of AsyncAPI, or would have to be escaped in what refers to it.
    """
    wanted = re.sub(r"[^A-Za-z0-9._-]", "_", wanted)
    # As a type in another language, `a-b` might have the name of `A.B`.
    folded = {_folded(name) for name in taken}
    tries = (f"{wanted}{number}" for number in itertools.count(2))
    found = itertools.chain([wanted], tries)
    return next(name for name in found if _folded(name) not in folded)


def _made(kind: Any) -> tuple[Schema, dict[str, Schema]]:
    (found,), components = msgspec.json.schema_components([kind], ref_template="{name}")
    return found, components


def _untitled(component: Schema) -> Schema:
    """Return it without its title, which is its class's name."""
    return {key: value for key, value in component.items() if key != "title"}


def _identity(name: str, components: Mapping[str, Schema]) -> Any:
    """Return what tells a component from others of its name."""
    within = _within({"$ref": name}, components)
    return name, {each: components[each] for each in within}


def _within(schema: Schema, components: Mapping[str, Schema]) -> list[str]:
    """Return which of ``components`` are referred to, also by each other."""
    found: set[str] = set()
    left: list[Any] = [schema]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            name = each.get("$ref")
            if isinstance(name, str) and name in components and name not in found:
                found.add(name)
                left.append(components[name])
            left += each.values()
        elif isinstance(each, list):
            left += each
    return [name for name in components if name in found]


def _folded(name: str) -> str:
    return "".join(c for c in name if c.isalnum()).lower()
