"""JSON Schema (2020-12) of what goes over the wire, made of the types in the code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

Schema = dict[str, Any]

DEFS = "#/$defs/"


class Definitions:
    """Schemas by name, which others refer to.

    ``names``: what types are called that the protocol has a name of its own for.
    """

    def __init__(self, names: Mapping[type, str], prefix: str = DEFS) -> None:
        self.all: dict[str, Schema] = {}
        self._names = dict(names)
        self._prefix = prefix

    def refer(self, kind: Any) -> Schema:
        """Return the schema of a type, having noted what it refers to.

        :raises TypeError: it cannot be said in JSON Schema.
        """
        (found,), components = msgspec.json.schema_components(
            [kind], ref_template="{name}"
        )
        names = {each.__name__: name for each, name in self._names.items()}
        for name, schema in components.items():
            self.all.setdefault(names.get(name, name), self._tidy(schema, names))
        tidied: Schema = self._tidy(found, names)
        return tidied

    def struct(self, kind: type[msgspec.Struct]) -> Schema:
        """Return the schema of a struct itself, not a reference to it."""
        return self.all.pop(self.name_of(self.refer(kind)))

    def name_of(self, reference: Schema) -> str:
        name: str = reference["$ref"]
        return name.removeprefix(self._prefix)

    def refs(self, names: Iterable[str]) -> list[Schema]:
        return [{"$ref": self._prefix + name} for name in names]

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
        self.all.setdefault(title, fields)
        return {"$ref": self._prefix + title}
